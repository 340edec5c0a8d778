//! A slot: the executor's life on one hand, the work on the other.
//!
//! The two are apart because either may outlive the other: a lease granted while the executor restarts waits for it, and
//! an executor that was killed because it did not stop may be on its way out while the next lease is already there.

use std::time::{Duration, Instant};

use lethe_domain::{Assignment, LeaseId, Progress, SlotReport};

use super::presence::Belief;
use crate::status::{Activity, SlotView};

/// Pause before the second restart in a row; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause between restarts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A device of this worker.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) device: String,
    pub(super) process: Process,
    /// What the executor that is ready says of itself.
    pub(super) report: Option<SlotReport>,
    /// What the coordinator has been told of it.
    pub(super) belief: Belief,
    pub(super) work: Option<Work>,
    /// Whether an executor has ever been ready here.
    pub(super) proven: bool,
    /// Deaths since a lease ended here.
    pub(super) strikes: u32,
}

/// The executor of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    /// There is none. The next is started then.
    Absent { start_at: Instant },
    /// Started; killed when it is not ready by then.
    Starting { ready_by: Instant },
    /// Ready: it works when there is work, else it waits.
    Ready,
    /// Killed; its death has not been seen yet.
    Doomed(KillReason),
}

/// Why an executor was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KillReason {
    DidNotStart,
    DidNotStop,
    Leave,
}

/// A lease of this slot.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) lease: LeaseId,
    /// Shards in a row that it covers.
    pub(super) shards: u32,
    /// What to tell the executor once it is ready; none when it has been told.
    pub(super) untold: Option<Box<Assignment>>,
    /// What the executor said last.
    pub(super) progress: Option<Progress>,
    /// The rendezvous store that rank 0 opened: said again in each session.
    pub(super) store: Option<String>,
    /// It was told to end at the next step boundary, and whether to save.
    pub(super) yielding: Option<bool>,
    /// It was told to stop.
    pub(super) stop: Option<Stop>,
}

/// An executor was told to end a lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    /// It is killed then.
    pub(super) by: Instant,
    /// The coordinator asked for it and waits for the outcome. Otherwise the agent leaves on its own account, and its
    /// leaving says all there is to say: a `Cancelled` would count as a failed try.
    pub(super) asked: bool,
}

impl Slot {
    pub(super) fn new(device: String, start_at: Instant) -> Self {
        Self {
            device,
            process: Process::Absent { start_at },
            report: None,
            belief: Belief::default(),
            work: None,
            proven: false,
            strikes: 0,
        }
    }

    /// The lease this slot works on, or will.
    pub(super) fn lease(&self) -> Option<&LeaseId> {
        self.work.as_ref().map(|work| &work.lease)
    }

    /// The work, if it is this lease.
    pub(super) fn work_on(&mut self, lease: &LeaseId) -> Option<&mut Work> {
        self.work.as_mut().filter(|work| &work.lease == lease)
    }

    /// How long to wait before the next restart: not at all after the first death in a row.
    pub(super) fn pause(&self) -> Duration {
        match self.strikes.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => (FIRST_PAUSE * 2_u32.pow(doublings.min(10))).min(LONGEST_PAUSE),
        }
    }

    /// When this slot needs attention if nothing else happens.
    pub(super) fn next_deadline(&self, retiring: bool) -> Option<Instant> {
        match self.process {
            Process::Absent { start_at } => (!retiring).then_some(start_at),
            Process::Starting { ready_by } => Some(ready_by),
            Process::Ready => self.work.as_ref().and_then(|work| work.stop).map(|stop| stop.by),
            Process::Doomed(_) => None,
        }
    }

    pub(super) fn view(&self) -> SlotView {
        let stopping = self.work.as_ref().is_some_and(|work| work.stop.is_some() || work.yielding.is_some());
        let activity = match self.process {
            Process::Absent { .. } | Process::Starting { .. } => Activity::Starting,
            Process::Doomed(_) => Activity::Stopping,
            Process::Ready if stopping => Activity::Stopping,
            Process::Ready if self.work.is_some() => Activity::Busy,
            Process::Ready => Activity::Idle,
        };
        SlotView { device: self.device.clone(), activity, lease: self.lease().cloned() }
    }
}

impl Work {
    pub(super) fn new(assignment: Box<Assignment>) -> Self {
        let (lease, shards) = (assignment.lease.clone(), assignment.shards());
        Self {
            lease,
            shards,
            untold: Some(assignment),
            progress: None,
            store: None,
            yielding: None,
            stop: None,
        }
    }
}
