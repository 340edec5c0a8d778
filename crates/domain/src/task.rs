//! What a slot is told to do, and what it gives back.
//!
//! Outputs are small; bulk (scores, moments, weights) goes to artifact storage and comes back as an [`ArtifactRef`].
//! Not here: doing it (worker/executor), deciding it (crate `engine`).

use serde::{Deserialize, Serialize};

use crate::{Figure, Generation, JobSpec, JudgeSummary, LeaseId, Phase, Rank, SlotIndex, Warning};

/// A stored object, by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRef {
    /// Path below the artifact root.
    pub path: String,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Consecutive sample indices of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRange {
    /// First index.
    pub start: u64,
    /// How many.
    pub count: u64,
}

/// Which scores mean the feature is there, fixed after sampling: positive when `sign * score > sign * threshold`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// 1 when high scores are positive, -1 when low ones are.
    pub sign: f64,
    /// Where positive begins, in the labeller's own units.
    pub threshold: f64,
}

impl Cut {
    /// Whether this score means the feature is there.
    pub fn is_positive(self, score: f64) -> bool {
        self.sign * score > self.sign * self.threshold
    }
}

/// A slot's place in a gang.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GangRole {
    /// The incarnation.
    pub generation: Generation,
    /// This slot's place.
    pub rank: Rank,
    /// Slots in the gang.
    pub world: u32,
    /// Where rank 0 serves the rendezvous store, host:port. None for rank 0, which opens it and says where.
    pub store: Option<String>,
    /// The furthest step that any rank of the job has reported. Memory that is more than a step behind it is stale.
    pub floor: u64,
}

/// A piece of work for one slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Task {
    /// Load every model, generate one batch, compare with the spec.
    Probe,
    /// Generate and score these samples: one shard, or several in a row, each with an output of its own.
    Sample {
        /// Indices in the sample stream.
        range: SampleRange,
    },
    /// Locate the feature from the scores of all sample shards, in order.
    Direction {
        /// Scores of each shard, in the order of the shards.
        scores: Vec<ArtifactRef>,
    },
    /// Train as one rank of a gang.
    FineTune {
        /// The target vector.
        target: ArtifactRef,
        /// The place in the gang.
        role: GangRole,
    },
    /// Load what a rank needs and wait, so that a lost rank can be replaced at once.
    Standby {
        /// The target vector.
        target: ArtifactRef,
    },
    /// Measure the original and the copy on these latents.
    Evaluate {
        /// Indices in the evaluation stream.
        range: SampleRange,
        /// The target vector (it carries the cut).
        target: ArtifactRef,
        /// The trained weights.
        weights: ArtifactRef,
    },
    /// Fold the measurements of all evaluation shards, in order.
    Report {
        /// Moments of each shard, in the order of the shards.
        moments: Vec<ArtifactRef>,
        /// The target vector (it carries the cut).
        target: ArtifactRef,
    },
    /// Write the unlearned generator and the contact sheet.
    Publish {
        /// The target vector (it carries the cut).
        target: ArtifactRef,
        /// The trained weights.
        weights: ArtifactRef,
    },
}

impl Task {
    /// The samples that a task of a sharded phase is about.
    pub fn range(&self) -> Option<SampleRange> {
        match self {
            Task::Sample { range } | Task::Evaluate { range, .. } => Some(*range),
            Task::Probe
            | Task::Direction { .. }
            | Task::FineTune { .. }
            | Task::Standby { .. }
            | Task::Report { .. }
            | Task::Publish { .. } => None,
        }
    }

    /// The phase this work belongs to.
    pub fn phase(&self) -> Phase {
        match self {
            Task::Probe => Phase::Probe,
            Task::Sample { .. } => Phase::Sample,
            Task::Direction { .. } => Phase::Direction,
            Task::FineTune { .. } | Task::Standby { .. } => Phase::FineTune,
            Task::Evaluate { .. } => Phase::Evaluate,
            Task::Report { .. } => Phase::Report,
            Task::Publish { .. } => Phase::Publish,
        }
    }
}

/// A task with everything a slot needs to do it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The lease it is done under.
    pub lease: LeaseId,
    /// The whole job.
    pub spec: JobSpec,
    /// Artifact root, a uri. The job's own objects lie below `jobs/JOB/`.
    pub artifacts: String,
    /// The work.
    pub task: Task,
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeOutput {
    /// [channels, height, width] of the images.
    pub image_shape: Vec<i64>,
    /// Lowest and highest pixel of the batch.
    pub range: [f64; 2],
    /// Seconds for one batch: generate and label.
    pub batch_seconds: f64,
    /// Trainable parameters of the generator.
    pub parameters: u64,
}

/// What a sample shard gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleOutput {
    /// Samples scored.
    pub samples: u64,
    /// Those that show the feature; none while the cut is not fixed (top q).
    pub positives: Option<u64>,
    /// The scores, in order of the index.
    pub scores: ArtifactRef,
}

/// Where the feature is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DirectionOutput {
    /// The target vector with the cut and the thresholds.
    pub target: ArtifactRef,
    /// Samples looked at.
    pub samples: u64,
    /// Those that show the feature.
    pub positives: u64,
    /// Which scores mean the feature is there.
    pub cut: Cut,
    /// Where the edit begins, as a projection onto the unit direction.
    pub threshold: f64,
    /// Share of latents that training will edit.
    pub edited_share: f64,
    /// Area under the ROC curve of the projection as a predictor of the label, on held-out samples.
    pub heldout_auc: f64,
    /// What makes the direction doubtful.
    pub warnings: Vec<Warning>,
}

