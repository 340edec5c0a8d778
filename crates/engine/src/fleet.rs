//! Workers: joining, living, being told what to do, leaving.
//!
//! Not here: leases that come back from them (`returns`), what is decided about them (`cordons`), what people see of them
//! (`status`).

use lethe_domain::{HeldLease, LeaseId, Progress, SlotIndex, SlotRef, SlotReport, WorkerId, canary};

use crate::event::Introduction;
use crate::state::{Dead, Slot, Work, Worker};
use crate::{Command, Effect, Metric, State};

/// Dead workers shown, the newest ones.
const DEAD_SHOWN: usize = 100;

impl State {
    /// A worker joins, or joins again after its session broke.
    pub(crate) fn on_joined(&mut self, id: &WorkerId, intro: Introduction, effects: &mut Vec<Effect>) {
        let held = |lease: &LeaseId| intro.held.iter().any(|held| &held.lease == lease);
        for lease in self.leases_on(id).iter().filter(|lease| !held(lease)) {
            self.lose_lease(lease, id, effects);
        }
        self.dead.remove(id);
        let before = self.workers.remove(id);
        let had = before.as_ref().map_or(0, |worker| worker.slots.len());
        let reports = |slot: usize| intro.reports.iter().find(|(at, _)| at.0 as usize == slot);
        let slots = intro.devices.into_iter().enumerate().map(|(index, device)| {
            let known = before.as_ref().and_then(|worker| worker.slots.get(index));
            let mut slot = Slot {
                device,
                lease: None,
                proven: false,
                fault: None,
                strikes: known.map_or(0, |slot| slot.strikes),
                speed: known.map_or(0.0, |slot| slot.speed),
            };
            if let Some((_, report)) = reports(index) {
                slot.take_report(report);
            }
            slot
        });
        let worker = Worker {
            hostname: intro.hostname,
            version: intro.version,
            incarnation: intro.incarnation,
            came_with_leases: !intro.held.is_empty(),
            last_seen_ms: self.now.mono_ms,
            suspect: false,
            leaving: false,
            slots: slots.collect(),
        };
        let faults = worker.slots.iter().filter(|slot| slot.fault.is_some()).count();
        self.workers.insert(id.clone(), worker);
        self.wake(self.now.mono_ms + self.config.suspect_after_ms);
        effects.extend((0..faults).map(|_| Effect::Metric(Metric::SlotQuarantined)));
        self.place_held(id, intro.held, effects);
        self.refresh_worker(id, had);
        self.yield_cordoned(id, effects);
    }

    /// What a worker that joins still holds: known leases stay, others are taken over or stopped.
    fn place_held(&mut self, id: &WorkerId, held: Vec<HeldLease>, effects: &mut Vec<Effect>) {
        let place = |slot| SlotRef { worker: id.clone(), slot };
        let (known, unknown): (Vec<_>, Vec<_>) = held.into_iter().partition(|held| {
            self.leases.get(&held.lease).is_some_and(|known| known.slot == place(held.slot))
        });
        // What is known first: a slot may also name an older lease whose acknowledgement was lost.
        for HeldLease { slot, lease, .. } in known {
            self.repeat_word(&lease, effects);
            if let Some(slot) = self.slot_mut(&place(slot)) {
                slot.lease = Some(lease);
            }
        }
        for HeldLease { slot, lease, shards } in unknown {
            self.take_over(lease, shards, place(slot), effects);
        }
    }

    /// Says again that a lease is to stop or to yield: the word may have been lost.
    fn repeat_word(&self, lease: &LeaseId, effects: &mut Vec<Effect>) {
        let Some(held) = self.leases.get(lease) else { return };
        let slot = held.slot.slot;
        let command = match held.yielding {
            _ if held.stopping => Command::Stop { slot, lease: lease.clone() },
            Some(save) => Command::Yield { slot, lease: lease.clone(), save },
            None => return,
        };
        effects.push(Effect::Send { worker: held.slot.worker.clone(), command });
    }

    /// A worker holds a lease that this state does not know: adopt it, or have it stopped.
    fn take_over(&mut self, lease: LeaseId, shards: u32, at: SlotRef, effects: &mut Vec<Effect>) {
        let now = self.now.mono_ms;
        let twin = self.leases.contains_key(&lease);
        let free = self.slot(&at).is_some_and(|slot| slot.lease.is_none());
        let stop = Command::Stop { slot: at.slot, lease: lease.clone() };
        let stop = Effect::Send { worker: at.worker.clone(), command: stop };
        if !free || twin {
            return effects.push(stop);
        }
        let adopted = match self.jobs.get_mut(&lease.job) {
            Some(job) if job.record.phase == lease.phase => match &mut job.work {
                Work::Leases(work) => work.adopt(lease.shard, shards, lease.attempt, now),
                Work::Gang(work) => u32::from(work.claim(&lease, &at)),
                Work::None => 0,
            },
            Some(_) | None => 0,
        };
        self.occupy(lease.clone(), adopted.max(1), at);
        if adopted > 0 {
            return;
        }
        if let Some(held) = self.leases.get_mut(&lease) {
            held.stopping = true;
        }
        effects.push(stop);
    }

