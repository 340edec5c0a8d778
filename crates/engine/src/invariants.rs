//! What must hold after every step, numbered. Checked after each step of the tests and the simulation.

use std::collections::BTreeMap;
use std::fmt;

use lethe_domain::{JobState, Phase, Shape, SlotIndex, SlotRef};

use crate::State;
use crate::state::{Job, Work};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// I1 to I11.
    pub invariant: &'static str,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.found)
    }
}

type Check = fn(&State) -> Option<String>;

const INVARIANTS: [(&str, Check); 11] = [
    ("I1: a lease and its slot point at each other", leases_match_slots),
    ("I2: a shard is never both done and open", done_is_not_open),
    (
        "I3: every open shard has a live lease, and every live lease of the phase an open shard",
        open_shards_are_leased,
    ),
    ("I4: a cancelled job holds no slot", cancelled_is_free),
    ("I5: a final job has no work", final_is_idle),
    ("I6: a gang holds one slot per rank, each once", gangs_are_whole),
    ("I7: a phase is only entered with the outputs of those before it", inputs_are_there),
    ("I8: no generation is newer than the record says", generations_are_recorded),
    ("I9: the pool's free slots are those that may work and hold nothing", pool_is_right),
    ("I10: an owner holds as many slots as its jobs have leases", holds_are_right),
    (
        "I11: a job is live, has ended or is over, in that index alone, and is not forgotten too",
        indexes_are_right,
    ),
];

impl State {
    /// Checks every invariant.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        for (invariant, check) in INVARIANTS {
            if let Some(found) = check(self) {
                return Err(Violation { invariant, found });
            }
        }
        Ok(())
    }
}

fn leases_match_slots(state: &State) -> Option<String> {
    for (id, worker) in &state.workers {
        for (index, slot) in worker.slots.iter().enumerate() {
            let Some(lease) = &slot.lease else { continue };
            let back = state
                .leases
                .get(lease)
                .is_some_and(|held| &held.slot.worker == id && held.slot.slot.0 as usize == index);
            if !back {
                return Some(format!("slot {id}/{index} says {lease}, the lease does not"));
            }
        }
    }
    state.leases.iter().find_map(|(id, held)| {
        let slot = state
            .workers
            .get(&held.slot.worker)
            .and_then(|worker| worker.slots.get(held.slot.slot.0 as usize));
        (slot.and_then(|slot| slot.lease.as_ref()) != Some(id))
            .then(|| format!("{id} says slot {}, the slot does not", held.slot))
    })
}

fn done_is_not_open(state: &State) -> Option<String> {
    state.jobs.iter().find_map(|(id, job)| {
        let Work::Leases(work) = &job.work else { return None };
        work.at_work().find(|(shard, _)| work.is_done(*shard)).map(|(shard, _)| format!("{id} shard {shard}"))
    })
}

fn open_shards_are_leased(state: &State) -> Option<String> {
    for (id, job) in &state.jobs {
        let Work::Leases(work) = &job.work else { continue };
        let live = || state.leases_of(id).filter(|(lease, held)| lease.phase == work.phase && !held.stopping);
        for (shard, leases) in work.at_work() {
            let found = live().filter(|(lease, held)| held.covers(lease, shard)).count();
            if found != leases as usize || found == 0 {
                return Some(format!("{id} shard {shard} is open {leases} times, with {found} live leases"));
            }
        }
        for (lease, held) in live() {
            let idle = |shard| work.leases_over(shard) == 0 && !work.is_done(shard);
            if let Some(shard) = held.shards(lease).find(|shard| idle(*shard)) {
                return Some(format!("{lease} is live, its shard {shard} is neither open nor done"));
            }
        }
    }
    None
}

fn cancelled_is_free(state: &State) -> Option<String> {
    let cancelled = |id| state.jobs.get(id).is_some_and(|job| job.record.state == JobState::Cancelled);
    state.leases.iter().find(|(id, held)| cancelled(&id.job) && !held.stopping).map(|(id, _)| id.to_string())
}

