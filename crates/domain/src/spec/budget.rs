//! What a job may cost: a spec with less to do, where its effort's own numbers would take too long on the slots there are.
//!
//! Nobody knows before the feature is located what a latent costs, so it is measured there. How many slots do the work makes no difference:
//! the numbers are the same for one and for a hundred. Not here: measuring (executor), when the new spec begins to count (engine).

use serde::{Deserialize, Serialize};

use super::{Evaluate, JobSpec, Pool, Unlearn};

/// Seconds that one latent takes on one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Labelled and edited, for the pool.
    pub edit: f64,
    /// In a step of training.
    pub train: f64,
    /// In the evaluation.
    pub evaluate: f64,
}

/// Between shares of the effort's own numbers that a job may get: few, so that the same job on the same machine mostly gets the same one
/// again. A quarter of a doubling.
const STEP: f64 = 1.189_207_115_002_721;
/// Fewest latents of the pool, steps and latents of the evaluation that a number is lowered to: below, nothing is learnt or known.
const LEAST: [u64; 3] = [2_000, 200, 1_000];

impl JobSpec {
    /// The same with fewer latents of the pool, steps and latents of the evaluation, all by the same share, where editing, training and
    /// evaluating would take more than `unlearn.slot_minutes` at these costs; none where nothing is to be lowered. Numbers that are not the
    /// effort's own stay: somebody wanted them. One that was written down and equals the effort's own cannot be told from it.
    pub fn within_budget(&self, costs: &Costs) -> Option<Self> {
        let effort = self.unlearn.effort;
        let minutes = self.unlearn.minutes();
        let mut lowered = self.clone();
        // What was decided stands: a run of the spec in the result is a run of the same numbers.
        lowered.unlearn.slot_minutes = Some(0.0);
        // Settings are searched for in proportion to the steps that are trained.
        let searched = self.searched_steps() as f64 / self.unlearn.steps.max(1) as f64;
        let batch = self.unlearn.global_batch as f64 * (1.0 + searched);
        let numbers = [
            (&mut lowered.pool.latents, Pool::of(effort).latents, costs.edit),
            (&mut lowered.unlearn.steps, Unlearn::of(effort).steps, batch * costs.train),
            (&mut lowered.evaluate.samples, Evaluate::default().samples, costs.evaluate),
        ];
        let (mut given, mut free) = (0.0, 0.0);
        for (number, own, cost) in &numbers {
            let part = if **number == *own { &mut free } else { &mut given };
            *part += **number as f64 * cost;
        }
        let share = (60.0 * minutes - given).max(0.0) / free;
        if minutes == 0.0 || !share.is_finite() || share >= 1.0 {
            return None;
        }
        let share = STEP.powf((share.ln() / STEP.ln()).floor());
        for ((number, own, _), least) in numbers.into_iter().zip(LEAST) {
            if *number == own {
                *number = ((own as f64 * share).round() as u64).clamp(least.min(own), own);
            }
        }
        Some(lowered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "{name: x, generator: {uri: g, format: safetensors, latent: {dimension: 2}, output: {range: [0, 1], \
                        channels: 1, size: 8}}, feature: {name: f, scorer: {uri: s, positive: {top: 0.1}}}, unlearn: {}, pool: {}}";

    fn spec(unlearn: &str, pool: &str) -> JobSpec {
        let text = SPEC.replace("unlearn: {}", &format!("unlearn: {{{unlearn}}}"));
        JobSpec::parse(&text.replace("pool: {}", &format!("pool: {{{pool}}}"))).unwrap()
    }

    fn numbers(spec: &JobSpec) -> [u64; 3] {
        [spec.pool.latents, spec.unlearn.steps, spec.evaluate.samples]
    }

    #[test]
    fn what_fits_stays_and_what_does_not_is_lowered_together() {
        // 600 + 896 + 100 seconds of 1,620.
        let fits = Costs { edit: 0.01, train: 0.0035, evaluate: 0.01 };
        assert_eq!(spec("", "").within_budget(&fits), None);
        // Four times that fits 0.254 times: a quarter.
        let slow = Costs { edit: 0.04, train: 0.014, evaluate: 0.04 };
        let lowered = spec("", "").within_budget(&slow).unwrap();
        assert_eq!(numbers(&lowered), [15_000, 500, 2_500]);
        assert_eq!(lowered.within_budget(&slow), None, "it was decided");
        let thorough = spec("effort: thorough, trials: 0", "");
        assert_eq!(thorough.within_budget(&fits), None);
        let searching = spec("trials: 8", "").within_budget(&fits).unwrap();
        assert_eq!(numbers(&searching)[1], 1_000, "600 + 2.5 * 896 + 100 seconds fit 0.55 times");
    }

    #[test]
    fn what_somebody_wanted_stays() {
        let slow = Costs { edit: 0.04, train: 0.016, evaluate: 0.04 };
        assert_eq!(numbers(&spec("steps: 5000", "").within_budget(&slow).unwrap())[1], 5_000);
        assert_eq!(spec("slot_minutes: 0", "").within_budget(&slow), None);
        assert_eq!(spec("slot_minutes: 1000", "").within_budget(&slow), None);
    }

    #[test]
    fn something_is_left_to_do_however_slow_it_is() {
        let slow = Costs { edit: 100.0, train: 100.0, evaluate: 100.0 };
        assert_eq!(numbers(&spec("", "").within_budget(&slow).unwrap()), LEAST);
        assert_eq!(spec("", "").within_budget(&Costs::default()), None);
    }
}
