//! The search along one line: the smallest step whose score is low enough, in few looks.
//!
//! Looks are dear (an image has to be made and scored), so the walk interpolates. It knows numbers only, and of one latent only.

/// How far to walk, and when a step is good.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Terms {
    /// The score to reach, or go below.
    pub(super) goal: f64,
    /// A score this little below the goal is near enough to it.
    pub(super) slack: f64,
    /// Longest step.
    pub(super) longest: f64,
    /// Steps this near to one that is too short are not told from it.
    pub(super) resolution: f64,
}

/// One search. Ask [`Walk::next`] where to look, and [`Walk::tell`] what was seen.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    start: f64,
    guess: f64,
    /// The longest step known to be too short, and its score.
    short: (f64, f64),
    /// The shortest step known to be enough, and its score.
    enough: Option<(f64, f64)>,
    /// The step with the lowest score; the shortest of equals.
    lowest: (f64, f64),
    /// How far apart the two were, one look ago and two looks ago; infinite before both were known.
    widths: [f64; 2],
}

impl Walk {
    /// From a score above the goal, with a guess at the step.
    pub(super) fn new(start: f64, guess: f64) -> Self {
        Self {
            start,
            guess,
            short: (0.0, start),
            enough: None,
            lowest: (0.0, start),
            widths: [f64::INFINITY; 2],
        }
    }

    /// The next step to look at; none when the search is over.
    pub(super) fn next(&self, terms: &Terms) -> Option<f64> {
        let aim = terms.goal - 0.5 * terms.slack;
        let (short, score) = self.short;
        let Some((enough, reached)) = self.enough else {
            if short >= terms.longest {
                return None;
            }
            if short == 0.0 {
                // In this order NaN becomes the shortest step.
                return Some(self.guess.max(terms.longest / 16.0).min(terms.longest));
            }
            let slope = (self.start - score) / short;
            let wanted = if slope > 0.0 { short + (score - aim) / slope } else { f64::INFINITY };
            return Some(wanted.clamp(1.25 * short, 2.0 * short).min(terms.longest));
        };
        let width = enough - short;
        if width <= terms.resolution || terms.goal - reached <= terms.slack {
            return None;
        }
        // Interpolation creeps along one side where the score falls all at once; two looks must halve what is left.
        let creeps = width > 0.5 * self.widths[1];
        let share = if creeps { 0.5 } else { ((score - aim) / (score - reached)).clamp(0.05, 0.95) };
        Some(short + share * width)
    }

    /// What the step that [`Walk::next`] gave led to.
    pub(super) fn tell(&mut self, step: f64, score: f64, terms: &Terms) {
        if score < self.lowest.1 {
            self.lowest = (step, score);
        }
        let enough = score <= terms.goal;
        if let Some((enough, _)) = self.enough {
            self.widths = [enough - self.short.0, self.widths[0]];
        }
        if enough {
            self.enough = Some((step, score));
        } else {
            self.short = (step, score);
        }
    }

    /// The step to take, and its score: the shortest that is enough, else the one with the lowest score.
    pub(super) fn result(&self) -> (f64, f64) {
        self.enough.unwrap_or(self.lowest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: Terms = Terms { goal: 1.0, slack: 0.05, longest: 4.0, resolution: 1.0 / 32.0 };

    /// The step, whether it is enough, and how many looks it took.
    fn walk(score: impl Fn(f64) -> f64, guess: f64) -> (f64, bool, usize) {
        let mut walk = Walk::new(score(0.0), guess);
        let mut looks = 0;
        while let Some(step) = walk.next(&TERMS) {
            assert!(step > 0.0 && step <= TERMS.longest);
            walk.tell(step, score(step), &TERMS);
            looks += 1;
            assert!(looks <= 20, "{walk:?}");
        }
        let (step, score) = walk.result();
        (step, score <= TERMS.goal, looks)
    }

    #[test]
    fn a_straight_line_takes_two_looks() {
        for slope in [0.4, 0.7, 1.0, 1.3] {
            let (step, enough, looks) = walk(|s| 2.0 - slope * s, 1.0);
            assert!(enough && (step - 1.0 / slope).abs() < 0.05 / slope + 0.04, "{slope}: {step}");
            assert!(looks <= 3, "{slope}: {looks}");
        }
    }

    #[test]
    fn a_cliff_is_found_by_halving() {
        for edge in [0.1, 0.77, 2.0, 3.9] {
            let (step, enough, looks) = walk(|s| if s < edge { 3.0 } else { 0.0 }, 1.0);
            assert!(enough && step >= edge && step <= edge + TERMS.resolution, "{edge}: {step}");
            assert!(looks <= 11, "{edge}: {looks}");
        }
    }

    #[test]
    fn out_of_reach_the_lowest_score_is_taken() {
        let (step, enough, _) = walk(|s| 5.0 - 0.3 * s, 1.0);
        assert_eq!((step, enough), (4.0, false));
        let (step, enough, _) = walk(|s| 5.0 + s, 1.0);
        assert_eq!((step, enough), (0.0, false));
        let (step, enough, _) = walk(|_| 5.0, f64::NAN);
        assert_eq!((step, enough), (0.0, false));
    }

    proptest! {
        #[test]
        fn a_falling_score_leads_to_the_smallest_step(
            start in 1.01..6.0_f64, falls in prop::collection::vec(0.0..2.0_f64, 8), guess in 0.0..6.0_f64
        ) {
            // Falls from knot to knot, half a unit apart.
            let score = |s: f64| {
                let whole = ((s * 2.0) as usize).min(falls.len() - 1);
                start - falls[..whole].iter().sum::<f64>() - falls[whole] * (s * 2.0 - whole as f64)
            };
            let (step, enough, looks) = walk(score, guess);
            prop_assert_eq!(enough, score(TERMS.longest) <= TERMS.goal);
            prop_assert!(looks <= 18, "{}", looks);
            if enough {
                prop_assert!(score(step) <= TERMS.goal);
                let sooner = step - TERMS.resolution;
                prop_assert!(sooner <= 0.0 || score(sooner) > TERMS.goal || score(step) >= TERMS.goal - TERMS.slack);
            } else {
                prop_assert_eq!(score(step), score(TERMS.longest));
            }
        }
    }
}