/// What training gives. Rank 0 reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FineTuneOutput {
    /// The trained weights.
    pub weights: ArtifactRef,
    /// Path of the last checkpoint below the artifact root.
    pub checkpoint: String,
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
    /// The loss of every step, as a JSON array of [step, loss].
    pub curve: ArtifactRef,
}

/// What an evaluation shard gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluateOutput {
    /// Latents compared.
    pub samples: u64,
    /// Images of the original that show the feature; none while the judge's cut is not fixed.
    pub before: Option<u64>,
    /// Images of the copy that show it.
    pub after: Option<u64>,
    /// Sums of features and of their products, and the locality sums.
    pub moments: ArtifactRef,
}

/// The figures of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportOutput {
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What makes it doubtful.
    pub warnings: Vec<Warning>,
    /// Who counted the feature.
    pub judge: JudgeSummary,
}

/// What publishing wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishOutput {
    /// The unlearned generator, in the format it came in.
    pub generator: ArtifactRef,
    /// The generator's sidecar description.
    pub sidecar: ArtifactRef,
    /// The contact sheet: before above after, at the same latents.
    pub before_after_png: ArtifactRef,
    /// Versions of what computed it.
    pub versions: crate::Versions,
}

impl Assignment {
    /// Shards in a row that it covers, from the lease's own on.
    pub fn shards(&self) -> u32 {
        let portions = self.task.phase().portions(&self.spec);
        self.task.range().map_or(1, |range| portions.shards_of(range.count))
    }
}

/// A lease that a worker holds when it joins: at work, or over and not yet acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLease {
    /// Where.
    pub slot: SlotIndex,
    /// Which.
    pub lease: LeaseId,
    /// Shards in a row that it covers, at least one.
    pub shards: u32,
}

impl From<(SlotIndex, LeaseId)> for HeldLease {
    /// One over a single shard.
    fn from((slot, lease): (SlotIndex, LeaseId)) -> Self {
        Self { slot, lease, shards: 1 }
    }
}

/// What a task gives back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TaskOutput {
    /// Of a probe.
    Probe(ProbeOutput),
    /// Of a sample shard.
    Sample(SampleOutput),
    /// Of the direction.
    Direction(DirectionOutput),
    /// Of training; None from ranks other than 0.
    FineTune(Option<FineTuneOutput>),
    /// Of an evaluation shard.
    Evaluate(EvaluateOutput),
    /// Of the report.
    Report(ReportOutput),
    /// Of publishing.
    Publish(PublishOutput),
    /// Of several shards in a row, in order. Never empty, never nested.
    Shards(Vec<TaskOutput>),
}

impl TaskOutput {
    /// The phase this belongs to.
    pub fn phase(&self) -> Phase {
        match self {
            TaskOutput::Probe(_) => Phase::Probe,
            TaskOutput::Sample(_) => Phase::Sample,
            TaskOutput::Direction(_) => Phase::Direction,
            TaskOutput::FineTune(_) => Phase::FineTune,
            TaskOutput::Evaluate(_) => Phase::Evaluate,
            TaskOutput::Report(_) => Phase::Report,
            TaskOutput::Publish(_) => Phase::Publish,
            TaskOutput::Shards(outputs) => outputs.first().map_or(Phase::Sample, TaskOutput::phase),
        }
    }

    /// Shards it is the outputs of.
    pub fn shards(&self) -> u32 {
        if let TaskOutput::Shards(outputs) = self { outputs.len() as u32 } else { 1 }
    }

    /// The outputs of each shard it is of, in order.
    pub fn each(self) -> Vec<TaskOutput> {
        if let TaskOutput::Shards(outputs) = self { outputs } else { vec![self] }
    }

    /// What is kept of the output of one shard of a sharded phase; none for others.
    pub fn of_shard(&self) -> Option<ShardOutput<'_>> {
        match self {
            TaskOutput::Sample(SampleOutput { samples, positives, scores }) => {
                Some(ShardOutput { samples: *samples, positives: *positives, artifact: scores })
            }
            TaskOutput::Evaluate(EvaluateOutput { samples, moments, .. }) => {
                Some(ShardOutput { samples: *samples, positives: None, artifact: moments })
            }
            TaskOutput::Probe(_)
            | TaskOutput::Direction(_)
            | TaskOutput::FineTune(_)
            | TaskOutput::Report(_)
            | TaskOutput::Publish(_)
            | TaskOutput::Shards(_) => None,
        }
    }

    /// Samples that were looked at for it; 0 where that is not its work.
    pub fn samples(&self) -> u64 {
        match self {
            TaskOutput::Shards(outputs) => outputs.iter().map(TaskOutput::samples).sum(),
            TaskOutput::Sample(_)
            | TaskOutput::Evaluate(_)
            | TaskOutput::Probe(_)
            | TaskOutput::Direction(_)
            | TaskOutput::FineTune(_)
            | TaskOutput::Report(_)
            | TaskOutput::Publish(_) => self.of_shard().map_or(0, |shard| shard.samples),
        }
    }
}

/// What later phases, and the count of what is enough, need of a finished shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardOutput<'a> {
    /// Samples of the shard.
    pub samples: u64,
    /// Those that count towards [`crate::Portions::enough`]; none while that is not known, or not asked.
    pub positives: Option<u64>,
    /// The bulk of what it gave.
    pub artifact: &'a ArtifactRef,
}
