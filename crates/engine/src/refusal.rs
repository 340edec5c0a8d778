//! Why the engine does not do what somebody asks of it. It then does nothing else in that step.
//!
//! Not here: what is wrong with a request in itself, which is found before it becomes an event.

use lethe_domain::{JobId, JobState, Principal, WorkerId, WorkerOrder};

use crate::{Introduction, State};

/// Why somebody does not get what they ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such job.
    NoSuchJob(JobId),
    /// There is no such worker.
    NoSuchWorker(WorkerId),
    /// It is not theirs to ask.
    Denied(String),
    /// It contradicts how things stand: what contradicts what, and what to do.
    Conflict(String),
}

impl State {
    /// A job is its owner's to submit, cancel and delete. Orders to workers are open to all.
    fn refuse_stranger(by: &Principal, owner: &str, advice: &str) -> Result<(), Refusal> {
        if by.may_act_for(owner) {
            return Ok(());
        }
        Err(Refusal::Denied(format!("{by} may not act for {owner}: {advice}")))
    }

    fn refuse_to_touch(&self, by: &Principal, job: &JobId) -> Result<(), Refusal> {
        let owner = self.owner_of(job).unwrap_or_default();
        Self::refuse_stranger(by, owner, &format!("the job is theirs, ask {owner}"))
    }

    pub(crate) fn refuse_submit(
        &self,
        by: &Principal,
        job: &JobId,
        spec: &lethe_domain::JobSpec,
        request_id: Option<&str>,
    ) -> Result<(), Refusal> {
        Self::refuse_stranger(by, &spec.queue.owner, &format!("set queue.owner to {by}"))?;
        match request_id.and_then(|request| self.job_of_request(by, request)) {
            Some(known) if !self.was_asked(known, spec) => Err(Refusal::Conflict(format!(
                "this request_id was used before, for job {known} with another spec: use a new one for a new job"
            ))),
            Some(_) => Ok(()),
            None if self.job_state(job).is_some() => {
                Err(Refusal::Conflict(format!("there is a job {job} already: use another id")))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn refuse_cancel(&self, by: &Principal, job: &JobId) -> Result<(), Refusal> {
        let state = self.job_state(job).ok_or_else(|| Refusal::NoSuchJob(job.clone()))?;
        self.refuse_to_touch(by, job)?;
        match state {
            JobState::Succeeded | JobState::Failed => {
                Err(Refusal::Conflict(format!("job {job} has {state} already: there is nothing to cancel")))
            }
            JobState::Queued | JobState::Running | JobState::Cancelling | JobState::Cancelled => Ok(()),
        }
    }

    pub(crate) fn refuse_delete(&self, by: &Principal, job: &JobId) -> Result<(), Refusal> {
        let state = self.job_state(job).ok_or_else(|| Refusal::NoSuchJob(job.clone()))?;
        self.refuse_to_touch(by, job)?;
        if state.is_final() {
            return Ok(());
        }
        Err(Refusal::Conflict(format!("job {job} is {state}: cancel it first, with lethe job cancel {job}")))
    }

    /// A worker's name belongs to one process as long as its session is open. After a change of leader anybody may be first: the
    /// one that comes with leases is the one that had the name.
    pub(crate) fn refuse_join(
        &self,
        id: &WorkerId,
        introduction: &Introduction,
        session_open: bool,
    ) -> Result<(), Refusal> {
        let taken = self.workers.get(id).filter(|known| {
            session_open
                && known.incarnation != introduction.incarnation
                && (known.came_with_leases || introduction.held.is_empty())
        });
        let Some(known) = taken else { return Ok(()) };
        Err(Refusal::Conflict(format!(
            "another process has joined as worker {id}, on {}: give this one an --id of its own (a name is free again once its worker has left, or was silent for {} s)",
            known.hostname,
            self.config.dead_after_ms as f64 / 1000.0
        )))
    }

    pub(crate) fn refuse_order(&self, id: &WorkerId, order: &WorkerOrder) -> Result<(), Refusal> {
        let known = self.worker(id, self.now).ok_or_else(|| Refusal::NoSuchWorker(id.clone()))?;
        if let WorkerOrder::Quarantine { slot: Some(slot), .. } | WorkerOrder::Release { slot: Some(slot) } =
            order
            && slot.0 as usize >= known.slots.len()
        {
            let last = known.slots.len().saturating_sub(1);
            return Err(Refusal::Conflict(format!("worker {id} has slots 0 to {last}, not {slot}")));
        }
        match order {
            WorkerOrder::Release { slot } => {
                self.release_is_vain(id, *slot).map_or(Ok(()), |why| Err(Refusal::Conflict(why)))
            }
            WorkerOrder::Drain | WorkerOrder::Quarantine { .. } => Ok(()),
        }
    }
}
