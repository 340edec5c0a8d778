//! Which executors are up, and what the coordinator has been told of it.
//!
//! The two are compared after every step, so that no order of events leaves the coordinator with a slot that counts as up
//! and is not. It hears of each executor: one that was replaced while there was no session is gone first, then the next is
//! up with a report of its own.

use lethe_proto::session::WorkerEvent;

use super::slot::Process;
use super::{Effect, Introduction, Machine, indexed, indexed_mut};

/// What the coordinator has been told of a slot, in the newest registration and since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Belief {
    /// There is no executor that is ready.
    #[default]
    Down,
    /// The one that is ready is up.
    Up,
    /// One is up that is not any more.
    Outdated,
}

impl Machine {
    /// What to say when joining. From now on it counts as said.
    pub(crate) fn introduce(&mut self) -> Introduction {
        for slot in &mut self.slots {
            slot.belief = if slot.report.is_some() { Belief::Up } else { Belief::Down };
        }
        let reports = indexed(&self.slots).filter_map(|(at, slot)| Some((at, slot.report.clone()?)));
        Introduction { held: self.held(), reports: reports.collect() }
    }

    /// Says what has changed.
    pub(super) fn attend_presence(&mut self, effects: &mut Vec<Effect>) {
        for (slot, state) in indexed_mut(&mut self.slots) {
            if state.process != Process::Ready && state.report.take().is_some() && state.belief == Belief::Up
            {
                state.belief = Belief::Outdated;
            }
            if self.session.is_none() {
                continue;
            }
            if state.belief == Belief::Outdated {
                state.belief = Belief::Down;
                effects.push(Effect::Send(WorkerEvent::SlotChanged { slot, report: None }));
            }
            if state.belief == Belief::Down && state.report.is_some() {
                state.belief = Belief::Up;
                let report = state.report.clone();
                effects.push(Effect::Send(WorkerEvent::SlotChanged { slot, report }));
            }
        }
    }
}
