//! What became of the edits of a training run: how many found an image to teach, and how far they went for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Better, Figure, Unit, Warning, WarningCode, proportion_ci95};

/// Where shards of edits are kept for other jobs, below the artifact root.
pub const EDITS_FOLDER: &str = "edits";

/// How latents were edited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EditMethod {
    /// Back to the threshold, nobody looking.
    #[default]
    Projection,
    /// Along the direction, the labeller looking.
    Line,
    /// By the gradient of the labeller's score.
    Gradient,
    /// By the gradient of a student that was taught the labeller's scores.
    Student,
}

/// Edits of the pool that a copy was trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct EditSummary {
    /// Latents that were to be edited.
    pub tried: u64,
    /// Those that show the feature at every step tried. They had no part in training.
    pub unresolved: u64,
    /// Length of the median step of the others, in standard deviations of an entry of the latent under its prior.
    pub median_step: f64,
    /// Length that 99 % of them do not exceed.
    pub p99_step: f64,
}

impl EditSummary {
    /// More than this share of unresolved edits makes a result doubtful.
    pub const TOLERATED: f64 = 0.01;

    /// How a result shows it.
    pub fn figures(&self) -> Vec<Figure> {
        let figure = |name: &str, after: Option<f64>, unit, samples, definition: &str| Figure {
            name: name.to_owned(),
            group: "edits".to_owned(),
            before: None,
            after,
            unit,
            ci95_before: None,
            ci95_after: None,
            better: Better::Lower,
            samples,
            definition: definition.to_owned(),
        };
        let share = (self.tried > 0).then(|| self.unresolved as f64 / self.tried as f64);
        let made = self.tried - self.unresolved;
        let step = |length: f64| (made > 0).then_some(length);
        vec![
            Figure {
                ci95_after: share.map(|_| proportion_ci95(self.unresolved, self.tried)),
                ..figure(
                    "unresolved_share",
                    share,
                    Unit::Share,
                    self.tried,
                    "Share of the edits that found no image without the feature; training left their latents out",
                )
            },
            figure(
                "median_step",
                step(self.median_step),
                Unit::Deviations,
                made,
                "How far the median edit moved its latent, in standard deviations of an entry under the prior",
            ),
            figure(
                "p99_step",
                step(self.p99_step),
                Unit::Deviations,
                made,
                "How far 99 % of the edits moved their latent at most; an image from far outside the prior may be no plausible one",
            ),
        ]
    }

    /// That too many edits failed, if they did.
    pub fn warning(&self) -> Option<Warning> {
        let Self { tried, unresolved, .. } = *self;
        (unresolved as f64 > Self::TOLERATED * tried as f64).then(|| {
            Warning::new(
                WarningCode::EditsUnresolved,
                format!("{unresolved} of {tried} edits found no image without the feature: training left their latents out"),
                "lower direction.margin, raise sample.until or try direction.method: logistic for a better direction, or lower the \
                 labeller's threshold",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundredth_of_failed_edits_is_tolerated() {
        let of = |tried, unresolved| EditSummary { tried, unresolved, ..EditSummary::default() };
        assert_eq!(of(0, 0).warning(), None);
        assert_eq!(of(1000, 10).warning(), None);
        let warning = of(1000, 11).warning().unwrap();
        assert!(warning.message.starts_with("11 of 1000 edits"), "{warning}");
        assert_eq!(of(5, 5).warning().unwrap().code, WarningCode::EditsUnresolved);
    }

    #[test]
    fn what_was_not_measured_is_left_open() {
        let values =
            |edits: EditSummary| edits.figures().iter().map(|figure| figure.after).collect::<Vec<_>>();
        assert_eq!(values(EditSummary::default()), [None; 3]);
        let all_failed = EditSummary { tried: 4, unresolved: 4, median_step: 0.0, p99_step: 0.0 };
        assert_eq!(values(all_failed), [Some(1.0), None, None]);
        let some = EditSummary { tried: 4, unresolved: 1, median_step: 0.5, p99_step: 2.0 };
        assert_eq!(values(some), [Some(0.25), Some(0.5), Some(2.0)]);
    }
}
