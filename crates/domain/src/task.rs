//! What a slot is told to do, and what it gives back.
//!
//! Outputs are small; bulk (scores, moments, weights) goes to artifact storage and comes back as an [`ArtifactRef`].
//! Not here: doing it (worker/executor), deciding it (crate `engine`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::Costs;
use crate::{
    ArtifactRef, EditMethod, EditSummary, Figure, GangRole, JudgeSummary, Phase, Round, SampleRange,
    SearchSummary, Warning,
};

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
    /// Label and edit these latents of the training stream: one shard, or several in a row.
    Edit {
        /// Indices in the training stream.
        range: SampleRange,
        /// The target vector.
        target: ArtifactRef,
    },
    /// Train trials of the search and measure them: one shard, or several in a row.
    Search {
        /// Which round.
        round: Round,
        /// Steps of its trials, one trial after the other.
        range: SampleRange,
        /// The target vector.
        target: ArtifactRef,
        /// The edits of each shard, in the order of the shards.
        pool: Vec<ArtifactRef>,
        /// What the trials of earlier rounds gave.
        before: Vec<ArtifactRef>,
    },
    /// Train as one rank of a gang.
    FineTune {
        /// The target vector.
        target: ArtifactRef,
        /// The edits of each shard, in the order of the shards.
        pool: Vec<ArtifactRef>,
        /// What the trials of the search gave; empty without one.
        search: Vec<ArtifactRef>,
        /// The place in the gang.
        role: GangRole,
    },
    /// Load what a rank needs and wait, so that a lost rank can be replaced at once.
    Standby {
        /// The target vector.
        target: ArtifactRef,
        /// The edits of each shard, in the order of the shards.
        pool: Vec<ArtifactRef>,
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
        /// What was measured: what is published says so.
        report: ReportOutput,
    },
}

impl Task {
    /// The samples that a task of a sharded phase is about.
    pub fn range(&self) -> Option<SampleRange> {
        match self {
            Task::Sample { range }
            | Task::Edit { range, .. }
            | Task::Search { range, .. }
            | Task::Evaluate { range, .. } => Some(*range),
            Task::Probe
            | Task::Direction { .. }
            | Task::FineTune { .. }
            | Task::Standby { .. }
            | Task::Report { .. }
            | Task::Publish { .. } => None,
        }
    }

    /// The work of a lease over these samples, with what earlier phases gave: their outputs, and by phase what each shard
    /// gave, in order. None while something is missing, and for a gang, whose ranks are told of each other.
    pub fn of(
        phase: Phase,
        range: SampleRange,
        outputs: &Outputs,
        shards: impl Fn(Phase) -> Vec<ArtifactRef>,
    ) -> Option<Self> {
        let target = || outputs.direction().map(|direction| direction.target.clone());
        let weights = || outputs.fine_tune().map(|trained| trained.weights.clone());
        let search = |round: Round| {
            let before = round.before().flat_map(|round| shards(round.phase())).collect();
            Some(Task::Search { round, range, target: target()?, pool: shards(Phase::Edit), before })
        };
        Some(match phase {
            Phase::Probe => Task::Probe,
            Phase::Sample => Task::Sample { range },
            Phase::Direction => Task::Direction { scores: shards(Phase::Sample) },
            Phase::Edit => Task::Edit { range, target: target()? },
            Phase::SearchFirst => search(Round::First)?,
            Phase::SearchSecond => search(Round::Second)?,
            Phase::SearchLast => search(Round::Last)?,
            Phase::FineTune => return None,
            Phase::Evaluate => Task::Evaluate { range, target: target()?, weights: weights()? },
            Phase::Report => Task::Report { moments: shards(Phase::Evaluate), target: target()? },
            Phase::Publish => {
                Task::Publish { target: target()?, weights: weights()?, report: outputs.told()? }
            }
        })
    }

    /// The phase this work belongs to.
    pub fn phase(&self) -> Phase {
        match self {
            Task::Probe => Phase::Probe,
            Task::Sample { .. } => Phase::Sample,
            Task::Direction { .. } => Phase::Direction,
            Task::Edit { .. } => Phase::Edit,
            Task::Search { round, .. } => round.phase(),
            Task::FineTune { .. } | Task::Standby { .. } => Phase::FineTune,
            Task::Evaluate { .. } => Phase::Evaluate,
            Task::Report { .. } => Phase::Report,
            Task::Publish { .. } => Phase::Publish,
        }
    }
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
    /// What makes the result doubtful.
    pub warnings: Vec<Warning>,
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
    /// The score beyond which a latent is edited, in the labeller's own units.
    #[serde(default)]
    pub select: f64,
    /// The score that an edited image must reach.
    #[serde(default)]
    pub goal: f64,
    /// How latents are edited.
    #[serde(default)]
    pub edit: EditMethod,
    /// Where the edit begins, as a projection onto the unit direction.
    pub threshold: f64,
    /// Share of latents that training will edit.
    pub edited_share: f64,
    /// Area under the ROC curve of the projection as a predictor of the label, on held-out samples.
    pub heldout_auc: f64,
    /// What a latent costs from here on.
    #[serde(default)]
    pub costs: Costs,
    /// What makes the direction doubtful.
    pub warnings: Vec<Warning>,
}

