//! Everything that can happen to the engine.

use lethe_domain::{
    Failure, HeldLease, Inputs, JobId, JobSpec, LeaseId, Principal, Progress, SlotIndex, SlotReport,
    TaskOutput, WorkerId, WorkerOrder,
};

/// The time, as the driver read it just before the step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a monotonic clock with any origin.
    pub mono_ms: u64,
    /// Milliseconds since 1970, for people.
    pub unix_ms: u64,
}

/// What a worker says about itself when it joins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Introduction {
    /// Its machine's name.
    pub hostname: String,
    /// Its Lethe version.
    pub version: String,
    /// A device per slot.
    pub devices: Vec<String>,
    /// Leases it still works on, or has finished without an acknowledgement.
    pub held: Vec<HeldLease>,
    /// Slots whose executor is up.
    pub reports: Vec<(SlotIndex, SlotReport)>,
    /// Tells this process from any other of the same name.
    pub incarnation: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Somebody submits a checked spec. The driver has made up the id.
    Submit {
        /// Who.
        by: Principal,
        /// The new job's id; ignored when the request is known.
        job: JobId,
        /// The spec.
        spec: Box<JobSpec>,
        /// What the files it names hold.
        inputs: Inputs,
        /// Makes a repeated submission by the same principal the same job.
        request_id: Option<String>,
    },
    /// Somebody wants a job to end.
    Cancel {
        /// Who.
        by: Principal,
        /// Which.
        job: JobId,
        /// Why, for people.
        reason: String,
    },
    /// Somebody wants a job that has ended to be forgotten.
    Delete {
        /// Who.
        by: Principal,
        /// Which.
        job: JobId,
    },
    /// What [`crate::Chore::TidyUp`] asked for is done.
    TidiedUp {
        /// Of which job.
        job: JobId,
    },
    /// What [`crate::Chore::Erase`] asked for is done.
    Erased {
        /// Of which job.
        job: JobId,
    },
    /// A worker opened its session, for the first time or again.
    WorkerJoined {
        /// Who.
        worker: WorkerId,
        /// What it says about itself.
        introduction: Box<Introduction>,
        /// Whether the last session of that name is open still.
        session_open: bool,
    },
    /// The executor of a slot is up, or (none) gone and being started again.
    SlotChanged {
        /// Whose.
        worker: WorkerId,
        /// Which slot.
        slot: SlotIndex,
        /// What the executor says of itself.
        report: Option<SlotReport>,
    },
    /// A worker is about to leave: it wants no more work.
    WorkerDraining {
        /// Who.
        worker: WorkerId,
    },
    /// An operator wants something of a worker.
    Order {
        /// Who.
        by: Principal,
        /// Of whom.
        worker: WorkerId,
        /// What.
        order: WorkerOrder,
    },
    /// When workers were last heard from: told before a tick, so that silence is what it is and not what waits to be read.
    Heard {
        /// Each with the time, on the monotonic clock.
        workers: Vec<(WorkerId, u64)>,
    },
    /// A worker is alive, and this is how far its slots are.
    Heartbeat {
        /// Who.
        worker: WorkerId,
        /// When it came, on the monotonic clock.
        heard_ms: u64,
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
    /// A turn is over, and nothing more is known now: free slots are given to whoever needs them. Nothing is granted without
    /// it, however many events came before.
    Plan,
    /// Time has passed: see [`crate::State::next_deadline`]. Only then is anything given up for its silence.
    Tick,
}
