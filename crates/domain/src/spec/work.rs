//! How the work is done: sampling, direction, training, resources, checkpoints, publishing.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Effort;
use crate::edits::EditMethod;

/// How many samples to look at, and in what portions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sample {
    /// Seed of every latent of the job.
    pub seed: u64,
    /// Samples of one shard, the unit that is leased, retried and counted.
    pub shard_size: u64,
    /// Images generated at once.
    pub batch: u64,
    /// When to stop.
    pub until: Until,
    /// Give up after this many samples when `until.positives` is not reached; 100 times it by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u64>,
}

impl Default for Sample {
    fn default() -> Self {
        Self { seed: 0, shard_size: 500, batch: 250, until: Until::Total(10_000), at_most: None }
    }
}

/// When sampling stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// When this many samples show the feature.
    Positives(u64),
    /// After this many samples.
    Total(u64),
}

/// How the feature is located in latent space, and which latents are edited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Direction {
    /// How the direction is found.
    pub method: DirectionMethod,
    /// Where the edit begins along the direction (selection: projection).
    pub threshold: Threshold,
    /// Which latents are edited.
    pub selection: Selection,
    /// How many of the latents that the labeller calls negative are edited too, down from its threshold: this times the share that it calls
    /// positive, as a share of them. What it is not sure of, another one calls positive. They are moved by degrees less far. Unless set, 1
    /// with a classifier as labeller and 0.2 with a scorer; with several classifiers, so many that 99 % of the samples that any of them calls
    /// positive are among those edited, but none that scores below where edits lead (selection: classifier).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// Images of which somebody knows whether they show the feature. Of those that do, 99 % score beyond where latents are selected from then,
    /// unless that is above the labeller's threshold or below where edits lead (selection: classifier). In place of recall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// How an image is taken to where the feature is gone (selection: classifier).
    pub edit: EditChoice,
    /// How much a surrogate has to say in where edits by a gradient go, from 0 (nothing) to 1 (all): a small network that learns from the
    /// samples what the labeller says of a latent's image, from the latent alone. The labeller's own gradient is exact, and finds what
    /// this labeller alone calls free of the feature; the surrogate's is smooth.
    pub surrogate: f64,
    /// How much more than its length in the latent space counts what a move changes in the image, for edits by a gradient: a move that changes
    /// as much as one usually does counts 1 + this. Edits go where the score falls most for what they cost then; with 0 they know
    /// nothing of images.
    pub locality: f64,
    /// How far beyond the labeller's threshold an edited image must be, in standard deviations of the scores. Unless set, as far as the
    /// median of the images without the feature: one that is barely negative is positive for the next judge (selection: classifier).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Edit with the raw mean difference as the paper prints it, instead of its unit vector.
    pub raw: bool,
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            method: DirectionMethod::MeanDifference,
            threshold: Threshold::Midpoint,
            selection: Selection::Classifier,
            recall: None,
            calibration: None,
            edit: EditChoice::Auto,
            surrogate: 0.8,
            locality: 0.5,
            margin: None,
            raw: false,
        }
    }
}

/// Labelled images, as a safetensors file with a tensor `images`: [N, C, H, W], u8 in 0..=255 or f32 in [0, 1], and a tensor `labels`: `[N]`,
/// u8 or bool, 1 where the image shows the feature. At least 20 must show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The file.
    pub uri: String,
}

/// How the direction is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DirectionMethod {
    /// Mean of the positive latents less mean of the negative ones (the paper's).
    MeanDifference,
    /// The normal of a regularised logistic regression.
    Logistic,
}

/// Where the edit begins, as a projection onto the direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// Mean projection of all samples (the paper's, read literally): edits about half of the latents.
    Pooled,
    /// Halfway between the two class means.
    Midpoint,
    /// This quantile of the positives' projections, on held-out samples: 0.1 edits nine positives in ten.
    Quantile(f64),
}

