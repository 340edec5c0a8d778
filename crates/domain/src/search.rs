//! The search for settings of training: which are tried, for how long, and which are best.
//!
//! Successive halving (Jamieson and Talwalkar, AISTATS 2016): every setting is tried for a sixteenth of the steps, the better half of them
//! for an eighth, the better half of these for a quarter. Each round is a phase, whose shards are its trials; it begins when the round
//! before is whole, so everybody who asks comes to the same trials and to the same winner, from the spec and from what was measured alone.
//! Not here: training a trial and measuring it (worker/executor).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::Unlearn;
use crate::{EditMethod, JobSpec, Phase, Portions};

/// What a trial multiplies the spec's own values with.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Multipliers {
    lr: f64,
    alpha: f64,
    labeller_term: f64,
    anchor: f64,
    squares: f64,
}

const OWN: Multipliers = Multipliers { lr: 1.0, alpha: 1.0, labeller_term: 1.0, anchor: 1.0, squares: 1.0 };

/// Each turns one thing up or down, towards forgetting or towards keeping; the last one keeps as best it can.
const TRIALS: [Multipliers; JobSpec::MOST_TRIALS as usize] = [
    OWN,
    Multipliers { lr: 2.0, ..OWN },
    Multipliers { lr: 0.5, ..OWN },
    Multipliers { alpha: 2.0, ..OWN },
    Multipliers { alpha: 0.5, ..OWN },
    Multipliers { labeller_term: 2.0, ..OWN },
    Multipliers { anchor: 3.0, ..OWN },
    Multipliers { alpha: 0.5, squares: 3.0, ..OWN },
];

/// One round of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Round {
    /// Every trial, for a sixteenth of the steps.
    First,
    /// The better half, for an eighth.
    Second,
    /// The better half of these, for a quarter.
    Last,
}

impl Round {
    /// Every round, in order.
    pub const ALL: [Self; 3] = [Self::First, Self::Second, Self::Last];

    /// The phase that it is.
    pub fn phase(self) -> Phase {
        match self {
            Self::First => Phase::SearchFirst,
            Self::Second => Phase::SearchSecond,
            Self::Last => Phase::SearchLast,
        }
    }

    /// The rounds before it.
    pub fn before(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |round| *round < self)
    }

    /// How often its trials' steps go into those of training.
    fn share(self) -> u64 {
        match self {
            Self::First => 16,
            Self::Second => 8,
            Self::Last => 4,
        }
    }

    /// Steps of each of its trials.
    pub fn steps(self, spec: &JobSpec) -> u64 {
        (spec.unlearn.steps / self.share()).max(1)
    }

    /// How many trials it has.
    fn count(self, spec: &JobSpec) -> u32 {
        let trials = spec.unlearn.trials.min(JobSpec::MOST_TRIALS);
        match self {
            Self::First => trials,
            Self::Second => trials.div_ceil(2),
            Self::Last => trials.div_ceil(4),
        }
    }

    /// A shard for each trial; a sample is a step.
    pub(crate) fn portions(self, spec: &JobSpec) -> Portions {
        let steps = self.steps(spec);
        let samples = steps.saturating_mul(self.count(spec).into());
        Portions { samples, shard_size: steps, batch: 1, enough: None }
    }

    /// The trials of this round in order of their numbers, given what was measured in earlier ones.
    pub fn trials(self, spec: &JobSpec, measured: &[Trial]) -> Vec<u32> {
        let count = self.count(spec) as usize;
        let Some(last) = self.before().last() else { return (1..=count as u32).collect() };
        let mut better = ranked(last, measured);
        better.truncate(count);
        better.sort_unstable();
        better
    }
}

impl Phase {
    /// The round of the search that it is, if it is one: its shards are trials then, its samples steps.
    pub fn round(self) -> Option<Round> {
        Round::ALL.into_iter().find(|round| round.phase() == self)
    }
}

/// The values that are searched for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Values {
    /// `unlearn.lr`.
    pub lr: f64,
    /// `unlearn.alpha`.
    pub alpha: f64,
    /// `unlearn.labeller_term`.
    pub labeller_term: f64,
    /// `unlearn.anchor`.
    pub anchor: f64,
    /// `unlearn.squares`.
    pub squares: f64,
}

