//! How often the judge sees the feature, before and after, on the same latents.

use lethe_domain::{
    Better, Cut, Figure, Paired, REMAINING_SHARE, Unit, Warning, WarningCode, proportion_ci95,
};

use crate::measures::Measures;

/// What the judge counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    paired: Paired,
    samples: u64,
}

impl Counts {
    pub(super) fn of(measures: &Measures, cut: Cut) -> Self {
        let mut paired = Paired::default();
        for (before, after) in measures.before.iter().zip(&measures.after) {
            match (cut.is_positive(*before), cut.is_positive(*after)) {
                (true, true) => paired.both += 1,
                (true, false) => paired.before_only += 1,
                (false, true) => paired.after_only += 1,
                (false, false) => {}
            }
        }
        Self { paired, samples: measures.before.len() as u64 }
    }

    pub(super) fn figures(&self) -> [Figure; 2] {
        let Self { paired, samples } = *self;
        let share = |count: u64| count as f64 / samples as f64;
        let (group, name) = REMAINING_SHARE;
        [
            Figure {
                name: "share".to_owned(),
                group: group.to_owned(),
                before: Some(share(paired.before())),
                after: Some(share(paired.after())),
                unit: Unit::Share,
                ci95_before: Some(proportion_ci95(paired.before(), samples)),
                ci95_after: Some(proportion_ci95(paired.after(), samples)),
                better: Better::Lower,
                samples,
                definition: "Share of images in which the judge sees the feature".to_owned(),
            },
            Figure {
                name: name.to_owned(),
                group: group.to_owned(),
                before: None,
                after: paired.ratio(),
                unit: Unit::Share,
                ci95_before: None,
                ci95_after: paired.ratio_ci95(),
                better: Better::Lower,
                samples,
                definition:
                    "Share of images with the feature after, divided by that before, on the same latents"
                        .to_owned(),
            },
        ]
    }

    /// What makes these counts say less than a reader may think.
    pub(super) fn warnings(&self) -> Option<Warning> {
        let Self { paired, samples } = self;
        if paired.before() == 0 {
            return Some(Warning::new(
                WarningCode::FeatureNotSeen,
                format!(
                    "the judge sees the feature in none of {samples} images of the original: nothing is shown to be gone"
                ),
                "raise evaluate.samples, or lower the judge's threshold",
            ));
        }
        let [low, high] = paired.ratio_ci95().filter(|[_, high]| *high >= 1.0)?;
        let what =
            if low > 1.0 { "the feature became more frequent" } else { "nothing may have been removed" };
        Some(Warning::new(
            WarningCode::NotRemoved,
            format!(
                "{what}: {} of {samples} images showed the feature before, {} after; the 95 % interval of the remaining share is {}",
                paired.before(),
                paired.after(),
                Unit::Share.show_interval([low, high])
            ),
            "raise unlearn.steps, unlearn.alpha or direction.margin; where few images show the feature, raise evaluate.samples",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(both: u64, before_only: u64, after_only: u64) -> Counts {
        Counts { paired: Paired { both, before_only, after_only }, samples: 1000 }
    }

    #[test]
    fn latents_are_counted_in_pairs() {
        let mut measures = Measures::new(0);
        measures.before = vec![2.0, 2.0, 0.0, 0.0, 0.0];
        measures.after = vec![2.0, 0.0, 2.0, 0.0, 0.0];
        let counted = Counts::of(&measures, Cut { sign: 1.0, threshold: 1.0 });
        assert_eq!(counted, Counts { samples: 5, ..counts(1, 1, 1) });
        let [share, remaining] = counted.figures();
        assert_eq!((share.before, share.after, remaining.after), (Some(0.4), Some(0.4), Some(1.0)));
    }

    #[test]
    fn a_job_that_removed_nothing_says_so() {
        let code = |counts: Counts| counts.warnings().map(|warning| warning.code);
        assert_eq!(code(counts(0, 0, 0)), Some(WarningCode::FeatureNotSeen));
        assert_eq!(code(counts(0, 0, 9)), Some(WarningCode::FeatureNotSeen));
        assert_eq!(code(counts(75, 0, 0)), Some(WarningCode::NotRemoved), "75 of 1000 before, 75 after");
        assert_eq!(code(counts(60, 15, 10)), Some(WarningCode::NotRemoved), "a few went, a few came");
        assert_eq!(code(counts(5, 70, 1)), None);
        assert_eq!(code(counts(0, 75, 0)), None);
        let more = counts(75, 0, 60).warnings().unwrap();
        assert!(more.message.starts_with("the feature became more frequent: 75 of 1000"), "{more}");
        assert!(counts(0, 0, 0).figures()[1].after.is_none(), "nothing to divide by");
    }
}
