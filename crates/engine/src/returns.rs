//! Leases that come back: with a result, with a failure, for want of progress, or because their worker is gone.
//!
//! Not here: what a result means for its job (`job`), gangs (`gang`).

use lethe_domain::{ErrorCode, Failure, LeaseId, Shape, ShardIndex, SlotRef, TaskOutput, WorkerId};

use crate::state::{Job, Lease, Work};
use crate::{Command, Effect, Metric, State};

/// How much the newest lease counts in a slot's speed.
const NEWEST: f64 = 0.5;

/// Why a lease comes back without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// The shard may be at fault: the try counts.
    Shard,
    /// The worker went away, or hands it back: it does not.
    Worker,
}

impl State {
    /// A slot is done with a lease.
    pub(crate) fn on_finished(
        &mut self,
        at: &SlotRef,
        lease: &LeaseId,
        outcome: Result<Box<TaskOutput>, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        let ours = self.leases.get(lease).is_some_and(|held| &held.slot == at);
        let held = if ours { self.release(lease) } else { None };
        if let Some(held) = &held {
            let seconds = self.now.mono_ms.saturating_sub(held.granted_ms) as f64 / 1000.0;
            let success = outcome.is_ok();
            effects.push(Effect::Metric(Metric::LeaseFinished { phase: lease.phase, seconds, success }));
            if let Ok(output) = &outcome {
                self.note_speed(lease, held, output, seconds);
            }
        }
        match outcome {
            Ok(output) => self.on_output(lease, held.as_ref(), *output, effects),
            Err(failure) => {
                // What was told to stop has been written off already, except that a gang waits for its ranks.
                let wanted = held.filter(|held| !held.stopping || lease.phase.shape() == Shape::Gang);
                if let Some(held) = wanted {
                    let handed_back = failure.code == ErrorCode::Yielded;
                    let blame = if handed_back { Blame::Worker } else { Blame::Shard };
                    self.on_failure(lease, &held, failure, blame, effects);
                }
            }
        }
        effects
            .push(Effect::Send { worker: at.worker.clone(), command: Command::Ack { lease: lease.clone() } });
        self.settle_job(lease, effects);
    }

    /// How fast a slot is, and how long shards take, by a lease that gave a result.
    fn note_speed(&mut self, lease: &LeaseId, held: &Lease, output: &TaskOutput, seconds: f64) {
        let samples = output.samples();
        if samples == 0 || seconds <= 0.0 {
            return;
        }
        if let Some(slot) = self.slot_mut(&held.slot) {
            let speed = samples as f64 / seconds;
            slot.speed = if slot.speed > 0.0 { slot.speed + NEWEST * (speed - slot.speed) } else { speed };
        }
        if let Some(Job { work: Work::Leases(work), .. }) = self.jobs.get_mut(&lease.job)
            && work.phase == lease.phase
        {
            work.took((seconds * 1000.0) as u64, held.shards);
        }
    }

    /// A shard is done on this slot: slots on which it failed are at fault, and this one is the better for it.
    pub(crate) fn clear_blame(&mut self, at: &SlotRef, failed_on: &[SlotRef], effects: &mut Vec<Effect>) {
        if let Some(slot) = self.slot_mut(at) {
            slot.strikes = slot.strikes.saturating_sub(1);
        }
        for bad in failed_on.iter().filter(|bad| *bad != at) {
            self.strike(bad, 1, &format!("a shard that {at} then did"), effects);
        }
    }

    /// Takes back what made no progress.
    pub(crate) fn expire_leases(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now.mono_ms;
        let due = |lease: &Lease| !lease.stopping && lease.deadline_ms <= now;
        let expired: Vec<LeaseId> =
            self.leases.iter().filter(|(_, lease)| due(lease)).map(|(id, _)| id.clone()).collect();
        for lease in expired {
            self.expire(&lease, effects);
        }
    }

    fn expire(&mut self, lease: &LeaseId, effects: &mut Vec<Effect>) {
        let Some(held) = self.leases.get(lease) else { return };
        let seconds = self.config.lease_ms / 1000;
        let failure = Failure::new(
            ErrorCode::LeaseExpired,
            format!("{lease} on {} made no progress for {seconds} s", held.slot),
            "look at the worker's log; a hung device needs a restart of its machine",
        );
        effects.push(Effect::Metric(Metric::LeaseExpired { phase: lease.phase }));
        self.stop_and_return(lease, failure, Blame::Shard, effects);
    }

