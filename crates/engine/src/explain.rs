//! Why something waits, as facts: what the last plan answered, when a pause is over, whose word is missing.
//!
//! Not here: the words for them (`waits`).

use lethe_domain::spec::Device;
use lethe_domain::{ErrorCode, Explanation, JobId, JobState, Shape, Waiting};

use crate::planner::Answer;
use crate::state::{Job, Work};
use crate::waits::{Still, Wait, Waits, Why, Wish};
use crate::{Now, State};

/// A gang that has met for so long without a step is worth a word.
const FIRST_STEP_MS: u64 = 5_000;

/// Failed shards named one by one; of more, only the number is said.
const SHARDS_NAMED: usize = 5;

impl State {
    /// Why a job does nothing at the moment.
    pub fn waiting(&self, id: &JobId) -> Option<Waiting> {
        self.jobs.get(id).and_then(|job| self.waits(job).in_a_word(self.now, self.fleet_snapshot()))
    }

    /// What of a job waits, and why; empty when nothing does.
    pub fn explain(&self, id: &JobId, now: Now) -> Option<Vec<Explanation>> {
        let job = self.jobs.get(id)?;
        Some(self.waits(job).in_words(now, &self.workers(now)))
    }

    /// Why a job waits, as facts.
    pub(crate) fn waits(&self, job: &Job) -> Waits {
        let spec = &job.record.spec;
        let gang = job.record.phase.shape() == Shape::Gang;
        let wish = Wish {
            owner: spec.queue.owner.clone(),
            quota: self.config.quotas.get(&spec.queue.owner).copied(),
            needs: if gang { spec.resources.slots.min } else { 1 },
            gpu: spec.resources.device == Device::Cuda,
        };
        let lines = match job.record.state {
            JobState::Cancelling => vec![self.rest_of_cancellation(job)],
            JobState::Succeeded | JobState::Failed | JobState::Cancelled => Vec::new(),
            JobState::Queued | JobState::Running => self.lines(job),
        };
        Waits { still: self.still(job), lines, wish }
    }

    /// The planner's last answer to a job; none when it asks for nothing.
    fn refusal(&self, job: &Job) -> Option<Answer> {
        self.schedulable.get(&job.place()).map(|schedulable| schedulable.refusal)
    }

    fn still(&self, job: &Job) -> Option<Still> {
        let id = &job.record.id;
        if !self.is_live(id) || self.leases_of(id).next().is_some() {
            return None;
        }
        let now = self.now.mono_ms;
        let not_before = match &job.work {
            Work::None => None,
            Work::Leases(work) if work.ready(now) == 0 => work.next_try_ms(),
            Work::Leases(_) => None,
            Work::Gang(work) => Some(work.not_before_ms),
        };
        match not_before.filter(|at| *at > now) {
            Some(at) => Some(Still::Until(at)),
            None => self.refusal(job).map(Still::Refused),
        }
    }

    fn rest_of_cancellation(&self, job: &Job) -> Wait {
        let held = self.slots_held(job);
        let why = if held.is_empty() {
            "workers that have not come back yet may still hold its leases".to_owned()
        } else {
            format!("these slots have not said yet that they are free: {held}")
        };
        Wait { what: "the end of the cancellation".to_owned(), why: Why::Said(why) }
    }

    fn slots_held(&self, job: &Job) -> String {
        let held: Vec<String> =
            self.leases_of(&job.record.id).map(|(_, held)| held.slot.to_string()).collect();
        held.join(", ")
    }

    fn lines(&self, job: &Job) -> Vec<Wait> {
        let mut lines = Vec::new();
        let mut say = |what: String, why: Why| lines.push(Wait { what, why });
        match &job.work {
            Work::None => {}
            Work::Leases(_) => self.explain_leases(job, &mut say),
            Work::Gang(_) => self.explain_gang(job, &mut say),
        }
        lines
    }

    /// Whether a slot is missing, and why.
    fn no_slot(&self, job: &Job) -> Why {
        Why::NoSlot(self.refusal(job).unwrap_or(Answer::NothingAsked))
    }

    fn explain_leases(&self, job: &Job, say: &mut impl FnMut(String, Why)) {
        let Work::Leases(work) = &job.work else { return };
        let (id, phase, now) = (&job.record.id, job.record.phase, self.now.mono_ms);
        let code = job.record.retried.last().map_or(ErrorCode::Internal, |failure| failure.code);
        let tries = self.config.budget(phase, code);
        let mut named = 0;
        for (shard, at_ms, failed) in work.waiting(code.is_storage()).filter(|(_, at, _)| *at > now) {
            named += 1;
            if named <= SHARDS_NAMED {
                let after = format!(", for the {}. of {tries} times; {}", failed + 1, last_failure(job));
                let why = Why::Until { at_ms, before: "it is tried again in", after };
                say(format!("shard {shard} of {phase}"), why);
            }
        }
        if named > SHARDS_NAMED {
            let what = format!("{} more shards of {phase}", named - SHARDS_NAMED);
            say(what, Why::Said("they are tried again after a pause too".to_owned()));
        }
        let ready = work.ready(now);
        if ready > 0 {
            let what = match phase.shape() {
                Shape::Single => format!("phase {phase}"),
                Shape::Sharded | Shape::Gang => format!("{ready} shards of {phase}"),
            };
            return say(what, self.no_slot(job));
        }
        let others = if work.never_granted() == 0 { work.at_work().count() } else { 0 };
        let lease = self.leases_of(id).find(|(lease, _)| lease.phase == phase);
        if let Some((lease, held)) = lease.filter(|_| others > 0) {
            let why = format!("{others} shards are at work, such as {lease} on {}", held.slot);
            say(format!("the end of {phase}"), Why::Said(why));
        }
    }

    fn explain_gang(&self, job: &Job, say: &mut impl FnMut(String, Why)) {
        let Work::Gang(work) = &job.work else { return };
        let Some(gang) = &work.gang else {
            let why = if work.not_before_ms > self.now.mono_ms {
                let after = format!("; {}", last_failure(job));
                Why::Until { at_ms: work.not_before_ms, before: "its next generation forms in", after }
            } else {
                self.no_slot(job)
            };
            return say("the gang".to_owned(), why);
        };
        for (rank, _) in gang.slots.iter().enumerate().filter(|(_, at)| at.is_none()) {
            let why = "the coordinator changed, and its worker has not come back yet";
            say(format!("rank {rank} of generation {}", gang.generation), Why::Said(why.to_owned()));
        }
        if !gang.met {
            let what = format!("ranks 1 to {} of generation {}", gang.world() - 1, gang.generation);
            say(what, Why::Said("rank 0 has not said yet where they meet".to_owned()));
        }
        let stepped = work.best_step() > gang.step_at_start;
        if gang.met && !stepped && gang.failure.is_none() {
            let why = Why::Since {
                began_ms: gang.formed_ms,
                worth_ms: FIRST_STEP_MS,
                before: "its ranks have loaded or looked for each other for",
                after: format!("; {}", last_failure(job)),
            };
            say(format!("the first step of generation {}", gang.generation), why);
        }
        if gang.failure.is_some() || gang.yield_by_ms.is_some() {
            let why = format!("ranks of this one are still at: {}", self.slots_held(job));
            say(format!("the generation after {}", gang.generation), Why::Said(why));
        }
    }
}

fn last_failure(job: &Job) -> String {
    let last = job.record.retried.last();
    last.map_or_else(String::new, |failure| format!("last failure: {}", failure.message))
}
