//! Jobs that are over: ended, their files in order, no slot at work for them. Of each a summary stays in memory, to list it,
//! to know its request again and to forget it in its turn; the rest is written down, and read again when somebody asks.
//!
//! Not here: when a job is over, and when it is forgotten (`retention`).

use std::hash::{DefaultHasher, Hash, Hasher};

use lethe_domain::{JobId, JobSpec, JobState, JobStatus};

use crate::{JobRecord, Request, State};

/// What stays in memory of a job that is over.
#[derive(Debug)]
pub(crate) struct Past {
    /// As lists of jobs carry it.
    pub(crate) status: JobStatus,
    pub(crate) request: Option<Request>,
    /// Stands for the spec.
    spec: u64,
}

impl Past {
    pub(crate) fn new(record: &JobRecord, version: u64) -> Self {
        let status = JobStatus { version, ..record.over() }.brief();
        Self { status, request: record.request(), spec: fingerprint(record.asked()) }
    }

    /// Its place among jobs that have ended: (when, id).
    pub(crate) fn end(&self) -> (u64, JobId) {
        (self.status.finished_unix_ms.unwrap_or_default(), self.status.id.clone())
    }
}

/// Tells one spec from another, within this process.
fn fingerprint(spec: &JobSpec) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{spec:?}").hash(&mut hasher);
    hasher.finish()
}

impl State {
    /// Keeps only the summary of a job that is over.
    pub(crate) fn put_away(&mut self, id: &JobId) {
        let Some(job) = self.jobs.remove(id) else { return };
        self.past.insert(id.clone(), Past::new(&job.record, job.version));
        self.changed.jobs.insert(id.clone());
    }

    /// Where a job stands; none when nobody knows it.
    pub fn job_state(&self, id: &JobId) -> Option<JobState> {
        let live = self.jobs.get(id).map(|job| job.record.state);
        live.or_else(|| self.past.get(id).map(|past| past.status.state))
    }

    /// The request that a job was submitted with.
    pub fn request_of(&self, id: &JobId) -> Option<Request> {
        match self.jobs.get(id) {
            Some(job) => job.record.request(),
            None => self.past.get(id)?.request.clone(),
        }
    }

    /// Whose job it is.
    pub(crate) fn owner_of(&self, id: &JobId) -> Option<&str> {
        match self.jobs.get(id) {
            Some(job) => Some(&job.record.spec.queue.owner),
            None => self.past.get(id).map(|past| past.status.owner.as_str()),
        }
    }

    /// Whether this is what a job was asked to do.
    pub fn was_asked(&self, id: &JobId, spec: &JobSpec) -> bool {
        match self.jobs.get(id) {
            Some(job) => job.record.asked() == spec,
            None => self.past.get(id).is_some_and(|past| past.spec == fingerprint(spec)),
        }
    }
}
