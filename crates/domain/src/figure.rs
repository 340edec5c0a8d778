//! One figure of a result: what was measured of the original and of the copy, and how sure that is.
//!
//! Whatever shows a result shows its list of figures, without knowing any of them: a new one is added where it is
//! computed (the executor), nowhere else. Not here: computing, laying out (cli, coordinator's page).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was measured, and what came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// What it is called, unique in its group: `remaining_share`.
    pub name: String,
    /// What it is about: `feature`, `remaining`, `fidelity`, `locality`, `range`, `edits`.
    pub group: String,
    /// The original's value; none where the figure is about the copy, or about the step from one to the other.
    pub before: Option<f64>,
    /// The copy's value, or that of the step; none where the figure is about the original alone.
    pub after: Option<f64>,
    /// What the values are measured in.
    pub unit: Unit,
    /// 95 % interval of `before`; none where it is not known.
    pub ci95_before: Option<[f64; 2]>,
    /// 95 % interval of `after`; none where it is not known.
    pub ci95_after: Option<[f64; 2]>,
    /// Which values are the better ones.
    pub better: Better,
    /// Latents it was measured on.
    pub samples: u64,
    /// What it means, in a sentence.
    pub definition: String,
}

/// What the values of a figure are measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A part of a whole, 0 to 1.
    Share,
    /// A distance in a feature space; its definition says in which.
    Distance,
    /// A difference of pixel values, which go from 0 to 1.
    PixelValue,
    /// 1 = identical.
    Similarity,
    /// Standard deviations of an entry of the latent under its prior.
    Deviations,
    /// One value divided by another; 1 = equal.
    Ratio,
}

/// Which values of a figure are the better ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Lower ones.
    Lower,
    /// Higher ones.
    Higher,
}

/// The figure that says most of a job: what is left of the feature.
pub const REMAINING_SHARE: (&str, &str) = ("feature", "remaining_share");

impl Figure {
    /// Its name as people read it.
    pub fn title(&self) -> String {
        self.name.replace('_', " ")
    }

    /// How far `after` is from `before`, as a share of it: -0.1 is a tenth less. None where that says nothing: for shares, where
    /// one of them is missing, and where `before` is so near 0 that the answer would be about its noise.
    pub fn change(&self) -> Option<f64> {
        const MOST: f64 = 10.0;
        let (before, after) = (self.before?, self.after?);
        let tells = self.unit != Unit::Share && before > 0.0 && after.abs() <= MOST * before;
        tells.then(|| after / before - 1.0)
    }
}

impl Unit {
    /// A value as people read it, three digits or so.
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Share if value != 0.0 && value.abs() < 0.001 => format!("{:.3} %", value * 100.0),
            Unit::Share if value.abs() < 0.1 => format!("{:.2} %", value * 100.0),
            Unit::Share => format!("{:.1} %", value * 100.0),
            Unit::Distance if value.abs() >= 100.0 => format!("{value:.0}"),
            Unit::Distance if value.abs() >= 10.0 => format!("{value:.1}"),
            Unit::Distance => format!("{value:.3}"),
            Unit::PixelValue | Unit::Similarity => format!("{value:.4}"),
            Unit::Deviations => format!("{value:.2} sd"),
            Unit::Ratio => format!("{value:.2}"),
        }
    }

    /// An interval as people read it.
    pub fn show_interval(self, [low, high]: [f64; 2]) -> String {
        format!("{} to {}", self.show(low), self.show(high))
    }
}

impl Better {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Better::Lower => "lower",
            Better::Higher => "higher",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(before: f64, after: f64) -> Figure {
        Figure {
            name: "own_distance".to_owned(),
            group: "fidelity".to_owned(),
            before: Some(before),
            after: Some(after),
            unit: Unit::Distance,
            ci95_before: None,
            ci95_after: None,
            better: Better::Lower,
            samples: 1,
            definition: String::new(),
        }
    }

    #[test]
    fn a_change_is_told_only_where_there_is_something_to_compare_with() {
        assert!((distance(10.0, 11.0).change().unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(distance(81.0, 0.0).change(), Some(-1.0));
        for (before, after) in [(0.0, 1.2), (-1e-12, 1.2), (1e-9, 1.2), (0.1, f64::NAN)] {
            assert_eq!(distance(before, after).change(), None, "{before} -> {after}");
        }
        assert_eq!(Figure { before: None, ..distance(0.0, 1.0) }.change(), None);
        assert_eq!(Figure { unit: Unit::Share, ..distance(0.1, 0.05) }.change(), None);
        assert_eq!(distance(1.0, 1.0).title(), "own distance");
    }

    #[test]
    fn values_read_well() {
        for (unit, value, text) in [
            (Unit::Share, 0.1012, "10.1 %"),
            (Unit::Share, 0.0512, "5.12 %"),
            (Unit::Share, 0.000_38, "0.038 %"),
            (Unit::Share, 0.0, "0.00 %"),
            (Unit::Distance, 0.1234, "0.123"),
            (Unit::Distance, 11.73, "11.7"),
            (Unit::Distance, 812.3, "812"),
            (Unit::Similarity, 0.98312, "0.9831"),
            (Unit::Deviations, 1.234, "1.23 sd"),
            (Unit::Ratio, 1.118, "1.12"),
        ] {
            assert_eq!(unit.show(value), text);
        }
        assert_eq!(Unit::Share.show_interval([0.04, 0.06]), "4.00 % to 6.00 %");
    }
}
