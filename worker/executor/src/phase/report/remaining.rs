//! Where the rest of the feature comes from: each latent whose copy's image shows it is counted in exactly one part, so the parts add up
//! to the remaining share.
//!
//! The edit is made again on the latents of the evaluation, as training makes it. Whether something shows the feature is what
//! the judge says; what was selected, and what the edit gave up on, is what the edit says.

use lethe_domain::{Better, Cut, Figure, Paired, Unit};

use crate::error::Result;
use crate::measures::Measures;

/// Rows of [`Measures`]: 1 where the latent is selected for an edit.
pub(in crate::phase) const SELECTED: &str = "selected";
/// 1 where no edit takes the feature away by the labeller, so the latent stays put.
pub(in crate::phase) const UNRESOLVED: &str = "unresolved";
/// The judge's score of the original's image of the edited latent.
pub(in crate::phase) const EDITED: &str = "edited";

/// Less left than this asks for no advice.
const LITTLE: f64 = 0.02;

/// Why the copy shows the feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Missed,
    Edit,
    Fit,
    New,
}

impl Part {
    const ALL: [Self; 4] = [Self::Missed, Self::Edit, Self::Fit, Self::New];

    /// Of a latent whose copy shows the feature.
    fn of(original_shows: bool, selected: bool, unresolved: bool, edited_shows: bool) -> Self {
        match (original_shows, selected) {
            (false, _) => Self::New,
            (true, false) => Self::Missed,
            (true, true) if unresolved || edited_shows => Self::Edit,
            (true, true) => Self::Fit,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Edit => "edit",
            Self::Fit => "fit",
            Self::New => "new",
        }
    }

    fn definition(self) -> &'static str {
        match self {
            Self::Missed => {
                "Part of the remaining share where the original shows the feature and its latent was never selected for an edit"
            }
            Self::Edit => {
                "Part of the remaining share where the latent was selected and the original's image of the edited latent still shows \
                 the feature, or no edit took it away"
            }
            Self::Fit => {
                "Part of the remaining share where the original's image of the edited latent is free of the feature and the copy's \
                 image is not"
            }
            Self::New => {
                "Part of the remaining share where the copy shows the feature and the original did not"
            }
        }
    }

    /// What happened there, and what to change.
    fn advice(self) -> [&'static str; 2] {
        match self {
            Self::Missed => [
                "never selected for an edit",
                "raise direction.recall, or name a labeller in feature that sees more of what the judge sees",
            ],
            Self::Edit => ["still there after the edit itself", "raise direction.margin"],
            Self::Fit => [
                "gone in the edit, but the copy has not learnt it",
                "raise unlearn.effort (unlearn.steps and pool.latents, where they are set), or else unlearn.strength",
            ],
            Self::New => {
                ["new: the original did not show it there", "lower unlearn.lr and raise unlearn.steps"]
            }
        }
    }
}

/// Latents in each part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Parts {
    counts: [u64; 4],
    /// Latents whose original image shows the feature.
    before: u64,
    samples: u64,
}

impl Parts {
    /// # Errors
    /// As [`Measures::row`].
    pub(super) fn of(measures: &Measures, cut: Cut) -> Result<Self> {
        let [selected, unresolved, edited] = [SELECTED, UNRESOLVED, EDITED].map(|row| measures.row(row));
        let (selected, unresolved, edited) = (selected?, unresolved?, edited?);
        let mut parts = Self { samples: measures.before.len() as u64, ..Self::default() };
        for (place, (before, after)) in measures.before.iter().zip(&measures.after).enumerate() {
            let before = cut.is_positive(*before);
            parts.before += u64::from(before);
            if cut.is_positive(*after) {
                let (selected, unresolved) = (selected[place] > 0.0, unresolved[place] > 0.0);
                let part = Part::of(before, selected, unresolved, cut.is_positive(edited[place]));
                parts.counts[part as usize] += 1;
            }
        }
        Ok(parts)
    }

    fn count(&self, part: Part) -> u64 {
        self.counts[part as usize]
    }

    /// As shares of those that showed the feature before: they add up to the remaining share.
    pub(super) fn figures(&self) -> [Figure; 4] {
        Part::ALL.map(|part| {
            let (count, before) = (self.count(part), self.before);
            let paired = match part {
                Part::New => Paired { both: 0, before_only: before, after_only: count },
                Part::Missed | Part::Edit | Part::Fit => {
                    Paired { both: count, before_only: before - count, after_only: 0 }
                }
            };
            Figure {
                name: part.name().to_owned(),
                group: "remaining".to_owned(),
                before: None,
                after: paired.ratio(),
                unit: Unit::Share,
                ci95_before: None,
                ci95_after: paired.ratio_ci95(),
                better: Better::Lower,
                samples: self.samples,
                definition: part.definition().to_owned(),
            }
        })
    }

