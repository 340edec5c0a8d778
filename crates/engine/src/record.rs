//! What is written down about a job, and about a worker that somebody has decided something about.
//!
//! Leases are not: after a restart the workers say themselves what they hold.

use std::collections::BTreeMap;

use lethe_domain::{
    Failure, Generation, Inputs, JobId, JobSpec, JobState, Outputs, Phase, Principal, SlotIndex, WorkerId,
};
use serde::{Deserialize, Serialize};

/// A request: who made it, and the id they gave it.
pub type Request = (Principal, String);

/// Version of the stored form.
pub const RECORD_VERSION: u32 = 2;

/// A job as it is stored. Its shards are stored one by one beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Version of this form.
    pub version: u32,
    /// The job.
    pub id: JobId,
    /// What is to be done.
    pub spec: JobSpec,
    /// What was asked for, where that was more than its budget allows (`unlearn.slot_minutes`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Box<JobSpec>>,
    /// What the files it reads held when it was accepted.
    #[serde(default)]
    pub inputs: Inputs,
    /// Who submitted it.
    #[serde(default)]
    pub by: Principal,
    /// Makes a repeated submission by the same principal the same job.
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
    /// It has ended, its result is written, and what only its work needed is gone from artifact storage.
    #[serde(default)]
    pub tidy: bool,
    /// Somebody has deleted it before it was tidy: it is forgotten when it is.
    #[serde(default)]
    pub unwanted: bool,
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
    /// Shards that another job had made before.
    #[serde(default)]
    pub reused: u32,
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
    /// When the worker was here last, roughly, or this was decided: milliseconds since 1970.
    pub seen_unix_ms: u64,
}

impl WorkerRecord {
    pub(crate) fn new(id: WorkerId, seen_unix_ms: u64) -> Self {
        Self {
            version: RECORD_VERSION,
            id,
            draining: false,
            quarantine: None,
            slots: BTreeMap::new(),
            seen_unix_ms,
        }
    }

    /// Whether the worker is as if nobody had ever decided anything about it.
    pub(crate) fn decides_nothing(&self) -> bool {
        !self.draining && self.quarantine.is_none() && self.slots.is_empty()
    }
}

/// Failures kept in [`JobRecord::retried`].
pub(crate) const RETRIED_KEPT: usize = 10;

impl JobRecord {
    /// A job just submitted.
    pub(crate) fn new(
        by: Principal,
        id: JobId,
        spec: JobSpec,
        inputs: Inputs,
        request_id: Option<String>,
        unix_ms: u64,
    ) -> Self {
        Self {
            version: RECORD_VERSION,
            id,
            spec,
            asked: None,
            inputs,
            by,
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
            tidy: false,
            unwanted: false,
        }
    }

    /// What tells the request that submitted it from any other.
    pub(crate) fn request(&self) -> Option<Request> {
        self.request_id.as_ref().map(|id| (self.by.clone(), id.clone()))
    }

    /// The spec that the job was submitted with.
    pub(crate) fn asked(&self) -> &JobSpec {
        self.asked.as_deref().unwrap_or(&self.spec)
    }

    /// From now on only what the budget allows is to be done, now that the costs are known.
    pub(crate) fn keep_to_budget(&mut self) {
        let costs = self.outputs.direction().map(|direction| direction.costs);
        if let Some(lowered) = costs.and_then(|costs| self.spec.within_budget(&costs)) {
            self.asked = Some(Box::new(std::mem::replace(&mut self.spec, lowered)));
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
