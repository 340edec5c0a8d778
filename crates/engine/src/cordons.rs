//! What is decided about workers: drained, quarantined, released. By operators, and by failures that happen on one slot alone.
//!
//! Not here: canaries (`fleet`), which nobody's word can mend.

use lethe_domain::{Shape, SlotIndex, SlotRef, WorkerId, WorkerOrder};

use crate::record::WorkerRecord;
use crate::{Effect, Metric, State, Write};

impl State {
    /// An operator wants something of a worker.
    pub(crate) fn on_order(&mut self, id: &WorkerId, order: WorkerOrder, effects: &mut Vec<Effect>) {
        let now = self.now.unix_ms;
        let mark = self.cordons.entry(id.clone()).or_insert_with(|| WorkerRecord::new(id.clone(), now));
        let before = mark.clone();
        match order.clone() {
            WorkerOrder::Drain => mark.draining = true,
            WorkerOrder::Quarantine { slot: None, reason } => mark.quarantine = Some(reason),
            WorkerOrder::Quarantine { slot: Some(slot), reason } => drop(mark.slots.insert(slot, reason)),
            WorkerOrder::Release { slot: None } => *mark = WorkerRecord::new(id.clone(), before.seen_unix_ms),
            WorkerOrder::Release { slot: Some(slot) } => drop(mark.slots.remove(&slot)),
        }
        let barred = match &order {
            _ if *mark == before => 0,
            WorkerOrder::Quarantine { slot: Some(_), .. } => 1,
            WorkerOrder::Quarantine { slot: None, .. } => {
                self.workers.get(id).map_or(0, |worker| worker.slots.len())
            }
            WorkerOrder::Drain | WorkerOrder::Release { .. } => 0,
        };
        effects.extend((0..barred).map(|_| Effect::Metric(Metric::SlotQuarantined)));
        let changed = *mark != before;
        if mark.decides_nothing() {
            self.cordons.remove(id);
            if changed {
                effects.push(Effect::Persist(Write::ForgetWorker { worker: id.clone() }));
            }
        } else if changed {
            mark.seen_unix_ms = now;
            effects.push(Effect::Persist(Write::Worker(Box::new(mark.clone()))));
        }
        self.refresh_worker(id, 0);
        self.take_back_cordoned(id, effects);
        self.yield_cordoned(id, effects);
    }

    /// Takes the leases off slots that are quarantined, to be granted elsewhere. Those of a gang yield instead.
    fn take_back_cordoned(&mut self, id: &WorkerId, effects: &mut Vec<Effect>) {
        let Some(mark) = self.cordons.get(id) else { return };
        let (all, some) = (mark.quarantine.is_some(), mark.slots.clone());
        for lease in self.leases_on(id) {
            let Some(held) = self.leases.get(&lease) else { continue };
            let marked = all || some.contains_key(&held.slot.slot);
            if marked && lease.phase.shape() != Shape::Gang && !held.stopping {
                self.take_back(&lease, effects);
            }
        }
    }

    /// Why releasing a slot, or a whole worker, would change nothing; none when it would, or nothing is to be changed.
    pub(crate) fn release_is_vain(&self, id: &WorkerId, slot: Option<SlotIndex>) -> Option<String> {
        let mark = self.cordons.get(id);
        let marked = mark.is_some_and(|mark| match slot {
            None => mark.draining || mark.quarantine.is_some() || !mark.slots.is_empty(),
            Some(slot) => mark.slots.contains_key(&slot),
        });
        if marked {
            return None;
        }
        let worker = self.workers.get(id)?;
        let mut slots = (0..).map(SlotIndex).zip(&worker.slots);
        let faulty = slots.find(|(at, state)| slot.is_none_or(|slot| slot == *at) && state.fault.is_some());
        if let Some((at, state)) = faulty {
            let fault = state.fault.as_deref().unwrap_or_default();
            return Some(format!(
                "nobody quarantined slot {id}/{at}, {fault}; when that is mended, start the worker again: a right canary releases it"
            ));
        }
        if worker.leaving {
            return Some(format!("worker {id} is about to leave by itself: start it again"));
        }
        let mark = mark.filter(|_| slot.is_some())?;
        let what = if mark.draining { "drained" } else { "quarantined" };
        let whole = mark.draining || mark.quarantine.is_some();
        whole.then(|| format!("the whole of worker {id} is {what}, not a slot of it: release the worker"))
    }

    /// A slot fails where others do not: enough of that, and it gets no more work.
    pub(crate) fn strike(&mut self, at: &SlotRef, strikes: u32, last: &str, effects: &mut Vec<Effect>) {
        let allowed = self.config.slot_strikes;
        let Some(slot) = self.slot_mut(at) else { return };
        slot.strikes += strikes;
        if slot.strikes < allowed {
            return;
        }
        slot.strikes = 0;
        let reason = format!(
            "what succeeded elsewhere failed here again and again, the last time: {last}; release it when it is mended"
        );
        let order = WorkerOrder::Quarantine { slot: Some(at.slot), reason };
        self.on_order(&at.worker, order, effects);
    }

    /// Why a slot gets no work.
    pub(crate) fn barred(&self, at: &SlotRef) -> Option<String> {
        let worker = self.workers.get(&at.worker)?;
        let slot = self.slot(at)?;
        let mark = self.cordons.get(&at.worker);
        if let Some(reason) = self.quarantine_of(at) {
            return Some(format!("is quarantined ({reason})"));
        }
        if worker.leaving || mark.is_some_and(|mark| mark.draining) {
            return Some("is being drained".to_owned());
        }
        if worker.suspect {
            return Some("is suspect (its heartbeats are late)".to_owned());
        }
        (!slot.proven).then(|| "has no executor that is up yet".to_owned())
    }

    /// Why a slot is quarantined.
    pub(crate) fn quarantine_of(&self, at: &SlotRef) -> Option<String> {
        let mark = self.cordons.get(&at.worker);
        let marked =
            mark.and_then(|mark| mark.quarantine.clone().or_else(|| mark.slots.get(&at.slot).cloned()));
        marked.or_else(|| self.slot(at)?.fault.clone())
    }
}
