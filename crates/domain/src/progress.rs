//! What people see while a job runs: states, phases, progress, and why something waits.
//!
//! Not here: pictures of it (cli, coordinator's page).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Failure, JobId, JobResult, LeaseId, Phase, counted_slots};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Accepted, waiting for a slot.
    Queued,
    /// At work.
    Running,
    /// Being cancelled: slots are not free yet.
    Cancelling,
    /// Done.
    Succeeded,
    /// Ended by a failure.
    Failed,
    /// Ended on request; every slot it had is free.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: [JobState; 6] = [
        JobState::Queued,
        JobState::Running,
        JobState::Cancelling,
        JobState::Succeeded,
        JobState::Failed,
        JobState::Cancelled,
    ];

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        match self {
            JobState::Succeeded | JobState::Failed | JobState::Cancelled => true,
            JobState::Queued | JobState::Running | JobState::Cancelling => false,
        }
    }

    /// The name used on the wire, in metrics and on screens.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Cancelling => "cancelling",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a phase stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseState {
    /// Not begun.
    Pending,
    /// At work.
    Running,
    /// Done.
    Done,
    /// It failed, and the job with it.
    Failed,
}

/// What one lease has done so far, as its slot reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The lease.
    pub lease: LeaseId,
    /// Units done: samples, or steps in fine_tune.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// Samples per second of this slot (fine_tune: of the gang).
    pub samples_per_second: f64,
    /// Loss of the last step (fine_tune).
    pub loss: Option<f64>,
}

/// One phase of a job as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseStatus {
    /// Which.
    pub phase: Phase,
    /// Where it stands.
    pub state: PhaseState,
    /// Samples (fine_tune: steps) done.
    pub done: u64,
    /// Samples (fine_tune: steps) in all, as far as known.
    pub total: u64,
    /// Shards done.
    pub shards_done: u32,
    /// Shards in all, as far as known.
    pub shards: u32,
    /// Seconds since it began, or that it took.
    pub seconds: f64,
    /// Samples per second, over all slots.
    pub samples_per_second: f64,
    /// Loss of the last step (fine_tune).
    pub loss: Option<f64>,
    /// Seconds left by the speed so far.
    pub eta_seconds: Option<f64>,
}

/// Why a job that is not final does nothing at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Waiting {
    /// No worker has joined.
    NoWorkers,
    /// Every slot is busy with older jobs.
    NoFreeSlot {
        /// Slots in the fleet.
        slots: u32,
    },
    /// No slot in the fleet has the device the job needs.
    NoSuitableSlot {
        /// Slots in the fleet.
        slots: u32,
    },
    /// No slot of the fleet may get work: drained, quarantined, suspect, or its executor is not up.
    NoUsableSlot {
        /// Slots in the fleet.
        slots: u32,
    },
    /// The owner's jobs hold as many slots as they may.
    OverQuota {
        /// Whose.
        owner: String,
        /// Slots they hold.
        holds: u32,
        /// Slots they may hold.
        quota: u32,
        /// Slots this one needs at once.
        needs: u32,
    },
    /// The gang needs more slots than there are free ones.
    GangTooSmall {
        /// Slots the gang needs.
        needs: u32,
        /// Slots it could have now.
        free: u32,
    },
    /// A failed lease is tried again after a pause.
    Backoff {
        /// Milliseconds until the next try.
        ms: u64,
    },
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::NoWorkers => f.write_str("no worker has joined: start lethe-worker --coordinator URL"),
            Waiting::NoFreeSlot { slots } => write!(f, "none of {} is free", counted_slots(*slots)),
            Waiting::NoSuitableSlot { slots } => {
                write!(
                    f,
                    "none of {} has a GPU: add a GPU worker or set resources.device to auto or cpu",
                    counted_slots(*slots)
                )
            }
            Waiting::NoUsableSlot { slots } => {
                write!(f, "none of {} may get work: lethe worker list says why", counted_slots(*slots))
            }
            Waiting::OverQuota { owner, quota, needs, .. } if quota < needs => write!(
                f,
                "it needs {} at once, and owner {owner} may never hold more than {quota}: raise the quota, or lower resources.slots.min",
                counted_slots(*needs)
            ),
            Waiting::OverQuota { owner, holds, quota, .. } => write!(
                f,
                "owner {owner} holds {}, the quota is {quota}: raise it, or wait for the owner's other jobs",
                counted_slots(*holds)
            ),
            Waiting::GangTooSmall { needs, free } => {
                write!(
                    f,
                    "the gang needs {}, {free} are free: add workers or lower resources.slots.min",
                    counted_slots(*needs)
                )
            }
            Waiting::Backoff { ms } => {
                write!(f, "a failed lease is tried again in {:.1} s", *ms as f64 / 1000.0)
            }
        }
    }
}

/// A job as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The job.
    pub id: JobId,
    /// The spec's name.
    pub name: String,
    /// The feature's name.
    pub feature: String,
    /// Whose it is, the spec's `queue.owner`.
    pub owner: String,
    /// Where it stands.
    pub state: JobState,
    /// When it was submitted, milliseconds since 1970.
    pub submitted_unix_ms: u64,
    /// When it ended.
    pub finished_unix_ms: Option<u64>,
    /// Its phases, in order.
    pub phases: Vec<PhaseStatus>,
    /// Slots at work for it.
    pub slots: u32,
    /// Why it does nothing at the moment.
    pub waiting: Option<Waiting>,
    /// Failures that were survived by another try, newest last, at most ten.
    pub retried: Vec<Failure>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// The result, once final.
    pub result: Option<JobResult>,
    /// Counts up with every change.
    pub version: u64,
}

impl JobStatus {
    /// The status as lists of jobs carry it.
    #[must_use]
    pub fn brief(self) -> Self {
        Self { result: self.result.map(JobResult::brief), ..self }
    }
}

/// Something of a job that waits, and why: a line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What waits: the job, a phase, shards, a rank.
    pub what: String,
    /// Why, and what would end it.
    pub why: String,
}
