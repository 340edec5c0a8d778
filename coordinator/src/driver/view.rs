//! The state as the edges may look at it: read only, at one moment.

use lethe_domain::{Epoch, Explanation, JobId, JobResult, JobStatus, WorkerId, WorkerStatus};
use lethe_engine::{JobRecord, Now, State};

/// The state at a moment at which all of it is written down.
pub(crate) struct View<'a> {
    state: &'a State,
    now: Now,
    /// Who leads, when we only read what it has written down.
    leader: Option<&'a str>,
}

impl<'a> View<'a> {
    pub(crate) fn new(state: &'a State, now: Now) -> Self {
        Self { state, now, leader: None }
    }

    /// What the leader at this address has written down.
    pub(crate) fn written(state: &'a State, now: Now, leader: &'a str) -> Self {
        Self { state, now, leader: Some(leader) }
    }

    /// Who leads, when it is not us: what is at work where is not to be seen here.
    pub(crate) fn leader(&self) -> Option<&'a str> {
        self.leader
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.state.epoch()
    }

    /// The calendar's time of this look.
    pub(crate) fn unix_ms(&self) -> u64 {
        self.now.unix_ms
    }

    /// A job as people see it. The engine counts versions from 1 in each process; the epoch above them makes them rise
    /// over a restart too, so that a watcher never takes a new state for an old one.
    pub(crate) fn status(&self, id: &JobId) -> Option<JobStatus> {
        let status = self.state.status(id, self.now)?;
        // What a job waits for depends on the workers, whom only the leader knows.
        let waiting = status.waiting.filter(|_| self.leader.is_none());
        Some(JobStatus { version: (self.epoch().0 << 32) + status.version, waiting, ..status })
    }

    /// What is written down about a job.
    pub(crate) fn record(&self, id: &JobId) -> Option<&'a JobRecord> {
        self.state.record(id)
    }

    /// What is written down about every job, newest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = &'a JobRecord> {
        let state = self.state;
        state.job_ids().iter().rev().filter_map(|id| state.record(id))
    }

    /// Jobs, newest first, after the one with this id; and what to ask for the next page with, unless this is the last.
    /// None when nobody has that id.
    pub(crate) fn page(&self, after: Option<&str>, size: usize) -> Option<(Vec<JobStatus>, Option<String>)> {
        let mut ids = self.state.job_ids().iter().rev();
        if let Some(after) = after {
            ids.find(|id| id.as_str() == after)?;
        }
        let page: Vec<&JobId> = ids.by_ref().take(size).collect();
        let last = page.last().filter(|_| ids.next().is_some());
        let next = last.map(|id| id.to_string());
        Some((page.into_iter().filter_map(|id| self.status(id)).collect(), next))
    }

    /// Whether a job was submitted with this request id.
    pub(crate) fn knows_request(&self, request_id: &str) -> bool {
        self.state.job_of_request(request_id).is_some()
    }

    /// A job's result as far as it has one, with paths below the artifact root.
    pub(crate) fn result(&self, id: &JobId) -> Option<JobResult> {
        self.state.result(id)
    }

    /// What of a job waits, and why.
    pub(crate) fn explain(&self, id: &JobId) -> Option<Vec<Explanation>> {
        self.state.explain(id, self.now)
    }

    pub(crate) fn worker(&self, id: &WorkerId) -> Option<WorkerStatus> {
        self.state.worker(id, self.now)
    }

    pub(crate) fn workers(&self) -> Vec<WorkerStatus> {
        self.state.workers(self.now)
    }
}
