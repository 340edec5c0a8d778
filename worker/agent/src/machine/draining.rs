//! The time before the end: no more work, while what there is ends by itself or is taken back by the coordinator.
//!
//! Not here: what happens when it is over (`leaving`).

use lethe_proto::session::WorkerEvent;

use super::{Effect, Machine, Now, indexed};

impl Machine {
    pub(super) fn on_drain(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.is_retiring() {
            return;
        }
        if self.patience.drain.is_zero() {
            return self.on_leave(now, effects);
        }
        self.draining = Some(now.at + self.patience.drain);
        if self.session.is_some() {
            effects.push(Effect::Send(WorkerEvent::Draining));
        }
        // No executor is started any more: what waits for one would wait in vain.
        let waiting: Vec<_> = indexed(&self.slots)
            .filter_map(|(at, slot)| {
                slot.work.as_ref().filter(|work| work.untold.is_some()).map(|work| (at, work))
            })
            .map(|(at, work)| (at, work.lease.clone()))
            .collect();
        for (at, lease) in waiting {
            self.hand_back(now, at, lease);
        }
    }

    /// Leaves when nothing is left to do and to say, or when patience is over.
    pub(super) fn attend_drain(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Some(until) = self.draining else { return };
        let over = self.outbox.len() == 0 && self.slots.iter().all(|slot| slot.work.is_none());
        if over || until <= now.at {
            self.on_leave(now, effects);
        }
    }

    /// Whether no more work is taken.
    pub(super) fn is_retiring(&self) -> bool {
        self.draining.is_some() || self.leaving.is_some()
    }
}