/// Which latents are edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// Those whose projection lies beyond the threshold (the paper's).
    Projection,
    /// Those whose image the labeller calls positive, moved just far enough that it no longer does.
    Classifier,
}

/// The latents that training passes over: each is labelled and, where it shows the feature, edited, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Latents in all. A copy that passes over them more than half a dozen times learns them by heart instead of the feature.
    pub latents: u64,
    /// Latents of one shard, the unit that is leased, retried and counted.
    pub shard_size: u64,
    /// Images generated at once.
    pub batch: u64,
    /// Whether shards are taken from other jobs of the same artifact root that would edit the very same latents in the very same way, and
    /// kept for others. The bits of the result are those of edits made anew.
    pub reuse: bool,
}

impl Pool {
    /// What an effort stands for.
    pub fn of(effort: Effort) -> Self {
        Self { latents: effort.latents(), shard_size: 500, batch: 250, reuse: true }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::of(Effort::default())
    }
}

/// How an image is taken to where the feature is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EditChoice {
    /// By the labeller's gradient where a step along it lowers its score more than one along the direction; else by a student's, where that
    /// does; else along the direction.
    Auto,
    /// Along the direction.
    Line,
    /// By the gradient of the labeller's score through the generator.
    Gradient,
    /// By the gradient of a student: a small network that is taught the labeller's scores of the original's images first. For labellers
    /// that have no gradient.
    Student,
}

/// How the copy is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Unlearn {
    /// How much work it may be. It sets `pool.latents`, `unlearn.steps` and `unlearn.trials`, unless they are set: quick 12,000, 400 and 0,
    /// normal 60,000, 2,000 and 0, thorough 240,000, 8,000 and 8.
    pub effort: Effort,
    /// How long editing, training and evaluating may take, in minutes of one slot: two slots take about half as long. Where it would be
    /// longer, the numbers of the effort that the spec does not set otherwise (pool.latents, unlearn.steps, evaluate.samples) are lowered
    /// by the same share, once the feature is located and it is known what a latent costs. Unless set: quick 10, normal 27, thorough 120.
    /// 0 = however long it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot_minutes: Option<f64>,
    /// Optimiser steps.
    pub steps: u64,
    /// Latents of one step, over all ranks together, drawn from the pool.
    pub global_batch: u64,
    /// Parts that the global batch is cut into, whatever the number of ranks; each rank takes whole parts. So every number
    /// of ranks computes the same bits, and no more ranks than parts are used. More parts spread better and cost some
    /// speed. At most global_batch.
    pub micro_batches: u32,
    /// Adam's learning rate; measured on the generator when absent: the one by which a step changes pixels in [0, 1] by 0.0009 on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// How the learning rate changes over the steps.
    pub lr_schedule: LrSchedule,
    /// Share of the way back to the original's weights that each weight goes in a step; it falls with the learning rate. 0 = none.
    pub anchor: f64,
    /// How far the copy's images of unedited latents may be from the original's, as a mean absolute difference per pixel in [0, 1]: where
    /// they are further over 50 steps, the learning rate is halved. 0 = however far.
    pub drift: f64,
    /// Weight of the unlearning terms against the reconstruction term. Unless set, 3, and 1.5 where there is no labeller term.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Weight of squared differences of pixels beside absolute ones: a few pixels that are far off make another image, many that are
    /// hardly off do not. 0 = none.
    pub squares: f64,
    /// Weight of the difference in contrast, which is the standard deviation of an image's pixels: a copy that is not sure of a pixel makes it
    /// grey. 0 = none.
    pub contrast: f64,
    /// Weight of a term that has the labeller (or its student) look at the copy's images and at their targets; 0 = none. Only where
    /// one of them can be differentiated. Unless set, 2 with the labeller, and 0 with a student, which a copy deceives too easily.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labeller_term: Option<f64>,
    /// Decay of the averaged copy, which is the one that is published; 0 = the last step's is.
    pub average: f64,
    /// How far the published weights are along the way from the original's to the trained ones: 1 = at these, above 1 = further in the same
    /// line. Unless set: no further, between 0.75 and 1.25, than it takes for the labeller to see the feature in at most 2.5 % (4 % without a
    /// labeller term) of the images of latents that showed it, of a ninth of the pool that nothing is trained on; where the labeller tells several
    /// classes apart, on until that is 0.5 %, as long as it sees at most 0.5 % of other images change their class. 1 where the selection is
    /// projection, or where these latents are fewer than 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// Share of a batch that is drawn from latents near the feature, or more where more are; weights make up for it. 0 = all are
    /// drawn alike.
    pub near: f64,
    /// Whether L1 is a mean or a sum over pixels; decides what alpha and lr mean.
    pub loss_reduction: LossReduction,
    /// Whether batch normalisation keeps its statistics.
    pub batch_norm: BatchNorm,
    /// Settings that are tried before training: the spec's own and up to seven around them, other learning rates, alphas, labeller terms and
    /// anchors. All are trained on two thirds of the pool for a sixteenth of the steps, the better half of them for an eighth, the better
    /// half of these for a quarter; the labeller looks at the rest of the pool. Training then goes by the best (docs/result.md). That is one
    /// and a half times as much work as training with 8. 0 = the spec's own are taken; 2 to 8 otherwise. Without effect where the selection
    /// is projection.
    pub trials: u32,
    /// Stop early when the loss no longer falls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plateau: Option<Plateau>,
}

