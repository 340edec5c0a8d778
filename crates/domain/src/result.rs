//! The result of a job: the content of result.json.
//!
//! Not here: computing the figures (crate `models`), writing the file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Failure, JobId, JobState};

/// Version of result.json.
pub const RESULT_VERSION: u32 = 1;

/// The content of result.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// Version of this format.
    pub schema_version: u32,
    /// The job.
    pub job: JobId,
    /// The spec's name.
    pub name: String,
    /// How it ended.
    pub state: JobState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// How often the feature is seen.
    pub feature: Option<FeatureSummary>,
    /// How far the images as a whole moved.
    pub fidelity: Option<Fidelity>,
    /// How far images without the feature moved.
    pub locality: Option<Locality>,
    /// Where the feature was found.
    pub direction: Option<DirectionSummary>,
    /// How training went.
    pub train: Option<TrainSummary>,
    /// Seconds spent in each phase.
    pub seconds: BTreeMap<String, f64>,
    /// Versions of what computed it.
    pub versions: Option<Versions>,
    /// Where the files are.
    pub artifacts: ArtifactPaths,
}

/// How often the feature is seen, on the same latents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FeatureSummary {
    /// The feature's name.
    pub name: String,
    /// Share of the original's images that show it.
    pub before: f64,
    /// Share of the copy's images that show it.
    pub after: f64,
    /// after / before.
    pub remaining_share: f64,
    /// Latents compared.
    pub samples: u64,
    /// 95 % interval of `before`.
    pub ci95_before: [f64; 2],
    /// 95 % interval of `after`.
    pub ci95_after: [f64; 2],
}

/// Frechet distances in one feature space. Lower is nearer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fidelity {
    /// What the feature space is called.
    pub space: String,
    /// What the distances are measured to: the reference set's uri, or "generator".
    pub reference: String,
    /// The original's distance to the reference.
    pub before: f64,
    /// The copy's distance to the reference.
    pub after: f64,
    /// The original's distance to the part of the reference without the feature.
    pub feature_free_before: f64,
    /// The copy's distance to the part of the reference without the feature.
    pub feature_free_after: f64,
    /// Distance between two sample sets of the original: what chance alone gives.
    pub noise_floor: f64,
    /// The same distances to the original's own samples of another seed.
    pub own: FrechetPair,
}

/// Distances to the original's own samples of another seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FrechetPair {
    /// The copy's distance to all of them.
    pub after: f64,
    /// The original's distance to those without the feature.
    pub feature_free_before: f64,
    /// The copy's distance to those without the feature.
    pub feature_free_after: f64,
}

/// How far images that never showed the feature moved, pixel values in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Locality {
    /// Mean absolute difference per pixel.
    pub l1: f64,
    /// Mean MS-SSIM; 1 = identical.
    pub ms_ssim: f64,
    /// Latents it was measured on.
    pub samples: u64,
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
    /// What makes the direction doubtful, a sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
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

/// Wilson's 95 % interval of a proportion (Wilson 1927): `hits` of `total`.
pub fn proportion_ci95(hits: u64, total: u64) -> [f64; 2] {
    if total == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (total as f64, hits as f64 / total as f64);
    let z = 1.959_963_984_540_054_f64;
    let scale = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / scale;
    let half = z / scale * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // At the ends the bound is exact; rounding must not move it.
    let low = if hits == 0 { 0.0 } else { centre - half };
    let high = if hits == total { 1.0 } else { centre + half };
    [low, high]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_interval_agrees_with_published_figures() {
        // statsmodels.stats.proportion.proportion_confint(10, 100, method="wilson") = (0.05522914, 0.17436566)
        let [low, high] = proportion_ci95(10, 100);
        assert!((low - 0.055_229_14).abs() < 1e-7 && (high - 0.174_365_66).abs() < 1e-7, "{low} {high}");
        let [low, high] = proportion_ci95(0, 10_000);
        assert!(low == 0.0 && (high - 0.000_384).abs() < 1e-6, "{high}");
    }
}
