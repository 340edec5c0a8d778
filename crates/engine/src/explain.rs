//! Why something waits: in one word for a job's status, and a line each for everything of a job that waits.
//!
//! What is said comes from the planner's own answer, so it cannot differ from what is done.

use std::collections::BTreeMap;

use lethe_domain::{ErrorCode, Explanation, JobId, JobState, Shape, SlotIndex, SlotRef, Waiting};

use crate::planner::{self, Answer, Wants};
use crate::state::{Job, Work};
use crate::{Now, State, grant::wants};

/// A gang that has met for so long without a step is worth a word.
const FIRST_STEP_MS: u64 = 5_000;

/// Failed shards named one by one; of more, only the number is said.
const SHARDS_NAMED: usize = 5;

impl State {
    /// Why a job does nothing at the moment.
    pub fn waiting(&self, id: &JobId) -> Option<Waiting> {
        if !self.is_live(id) || self.leases_of(id).next().is_some() {
            return None;
        }
        let now = self.now.mono_ms;
        let job = self.jobs.get(id)?;
        let not_before = match &job.work {
            Work::None => None,
            Work::Leases(work) if work.ready(now) == 0 => work.next_try_ms(),
            Work::Leases(_) => None,
            Work::Gang(work) => Some(work.not_before_ms),
        };
        if let Some(at) = not_before.filter(|at| *at > now) {
            return Some(Waiting::Backoff { ms: at - now });
        }
        let slots = self.workers.values().map(|worker| worker.slots.len() as u32).sum();
        if slots == 0 {
            return Some(Waiting::NoWorkers);
        }
        match self.answer(id)? {
            Answer::Slots(_) | Answer::NothingAsked => None,
            Answer::NoneFree => Some(Waiting::NoFreeSlot { slots }),
            Answer::NoneSuits if self.pool.fleet().sum() == 0 => Some(Waiting::NoUsableSlot { slots }),
            Answer::NoneSuits => Some(Waiting::NoSuitableSlot { slots }),
            Answer::OverQuota { holds } => {
                let owner = job.record.spec.queue.owner.clone();
                let quota = self.quota(&owner, holds);
                Some(Waiting::OverQuota { owner, holds, quota })
            }
            Answer::GangWaits { free, .. } => {
                Some(Waiting::GangTooSmall { needs: job.record.spec.resources.slots.min, free })
            }
        }
    }

    /// The quota of an owner who holds this many slots and may have no more.
    fn quota(&self, owner: &str, holds: u32) -> u32 {
        self.config.quotas.get(owner).copied().unwrap_or(holds)
    }

    /// The planner's answer to this job beside all others that are hungry.
    fn answer(&self, id: &JobId) -> Option<Answer> {
        let place = self.jobs.get(id)?.place();
        let mut hungry = self.hungry.clone();
        hungry.insert(place);
        let ids: Vec<JobId> = hungry.into_iter().map(|(_, id)| id).collect();
        let at = ids.iter().position(|other| other == id)?;
        planner::plan(&self.problem(&ids)).get(at).copied()
    }

    /// What of a job waits, and why; empty when nothing does.
    pub fn explain(&self, id: &JobId, now: Now) -> Option<Vec<Explanation>> {
        let job = self.jobs.get(id)?;
        let mut lines = Vec::new();
        let mut say = |what: String, why: String| lines.push(Explanation { what, why });
        match job.record.state {
            JobState::Cancelling => {
                let held: Vec<String> = self.leases_of(id).map(|(_, held)| held.slot.to_string()).collect();
                let why = if held.is_empty() {
                    "workers that have not come back yet may still hold its leases".to_owned()
                } else {
                    format!("these slots have not said yet that they are free: {}", held.join(", "))
                };
                say("the end of the cancellation".to_owned(), why);
            }
            JobState::Succeeded | JobState::Failed | JobState::Cancelled => {}
            JobState::Queued | JobState::Running => self.explain_work(job, now, &mut say),
        }
        Some(lines)
    }