impl Default for Unlearn {
    fn default() -> Self {
        Self::of(Effort::default())
    }
}

impl Unlearn {
    /// What an effort stands for.
    pub fn of(effort: Effort) -> Self {
        Self {
            effort,
            slot_minutes: None,
            steps: effort.steps(),
            global_batch: 128,
            micro_batches: 4,
            lr: None,
            lr_schedule: LrSchedule::Cosine,
            anchor: 0.003,
            drift: 0.05,
            alpha: None,
            squares: 10.0,
            contrast: 2.0,
            labeller_term: None,
            average: 0.998,
            strength: None,
            near: 0.5,
            loss_reduction: LossReduction::Mean,
            batch_norm: BatchNorm::Eval,
            trials: effort.trials(),
            plateau: None,
        }
    }

    /// Minutes of one slot that editing, training and evaluating may take; 0 = however long it takes.
    pub fn minutes(&self) -> f64 {
        self.slot_minutes.unwrap_or(self.effort.slot_minutes())
    }

    /// The weight of the labeller term where edits are made like this: none where nobody can be differentiated, whatever is asked for.
    pub fn labeller_term(&self, method: EditMethod) -> f64 {
        match method {
            EditMethod::Gradient => self.labeller_term.unwrap_or(2.0),
            EditMethod::Student => self.labeller_term.unwrap_or(0.0),
            EditMethod::Line | EditMethod::Projection => 0.0,
        }
    }

    /// The weight of the unlearning terms where edits are made like this.
    pub fn alpha(&self, method: EditMethod) -> f64 {
        self.alpha.unwrap_or(if self.labeller_term(method) > 0.0 { 3.0 } else { 1.5 })
    }

    /// Parts of a step's batch: `micro_batches`, but none of them empty.
    pub fn parts(&self) -> u64 {
        u64::from(self.micro_batches).min(self.global_batch)
    }
}

/// How the learning rate changes over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedule {
    /// Not at all.
    Constant,
    /// Falls to nothing in a straight line: step t of T, counted from 0, has lr (1 - t / T).
    Linear,
    /// Falls to nothing along half a cosine: lr (1 + cos(pi t / T)) / 2.
    Cosine,
}

impl LrSchedule {
    /// What the learning rate is multiplied with in a step, counted from 0.
    pub fn factor(self, step: u64, steps: u64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - step as f64 / steps as f64,
            Self::Cosine => 0.5 + 0.5 * (PI * step as f64 / steps as f64).cos(),
        }
    }
}

