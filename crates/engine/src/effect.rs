//! Everything the engine can want done. One enum: the complete list of side effects.

use lethe_domain::{
    Assignment, JobId, JobState, LeaseId, Phase, ShardIndex, SlotIndex, TaskOutput, WorkerId,
};

use crate::record::{JobRecord, WorkerRecord};
use crate::refusal::Refusal;

/// Something to do. The driver does all `Persist` of a step in one transaction before any other effect of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write this down, durably.
    Persist(Write),
    /// Tell whoever asked that it is not done, and why. Then nothing else is to be done in this step.
    Refuse(Refusal),
    /// Tell a worker. Lost when the worker is away: its next join says what it holds.
    Send {
        /// Whom.
        worker: WorkerId,
        /// What.
        command: Command,
    },
    /// A worker counts as dead: end its session, so that it learns so and joins again if it lives.
    CloseSession {
        /// Whose.
        worker: WorkerId,
    },
    /// Do this in artifact storage, in the background.
    Chore(Chore),
    /// A job looks different now.
    Notify {
        /// Which.
        job: JobId,
    },
    /// Count this.
    Metric(Metric),
}

/// What is to be done about the files of a job that has ended. Doing it twice does no harm.
#[derive(Debug, Clone, PartialEq)]
pub enum Chore {
    /// It holds no slot any more: write its result where people look for it, and remove what only its work needed. Then
    /// [`crate::Event::TidiedUp`].
    TidyUp {
        /// Which.
        job: JobId,
    },
    /// It is forgotten: remove everything it has. Then [`crate::Event::Erased`].
    Erase {
        /// Which.
        job: JobId,
    },
}

/// Something to write down.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// A job, without its shards.
    Job(Box<JobRecord>),
    /// A shard that is done.
    Shard {
        /// The job.
        job: JobId,
        /// The phase.
        phase: Phase,
        /// Which shard.
        shard: ShardIndex,
        /// What it gave.
        output: Box<TaskOutput>,
    },
    /// The shards of a job that has ended: none is kept.
    ForgetShards {
        /// The job.
        job: JobId,
    },
    /// A job is forgotten, all but its name: its artifacts are still there.
    ForgetJob {
        /// The job.
        job: JobId,
    },
    /// Its artifacts are gone too.
    Erased {
        /// The job.
        job: JobId,
    },
    /// What operators and failures have decided about a worker.
    Worker(Box<WorkerRecord>),
    /// Nothing is decided about a worker any more.
    ForgetWorker {
        /// Which.
        worker: WorkerId,
    },
}

/// Something to tell a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Work on this.
    Start {
        /// Where.
        slot: SlotIndex,
        /// The job's spec and the task; the driver adds the artifact root.
        assignment: Box<Assignment>,
    },
    /// Stop working on this; the slot counts as busy until it says that it has.
    Stop {
        /// Where.
        slot: SlotIndex,
        /// On what.
        lease: LeaseId,
    },
    /// The gang's members change: end this rank's lease at the next step boundary.
    Yield {
        /// Where.
        slot: SlotIndex,
        /// Which.
        lease: LeaseId,
        /// Rank 0 writes a checkpoint first.
        save: bool,
    },
    /// The outcome is safe: forget it.
    Ack {
        /// Of what.
        lease: LeaseId,
    },
}

/// Something to count.
#[derive(Debug, Clone, PartialEq)]
pub enum Metric {
    /// A job was accepted.
    JobSubmitted,
    /// A job ended.
    JobFinished {
        /// How.
        state: JobState,
    },
    /// A phase ended.
    PhaseFinished {
        /// Which.
        phase: Phase,
        /// How long it took.
        seconds: f64,
    },
    /// A lease was granted.
    LeaseGranted {
        /// In which phase.
        phase: Phase,
    },
    /// A lease came back.
    LeaseFinished {
        /// In which phase.
        phase: Phase,
        /// Seconds since the grant.
        seconds: f64,
        /// Whether it gave a result.
        success: bool,
    },
    /// A lease was taken back for want of progress.
    LeaseExpired {
        /// In which phase.
        phase: Phase,
    },
    /// A result came for a shard that was done already, or that nobody waits for.
    LateResult {
        /// In which phase.
        phase: Phase,
    },
    /// A shard that is out for long was given to a second slot too.
    LeaseDuplicated {
        /// In which phase.
        phase: Phase,
    },
    /// A worker is dead.
    WorkerLost,
    /// A slot gets no more work, by its failures or its canary.
    SlotQuarantined,
    /// A gang was formed.
    GangFormed {
        /// How many slots.
        world: u32,
    },
    /// A gang was asked to yield.
    GangYielded,
    /// A gang made its first step after the generation before it ended.
    GangRecovered {
        /// Seconds since that end.
        seconds: f64,
    },
}
