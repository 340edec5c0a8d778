//! Everything that can happen to the engine.

use lethe_domain::{Failure, JobId, JobSpec, LeaseId, Progress, SlotIndex, TaskOutput, WorkerId};

/// The time, as the driver read it just before the step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a monotonic clock with any origin.
    pub mono_ms: u64,
    /// Milliseconds since 1970, for people.
    pub unix_ms: u64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Somebody submits a checked spec. The driver has made up the id.
    Submit {
        /// The new job's id; ignored when the request is known.
        job: JobId,
        /// The spec.
        spec: Box<JobSpec>,
        /// Makes a repeated submission the same job.
        request_id: Option<String>,
    },
    /// Somebody wants a job to end.
    Cancel {
        /// Which.
        job: JobId,
        /// Why, for people.
        reason: String,
    },
    /// A worker opened its session, for the first time or again.
    WorkerJoined {
        /// Who.
        worker: WorkerId,
        /// Its machine's name.
        hostname: String,
        /// Its Lethe version.
        version: String,
        /// A device per slot.
        devices: Vec<String>,
        /// Leases it still works on, or has finished without an acknowledgement.
        held: Vec<(SlotIndex, LeaseId)>,
    },
    /// A worker is alive, and this is how far its slots are.
    Heartbeat {
        /// Who.
        worker: WorkerId,
        /// What each busy slot has done so far.
        progress: Vec<(SlotIndex, Progress)>,
    },
    /// A worker took its leave: it holds nothing any more.
    WorkerLeft {
        /// Who.
        worker: WorkerId,
    },
    /// A slot is done with a lease and free again.
    LeaseFinished {
        /// Who.
        worker: WorkerId,
        /// The slot.
        slot: SlotIndex,
        /// The lease.
        lease: LeaseId,
        /// What came of it.
        outcome: Result<Box<TaskOutput>, Failure>,
    },
    /// Rank 0 of a gang opened the rendezvous store.
    StoreOpen {
        /// Rank 0's lease.
        lease: LeaseId,
        /// host:port.
        address: String,
    },
    /// Time has passed: see [`crate::State::next_deadline`].
    Tick,
}