impl Values {
    /// Those of a trial, by its number, where training goes by `spec`, edits are made like this and the learning rate was measured as
    /// that. They have six digits, so that they are the same however they are written down.
    pub fn of(number: u32, spec: &Unlearn, method: EditMethod, measured_lr: f64) -> Self {
        let by = TRIALS.get(number.saturating_sub(1) as usize).copied().unwrap_or(OWN);
        let times = |value: f64, factor: f64| {
            let rounded = format!("{:.5e}", value * factor);
            // It has just been written.
            rounded.parse().unwrap_or(value)
        };
        Self {
            lr: times(spec.lr.unwrap_or(measured_lr), by.lr),
            alpha: times(spec.alpha(method), by.alpha),
            labeller_term: times(spec.labeller_term(method), by.labeller_term),
            anchor: times(spec.anchor, by.anchor).min(LARGEST_ANCHOR),
            squares: times(spec.squares, by.squares),
        }
    }

    /// A spec that says so.
    pub fn set_in(self, spec: &JobSpec) -> JobSpec {
        let Self { lr, alpha, labeller_term, anchor, squares } = self;
        let (lr, alpha, labeller_term) = (Some(lr), Some(alpha), Some(labeller_term));
        let unlearn = Unlearn { lr, alpha, labeller_term, anchor, squares, ..spec.unlearn.clone() };
        JobSpec { unlearn, ..spec.clone() }
    }
}

/// A whole step back in each step is no training.
const LARGEST_ANCHOR: f64 = 0.5;

/// A trial, measured on latents of the pool that it was not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// Counted from 1; 1 has the spec's own values.
    pub trial: u32,
    /// The round.
    pub round: Round,
    /// Steps trained.
    pub steps: u64,
    /// Its values.
    #[serde(flatten)]
    pub values: Values,
    /// Share of the latents edited from positive whose image by the copy the labeller would have edited; none where training diverged.
    pub left: Option<f64>,
    /// Mean absolute difference of a pixel to the original's image, where the latent is not edited; none where training diverged.
    pub changed: Option<f64>,
}

/// What the search has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SearchSummary {
    /// The best trial's number.
    pub trial: u32,
    /// Its values, with which the copy was trained.
    #[serde(flatten)]
    pub values: Values,
    /// Every trial of every round, in order.
    pub trials: Vec<Trial>,
}

impl SearchSummary {
    /// The search that came to these; none when the last round has measured nothing.
    pub fn of(mut trials: Vec<Trial>) -> Option<Self> {
        trials.sort_by_key(|trial| (trial.round, trial.trial));
        let best = *ranked(Round::Last, &trials).first()?;
        let found = trials.iter().find(|trial| trial.round == Round::Last && trial.trial == best)?;
        Some(Self { trial: best, values: found.values, trials })
    }

    /// The spec of a job that trains the same copy without a search.
    pub fn settle(&self, spec: &JobSpec) -> JobSpec {
        let mut settled = self.values.set_in(spec);
        settled.unlearn.trials = 0;
        settled
    }
}

/// The trials of a round, best first: the lower `left / mean left + changed / mean changed` over the round, the lower number of equals.
/// What another one beats in both has a higher sum, so the best lies on the frontier. Those that diverged come last.
fn ranked(round: Round, measured: &[Trial]) -> Vec<u32> {
    let of_round = || measured.iter().filter(|trial| trial.round == round);
    let mean = |of: fn(&Trial) -> Option<f64>| {
        let values: Vec<f64> = of_round().filter_map(of).collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    };
    let means = [mean(|trial| trial.left), mean(|trial| trial.changed)];
    let cost = |trial: &Trial| match (trial.left, trial.changed) {
        (Some(left), Some(changed)) => {
            let over = |value: f64, mean: f64| if mean > 0.0 { value / mean } else { 0.0 };
            over(left, means[0]) + over(changed, means[1])
        }
        _ => f64::INFINITY,
    };
    let mut order: Vec<(f64, u32)> = of_round().map(|trial| (cost(trial), trial.trial)).collect();
    order.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    order.into_iter().map(|(_, trial)| trial).collect()
}

impl JobSpec {
    /// The longest list of trials.
    pub const MOST_TRIALS: u32 = 8;

    /// Steps that the search trains, over all its trials.
    pub fn searched_steps(&self) -> u64 {
        let rounds = Round::ALL.into_iter().filter(|_| self.searches());
        rounds.map(|round| round.portions(self).samples).sum()
    }