fn final_is_idle(state: &State) -> Option<String> {
    let idle = |job: &Job| matches!(job.work, Work::None) && job.done.is_empty();
    state.jobs.iter().find(|(_, job)| job.record.state.is_final() && !idle(job)).map(|(id, _)| id.to_string())
}

fn gangs_are_whole(state: &State) -> Option<String> {
    state.jobs.iter().find_map(|(id, job)| {
        let Work::Gang(work) = &job.work else { return None };
        let gang = work.gang.as_ref()?;
        let mut slots: Vec<_> = gang.slots.iter().flatten().cloned().collect();
        let placed = slots.len();
        slots.sort();
        slots.dedup();
        (slots.len() != placed).then(|| format!("{id} has a slot twice"))
    })
}

fn inputs_are_there(state: &State) -> Option<String> {
    state.jobs.iter().filter(|(id, _)| state.is_live(id)).find_map(|(id, job)| {
        let record = &job.record;
        let is_there = |phase: Phase| match phase.shape() {
            Shape::Single | Shape::Gang => record.outputs.get(phase).is_some(),
            Shape::Sharded => {
                let kept = job.done.get(&phase).map_or(0, |done| done.len() as u32);
                record.reached.get(&phase).is_some_and(|reached| reached.shards_done == kept)
            }
        };
        let missing = record.phase.reads(&record.spec).find(|phase| !is_there(*phase));
        missing.map(|phase| format!("{id} is in {} without what {phase} gave", record.phase))
    })
}

fn generations_are_recorded(state: &State) -> Option<String> {
    state.leases.keys().find_map(|lease| {
        let job = state.jobs.get(&lease.job)?;
        (lease.phase.shape() == Shape::Gang && lease.attempt.0 > job.record.generation.0)
            .then(|| lease.to_string())
    })
}

fn pool_is_right(state: &State) -> Option<String> {
    let mut free = 0;
    for (id, worker) in &state.workers {
        for (index, slot) in worker.slots.iter().enumerate() {
            let at = SlotRef { worker: id.clone(), slot: SlotIndex(index as u32) };
            let wanted = slot.lease.is_none() && state.barred(&at).is_none();
            free += u32::from(wanted);
            let cuda = slot.has_gpu();
            if state.pool.free_slots(cuda).any(|other| other == &at) != wanted {
                return Some(format!("{at} is free: {wanted}"));
            }
        }
    }
    (state.pool.free().sum() != free)
        .then(|| format!("{} in the pool, {free} are free", state.pool.free().sum()))
}

fn holds_are_right(state: &State) -> Option<String> {
    let mut holds: BTreeMap<&str, u32> = BTreeMap::new();
    for lease in state.leases.keys() {
        if let Some(job) = state.jobs.get(&lease.job) {
            *holds.entry(job.record.spec.queue.owner.as_str()).or_default() += 1;
        }
    }
    state
        .holds
        .iter()
        .find(|(owner, count)| holds.get(owner.as_str()).copied().unwrap_or(0) != **count)
        .map(|(owner, count)| format!("{owner} is said to hold {count}"))
}

fn indexes_are_right(state: &State) -> Option<String> {
    let wrong = state.jobs.iter().find(|(id, job)| {
        let (live, ended) = (state.live.contains(&job.place()), state.finished.contains(&job.end()));
        let over = job.record.state.is_final();
        live == over || ended != over || state.erasing.contains(*id) || state.past.contains_key(*id)
    });
    let misplaced = state.past.iter().find(|(id, past)| {
        !past.status.state.is_final() || !state.finished.contains(&past.end()) || state.erasing.contains(*id)
    });
    let all = state.jobs.len() + state.past.len();
    let counted = state.live.len() + state.finished.len() == all;
    let known = state.order.len() == all && state.requests.values().all(|id| state.job_state(id).is_some());
    wrong
        .map(|(id, _)| id.to_string())
        .or_else(|| misplaced.map(|(id, _)| id.to_string()))
        .or_else(|| (!counted).then(|| "an index names a job that nobody knows".to_owned()))
        .or_else(|| (!known).then(|| "the order or a request names a job that nobody knows".to_owned()))
}
