//! The end: stop what runs, wait for the executors to be gone, say what is left to say.

use std::time::Instant;

use lethe_proto::executor::ExecutorCommand;

use super::executors::kill;
use super::slot::{KillReason, Process, Stop};
use super::{Effect, Machine, Now, indexed_mut};

/// The agent is about to end.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Every executor is gone; the last outcomes are waited for until then.
    pub(super) farewell: Option<Instant>,
    /// `Effect::End` was given.
    ended: bool,
}

impl Machine {
    pub(super) fn on_leave(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.leaving.is_some() {
            return;
        }
        self.leaving = Some(Leaving::default());
        let by = now.at + self.patience.leave;
        for (at, slot) in indexed_mut(&mut self.slots) {
            slot.work.take_if(|work| work.untold.is_some());
            match (slot.process, &mut slot.work) {
                (Process::Ready, Some(work)) => match &mut work.stop {
                    Some(stop) => stop.by = stop.by.min(by),
                    None => {
                        work.stop = Some(Stop { by, asked: false });
                        effects.push(Effect::Tell(at, ExecutorCommand::Stop(work.lease.clone())));
                    }
                },
                // It has nothing to lose: what it wrote is whole or absent whenever it ends.
                (Process::Ready, None) | (Process::Starting { .. }, _) => {
                    kill(slot, at, KillReason::Leave, effects);
                }
                (Process::Absent { .. } | Process::Doomed(_), _) => {}
            }
        }
    }

    /// Ends once every executor is gone and every outcome is acknowledged, or not worth waiting for any longer.
    pub(super) fn attend_end(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Some(leaving) = &mut self.leaving else { return };
        let gone = self.slots.iter().all(|slot| matches!(slot.process, Process::Absent { .. }));
        if leaving.ended || !gone {
            return;
        }
        let farewell = *leaving.farewell.get_or_insert(now.at + self.patience.farewell);
        if self.session.is_none() || self.outbox.len() == 0 || farewell <= now.at {
            leaving.ended = true;
            effects.push(Effect::End);
        }
    }
}
