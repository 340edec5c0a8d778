//! Jobs and workers as facts that stay right while time passes: what a driver hands out for others to read, without the
//! state. Who reads brings the time, and what the fleet looks like then.
//!
//! Not here: the facts themselves (`status`, `explain`), words about waiting (`waits`).

use std::collections::BTreeSet;

use lethe_domain::{Explanation, JobId, JobStatus, PhaseState, WorkerId, WorkerState, WorkerStatus};

use crate::waits::Waits;
use crate::{Now, State};

/// What looks different since somebody looked.
#[derive(Debug, Default)]
pub struct Changed {
    /// Jobs, whether they are still there or not.
    pub jobs: BTreeSet<JobId>,
    /// Jobs that have only come further. There may be thousands of such changes a second: show them when it suits.
    pub progress: BTreeSet<JobId>,
    /// Workers, whether they are still there or not.
    pub workers: BTreeSet<WorkerId>,
}

/// A job at one moment.
#[derive(Debug, Clone)]
pub struct JobSnapshot {
    pub(crate) at: Now,
    /// As it was then, without why it waits.
    pub(crate) status: JobStatus,
    pub(crate) waits: Waits,
}

/// The fleet in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FleetSnapshot {
    /// Slots of all workers that have joined.
    pub slots: u32,
    /// Those of them that may get work, busy or not.
    pub usable: u32,
}

/// A worker at one moment.
#[derive(Debug, Clone)]
pub struct WorkerSnapshot {
    /// As it is while it is heard from.
    pub(crate) status: WorkerStatus,
    /// When it was last heard from, as far as the state knows.
    pub(crate) last_seen_ms: u64,
    pub(crate) suspect_after_ms: u64,
}

impl JobSnapshot {
    /// The job as people see it now.
    pub fn status(&self, now: Now, fleet: FleetSnapshot) -> JobStatus {
        let passed = now.unix_ms.saturating_sub(self.at.unix_ms) as f64 / 1000.0;
        let mut status = self.status.clone();
        let running = status.phases.iter_mut().filter(|phase| phase.state == PhaseState::Running);
        running.for_each(|phase| phase.seconds += passed);
        status.waiting = self.waits.in_a_word(now, fleet);
        status
    }

    /// The job as it was at that moment, without why it waits: for who cannot know the fleet.
    pub fn written(&self) -> &JobStatus {
        &self.status
    }

    /// What of the job waits now, and why; empty when nothing does.
    pub fn explain<'a>(
        &self,
        now: Now,
        workers: impl IntoIterator<Item = &'a WorkerStatus>,
    ) -> Vec<Explanation> {
        self.waits.in_words(now, workers)
    }
}

impl WorkerSnapshot {
    /// The worker as people see it now. `heard_ms` is when it was last heard from, where somebody knows better than the
    /// state.
    pub fn status(&self, now: Now, heard_ms: Option<u64>) -> WorkerStatus {
        let heard = heard_ms.unwrap_or_default().max(self.last_seen_ms);
        let age = now.mono_ms.saturating_sub(heard);
        let mut status = WorkerStatus { heartbeat_age_ms: age, ..self.status.clone() };
        if age >= self.suspect_after_ms && status.state != WorkerState::Dead {
            (status.state, status.reason) = (WorkerState::Suspect, None);
        }
        status
    }
}

impl State {
    /// What looks different since this was last asked.
    pub fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    /// The fleet in numbers.
    pub fn fleet_snapshot(&self) -> FleetSnapshot {
        let slots = self.workers.values().map(|worker| worker.slots.len() as u32).sum();
        FleetSnapshot { slots, usable: self.pool.fleet().sum() }
    }
}
