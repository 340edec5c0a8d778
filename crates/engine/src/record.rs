//! What is written down about a job, and about a worker that somebody has decided something about.
//!
//! Leases are not: after a restart the workers say themselves what they hold.

use std::collections::BTreeMap;

use lethe_domain::{
    DirectionOutput, Failure, FineTuneOutput, Generation, JobId, JobSpec, JobState, Phase, PublishOutput,
    ReportOutput, SlotIndex, TaskOutput, WorkerId,
};
use serde::{Deserialize, Serialize};

/// Version of the stored form.
pub const RECORD_VERSION: u32 = 2;

/// A job as it is stored. Its shards are stored one by one beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Version of this form.
    pub version: u32,
    /// The job.
    pub id: JobId,
    /// What was asked for.
    pub spec: JobSpec,
    /// Makes a repeated submission the same job.
    pub request_id: Option<String>,
    /// When, milliseconds since 1970.
    pub submitted_unix_ms: u64,
    /// When it ended.
    pub finished_unix_ms: Option<u64>,
    /// Where it stands.
    pub state: JobState,
    /// The phase it is in, or ended in.
    pub phase: Phase,
    /// The last generation of its gang.
    pub generation: Generation,
    /// What the next leader must know to take that generation over.
    #[serde(default)]
    pub gang: Option<GangRecord>,
    /// What the phases gave.
    pub outputs: Outputs,
    /// Seconds spent in each finished phase, and in the one it ended in.
    pub seconds: BTreeMap<Phase, f64>,
    /// When its phase began, milliseconds since 1970; 0 where that was not written down.
    #[serde(default)]
    pub phase_began_unix_ms: u64,
    /// How far each phase was when it ended, or when the job ended in it.
    pub reached: BTreeMap<Phase, Reached>,
    /// Failures that were survived by another try, newest last.
    pub retried: Vec<Failure>,
    /// Why it failed, or was cancelled.
    pub failure: Option<Failure>,
}

/// How far a phase was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Samples, steps or parts that are done.
    pub done: u64,
    /// Of so many.
    pub total: u64,
    /// Shards that are done.
    pub shards_done: u32,
    /// Of so many.
    pub shards: u32,
}

/// The last generation of a gang.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GangRecord {
    /// Its ranks.
    pub world: u32,
    /// The furthest step reported before it was formed.
    pub floor: u64,
}

/// What operators and failures have decided about a worker. It outlasts the worker's sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Version of this form.
    pub version: u32,
    /// The worker.
    pub id: WorkerId,
    /// It gets no more work and hands back what it has.
    pub draining: bool,
    /// Why the whole worker gets no work.
    pub quarantine: Option<String>,
    /// Why single slots get none.
    pub slots: BTreeMap<SlotIndex, String>,
}

impl WorkerRecord {
    pub(crate) fn new(id: WorkerId) -> Self {
        Self { version: RECORD_VERSION, id, draining: false, quarantine: None, slots: BTreeMap::new() }
    }
}

/// What each phase gave that is not sharded, as far as they are done. Outputs of shards are kept beside the record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Outputs(BTreeMap<Phase, TaskOutput>);

impl Outputs {
    /// Keeps what a phase gave.
    pub(crate) fn keep(&mut self, output: TaskOutput) {
        self.0.insert(output.phase(), output);
    }

    /// What a phase gave.
    pub fn get(&self, phase: Phase) -> Option<&TaskOutput> {
        self.0.get(&phase)
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

/// Failures kept in [`JobRecord::retried`].
pub(crate) const RETRIED_KEPT: usize = 10;

impl JobRecord {
    /// A job just submitted.
    pub(crate) fn new(id: JobId, spec: JobSpec, request_id: Option<String>, unix_ms: u64) -> Self {
        Self {
            version: RECORD_VERSION,
            id,
            spec,
            request_id,
            submitted_unix_ms: unix_ms,
            finished_unix_ms: None,
            state: JobState::Queued,
            phase: Phase::Probe,
            generation: Generation(0),
            gang: None,
            outputs: Outputs::default(),
            seconds: BTreeMap::new(),
            phase_began_unix_ms: unix_ms,
            reached: BTreeMap::new(),
            retried: Vec::new(),
            failure: None,
        }
    }

    /// Remembers a failure that another try may survive.
    pub(crate) fn remember(&mut self, failure: Failure) {
        if self.retried.len() == RETRIED_KEPT {
            self.retried.remove(0);
        }
        self.retried.push(failure);
    }
}
