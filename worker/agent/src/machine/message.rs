//! Everything that can happen to the machine, and everything it can want done.

use std::time::{Duration, Instant};

use lethe_domain::{Epoch, HeldLease, SlotIndex, SlotReport};
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};
use lethe_proto::session::{WorkerCommand, WorkerEvent};

use crate::death::Death;

/// The time, as the driver read it just before the step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    /// Milliseconds since 1970, for people.
    pub(crate) unix_ms: u64,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A session began.
    Joined { epoch: Epoch, heartbeat: Duration },
    /// The session is over.
    Parted,
    /// The coordinator wants something.
    Command(WorkerCommand),
    /// The executor of a slot says something.
    Executor(SlotIndex, ExecutorEvent),
    /// The executor of a slot is dead and waited for, or could not be started. Its last event of this incarnation.
    Died(SlotIndex, Death),
    /// The agent is to end once its work is over, or its patience.
    Drain,
    /// The agent is to end.
    Leave,
    /// Time has passed: see `Machine::next_deadline`.
    Tick,
}

/// What the machine says when it joins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Introduction {
    /// Leases at work, and those that are over and not acknowledged.
    pub(crate) held: Vec<HeldLease>,
    /// Slots whose executor is ready.
    pub(crate) reports: Vec<(SlotIndex, SlotReport)>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Every slot has shown that its executor starts: begin sessions. Once.
    Join,
    /// Tell the coordinator. Lost when the session breaks; what must not be lost is said again in the next one.
    Send(WorkerEvent),
    /// Coordinator and agent disagree about who does what: begin another session, which settles it.
    Rejoin,
    /// Start an executor.
    Start(SlotIndex),
    /// Tell an executor that is ready.
    Tell(SlotIndex, ExecutorCommand),
    /// kill -9. `Event::Died` follows.
    Kill(SlotIndex),
    /// An executor has never been ready and will not be: leave, and say so.
    GiveUp(SlotIndex, Death),
    /// Every executor is gone and nothing is left to say: end.
    End,
}
