//! The result of a job: the content of result.json.
//!
//! Not here: computing the figures (crate `models`), writing the file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    EditMethod, Failure, Figure, Inputs, JobId, JobSpec, JobState, REMAINING_SHARE, SearchSummary, Warning,
};

/// Version of result.json.
pub const RESULT_VERSION: u32 = 2;

/// The content of result.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// Version of this format.
    pub schema_version: u32,
    /// The job.
    pub job: JobId,
    /// The spec's name.
    pub name: String,
    /// The feature's name.
    pub feature: String,
    /// How it ended.
    pub state: JobState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What makes it doubtful; empty when nothing does.
    pub warnings: Vec<Warning>,
    /// Who counted the feature.
    pub judge: Option<JudgeSummary>,
    /// What was measured, on the same latents before and after.
    pub figures: Vec<Figure>,
    /// Where most of what is left of the feature comes from, and what to change; none when hardly anything is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Where the feature was found.
    pub direction: Option<DirectionSummary>,
    /// The latents that training passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolSummary>,
    /// What the search for settings found, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchSummary>,
    /// How training went.
    pub train: Option<TrainSummary>,
    /// Seconds spent in each phase.
    pub seconds: BTreeMap<String, f64>,
    /// Versions of what computed it.
    pub versions: Option<Versions>,
    /// The files it was made from, by their role.
    #[serde(default)]
    pub inputs: Inputs,
    /// Where the files are.
    pub artifacts: ArtifactPaths,
    /// The settings it came from, every default filled in, and what was measured, found or lowered on the way set: the same spec gives the
    /// same result. Absent in lists of jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Box<JobSpec>>,
}

/// Who counted the feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JudgeSummary {
    /// The model's uri.
    pub uri: String,
    /// SHA-256 of its file.
    pub sha256: String,
    /// The other classifiers, where several label together and nobody else judges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<JudgingModel>,
    /// Whether it is the labeller, or one of its classifiers, by digest: then what it counts is what the edit was made to lower.
    pub same_as_labeller: bool,
}

/// One of several models that counted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JudgingModel {
    /// The model's uri.
    pub uri: String,
    /// SHA-256 of its file.
    pub sha256: String,
}

impl JudgeSummary {
    /// Every model that counted: its uri and the digest of its file.
    pub fn models(&self) -> impl Iterator<Item = (&str, &str)> {
        let others = self.others.iter().map(|other| (other.uri.as_str(), other.sha256.as_str()));
        [(self.uri.as_str(), self.sha256.as_str())].into_iter().chain(others)
    }
}

impl JobResult {
    /// The figure with this group and name, if it was measured.
    pub fn figure(&self, (group, name): (&str, &str)) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.group == group && figure.name == name)
    }

    /// The result as lists of jobs carry it: without settings and advice, and of the figures only the remaining share.
    #[must_use]
    pub fn brief(mut self) -> Self {
        (self.spec, self.advice) = (None, None);
        self.figures.retain(|figure| (figure.group.as_str(), figure.name.as_str()) == REMAINING_SHARE);
        self
    }

    /// What is left of the feature, as a share of what there was.
    pub fn remaining_share(&self) -> Option<f64> {
        self.figure(REMAINING_SHARE)?.after
    }
}

/// Where the feature was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DirectionSummary {
    /// Where the edit begins, as a projection onto the unit direction.
    pub threshold: f64,
    /// Share of latents that training edited.
    pub edited_share: f64,
    /// How well the projection predicts the label, on held-out samples; 0.5 = not at all, 1 = perfectly.
    pub heldout_auc: f64,
    /// Samples looked at.
    pub samples: u64,
    /// Those that showed the feature.
    pub positives: u64,
    /// The labeller's threshold, in its own units.
    pub label_threshold: f64,
    /// The score beyond which a latent was edited, in the same.
    #[serde(default)]
    pub select: f64,
    /// The score that an edited image had to reach.
    #[serde(default)]
    pub goal: f64,
    /// How latents were edited.
    #[serde(default)]
    pub edit: EditMethod,
}

/// The latents that training passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolSummary {
    /// Latents labelled, and edited where that was due.
    pub latents: u64,
    /// Shards they were cut into.
    pub shards: u32,
    /// Those that were found, made by another job or by this one before it was interrupted.
    pub reused: u32,
}

/// How training went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainSummary {
    /// Steps done.
    pub steps: u64,
    /// Ranks of the last generation.
    pub world_size: u32,
    /// Latents per second, over all ranks.
    pub samples_per_second: f64,
    /// Adam's learning rate at the start.
    #[serde(default)]
    pub lr: f64,
    /// Mean absolute difference per pixel between the copy's images of unedited latents and the original's, over the last 50 steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<f64>,
    /// How often the learning rate was halved because that was above unlearn.drift.
    #[serde(default)]
    pub halved: u32,
    /// The weight of the unlearning terms: unlearn.alpha, or its default for how edits were made.
    #[serde(default)]
    pub alpha: f64,
    /// The weight of the labeller term: unlearn.labeller_term, likewise.
    #[serde(default)]
    pub labeller_term: f64,
    /// How far the published weights are along the way from the original's to the trained ones: unlearn.strength, or what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// Loss of the first step.
    pub loss_first: f64,
    /// Loss of the last step.
    pub loss_last: f64,
}

/// Versions of what computed a result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Versions {
    /// Lethe.
    pub lethe: String,
    /// libtorch.
    pub torch: String,
    /// The device: cpu, or the GPU's name.
    pub device: String,
}

/// Where the files are: paths below the folder of result.json, or uris.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactPaths {
    /// The unlearned generator.
    pub generator: Option<String>,
    /// The contact sheet.
    pub before_after_png: Option<String>,
    /// The last checkpoint.
    pub checkpoint: Option<String>,
    /// SHA-256 of the target vector's file.
    pub target_sha256: Option<String>,
}