/// What a shard of the pool gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EditOutput {
    /// Latents labelled.
    pub samples: u64,
    /// Scores, and the edits.
    pub pool: ArtifactRef,
    /// Whether another job made it before.
    #[serde(default)]
    pub reused: bool,
}

/// What a trial of the search gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchOutput {
    /// The round.
    pub round: Round,
    /// Steps trained.
    pub steps: u64,
    /// What was measured: a [`crate::Trial`] as JSON.
    pub trial: ArtifactRef,
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
    /// Adam's learning rate at the start.
    #[serde(default)]
    pub lr: f64,
    /// How far images of unedited latents were from the original's in the last steps, per pixel; none where there were too few.
    #[serde(default)]
    pub drift: Option<f64>,
    /// How often the learning rate was halved for it.
    #[serde(default)]
    pub halved: u32,
    /// The weight of the unlearning terms, and that of the labeller term.
    #[serde(default)]
    pub alpha: f64,
    /// See alpha.
    #[serde(default)]
    pub labeller_term: f64,
    /// How far the weights are along the way from the original's to the trained ones.
    #[serde(default)]
    pub strength: Option<f64>,
    /// Loss of the first step.
    pub loss_first: f64,
    /// Loss of the last step.
    pub loss_last: f64,
    /// The loss of every step, as a JSON array of [step, loss].
    pub curve: ArtifactRef,
    /// What became of the edits.
    pub edits: EditSummary,
    /// What the search before it found, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchSummary>,
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
    /// What to change first, if enough of the feature is left to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
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

/// What a task gives back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TaskOutput {
    /// Of a probe.
    Probe(ProbeOutput),
    /// Of a sample shard.
    Sample(SampleOutput),
    /// Of the direction.
    Direction(DirectionOutput),
    /// Of a shard of the pool.
    Edit(EditOutput),
    /// Of a trial of the search.
    Search(SearchOutput),
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
            TaskOutput::Edit(_) => Phase::Edit,
            TaskOutput::Search(output) => output.round.phase(),
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
            TaskOutput::Sample(SampleOutput { samples, positives, scores }) => Some(ShardOutput {
                samples: *samples,
                positives: *positives,
                artifact: scores,
                reused: false,
            }),
            TaskOutput::Edit(EditOutput { samples, pool, reused }) => {
                Some(ShardOutput { samples: *samples, positives: None, artifact: pool, reused: *reused })
            }
            TaskOutput::Search(SearchOutput { steps, trial, .. }) => {
                Some(ShardOutput { samples: *steps, positives: None, artifact: trial, reused: false })
            }
            TaskOutput::Evaluate(EvaluateOutput { samples, moments, .. }) => {
                Some(ShardOutput { samples: *samples, positives: None, artifact: moments, reused: false })
            }
            TaskOutput::Probe(_)
            | TaskOutput::Direction(_)
            | TaskOutput::FineTune(_)
            | TaskOutput::Report(_)
            | TaskOutput::Publish(_)
            | TaskOutput::Shards(_) => None,
        }
    }

    /// Samples that were looked at for it; 0 where that is not its work, or another job did it.
    pub fn samples(&self) -> u64 {
        match self {
            TaskOutput::Shards(outputs) => outputs.iter().map(TaskOutput::samples).sum(),
            TaskOutput::Search(_) => 0,
            TaskOutput::Sample(_)
            | TaskOutput::Edit(_)
            | TaskOutput::Evaluate(_)
            | TaskOutput::Probe(_)
            | TaskOutput::Direction(_)
            | TaskOutput::FineTune(_)
            | TaskOutput::Report(_)
            | TaskOutput::Publish(_) => {
                self.of_shard().filter(|shard| !shard.reused).map_or(0, |shard| shard.samples)
            }
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
    /// Whether another job made it before.
    pub reused: bool,
}

/// What each phase gave that is not sharded, as far as they are done. Outputs of shards are kept by themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Outputs(BTreeMap<Phase, TaskOutput>);

impl Outputs {
    /// Keeps what a phase gave.
    pub fn keep(&mut self, output: TaskOutput) {
        self.0.insert(output.phase(), output);
    }

    /// What a phase gave.
    pub fn get(&self, phase: Phase) -> Option<&TaskOutput> {
        self.0.get(&phase)
    }

    /// What the probe saw.
    pub fn probe(&self) -> Option<&ProbeOutput> {
        if let TaskOutput::Probe(output) = self.get(Phase::Probe)? { Some(output) } else { None }
    }

    /// Where the feature is.
    pub fn direction(&self) -> Option<&DirectionOutput> {
        if let TaskOutput::Direction(output) = self.get(Phase::Direction)? { Some(output) } else { None }
    }

    /// What training gave.
    pub fn fine_tune(&self) -> Option<&FineTuneOutput> {
        if let TaskOutput::FineTune(output) = self.get(Phase::FineTune)? { output.as_ref() } else { None }
    }

    /// The figures.
    pub fn report(&self) -> Option<&ReportOutput> {
        if let TaskOutput::Report(output) = self.get(Phase::Report)? { Some(output) } else { None }
    }

    /// What was published.
    pub fn publish(&self) -> Option<&PublishOutput> {
        if let TaskOutput::Publish(output) = self.get(Phase::Publish)? { Some(output) } else { None }
    }
}