    /// Which part is the largest, and what to change; none when little is left.
    pub(super) fn advice(&self) -> Option<String> {
        let left: u64 = self.counts.iter().sum();
        let worth = left > 0 && left as f64 >= LITTLE * self.before as f64;
        let [first, others @ ..] = Part::ALL;
        let largest = others
            .into_iter()
            .fold(first, |largest, part| if self.count(part) > self.count(largest) { part } else { largest });
        let ([what, change], count) = (largest.advice(), self.count(largest));
        worth.then(|| {
            let share = Unit::Share.show(count as f64 / left as f64);
            format!("{share} of what is left ({count} of {left} images) is {what}: {change}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::feature::Counts;
    use super::*;

    const CUT: Cut = Cut { sign: 1.0, threshold: 0.5 };

    /// Each latent by what the judge sees before, after and in the edited image, and by whether it is selected and unresolved.
    fn measures(latents: &[[bool; 5]]) -> Measures {
        let column = |place: usize| {
            latents.iter().map(|latent| f64::from(u8::from(latent[place]))).collect::<Vec<_>>()
        };
        let mut measures = Measures::new(0);
        (measures.before, measures.after) = (column(0), column(1));
        let rows = [(EDITED, 2), (SELECTED, 3), (UNRESOLVED, 4)];
        measures.rows = rows.into_iter().map(|(name, place)| (name.to_owned(), column(place))).collect();
        measures
    }

    #[test]
    fn each_latent_that_shows_the_feature_is_in_one_part() {
        let [no, yes] = [false, true];
        for (latent, counts) in [
            // Before, after, edited; selected, unresolved.
            ([yes, yes, yes, no, no], [1, 0, 0, 0]),
            ([yes, yes, yes, yes, no], [0, 1, 0, 0]),
            ([yes, yes, no, yes, no], [0, 0, 1, 0]),
            ([no, yes, no, no, no], [0, 0, 0, 1]),
            // The labeller gave up, whatever the judge says of what stayed put.
            ([yes, yes, no, yes, yes], [0, 1, 0, 0]),
            // The labeller saw it where the judge did not: what the judge sees now is new all the same.
            ([no, yes, no, yes, no], [0, 0, 0, 1]),
            ([no, yes, yes, yes, yes], [0, 0, 0, 1]),
            // The copy is clean, whatever the edit was.
            ([yes, no, yes, yes, yes], [0, 0, 0, 0]),
        ] {
            assert_eq!(Parts::of(&measures(&[latent]), CUT).unwrap().counts, counts, "{latent:?}");
        }
    }

    #[test]
    fn the_parts_add_up_to_the_remaining_share() {
        let every: Vec<[bool; 5]> =
            (0..32_u8).map(|bits| [0, 1, 2, 3, 4].map(|place| bits >> place & 1 == 1)).collect();
        let measures = measures(&every);
        let remaining = Counts::of(&measures, CUT).figures()[1].after.unwrap();
        let parts = Parts::of(&measures, CUT).unwrap();
        assert_eq!((parts.counts, parts.before), ([4, 3, 1, 8], 16));
        let figures = parts.figures();
        assert_eq!(figures.iter().map(|figure| figure.after.unwrap()).sum::<f64>(), remaining);
        for figure in figures {
            let [low, high] = figure.ci95_after.unwrap();
            assert!(low < figure.after.unwrap() && figure.after.unwrap() < high, "{figure:?}");
        }
    }

    #[test]
    fn advice_is_about_the_largest_part_unless_little_is_left() {
        let advice = |counts| Parts { counts, before: 1000, samples: 10_000 }.advice();
        for (counts, key) in [
            ([30, 5, 5, 5], "direction.recall"),
            ([5, 30, 5, 5], "direction.margin"),
            ([5, 5, 30, 5], "unlearn.effort"),
            ([0, 0, 0, 20], "unlearn.lr"),
        ] {
            let advice = advice(counts).unwrap();
            assert!(advice.contains(key), "{counts:?}: {advice}");
        }
        let said = "66.7 % of what is left (30 of 45 images) is still there after the edit itself: raise direction.margin";
        assert_eq!(advice([5, 30, 5, 5]).unwrap(), said);
        assert_eq!(advice([10, 4, 4, 1]), None, "1.9 %");
        let none = Parts { counts: [0, 0, 0, 3], ..Parts::default() };
        assert_eq!(none.figures()[3].after, None, "nothing to divide by");
        assert_eq!(Parts::default().advice(), None);
    }
}
