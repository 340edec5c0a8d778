//! Workers: joining, living, leaving; and leases coming back from them.

use lethe_domain::{
    ErrorCode, Failure, JobId, JobState, LeaseId, Phase, Progress, SlotIndex, SlotRef, TaskOutput, WorkerId,
};

use crate::state::{Job, Slot, Work, Worker};
use crate::{Command, Effect, Metric, State};

/// What a worker says about itself when it joins.
pub(crate) struct Introduction {
    pub(crate) hostname: String,
    pub(crate) version: String,
    pub(crate) devices: Vec<String>,
    pub(crate) held: Vec<(SlotIndex, LeaseId)>,
}

/// Why a lease comes back without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// The shard may be at fault: the try counts.
    Shard,
    /// The worker went away: it does not.
    Worker,
}

impl State {
    /// A worker joins, or joins again after its session broke.
    pub(crate) fn on_joined(&mut self, id: &WorkerId, intro: Introduction, effects: &mut Vec<Effect>) {
        let held = |lease: &LeaseId| intro.held.iter().any(|(_, other)| other == lease);
        let forgotten: Vec<LeaseId> = self.leases_on(id).filter(|lease| !held(lease)).cloned().collect();
        for lease in forgotten {
            self.lose_lease(&lease, id, effects);
        }
        let slots = intro.devices.into_iter().map(|device| Slot { device, lease: None }).collect();
        let worker = Worker {
            hostname: intro.hostname,
            version: intro.version,
            last_seen_ms: self.now.mono_ms,
            slots,
        };
        self.workers.insert(id.clone(), worker);
        let places =
            intro.held.into_iter().map(|(slot, lease)| (SlotRef { worker: id.clone(), slot }, lease));
        let (known, unknown): (Vec<_>, Vec<_>) =
            places.partition(|(at, lease)| self.leases.get(lease).is_some_and(|held| &held.slot == at));
        // What is known first: a slot may also name an older lease whose acknowledgement was lost.
        for (at, lease) in known {
            // The word to stop may have been lost with the session before.
            if self.leases.get(&lease).is_some_and(|held| held.stopping) {
                let command = Command::Stop { slot: at.slot, lease: lease.clone() };
                effects.push(Effect::Send { worker: at.worker.clone(), command });
            }
            if let Some(slot) = self.slot_mut(&at) {
                slot.lease = Some(lease);
            }
        }
        for (at, lease) in unknown {
            self.take_over(lease, at, effects);
        }
    }

    /// A worker holds a lease that this state does not know: adopt it, or have it stopped.
    fn take_over(&mut self, lease: LeaseId, at: SlotRef, effects: &mut Vec<Effect>) {
        let twin = self.leases.contains_key(&lease);
        let free = self.slot_mut(&at).is_some_and(|slot| slot.lease.is_none());
        if !free || twin {
            let command = Command::Stop { slot: at.slot, lease };
            return effects.push(Effect::Send { worker: at.worker, command });
        }
        let wanted = match self.jobs.get_mut(&lease.job) {
            Some(job) if job.record.phase == lease.phase => match &mut job.work {
                Work::Leases(work) => work.adopt(lease.shard, lease.attempt),
                // The coordinator that formed this gang is gone, and with it what the ranks agreed on.
                Work::None | Work::Gang(_) => false,
            },
            Some(_) | None => false,
        };
        self.occupy(lease.clone(), at.clone());
        if wanted {
            return;
        }
        if let Some(held) = self.leases.get_mut(&lease) {
            held.stopping = true;
        }
        effects.push(Effect::Send { worker: at.worker, command: Command::Stop { slot: at.slot, lease } });
    }

    /// A worker is alive, and this is how far its slots are.
    pub(crate) fn on_heartbeat(
        &mut self,
        id: &WorkerId,
        progress: Vec<(SlotIndex, Progress)>,
        effects: &mut Vec<Effect>,
    ) {
        let now = self.now.mono_ms;
        let deadline = now + self.config.lease_ms;
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.last_seen_ms = now;
        for (_, progress) in progress {
            let Some(lease) = self.leases.get_mut(&progress.lease) else { continue };
            if &lease.slot.worker != id {
                continue;
            }
            let moved = lease.progress.as_ref().is_none_or(|before| before.done != progress.done);
            if !moved {
                continue;
            }
            if !lease.stopping {
                lease.deadline_ms = deadline;
            }
            let job_id = progress.lease.job.clone();
            let step = progress.done;
            lease.progress = Some(progress);
            let Some(job) = self.jobs.get_mut(&job_id) else { continue };
            if let Work::Gang(work) = &mut job.work {
                work.progress(step);
            }
            job.touch();
            effects.push(Effect::Notify { job: job_id });
        }
    }

    /// A worker is gone: everything it held is granted again.
    pub(crate) fn lose_worker(&mut self, id: &WorkerId, effects: &mut Vec<Effect>) {
        let held: Vec<LeaseId> = self.leases_on(id).cloned().collect();
        self.workers.remove(id);
        for lease in held {
            self.lose_lease(&lease, id, effects);
        }
    }

