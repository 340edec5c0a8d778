//! From jobs and slots to the planner's integers and back, once at the end of a turn.
//!
//! The plan is made again only when something it rests on has changed. Its answers stay with the jobs that asked: until
//! the next plan they are why these wait. Not here: granting (`grant`), words (`explain`).

use std::collections::BTreeMap;

use lethe_domain::{JobId, JobState};

use crate::grant::{most_ranks, wants};
use crate::lease_work::LeaseWork;
use crate::planner::{self, Answer, Demand, Kind, Owner, Plan, Problem, Wants};
use crate::state::{Job, Work};
use crate::{Effect, State};

/// What a job that could use a slot asks for, and what it was told.
#[derive(Debug)]
pub(crate) struct Schedulable {
    kind: Kind,
    wants: Wants,
    priority: i32,
    owner: String,
    /// Why it has no more than it has, by the last plan.
    pub(crate) refusal: Answer,
}

impl State {
    /// A turn is over: free slots go to whoever needs them.
    pub(crate) fn on_plan(&mut self, effects: &mut Vec<Effect>) {
        self.refresh_dirty();
        let mut planned = false;
        while std::mem::take(&mut self.stale) && !self.schedulable.is_empty() {
            planned = true;
            let before = self.pool.free().sum();
            let given = self.make_plan(effects);
            let taken = before - self.pool.free().sum();
            self.refresh_dirty();
            // What was planned has happened. Where a job took less (its leases cover many shards), others get the rest.
            self.stale = taken < given && taken > 0;
        }
        self.preempt(effects);
        let before = self.pool.free();
        self.use_leftovers(effects);
        self.refresh_dirty();
        self.stale = self.pool.free() != before || (self.stale && !planned);
    }

    /// Makes a plan and does it. Returns how many slots it gave.
    fn make_plan(&mut self, effects: &mut Vec<Effect>) -> u32 {
        self.note_patience();
        let Plan { answers, refusals } = planner::plan(&self.problem());
        let mut given = Vec::new();
        self.urgent = None;
        for (((place, schedulable), answer), refusal) in
            self.schedulable.iter_mut().zip(answers).zip(refusals)
        {
            if schedulable.refusal != refusal {
                schedulable.refusal = refusal;
                self.changed.jobs.insert(place.1.clone());
            }
            match answer {
                Answer::Slots(slots) => given.push((place.1.clone(), slots)),
                Answer::NoneFree | Answer::GangWaits { .. } => {
                    let urgent = (schedulable.priority, schedulable.wants);
                    if self.urgent.is_none_or(|(priority, _)| priority <= urgent.0) {
                        self.urgent = Some(urgent);
                    }
                }
                Answer::NothingAsked | Answer::NoneSuits | Answer::OverQuota { .. } => {}
            }
        }
        given.iter().for_each(|(id, slots)| self.give(id, *slots, effects));
        given.iter().map(|(_, slots)| slots.sum()).sum()
    }

    /// What the schedulable jobs ask for, and what there is.
    fn problem(&self) -> Problem {
        let mut owners: Vec<Owner> = Vec::new();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let demands = self.schedulable.values().map(|schedulable| {
            let name = schedulable.owner.as_str();
            let owner = *places.entry(name).or_insert_with(|| {
                let holds = self.holds.get(name).copied().unwrap_or(0);
                owners.push(Owner { holds, quota: self.config.quotas.get(name).copied() });
                owners.len() - 1
            });
            let Schedulable { wants, priority, .. } = *schedulable;
            Demand { kind: schedulable.kind.clone(), wants, priority, owner }
        });
        let demands = demands.collect();
        Problem { free: self.pool.free(), fleet: self.pool.fleet(), owners, demands }
    }

    /// Looks again at whether a job could use a slot, and for what.
    pub(crate) fn refresh_demand(&mut self, id: &JobId) {
        let Some(job) = self.jobs.get(id) else { return };
        let place = job.place();
        let gang = matches!(job.work, Work::Gang(_));
        match (self.demand(job), self.schedulable.get_mut(&place)) {
            (None, None) => {}
            (None, Some(_)) => {
                self.schedulable.remove(&place);
                self.stale = true;
            }
            (Some(kind), Some(known)) if known.kind == kind => {}
            (Some(kind), Some(known)) => {
                known.kind = kind;
                self.stale = true;
            }
            (Some(kind), None) => {
                let spec = &job.record.spec;
                let (priority, owner) = (spec.queue.priority, spec.queue.owner.clone());
                let schedulable =
                    Schedulable { kind, wants: wants(spec), priority, owner, refusal: Answer::NothingAsked };
                self.schedulable.insert(place.clone(), schedulable);
                self.stale = true;
            }
        }
        if gang {
            self.gangs.insert(place);
        } else {
            self.gangs.remove(&place);
        }
    }

    /// What a job asks for; none when it could use no slot now.
    fn demand(&self, job: &Job) -> Option<Kind> {
        let now = self.now.mono_ms;
        match (&job.work, job.record.state) {
            (_, JobState::Cancelling | JobState::Succeeded | JobState::Failed | JobState::Cancelled)
            | (Work::None, _) => None,
            (Work::Leases(work), _) => {
                Some(self.leases_ready(work)).filter(|ready| *ready > 0).map(|ready| Kind::Leases { ready })
            }
            (Work::Gang(work), _) if work.gang.is_some() || work.not_before_ms > now => None,
            (Work::Gang(work), _) => {
                let (spec, fleet) = (&job.record.spec, self.pool.fleet());
                let slots = spec.resources.slots;
                let max = most_ranks(spec);
                let suits = match wants(spec) {
                    Wants::Cuda => fleet.cuda,
                    Wants::Any | Wants::Cpu => fleet.cpu.max(fleet.cuda),
                };
                let patient =
                    work.enough_since_ms.is_none_or(|since| now < since + self.config.gang_patience_ms);
                let min = if patient { max.min(suits).max(slots.min) } else { slots.min };
                Some(Kind::Gang { min, max })
            }
        }
    }

    /// Leases that could be granted: over shards that wait, or a second one over a straggler.
    fn leases_ready(&self, work: &LeaseWork) -> u32 {
        let config = &self.config;
        match work.ready(self.now.mono_ms) {
            0 => u32::from(
                work.straggler(self.now.mono_ms, config.tail_after_ms, config.tail_factor).is_some(),
            ),
            ready => ready,
        }
    }

    /// Starts the clock of gangs that could form, but smaller than they might, and asks anew for what they want.
    fn note_patience(&mut self) {
        let now = self.now.mono_ms;
        let free = self.pool.free().sum();
        let patience = self.config.gang_patience_ms;
        let waiting: Vec<JobId> = self
            .gangs
            .iter()
            .filter(|place| self.schedulable.contains_key(*place))
            .map(|(_, id)| id.clone())
            .collect();
        for id in waiting {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let min = job.record.spec.resources.slots.min;
            let Work::Gang(work) = &mut job.work else { continue };
            work.enough_since_ms = if free >= min { work.enough_since_ms.or(Some(now)) } else { None };
            if let Some(until) =
                work.enough_since_ms.map(|since| since + patience).filter(|until| *until > now)
            {
                self.wake(until);
            }
            self.refresh_demand(&id);
        }
    }
}
