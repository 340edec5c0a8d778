//! The feature to remove, who says where it is, and how the result is measured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::task::Cut;

/// The feature to remove. Exactly one of classifier, classifiers, scorer and labels says which images show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// A name for people: thick, smile, glasses.
    pub name: String,
    /// A model that gives class logits or probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier: Option<Classifier>,
    /// Several of them, 2 to 4, each with the keys of `classifier`, that are the labeller together: the score of an image is the mean of
    /// theirs, each less the log-odds of its own threshold, and above 0 the feature is there. Where they disagree decides how many latents
    /// are edited (`direction.recall`). They are the judge too, unless another is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classifiers: Vec<Classifier>,
    /// A model that gives one number per image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scorer: Option<Scorer>,
    /// A file of labels made elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// A model that looks at images in [0, 1] and gives logits or probabilities. Its score is the log-odds of the class,
/// in which margins and reported thresholds are meant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Classifier {
    /// TorchScript file: [N, C, H, W] in [0, 1] to [N, K].
    pub uri: String,
    /// What the K numbers are.
    pub output: ClassifierOutput,
    /// The class that is the feature, counted from 0. Needed when K > 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<i64>,
    /// Positive above this probability of the class (softmax over K logits, sigmoid of one).
    #[serde(default = "half")]
    pub threshold: f64,
}

impl Classifier {
    /// Which scores are positive: the threshold as log-odds, ln p - ln(1 - p).
    pub fn cut(&self) -> Cut {
        Cut { sign: 1.0, threshold: (self.threshold / (1.0 - self.threshold)).ln() }
    }
}

/// Where the files of `feature.classifiers` are named, in their order; more there cannot be.
pub const CLASSIFIERS: [&str; 4] = [
    "feature.classifiers.0.uri",
    "feature.classifiers.1.uri",
    "feature.classifiers.2.uri",
    "feature.classifiers.3.uri",
];

fn half() -> f64 {
    0.5
}

/// What a classifier's outputs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassifierOutput {
    /// Unnormalised: softmax (one output: sigmoid) makes probabilities of them.
    Logits,
    /// Probabilities already.
    Probability,
}

/// A model that looks at images in [0, 1] and gives one number each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scorer {
    /// TorchScript file: [N, C, H, W] in [0, 1] to [N].
    pub uri: String,
    /// Which scores mean the feature is there.
    pub positive: Positive,
}

/// Which scores mean the feature is there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Positive {
    /// Scores above this.
    Above(f64),
    /// Scores below this.
    Below(f64),
    /// The highest scores among the samples: this share of them, 0.1 for the top tenth. Fixed after sampling.
    Top(f64),
}

/// Labels made elsewhere: a CSV file `index,label` over the sample stream (label 0 or 1), a row for each sample of `sample.until.total`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// CSV file.
    pub uri: String,
}

/// Who says which images show the feature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Labeller<'a> {
    /// A classifier.
    Classifier(&'a Classifier),
    /// Several classifiers together.
    Classifiers(&'a [Classifier]),
    /// A scorer.
    Scorer(&'a Scorer),
    /// A file of labels.
    Labels(&'a Labels),
}

impl Feature {
    /// Who labels; none when the spec names no labeller or several (refused by the check).
    pub fn labeller(&self) -> Option<Labeller<'_>> {
        match (&self.classifier, self.classifiers.as_slice(), &self.scorer, &self.labels) {
            (Some(classifier), [], None, None) => Some(Labeller::Classifier(classifier)),
            (None, several @ [_, ..], None, None) => Some(Labeller::Classifiers(several)),
            (None, [], Some(scorer), None) => Some(Labeller::Scorer(scorer)),
            (None, [], None, Some(labels)) => Some(Labeller::Labels(labels)),
            _ => None,
        }
    }
}

/// How the result is measured, on latents that neither sampling nor training used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    /// Latents on which the original and the copy are compared.
    pub samples: u64,
    /// Samples of one shard, the unit that is leased, retried and counted.
    pub shard_size: u64,
    /// Images looked at together.
    pub batch: u64,
    /// Who counts the feature; the labeller when absent. Exactly one of classifier and scorer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<Judge>,
    /// Whose classes should stay: where it is sure of an image of the original that does not show the feature, the copy's should be of
    /// the same class. When absent, the judge, else the labeller, where one of them is a classifier of several classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier: Option<Classes>,
    /// TorchScript file: images in [0, 1] to feature vectors [N, D], the space of the Frechet distance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<String>,
    /// What the feature space is called in reports. Names of measures in Inception's space (FID, IS, KID) are refused: nobody can
    /// know that the features are Inception's.
    pub space: String,
    /// Real images to measure the distance to; the generator's own samples when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
}

impl Default for Evaluate {
    fn default() -> Self {
        Self {
            samples: 10_000,
            shard_size: 500,
            batch: 250,
            judge: None,
            classifier: None,
            features: None,
            space: "classifier-FID".to_owned(),
            reference: None,
        }
    }
}

/// A second opinion on the feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// A model that gives class logits or probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier: Option<Classifier>,
    /// A model that gives one number per image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scorer: Option<Scorer>,
}

impl Judge {
    /// Who judges; none when the spec names nobody or both (refused by the check).
    pub fn labeller(&self) -> Option<Labeller<'_>> {
        match (&self.classifier, &self.scorer) {
            (Some(classifier), None) => Some(Labeller::Classifier(classifier)),
            (None, Some(scorer)) => Some(Labeller::Scorer(scorer)),
            _ => None,
        }
    }
}

/// A model that tells classes apart, whatever they are: digits, genders, species.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// TorchScript file: [N, C, H, W] in [0, 1] to [N, K]; one number tells two classes apart.
    pub uri: String,
    /// What the K numbers are.
    pub output: ClassifierOutput,
}

/// Real images, as a safetensors file with a tensor `images`: [N, C, H, W], u8 in 0..=255 or f32 in [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The file.
    pub uri: String,
}