/// How L1 is reduced over the pixels of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossReduction {
    /// Mean over pixels.
    Mean,
    /// Sum over pixels.
    Sum,
}

/// What batch normalisation does while training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchNorm {
    /// Keeps the statistics it came with.
    Eval,
    /// Uses those of each micro-batch. The running statistics follow the first micro-batch of each step.
    Train,
}

/// Stop when the loss, averaged over `patience` steps, falls by less than `min_delta` (relative) from one such window to the next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plateau {
    /// Steps in a window.
    pub patience: u64,
    /// Relative fall that still counts as progress.
    pub min_delta: f64,
}

/// What the job may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Slots that train together.
    pub slots: SlotRange,
    /// What the work runs on.
    pub device: Device,
    /// Threads of one slot on a cpu. The bits of everything computed depend on it, so it is the same wherever the job runs: give a
    /// machine more slots rather than slots more threads. 0 = each machine's cores shared out evenly over its slots; the bits then
    /// depend on who did the work.
    pub threads: u32,
}

impl Default for Resources {
    fn default() -> Self {
        Self { slots: SlotRange::default(), device: Device::default(), threads: 1 }
    }
}

/// Fewest and most slots of the gang.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SlotRange {
    /// Training waits for this many.
    pub min: u32,
    /// Training takes no more than this many.
    pub max: u32,
    /// Slots kept ready beside the gang, with everything loaded, to replace one that is lost.
    pub spares: u32,
}

impl Default for SlotRange {
    fn default() -> Self {
        Self { min: 1, max: 8, spares: 0 }
    }
}

/// Whose job it is, and how urgent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// Jobs of the same priority share the slots evenly between owners: 1 to 63 lower-case letters, digits and '-'.
    pub owner: String,
    /// -100 to 100; higher comes first.
    pub priority: i32,
}

impl Default for Queue {
    fn default() -> Self {
        Self { owner: "default".to_owned(), priority: 0 }
    }
}

/// What the work runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// A GPU where the slot has one, else the cpu.
    #[default]
    Auto,
    /// The cpu, even beside a GPU.
    Cpu,
    /// A GPU; refused where there is none.
    Cuda,
}

/// How often training is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// Steps between checkpoints; 0 = only at the end.
    pub every: u64,
    /// Newest checkpoints kept. Those of `best` and `keep_every` are kept besides.
    pub keep: u32,
    /// Checkpoints with the lowest loss kept; 0 = none for that.
    pub best: u32,
    /// Checkpoints of a step that is a multiple of this are kept; 0 = none for that.
    pub keep_every: u64,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { every: 100, keep: 2, best: 0, keep_every: 0 }
    }
}

/// Where the result goes besides the job's own folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// A folder: path, file:// or s3://bucket/prefix. The generator, result.json and the contact sheet are written there.
    pub uri: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_falls_begins_whole_and_ends_one_step_before_nothing() {
        let factors: Vec<f64> = (0..4).map(|step| LrSchedule::Linear.factor(step, 4)).collect();
        assert_eq!(factors, [1.0, 0.75, 0.5, 0.25]);
        assert_eq!(LrSchedule::Constant.factor(3, 4), 1.0);
        let falls: Vec<f64> = (0..4).map(|step| LrSchedule::Cosine.factor(step, 4)).collect();
        assert!(
            falls[0] == 1.0 && (falls[2] - 0.5).abs() < 1e-12 && falls[3] > 0.0 && falls[3] < 0.2,
            "{falls:?}"
        );
    }

    #[test]
    fn no_part_of_a_batch_is_empty() {
        let of = |global_batch, micro_batches| {
            Unlearn { global_batch, micro_batches, ..Unlearn::default() }.parts()
        };
        assert_eq!([of(128, 6), of(4, 6), of(6, 6), of(128, 1)], [6, 4, 6, 1]);
    }
}
