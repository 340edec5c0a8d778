//! The files a job reads, by what they held when it was accepted.
//!
//! They go into the job's record at admission, travel with every task, and whoever loads one of them compares: a job never
//! works on two models of one name. Not here: computing digests (crate `artifacts`), comparing files (executor).

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a file is to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InputRole {
    /// The model to be changed.
    Generator,
    /// The generator's description.
    Sidecar,
    /// Who labels the samples: a classifier, a scorer, or a file of labels.
    Labeller,
    /// The second of several classifiers that label together; the first is the labeller.
    #[serde(rename = "labeller_2")]
    Labeller2,
    /// The third of them.
    #[serde(rename = "labeller_3")]
    Labeller3,
    /// The fourth of them.
    #[serde(rename = "labeller_4")]
    Labeller4,
    /// Images of which somebody knows whether they show the feature.
    Calibration,
    /// Who counts the feature in the result, where it is not the labeller.
    Judge,
    /// Whose classes should stay.
    Classifier,
    /// The feature space of the Frechet distance.
    Features,
    /// Real images.
    Reference,
}

impl InputRole {
    /// Those of the models that label together.
    pub const LABELLERS: [Self; 4] = [Self::Labeller, Self::Labeller2, Self::Labeller3, Self::Labeller4];

    /// Every role.
    pub const ALL: [Self; 11] = [
        Self::Generator,
        Self::Sidecar,
        Self::Labeller,
        Self::Labeller2,
        Self::Labeller3,
        Self::Labeller4,
        Self::Calibration,
        Self::Judge,
        Self::Classifier,
        Self::Features,
        Self::Reference,
    ];

    /// The name in records and in result.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generator => "generator",
            Self::Sidecar => "sidecar",
            Self::Labeller => "labeller",
            Self::Labeller2 => "labeller_2",
            Self::Labeller3 => "labeller_3",
            Self::Labeller4 => "labeller_4",
            Self::Calibration => "calibration",
            Self::Judge => "judge",
            Self::Classifier => "classifier",
            Self::Features => "features",
            Self::Reference => "reference",
        }
    }

    /// The role with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The role of the file that a spec names under this key, as [`crate::JobSpec::files`] gives them.
    pub fn of_key(key: &str) -> Option<Self> {
        match key {
            "generator.uri" => Some(Self::Generator),
            "feature.classifier.uri" | "feature.scorer.uri" | "feature.labels.uri" => Some(Self::Labeller),
            "feature.classifiers.0.uri" => Some(Self::Labeller),
            "feature.classifiers.1.uri" => Some(Self::Labeller2),
            "feature.classifiers.2.uri" => Some(Self::Labeller3),
            "feature.classifiers.3.uri" => Some(Self::Labeller4),
            "direction.calibration.uri" => Some(Self::Calibration),
            "evaluate.judge.classifier.uri" | "evaluate.judge.scorer.uri" => Some(Self::Judge),
            "evaluate.classifier.uri" => Some(Self::Classifier),
            "evaluate.features" => Some(Self::Features),
            "evaluate.reference.uri" => Some(Self::Reference),
            _ => None,
        }
    }
}

impl fmt::Display for InputRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A file as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// Where, as the spec names it.
    pub uri: String,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Every file a job reads, by its role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Inputs(pub BTreeMap<InputRole, Input>);

impl Inputs {
    /// The file of this role.
    pub fn get(&self, role: InputRole) -> Option<&Input> {
        self.0.get(&role)
    }

    /// What the file at `uri` held; none when the job reads no such file, or nobody looked.
    pub fn at(&self, uri: &str) -> Option<&Input> {
        self.0.values().find(|input| input.uri == uri)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::JobSpec;
    use crate::spec::CLASSIFIERS;

    #[test]
    fn names_are_one_to_one_and_match_serde() {
        for role in InputRole::ALL {
            assert_eq!(InputRole::from_name(role.name()), Some(role));
            assert_eq!(serde_json::to_value(role).unwrap(), json!(role.name()));
        }
    }

    #[test]
    fn every_file_of_a_spec_has_a_role_of_its_own() {
        let model = json!({"uri": "m", "positive": {"above": 1}});
        let spec = JobSpec::from_value(json!({
            "name": "x",
            "generator": {"uri": "g", "format": "safetensors", "latent": {"dimension": 2},
                          "output": {"range": [0, 1], "channels": 1, "size": 8}},
            "feature": {"name": "f", "scorer": model},
            "direction": {"calibration": {"uri": "k"}},
            "evaluate": {"judge": {"scorer": model}, "classifier": {"uri": "c", "output": "logits"}, "features": "e",
                         "reference": {"uri": "r"}},
        }))
        .unwrap();
        let mut roles: Vec<_> = spec.files().iter().map(|(key, _)| InputRole::of_key(key).unwrap()).collect();
        assert_eq!(roles.len(), 7);
        roles.dedup();
        assert_eq!(roles.len(), 7);
    }

    #[test]
    fn every_one_of_several_classifiers_has_a_role_of_its_own() {
        let mut roles: Vec<_> = CLASSIFIERS.into_iter().filter_map(InputRole::of_key).collect();
        roles.dedup();
        let expected =
            [InputRole::Labeller, InputRole::Labeller2, InputRole::Labeller3, InputRole::Labeller4];
        assert_eq!(roles, expected);
    }

    #[test]
    fn a_file_is_found_by_its_uri() {
        let input = Input { uri: "/g.pt".to_owned(), sha256: "0".repeat(64), size: 3 };
        let inputs = Inputs([(InputRole::Generator, input.clone())].into());
        assert_eq!((inputs.at("/g.pt"), inputs.at("/h.pt")), (Some(&input), None));
        assert_eq!(
            serde_json::to_value(&inputs).unwrap(),
            json!({"generator": {"uri": "/g.pt", "sha256": "0".repeat(64), "size": 3}})
        );
    }
}
