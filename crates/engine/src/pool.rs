//! Which slots may get work, and which of them are free: kept up to date slot by slot, so that a grant costs the same in a
//! fleet of ten and of ten thousand.
//!
//! Not here: who gets them (planner, grant).

use std::collections::{BTreeMap, BTreeSet};

use lethe_domain::{SlotRef, WorkerId};

use crate::State;
use crate::planner::Slots;
use crate::state::slots_of;

/// The slots of the fleet that may get work.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// Each with whether it has a GPU.
    usable: BTreeMap<SlotRef, bool>,
    fleet: Slots,
    free_cpu: BTreeSet<SlotRef>,
    free_cuda: BTreeSet<SlotRef>,
}

impl Pool {
    /// Slots that may get work, busy or not.
    pub(crate) fn fleet(&self) -> Slots {
        self.fleet
    }

    /// Those of them that are free.
    pub(crate) fn free(&self) -> Slots {
        Slots { cpu: self.free_cpu.len() as u32, cuda: self.free_cuda.len() as u32 }
    }

    /// Free slots of a kind, in order.
    pub(crate) fn free_slots(&self, cuda: bool) -> impl Iterator<Item = &SlotRef> {
        if cuda { self.free_cuda.iter() } else { self.free_cpu.iter() }
    }

    /// True when that changes anything.
    fn set(&mut self, at: &SlotRef, usable: Option<bool>, free: bool) -> bool {
        let was_free = self.free_cpu.contains(at) || self.free_cuda.contains(at);
        let before = match usable {
            Some(cuda) => self.usable.insert(at.clone(), cuda),
            None => self.usable.remove(at),
        };
        let count = |fleet: &mut Slots, cuda: bool, by: i64| {
            let kind = if cuda { &mut fleet.cuda } else { &mut fleet.cpu };
            *kind = kind.saturating_add_signed(by as i32);
        };
        if let Some(cuda) = before {
            count(&mut self.fleet, cuda, -1);
        }
        if let Some(cuda) = usable {
            count(&mut self.fleet, cuda, 1);
        }
        for (set, cuda) in [(&mut self.free_cpu, false), (&mut self.free_cuda, true)] {
            if free && usable == Some(cuda) {
                set.insert(at.clone());
            } else {
                set.remove(at);
            }
        }
        before != usable || was_free != (free && usable.is_some())
    }
}

impl State {
    /// Looks again at whether a slot may get work, and whether it is free.
    pub(crate) fn refresh_slot(&mut self, at: &SlotRef) {
        let usable = self.may_work(at);
        let free = self.slot(at).is_some_and(|slot| slot.lease.is_none());
        self.stale |= self.pool.set(at, usable, free);
        self.changed.workers.insert(at.worker.clone());
    }

    /// The same for every slot of a worker, and for those it had before.
    pub(crate) fn refresh_worker(&mut self, id: &WorkerId, had: usize) {
        let count = self.workers.get(id).map_or(0, |worker| worker.slots.len()).max(had);
        slots_of(id, count).for_each(|slot| self.refresh_slot(&slot));
    }

    /// Whether a slot may get work, and if so whether it has a GPU.
    fn may_work(&self, at: &SlotRef) -> Option<bool> {
        let worker = self.workers.get(&at.worker)?;
        let slot = worker.slots.get(at.slot.0 as usize)?;
        let marked = self.cordons.get(&at.worker).is_some_and(|mark| {
            mark.draining || mark.quarantine.is_some() || mark.slots.contains_key(&at.slot)
        });
        let able = slot.proven && !worker.suspect && !worker.leaving && !marked;
        able.then(|| slot.has_gpu())
    }
}