    /// Whether settings are searched for: only where a labeller looks at the pool, by which they can be told apart.
    pub fn searches(&self) -> bool {
        self.unlearn.trials > 0 && self.direction.selection == crate::spec::Selection::Classifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(trials: u32) -> JobSpec {
        let text = format!(
            "{{name: x, generator: {{uri: g, format: safetensors, latent: {{dimension: 2}}, output: {{range: [0, 1], \
             channels: 1, size: 8}}}}, feature: {{name: f, scorer: {{uri: s, positive: {{above: 1}}}}}}, \
             unlearn: {{steps: 400, trials: {trials}}}}}"
        );
        JobSpec::parse(&text).unwrap()
    }

    fn trial(round: Round, trial: u32, left: f64, changed: f64) -> Trial {
        let values = Values::of(trial, &Unlearn::default(), EditMethod::Gradient, 0.001);
        let measured = |value: f64| value.is_finite().then_some(value);
        Trial { trial, round, steps: 1, values, left: measured(left), changed: measured(changed) }
    }

    #[test]
    fn each_round_halves_the_trials_and_doubles_their_steps() {
        let shards = |trials| {
            Round::ALL.map(|round| (round.portions(&spec(trials)).shards(), round.steps(&spec(trials))))
        };
        assert_eq!(shards(8), [(8, 25), (4, 50), (2, 100)]);
        assert_eq!(shards(3), [(3, 25), (2, 50), (1, 100)]);
        let phases: Vec<Phase> =
            Phase::of(&spec(8)).filter(|phase| phase.name().starts_with("search")).collect();
        assert_eq!(phases, Round::ALL.map(Round::phase));
        assert!(Phase::of(&spec(0)).all(|phase| !phase.name().starts_with("search")));
    }

    #[test]
    fn the_better_half_goes_on_and_who_diverged_does_not() {
        let first: Vec<Trial> = [(0.5, 0.02), (0.1, 0.02), (f64::NAN, f64::NAN), (0.4, 0.01), (0.1, 0.03)]
            .into_iter()
            .zip(1..)
            .map(|((left, changed), number)| trial(Round::First, number, left, changed))
            .collect();
        assert_eq!(ranked(Round::First, &first), [2, 5, 4, 1, 3]);
        assert_eq!(Round::Second.trials(&spec(5), &first), [2, 4, 5]);
        assert_eq!(Round::First.trials(&spec(5), &[]), [1, 2, 3, 4, 5]);
        let mut all = first;
        all.extend([2, 4, 5].map(|number| trial(Round::Second, number, 0.2, 0.01 * f64::from(number))));
        assert_eq!(Round::Last.trials(&spec(5), &all), [2, 4]);
        all.extend([(4, 0.1), (2, 0.1)].map(|(number, left)| trial(Round::Last, number, left, 0.02)));
        let found = SearchSummary::of(all.into_iter().rev().collect()).unwrap();
        assert_eq!((found.trial, found.trials.len()), (2, 10), "the lower number of equals");
        assert!(found.trials.is_sorted_by_key(|trial| (trial.round, trial.trial)));
        let settled = found.settle(&spec(5));
        assert_eq!((settled.unlearn.lr, settled.searches()), (Some(0.002), false));
    }

    #[test]
    fn nothing_left_and_nothing_measured_are_no_reason_to_stumble() {
        let none = [1, 2].map(|number| trial(Round::First, number, 0.0, 0.01 * f64::from(number)));
        assert_eq!(ranked(Round::First, &none), [1, 2]);
        let diverged = [2, 1].map(|number| trial(Round::First, number, f64::NAN, f64::NAN));
        assert_eq!(ranked(Round::First, &diverged), [1, 2], "the spec's own");
        assert_eq!(SearchSummary::of(Vec::new()), None);
    }

    #[test]
    fn values_are_the_same_however_they_are_written_down() {
        let unlearn = Unlearn { lr: None, ..Unlearn::default() };
        for number in 1..=JobSpec::MOST_TRIALS {
            let values = Values::of(number, &unlearn, EditMethod::Gradient, 0.001_234_567_890_123);
            let text = serde_json::to_string(&values).unwrap();
            assert_eq!(serde_json::from_str::<Values>(&text).unwrap(), values, "{text}");
            assert_eq!(
                Values::of(1, &values.set_in(&spec(8)).unlearn, EditMethod::Student, 7.0),
                values,
                "its own"
            );
        }
        let of = |number, measured| Values::of(number, &unlearn, EditMethod::Student, measured);
        assert_eq!(of(1, 0.001_234_567_890_123).lr, 0.001_234_57);
        assert_eq!((of(2, 0.001).lr, of(2, 0.001).labeller_term), (0.002, 0.0));
    }
}