    /// A worker was heard from at this time.
    pub(crate) fn hear(&mut self, id: &WorkerId, at_ms: u64) {
        let late = self.now.mono_ms.saturating_sub(self.config.suspect_after_ms);
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.last_seen_ms = worker.last_seen_ms.max(at_ms);
        if worker.suspect && worker.last_seen_ms > late {
            worker.suspect = false;
            let slots = worker.slots.len();
            self.refresh_worker(id, slots);
        }
    }

    /// A worker is alive, and this is how far its slots are.
    pub(crate) fn on_heartbeat(
        &mut self,
        id: &WorkerId,
        heard_ms: u64,
        progress: Vec<(SlotIndex, Progress)>,
        effects: &mut Vec<Effect>,
    ) {
        if !self.workers.contains_key(id) {
            return;
        }
        self.hear(id, heard_ms);
        for (at, progress) in progress {
            self.on_progress(SlotRef { worker: id.clone(), slot: at }, progress, effects);
        }
    }

    fn on_progress(&mut self, at: SlotRef, progress: Progress, effects: &mut Vec<Effect>) {
        let deadline = self.now.mono_ms + self.config.lease_ms;
        let id = progress.lease.clone();
        match self.leases.get_mut(&id).filter(|lease| lease.slot == at) {
            // Nobody wants it any more, and the word did not arrive: a heartbeat brings it back.
            None => {
                let command = Command::Stop { slot: at.slot, lease: id };
                return effects.push(Effect::Send { worker: at.worker, command });
            }
            Some(lease) => {
                let moved = lease.progress.as_ref().is_none_or(|before| before.done != progress.done);
                if moved && !lease.stopping {
                    lease.deadline_ms = deadline;
                }
                if !moved {
                    return self.repeat_word(&id, effects);
                }
                lease.progress = Some(progress.clone());
            }
        }
        self.repeat_word(&id, effects);
        let now = self.now.mono_ms;
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        if let Work::Gang(work) = &mut job.work
            && let Some(seconds) = work.progress(&id, progress.done, now)
        {
            effects.push(Effect::Metric(Metric::GangRecovered { seconds }));
        }
        job.touch();
        self.changed.progress.insert(id.job);
    }

    /// An executor is up, or gone.
    pub(crate) fn on_slot_changed(
        &mut self,
        at: &SlotRef,
        report: Option<&SlotReport>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(slot) = self.slot_mut(at) else { return };
        match report {
            None => slot.proven = false,
            Some(report) => {
                slot.take_report(report);
                if slot.fault.is_some() {
                    effects.push(Effect::Metric(Metric::SlotQuarantined));
                }
            }
        }
        self.refresh_slot(at);
    }

    /// A worker is about to leave.
    pub(crate) fn on_draining(&mut self, id: &WorkerId, effects: &mut Vec<Effect>) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.leaving = true;
        let had = worker.slots.len();
        self.refresh_worker(id, had);
        self.yield_cordoned(id, effects);
    }

    /// A worker is gone: everything it held is granted again.
    pub(crate) fn lose_worker(&mut self, id: &WorkerId, effects: &mut Vec<Effect>) {
        for lease in self.leases_on(id) {
            self.lose_lease(&lease, id, effects);
        }
        let had = self.workers.remove(id).map_or(0, |worker| worker.slots.len());
        self.refresh_worker(id, had);
    }

    /// Marks workers whose heartbeats are late, and buries those that are silent.
    pub(crate) fn watch_heartbeats(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now.mono_ms;
        let (late, silent) = (self.config.suspect_after_ms, self.config.dead_after_ms);
        let mut suspects = Vec::new();
        let mut dead = Vec::new();
        for (id, worker) in &mut self.workers {
            if worker.last_seen_ms + silent <= now {
                dead.push(id.clone());
            } else if worker.last_seen_ms + late <= now && !worker.suspect {
                worker.suspect = true;
                suspects.push((id.clone(), worker.slots.len()));
            }
        }
        suspects.iter().for_each(|(id, slots)| self.refresh_worker(id, *slots));
        for id in dead {
            effects.push(Effect::Metric(Metric::WorkerLost));
            effects.push(Effect::CloseSession { worker: id.clone() });
            for lease in self.leases_on(&id) {
                self.lose_lease(&lease, &id, effects);
            }
            if let Some(worker) = self.workers.remove(&id) {
                self.refresh_worker(&id, worker.slots.len());
                self.dead.insert(id, Dead { worker, at_ms: now });
            }
        }
        while self.dead.len() > DEAD_SHOWN
            && let Some(oldest) =
                self.dead.iter().min_by_key(|(_, dead)| dead.at_ms).map(|(id, _)| id.clone())
        {
            self.dead.remove(&oldest);
            self.changed.workers.insert(oldest);
        }
    }
}

impl Slot {
    /// Whether its device is a GPU ("cuda:1"), not the CPU.
    pub(crate) fn has_gpu(&self) -> bool {
        self.device.starts_with("cuda")
    }

    /// Believes an executor if its canary is as it should be.
    fn take_report(&mut self, report: &SlotReport) {
        self.fault = canary::check(&report.canary).err().map(|found| {
            format!("its canary is wrong: {found} (torch {}); check libtorch and the device", report.torch)
        });
        self.proven = self.fault.is_none();
    }
}
