//! The gang of a fine-tune phase: forming, meeting, dissolving, forming again.
//!
//! A gang has one generation number for each incarnation, never reused. Rank 0 starts first, opens the rendezvous store
//! and says where; then the others start. One lost rank dissolves the gang; when every slot is free the next generation
//! forms and goes on from what the survivors have in memory. Not here: changing its members on purpose (`resize`),
//! collectives, what a rank remembers (the executor's).

use lethe_domain::{
    Attempt, ErrorCode, Failure, GangRole, Generation, JobId, LeaseId, Phase, Rank, Round, ShardIndex,
    SlotRef, Task,
};

use crate::record::GangRecord;
use crate::{Effect, JobRecord, Metric, State, Write, state::Work};

/// The gang of a job.
#[derive(Debug, Default)]
pub(crate) struct GangWork {
    pub(crate) gang: Option<Gang>,
    /// No new generation before this time.
    pub(crate) not_before_ms: u64,
    /// Since when there are enough slots, but fewer than wanted.
    pub(crate) enough_since_ms: Option<u64>,
    /// The furthest step any rank has reported.
    best_step: u64,
    /// What the next ranks have in memory may be stale: nobody knows how far the last generation came.
    stale: bool,
    /// Generations in a row that ended without a further step.
    fruitless: u32,
    /// The first cause of failure since the last step forward.
    cause: Option<Failure>,
    /// When the last generation ended, until the next one moves.
    ended_ms: Option<u64>,
}

/// One incarnation.
#[derive(Debug)]
pub(crate) struct Gang {
    pub(crate) generation: Generation,
    /// Where each rank is; none for a rank that nobody has claimed since the coordinator changed.
    pub(crate) slots: Vec<Option<SlotRef>>,
    pub(crate) formed_ms: u64,
    /// Ranks are claimed until then.
    pub(crate) claim_by_ms: Option<u64>,
    /// Asked to yield; stopped then.
    pub(crate) yield_by_ms: Option<u64>,
    /// Slots that have stood by so far.
    pub(crate) spares: u32,
    /// The ranks other than 0 have been told to start.
    pub(crate) met: bool,
    /// Dissolving, for this reason.
    pub(crate) failure: Option<Failure>,
    pub(crate) step_at_start: u64,
}

impl Gang {
    pub(crate) fn lease(&self, job: &JobId, rank: u32) -> LeaseId {
        LeaseId {
            job: job.clone(),
            phase: Phase::FineTune,
            shard: ShardIndex(rank),
            attempt: Attempt(self.generation.0),
        }
    }

    pub(crate) fn world(&self) -> u32 {
        self.slots.len() as u32
    }
}

impl GangWork {
    /// A lease reported a step. Gives the seconds since the last generation ended, once.
    pub(crate) fn progress(&mut self, lease: &LeaseId, step: u64, now_ms: u64) -> Option<f64> {
        let gang = self.gang.as_ref().filter(|gang| lease.shard.0 < gang.world())?;
        self.best_step = self.best_step.max(step);
        if step <= gang.step_at_start {
            return None;
        }
        // Whatever went wrong before, it goes forward again.
        (self.fruitless, self.cause) = (0, None);
        self.ended_ms.take().map(|ended| now_ms.saturating_sub(ended) as f64 / 1000.0)
    }

    /// The furthest step any rank has reported.
    pub(crate) fn best_step(&self) -> u64 {
        self.best_step
    }

    /// After a restart: the last generation may still be at work; its ranks have until then to be claimed.
    pub(crate) fn await_claims(&mut self, record: &JobRecord, claim_by_ms: u64) {
        let Some(GangRecord { world, floor }) = record.gang.filter(|_| record.generation.0 > 0) else {
            return;
        };
        self.best_step = floor;
        self.stale = true;
        self.gang = Some(Gang {
            generation: record.generation,
            slots: vec![None; world as usize],
            formed_ms: claim_by_ms,
            claim_by_ms: Some(claim_by_ms),
            yield_by_ms: None,
            spares: 0,
            met: true,
            failure: None,
            step_at_start: floor,
        });
    }

    /// A worker says that it holds this rank. False when that is not so any more.
    pub(crate) fn claim(&mut self, lease: &LeaseId, at: &SlotRef) -> bool {
        let Some(gang) = &mut self.gang else { return false };
        let current = gang.generation.0 == lease.attempt.0 && gang.claim_by_ms.is_some();
        let Some(rank) = gang.slots.get_mut(lease.shard.0 as usize).filter(|rank| current && rank.is_none())
        else {
            return false;
        };
        *rank = Some(at.clone());
        if gang.slots.iter().all(Option::is_some) {
            gang.claim_by_ms = None;
            self.stale = false;
        }
        true
    }
}

/// Whether a rank failed only because another one did, or because it was told to stop.
fn dragged_down(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::GangAborted | ErrorCode::Cancelled | ErrorCode::Yielded)
}

/// The earlier cause; a rank that was dragged down by another is never the cause when there is a better one.
fn first_cause(one: Failure, other: Failure) -> Failure {
    let rank = |failure: &Failure| (dragged_down(failure.code), failure.at_unix_ms);
    if rank(&other) < rank(&one) { other } else { one }
}