    /// A slot is done with a lease.
    pub(crate) fn on_finished(
        &mut self,
        at: &SlotRef,
        lease: &LeaseId,
        outcome: Result<Box<TaskOutput>, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        let ours = self.leases.get(lease).is_some_and(|held| &held.slot == at);
        let mut wanted = false;
        if ours && let Some(held) = self.release(lease) {
            // What was told to stop has been written off already, except that a gang waits for its ranks.
            wanted = !held.stopping || lease.phase == Phase::FineTune;
            let seconds = self.now.mono_ms.saturating_sub(held.granted_ms) as f64 / 1000.0;
            let success = outcome.is_ok();
            effects.push(Effect::Metric(Metric::LeaseFinished { phase: lease.phase, seconds, success }));
        }
        match outcome {
            Ok(output) => self.on_output(lease, *output, effects),
            Err(failure) if wanted => self.on_failure(lease, failure, Blame::Shard, effects),
            Err(_) => {}
        }
        effects
            .push(Effect::Send { worker: at.worker.clone(), command: Command::Ack { lease: lease.clone() } });
        self.settle_job(&lease.job, effects);
    }

    /// Time has passed: take back what made no progress, bury workers that are silent.
    pub(crate) fn on_tick(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now.mono_ms;
        let dead_after = self.config.dead_after_ms;
        let dead: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.last_seen_ms + dead_after <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in dead {
            effects.push(Effect::Metric(Metric::WorkerLost));
            effects.push(Effect::CloseSession { worker: id.clone() });
            self.lose_worker(&id, effects);
        }
        let expired: Vec<(LeaseId, SlotRef)> = self
            .leases
            .iter()
            .filter(|(_, lease)| !lease.stopping && lease.deadline_ms <= now)
            .map(|(id, lease)| (id.clone(), lease.slot.clone()))
            .collect();
        for (lease, slot) in expired {
            self.expire(&lease, &slot, effects);
        }
    }

    fn expire(&mut self, lease: &LeaseId, slot: &SlotRef, effects: &mut Vec<Effect>) {
        effects.push(Effect::Metric(Metric::LeaseExpired { phase: lease.phase }));
        let only = lease.clone();
        self.stop_leases(&lease.job, |other| *other == only, effects);
        let seconds = self.config.lease_ms / 1000;
        let failure = self.stamped(Failure::new(
            ErrorCode::LeaseExpired,
            format!("{lease} on {slot} made no progress for {seconds} s"),
            "look at the worker's log; a hung device needs a restart of its machine",
        ));
        self.on_failure(lease, failure, Blame::Shard, effects);
    }

    fn lose_lease(&mut self, lease: &LeaseId, worker: &WorkerId, effects: &mut Vec<Effect>) {
        let stopping = self.release(lease).is_none_or(|held| held.stopping);
        if !stopping || lease.phase == Phase::FineTune {
            let failure = self.stamped(Failure::new(
                ErrorCode::WorkerLost,
                format!("worker {worker} went away while it worked on {lease}"),
                "nothing to do: another slot takes over",
            ));
            self.on_failure(lease, failure, Blame::Worker, effects);
        }
        self.settle_job(&lease.job, effects);
    }

    /// A lease came back without a result.
    fn on_failure(&mut self, lease: &LeaseId, failure: Failure, blame: Blame, effects: &mut Vec<Effect>) {
        let config = self.config.clone();
        let now = self.now.mono_ms;
        let Some(job) = self.jobs.get_mut(&lease.job) else { return };
        if job.record.phase != lease.phase {
            return;
        }
        let work = match &mut job.work {
            Work::None => return,
            Work::Gang(_) => return self.on_rank_failed(lease, failure, effects),
            Work::Leases(work) => work,
        };
        if !work.open.contains(&lease.shard) {
            return;
        }
        let failed = work.give_back(lease.shard, blame == Blame::Shard);
        if !failure.code.retryable() && failure.code != ErrorCode::Cancelled {
            return self.fail_job(&lease.job, failure, effects);
        }
        if failed >= config.attempts {
            let message = format!(
                "shard {} of phase {} failed {failed} times, last: {}",
                lease.shard, lease.phase, failure.message
            );
            return self.fail_job(&lease.job, Failure { message, ..failure }, effects);
        }
        let pause = if blame == Blame::Worker { 0 } else { config.backoff(failed) };
        work.try_again(lease.shard, now + pause);
        job.record.remember(failure);
        job.touch();
        effects.push(Effect::Notify { job: lease.job.clone() });
    }

    /// Cancelled jobs whose last slot became free, or whose wait after a restart is over.
    pub(crate) fn settle_cancelled(&mut self, effects: &mut Vec<Effect>) {
        let cancelling = |job: &&Job| job.record.state == JobState::Cancelling;
        let ids: Vec<JobId> =
            self.jobs.values().filter(cancelling).map(|job| job.record.id.clone()).collect();
        ids.iter().for_each(|id| self.settle_cancel(id, effects));
    }

    fn settle_job(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        self.settle_gang(id, effects);
        self.settle_cancel(id, effects);
    }

    fn leases_on<'a>(&'a self, worker: &'a WorkerId) -> impl Iterator<Item = &'a LeaseId> {
        self.leases.iter().filter(move |(_, lease)| &lease.slot.worker == worker).map(|(id, _)| id)
    }

    fn stamped(&self, failure: Failure) -> Failure {
        Failure { at_unix_ms: self.now.unix_ms, ..failure }
    }
}