    fn explain_work(&self, job: &Job, now: Now, say: &mut impl FnMut(String, String)) {
        let id = &job.record.id;
        let phase = job.record.phase;
        match &job.work {
            Work::None => {}
            Work::Leases(work) => {
                let mut named = 0;
                let code = job.record.retried.last().map_or(ErrorCode::Internal, |failure| failure.code);
                let tries = self.config.budget(phase, code);
                for (shard, at, failed) in
                    work.waiting(code.is_storage()).filter(|(_, at, _)| *at > now.mono_ms)
                {
                    named += 1;
                    if named <= SHARDS_NAMED {
                        let seconds = (at - now.mono_ms) as f64 / 1000.0;
                        let why = format!(
                            "it is tried again in {seconds:.1} s, for the {}. of {tries} times; {}",
                            failed + 1,
                            last_failure(job)
                        );
                        say(format!("shard {shard} of {phase}"), why);
                    }
                }
                if named > SHARDS_NAMED {
                    say(
                        format!("{} more shards of {phase}", named - SHARDS_NAMED),
                        "they are tried again after a pause too".to_owned(),
                    );
                }
                let ready = work.ready(now.mono_ms);
                if ready > 0 {
                    let what = if phase.shape() == Shape::Single {
                        format!("phase {phase}")
                    } else {
                        format!("{ready} shards of {phase}")
                    };
                    say(what, self.why_no_slot(job));
                } else if let Some((lease, held)) = self.leases_of(id).find(|(lease, _)| lease.phase == phase)
                {
                    let others = work.at_work().count();
                    if work.never_granted() == 0 && others > 0 {
                        let what = format!("the end of {phase}");
                        say(what, format!("{others} shards are at work, such as {lease} on {}", held.slot));
                    }
                }
            }
            Work::Gang(work) => match &work.gang {
                None if work.not_before_ms > now.mono_ms => {
                    let seconds = (work.not_before_ms - now.mono_ms) as f64 / 1000.0;
                    say(
                        "the gang".to_owned(),
                        format!("its next generation forms in {seconds:.1} s; {}", last_failure(job)),
                    );
                }
                None => say("the gang".to_owned(), self.why_no_slot(job)),
                Some(gang) => {
                    for (rank, _) in gang.slots.iter().enumerate().filter(|(_, at)| at.is_none()) {
                        say(
                            format!("rank {rank} of generation {}", gang.generation),
                            "the coordinator changed, and its worker has not come back yet".to_owned(),
                        );
                    }
                    if !gang.met {
                        say(
                            format!("ranks 1 to {} of generation {}", gang.world() - 1, gang.generation),
                            "rank 0 has not said yet where they meet".to_owned(),
                        );
                    }
                    let silent = now.mono_ms.saturating_sub(gang.formed_ms);
                    let stepped = work.best_step() > gang.step_at_start;
                    if gang.met && !stepped && gang.failure.is_none() && silent > FIRST_STEP_MS {
                        let seconds = silent / 1000;
                        let why = format!(
                            "its ranks have loaded or looked for each other for {seconds} s; {}",
                            last_failure(job)
                        );
                        say(format!("the first step of generation {}", gang.generation), why);
                    }
                    if gang.failure.is_some() || gang.yield_by_ms.is_some() {
                        let held: Vec<String> =
                            self.leases_of(id).map(|(_, held)| held.slot.to_string()).collect();
                        let what = format!("the generation after {}", gang.generation);
                        say(what, format!("ranks of this one are still at: {}", held.join(", ")));
                    }
                }
            },
        }
    }

    /// Why a job that could use a slot has none: the planner's answer, and what the slots do instead.
    fn why_no_slot(&self, job: &Job) -> String {
        let spec = &job.record.spec;
        let owner = &spec.queue.owner;
        let (needs, quota) = (spec.resources.slots.min, self.config.quotas.get(owner));
        if let (Shape::Gang, Some(quota)) = (job.record.phase.shape(), quota.filter(|quota| **quota < needs))
        {
            return format!(
                "it needs {needs} slots at once, and owner {owner} may never hold more than {quota}: raise the quota, or lower resources.slots.min"
            );
        }
        match self.answer(&job.record.id) {
            None | Some(Answer::Slots(_) | Answer::NothingAsked) => "a slot is about to be given".to_owned(),
            Some(Answer::NoneSuits) if self.workers.is_empty() => {
                "no worker has joined: start lethe-worker --coordinator URL".to_owned()
            }
            Some(Answer::NoneSuits) => format!(
                "{}: {}",
                if wants(spec) == Wants::Cuda {
                    "no slot that may get work has a GPU"
                } else {
                    "no slot may get work"
                },
                self.slots_in_words()
            ),
            Some(Answer::NoneFree) => format!("no slot is free: {}", self.slots_in_words()),
            Some(Answer::OverQuota { holds }) => format!(
                "owner {} holds {holds} slots, the quota is {}: raise it, or wait for the owner's other jobs",
                spec.queue.owner,
                self.quota(&spec.queue.owner, holds)
            ),
            Some(Answer::GangWaits { free, held }) => format!(
                "it needs {} slots at once, {free} are free{}: {}",
                spec.resources.slots.min,
                if held {
                    " and kept for it"
                } else {
                    ", and the fleet is too small: add workers or lower resources.slots.min"
                },
                self.slots_in_words()
            ),
        }
    }

    /// What the fleet's slots do: "5 slots: 2 work for job a, 1 is quarantined (w1/0: its canary is wrong)".
    fn slots_in_words(&self) -> String {
        let mut busy: BTreeMap<String, u32> = BTreeMap::new();
        let mut others = Vec::new();
        let (mut all, mut free) = (0, 0);
        for (id, worker) in &self.workers {
            for (index, slot) in worker.slots.iter().enumerate() {
                all += 1;
                let at = SlotRef { worker: id.clone(), slot: SlotIndex(index as u32) };
                if let Some(lease) = &slot.lease {
                    *busy.entry(format!("job {}", lease.job)).or_default() += 1;
                } else if let Some(why) = self.barred(&at) {
                    others.push(format!("{at} {why}"));
                } else {
                    free += 1;
                }
            }
        }
        let mut words: Vec<String> =
            busy.into_iter().map(|(job, count)| format!("{count} at work for {job}")).collect();
        if free > 0 {
            words.push(format!("{free} free"));
        }
        let more = others.len().saturating_sub(SHARDS_NAMED);
        words.extend(others.into_iter().take(SHARDS_NAMED));
        if more > 0 {
            words.push(format!("{more} more that get no work"));
        }
        format!("{all} slots: {}", words.join(", "))
    }
}

fn last_failure(job: &Job) -> String {
    let last = job.record.retried.last();
    last.map_or_else(String::new, |failure| format!("last failure: {}", failure.message))
}
