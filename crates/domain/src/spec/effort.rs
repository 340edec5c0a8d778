//! How much work a job may be: what `unlearn.effort` stands for.
//!
//! It is written out into the keys that a spec leaves out, so that whoever reads the spec of a result sees every value it came from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How much work a job may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// A first look, in a third of the time: more of the feature is left, and more changes elsewhere.
    Quick,
    /// What the defaults are meant for.
    #[default]
    Normal,
    /// Four times as long, after a search for the best settings: nearer to the original elsewhere.
    Thorough,
}

impl Effort {
    /// Latents of the pool: a copy passes over each about four times, over those near the feature six times.
    pub fn latents(self) -> u64 {
        match self {
            Self::Quick => 12_000,
            Self::Normal => 60_000,
            Self::Thorough => 240_000,
        }
    }

    /// Steps of training.
    pub fn steps(self) -> u64 {
        match self {
            Self::Quick => 400,
            Self::Normal => 2_000,
            Self::Thorough => 8_000,
        }
    }

    /// Minutes of one slot that editing, training and evaluating may take.
    pub fn slot_minutes(self) -> f64 {
        match self {
            Self::Quick => 10.0,
            Self::Normal => 27.0,
            Self::Thorough => 120.0,
        }
    }

    /// Settings that are tried before training.
    pub fn trials(self) -> u32 {
        match self {
            Self::Quick | Self::Normal => 0,
            Self::Thorough => 8,
        }
    }

    /// Writes it out in a spec as somebody wrote it. What is no spec at all stays as it is.
    pub(super) fn write_out(value: &mut Value) {
        let said = value.pointer("/unlearn/effort").cloned();
        let Some(Ok(effort)) = said.map(serde_json::from_value::<Self>) else { return };
        for (group, key, number) in [
            ("pool", "latents", effort.latents()),
            ("unlearn", "steps", effort.steps()),
            ("unlearn", "trials", effort.trials().into()),
        ] {
            let Some(spec) = value.as_object_mut() else { return };
            let group = spec.entry(group).or_insert_with(|| json!({}));
            if let Some(group) = group.as_object_mut() {
                let _ = group.entry(key).or_insert_with(|| json!(number));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_written_out() {
        let mut value = json!({"unlearn": {"effort": "quick", "steps": 7}});
        Effort::write_out(&mut value);
        assert_eq!(
            value,
            json!({"unlearn": {"effort": "quick", "steps": 7, "trials": 0}, "pool": {"latents": 12_000}})
        );
        for other in [json!({}), json!({"unlearn": {"effort": "lazy"}}), json!([1])] {
            let mut value = other.clone();
            Effort::write_out(&mut value);
            assert_eq!(value, other);
        }
    }
}