    /// Has a lease stopped and its shards granted again, nobody being to blame.
    pub(crate) fn take_back(&mut self, lease: &LeaseId, effects: &mut Vec<Effect>) {
        let Some(held) = self.leases.get(lease) else { return };
        let why = format!("{lease} was taken back from {}, which is quarantined", held.slot);
        let failure = Failure::new(ErrorCode::WorkerLost, why, "nothing to do: another slot takes over");
        self.stop_and_return(lease, failure, Blame::Worker, effects);
    }

    /// Has a lease stopped, and does at once with its shards what its coming back with this failure would.
    fn stop_and_return(
        &mut self,
        lease: &LeaseId,
        failure: Failure,
        blame: Blame,
        effects: &mut Vec<Effect>,
    ) {
        let Some(held) = self.leases.get(lease) else { return };
        let back = Lease::returned(held.slot.clone(), held.shards);
        self.stop_leases(&lease.job, |other, _| other == lease, effects);
        let failure = self.stamped(failure);
        self.on_failure(lease, &back, failure, blame, effects);
    }

    /// A lease is gone with its worker.
    pub(crate) fn lose_lease(&mut self, lease: &LeaseId, worker: &WorkerId, effects: &mut Vec<Effect>) {
        let held = self.release(lease).filter(|held| !held.stopping || lease.phase.shape() == Shape::Gang);
        if let Some(held) = held {
            let failure = self.stamped(Failure::new(
                ErrorCode::WorkerLost,
                format!("worker {worker} went away while it worked on {lease}"),
                "nothing to do: another slot takes over",
            ));
            self.on_failure(lease, &held, failure, Blame::Worker, effects);
        }
        self.settle_job(lease, effects);
    }

    /// A lease came back without a result.
    fn on_failure(
        &mut self,
        lease: &LeaseId,
        held: &Lease,
        failure: Failure,
        blame: Blame,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&lease.job) else { return };
        if job.record.phase != lease.phase {
            return;
        }
        let work = match &mut job.work {
            Work::None => return,
            Work::Gang(_) => {
                let differs = (failure.code == ErrorCode::StateDiffers).then(|| failure.message.clone());
                self.on_rank_failed(lease, failure, effects);
                if let Some(message) = differs {
                    // Twice on one slot is its fault, and the third generation goes on without it.
                    self.strike(&held.slot, 2, &message, effects);
                }
                return;
            }
            Work::Leases(work) => work,
        };
        let back: Vec<ShardIndex> = held.shards(lease).filter(|shard| work.give_back(*shard)).collect();
        if back.is_empty() {
            return;
        }
        if !failure.code.retryable() && failure.code != ErrorCode::Cancelled {
            return self.fail_job(&lease.job, failure, effects);
        }
        // Of several shards nobody knows which is at fault: each is tried again alone, and only that counts.
        let counts = blame == Blame::Shard && held.shards == 1;
        let failed = match counts {
            true if failure.code.is_storage() => work.blame_storage(lease.shard),
            true => work.blame(lease.shard, &held.slot),
            false => 0,
        };
        if failed >= self.config.budget(lease.phase, failure.code) {
            let what = match lease.phase.shape() {
                Shape::Sharded => format!("shard {} of phase {}", lease.shard, lease.phase),
                Shape::Single | Shape::Gang => format!("phase {}", lease.phase),
            };
            let message = format!("{what} failed {failed} times, last: {}", failure.message);
            return self.fail_job(&lease.job, Failure { message, ..failure }, effects);
        }
        let pause = if blame == Blame::Worker { 0 } else { self.config.backoff(failure.code, failed.max(1)) };
        let at = self.now.mono_ms + pause;
        back.into_iter().for_each(|shard| work.try_again(shard, at));
        if failure.code != ErrorCode::Yielded {
            job.record.remember(failure);
        }
        job.touch();
        self.wake(at);
        self.dirty.insert(lease.job.clone());
        effects.push(Effect::Notify { job: lease.job.clone() });
    }

    fn settle_job(&mut self, lease: &LeaseId, effects: &mut Vec<Effect>) {
        self.settle_gang(&lease.job, effects);
        self.settle_cancel(&lease.job, effects);
        self.settle_end(&lease.job, effects);
    }

    pub(crate) fn stamped(&self, failure: Failure) -> Failure {
        Failure { at_unix_ms: self.now.unix_ms, ..failure }
    }
}

impl Lease {
    /// One that is over, for what is done with its shards.
    fn returned(slot: SlotRef, shards: u32) -> Self {
        Self { slot, shards, granted_ms: 0, deadline_ms: 0, progress: None, stopping: false, yielding: None }
    }
}
