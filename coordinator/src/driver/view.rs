//! A snapshot as a reader sees it: at the reader's time, and by a leader or by one that follows.

use std::fmt;
use std::ops::Bound;
use std::str::FromStr;
use std::sync::Arc;

use lethe_domain::{Epoch, Explanation, JobFilter, JobId, JobState, JobStatus, WorkerId, WorkerStatus};
use lethe_engine::{JobRecord, Now, Request};

use super::snapshot::{JobView, Snapshot, WorkerView};

/// A job's place among all: when it was submitted, in milliseconds since 1970, and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place((u64, JobId));

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self((submitted, id)) = self;
        write!(f, "{submitted}/{id}")
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (submitted, id) = text.split_once('/').ok_or(())?;
        Ok(Self((submitted.parse().map_err(drop)?, JobId::new(id).map_err(drop)?)))
    }
}

/// What is written down, at one moment.
#[derive(Clone)]
pub(crate) struct View {
    snapshot: Snapshot,
    now: Now,
    /// Who leads, when we only read what it has written down.
    leader: Option<String>,
}

impl View {
    pub(crate) fn new(snapshot: Snapshot, now: Now) -> Self {
        Self { snapshot, now, leader: None }
    }

    /// What the leader at this address has written down.
    pub(crate) fn written(snapshot: Snapshot, now: Now, leader: String) -> Self {
        Self { snapshot, now, leader: Some(leader) }
    }

    /// Who leads, when it is not us: what is at work where is not to be seen here.
    pub(crate) fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.snapshot.epoch
    }

    /// The calendar's time of this view.
    pub(crate) fn unix_ms(&self) -> u64 {
        self.now.unix_ms
    }

    /// A job as people see it; in brief, as lists carry it, when it is over.
    pub(crate) fn status(&self, id: &JobId) -> Option<JobStatus> {
        self.snapshot.jobs.get(id).map(|job| self.status_of(job))
    }

    /// The engine counts versions from 1 in each process; the epoch above them makes them rise over a restart too, so that
    /// a watcher never takes a new state for an old one.
    fn status_of(&self, job: &JobView) -> JobStatus {
        let status = job.snapshot.status(self.now, self.snapshot.fleet);
        // What a job waits for depends on the workers, whom only the leader knows.
        let waiting = status.waiting.filter(|_| self.leader.is_none());
        JobStatus { version: (self.epoch().0 << 32) + status.version, waiting, ..status }
    }

    /// What is written down about a job, unless it is over.
    pub(crate) fn record(&self, id: &JobId) -> Option<Arc<JobRecord>> {
        self.snapshot.jobs.get(id)?.record.clone()
    }

    /// How many jobs there are.
    pub(crate) fn job_count(&self) -> usize {
        self.snapshot.jobs.size()
    }

    /// How many of them are in this state.
    pub(crate) fn jobs_in(&self, state: JobState) -> u64 {
        self.snapshot.counts.get(&state).copied().unwrap_or_default()
    }

    /// Those of them that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = JobStatus> {
        let running =
            self.snapshot.order.values().filter(|job| job.snapshot.written().state == JobState::Running);
        running.map(|job| self.status_of(job))
    }

    /// The newest jobs.
    pub(crate) fn newest(&self, count: usize) -> Vec<JobStatus> {
        self.snapshot.order.values().rev().take(count).map(|job| self.status_of(job)).collect()
    }

    /// Jobs that fit, newest first, from before this place on; and the place before which the next page begins, unless this is the
    /// last. A place stays what it is when its job is deleted.
    pub(crate) fn page(
        &self,
        filter: &JobFilter,
        before: Option<&Place>,
        size: usize,
    ) -> (Vec<JobStatus>, Option<Place>) {
        let newest = before.map_or(Bound::Unbounded, |Place(place)| Bound::Excluded(place));
        let jobs = self.snapshot.order.range((Bound::Unbounded, newest)).rev();
        // Older ones are older still.
        let jobs = jobs
            .take_while(|((submitted, _), _)| filter.since_unix_ms.is_none_or(|since| *submitted >= since));
        let mut jobs = jobs.filter(|(_, job)| filter.fits(job.snapshot.written()));
        let page: Vec<_> = jobs.by_ref().take(size).collect();
        let next = page.last().filter(|_| jobs.next().is_some()).map(|(place, _)| Place((*place).clone()));
        (page.into_iter().map(|(_, job)| self.status_of(job)).collect(), next)
    }

    /// Whether a job was submitted with this request.
    pub(crate) fn knows_request(&self, request: &Request) -> bool {
        self.snapshot.requests.contains_key(request)
    }

    /// What of a job waits, and why.
    pub(crate) fn explain(&self, id: &JobId) -> Option<Vec<Explanation>> {
        let job = self.snapshot.jobs.get(id)?;
        Some(job.snapshot.explain(self.now, &self.workers()))
    }

    pub(crate) fn worker(&self, id: &WorkerId) -> Option<WorkerStatus> {
        self.snapshot.workers.get(id).map(|worker| self.worker_of(worker))
    }

    /// Workers, by name; those that died lately too.
    pub(crate) fn workers(&self) -> Vec<WorkerStatus> {
        self.snapshot.workers.values().map(|worker| self.worker_of(worker)).collect()
    }

    fn worker_of(&self, worker: &WorkerView) -> WorkerStatus {
        worker.snapshot.status(self.now, worker.heard.as_ref().map(|heard| heard.ms()))
    }
}
