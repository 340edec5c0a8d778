//! What makes a result doubtful: a closed list of reasons, each with a sentence and what to do about it.
//!
//! A job with warnings has succeeded: they say how far its result can be believed. Not here: finding them (the phases that see the
//! reasons).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The reason, from a closed list; docs/result.md explains each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WarningCode {
    /// Parameters of the generator stay as they are.
    NotTrained,
    /// The difference of means is mostly noise.
    NoisyDirection,
    /// One direction hardly tells the feature.
    WeakDirection,
    /// The feature is in most of the samples, so that what is common is to be unlearned.
    CommonFeature,
    /// Many more latents are edited than show the feature.
    BroadEdit,
    /// The effort's numbers were lowered, since a latent of this generator costs much.
    EffortLowered,
    /// Edits found no image without the feature.
    EditsUnresolved,
    /// The copy's pixels leave the range that the spec declares.
    OutOfRange,
    /// Nobody showed the feature before.
    FeatureNotSeen,
    /// What is left of the feature may be all of it.
    NotRemoved,
    /// The model that counted the feature is the one that the edit was steered by.
    JudgeIsLabeller,
}

impl WarningCode {
    /// Whether it says that the feature may not be gone at all.
    pub fn doubts_removal(self) -> bool {
        matches!(self, Self::NotRemoved | Self::FeatureNotSeen | Self::EditsUnresolved)
    }

    /// Every reason.
    pub const ALL: [WarningCode; 11] = [
        WarningCode::NotTrained,
        WarningCode::NoisyDirection,
        WarningCode::WeakDirection,
        WarningCode::CommonFeature,
        WarningCode::BroadEdit,
        WarningCode::EffortLowered,
        WarningCode::EditsUnresolved,
        WarningCode::OutOfRange,
        WarningCode::FeatureNotSeen,
        WarningCode::NotRemoved,
        WarningCode::JudgeIsLabeller,
    ];

    /// The name used in result.json, on the wire and in docs.
    pub fn name(self) -> &'static str {
        match self {
            WarningCode::NotTrained => "NOT_TRAINED",
            WarningCode::NoisyDirection => "NOISY_DIRECTION",
            WarningCode::WeakDirection => "WEAK_DIRECTION",
            WarningCode::CommonFeature => "COMMON_FEATURE",
            WarningCode::BroadEdit => "BROAD_EDIT",
            WarningCode::EffortLowered => "EFFORT_LOWERED",
            WarningCode::EditsUnresolved => "EDITS_UNRESOLVED",
            WarningCode::OutOfRange => "OUT_OF_RANGE",
            WarningCode::FeatureNotSeen => "FEATURE_NOT_SEEN",
            WarningCode::NotRemoved => "NOT_REMOVED",
            WarningCode::JudgeIsLabeller => "JUDGE_IS_LABELLER",
        }
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<WarningCode> {
        WarningCode::ALL.into_iter().find(|code| code.name() == name)
    }
}

impl fmt::Display for WarningCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A reason to doubt a result, as people read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    /// The reason.
    pub code: WarningCode,
    /// What was found, with its numbers.
    pub message: String,
    /// What to change.
    pub hint: String,
}

impl Warning {
    /// A warning.
    pub fn new(code: WarningCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.code, self.message, self.hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_to_one_and_match_serde() {
        for code in WarningCode::ALL {
            assert_eq!(WarningCode::from_name(code.name()), Some(code));
            assert_eq!(serde_json::to_value(code).unwrap(), serde_json::json!(code.name()));
        }
    }
}