impl State {
    /// Forms the next generation on these slots.
    pub(crate) fn form_gang(&mut self, id: &JobId, slots: Vec<SlotRef>, effects: &mut Vec<Effect>) {
        let now = self.now.mono_ms;
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Work::Gang(work) = &mut job.work else { return };
        let generation = Generation(job.record.generation.0 + 1);
        job.record.generation = generation;
        job.record.gang = Some(GangRecord { world: slots.len() as u32, floor: work.best_step });
        let gang = Gang {
            generation,
            slots: slots.iter().cloned().map(Some).collect(),
            formed_ms: now,
            claim_by_ms: None,
            yield_by_ms: None,
            spares: 0,
            // One alone has nobody to meet.
            met: slots.len() == 1,
            failure: None,
            step_at_start: work.best_step,
        };
        let leases: Vec<LeaseId> = (0..gang.world()).map(|rank| gang.lease(id, rank)).collect();
        work.gang = Some(gang);
        work.enough_since_ms = None;
        effects.push(Effect::Persist(Write::Job(Box::new(job.record.clone()))));
        effects.push(Effect::Metric(Metric::GangFormed { world: slots.len() as u32 }));
        for (lease, slot) in leases.into_iter().zip(slots) {
            self.occupy(lease, 1, slot);
        }
        self.start_rank(id, Rank(0), None, effects);
    }

    /// Rank 0 says where the ranks meet: start the others.
    pub(crate) fn on_store_open(&mut self, lease: &LeaseId, address: &str, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&lease.job) else { return };
        let Work::Gang(work) = &mut job.work else { return };
        let Some(gang) = &mut work.gang else { return };
        let current = gang.generation.0 == lease.attempt.0 && lease.shard.0 == 0;
        if !current || gang.met || gang.failure.is_some() {
            return;
        }
        gang.met = true;
        for rank in 1..gang.world() {
            self.start_rank(&lease.job, Rank(rank), Some(address), effects);
        }
    }

    fn start_rank(&self, id: &JobId, rank: Rank, store: Option<&str>, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(id) else { return };
        let Work::Gang(work) = &job.work else { return };
        let Some(gang) = &work.gang else { return };
        let Some(direction) = job.record.outputs.direction() else { return };
        let role = GangRole {
            generation: gang.generation,
            rank,
            world: gang.world(),
            store: store.map(str::to_owned),
            floor: if work.stale { u64::MAX } else { work.best_step },
        };
        let (target, pool) = (direction.target.clone(), job.shards_of(Phase::Edit));
        let search = Round::ALL.into_iter().flat_map(|round| job.shards_of(round.phase())).collect();
        let task = Task::FineTune { target, pool, search, role };
        let Some(Some(slot)) = gang.slots.get(rank.0 as usize) else { return };
        effects.push(self.start(slot, gang.lease(id, rank.0), &job.record, task));
    }

    /// A rank failed or yielded, or its worker is gone: the gang dissolves.
    pub(crate) fn on_rank_failed(&mut self, lease: &LeaseId, failure: Failure, effects: &mut Vec<Effect>) {
        let yield_by = self.now.mono_ms + self.config.yield_ms;
        let Some(job) = self.jobs.get_mut(&lease.job) else { return };
        let Work::Gang(work) = &mut job.work else { return };
        let Some(gang) = &mut work.gang else { return };
        // A slot that stood by is replaced without anybody noticing.
        if gang.generation.0 != lease.attempt.0 || lease.shard.0 >= gang.world() {
            return;
        }
        let yielded = failure.code == ErrorCode::Yielded;
        gang.failure = Some(match gang.failure.take() {
            Some(earlier) => first_cause(earlier, failure),
            None => failure,
        });
        if yielded {
            // The others end the same step, and by themselves.
            let by = *gang.yield_by_ms.get_or_insert(yield_by);
            self.wake(by);
            self.stop_spares(&lease.job, effects);
        } else {
            self.stop_leases(&lease.job, |_, _| true, effects);
        }
        self.settle_gang(&lease.job, effects);
    }

    /// When a dissolving gang holds no slot any more: form another, or give up.
    pub(crate) fn settle_gang(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        if self.leases_of(id).next().is_some() {
            return;
        }
        let now = self.now.mono_ms;
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Work::Gang(work) = &mut job.work else { return };
        let Some(gang) = work.gang.take_if(|gang| gang.failure.is_some()) else { return };
        let Some(failure) = gang.failure else { return };
        // A gang that yields recovers from nothing.
        work.ended_ms = (failure.code != ErrorCode::Yielded).then_some(now);
        self.dirty.insert(id.clone());
        let moved = work.best_step > gang.step_at_start;
        if failure.code == ErrorCode::Yielded {
            work.not_before_ms = now;
            return effects.push(Effect::Notify { job: id.clone() });
        }
        work.fruitless += u32::from(!moved);
        let cause = match work.cause.take() {
            Some(earlier) => first_cause(earlier, failure.clone()),
            None => failure.clone(),
        };
        work.cause = (!moved).then(|| cause.clone());
        let hopeless = !failure.code.retryable() && !dragged_down(failure.code);
        let allowed = match failure.code.is_storage() {
            true => self.config.storage_attempts,
            false => self.config.generations_without_progress,
        };
        if hopeless || work.fruitless >= allowed {
            return self.fail_job(id, cause, effects);
        }
        // Survivors that have come further wait for nobody; those that have not, wait longer each time.
        work.not_before_ms =
            if moved { now } else { now + self.config.backoff(failure.code, work.fruitless) };
        let at = work.not_before_ms;
        job.record.remember(failure);
        job.touch();
        effects.push(Effect::Persist(Write::Job(Box::new(job.record.clone()))));
        effects.push(Effect::Notify { job: id.clone() });
        self.wake(at);
    }
}
