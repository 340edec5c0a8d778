//! What the driver publishes at the end of each turn: jobs and workers as they are written down. Everybody reads it, and
//! nobody asks the driver.
//!
//! The maps share what has not changed, so that publishing costs what a turn has changed, however much there is. Not here:
//! the time, and what a reader makes of it (`view`).

use std::collections::BTreeMap;
use std::sync::Arc;

use lethe_domain::{Epoch, JobId, JobState, WorkerId};
use lethe_engine::{Changed, FleetSnapshot, JobRecord, JobSnapshot, Request, State, WorkerSnapshot};
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

use super::sessions::{LastHeard, Sessions};

/// Jobs and workers at the end of a turn. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    pub(super) epoch: Epoch,
    pub(super) jobs: HashTrieMapSync<JobId, Arc<JobView>>,
    /// The same, oldest first.
    pub(super) order: RedBlackTreeMapSync<(u64, JobId), Arc<JobView>>,
    pub(super) requests: HashTrieMapSync<Request, JobId>,
    pub(super) counts: BTreeMap<JobState, u64>,
    pub(super) workers: RedBlackTreeMapSync<WorkerId, WorkerView>,
    pub(super) fleet: FleetSnapshot,
}

/// A job, and what is written down about it; only in brief when it is over.
pub(crate) struct JobView {
    pub(super) snapshot: JobSnapshot,
    pub(super) record: Option<Arc<JobRecord>>,
    /// The request that it was submitted with.
    request: Option<Request>,
}

/// A worker, and when it was heard from.
#[derive(Clone)]
pub(crate) struct WorkerView {
    pub(super) snapshot: Arc<WorkerSnapshot>,
    pub(super) heard: Option<LastHeard>,
}

impl Snapshot {
    /// A whole state.
    pub(crate) fn of(state: &State) -> Self {
        let mut snapshot = Self { epoch: state.epoch(), ..Self::default() };
        state.job_ids().iter().for_each(|id| snapshot.set_job(state, id, None));
        snapshot
    }

    /// Takes over what a turn has changed: `written` are the records it has written down.
    pub(crate) fn update(
        &mut self,
        state: &State,
        changed: Changed,
        mut written: BTreeMap<JobId, Arc<JobRecord>>,
        sessions: &Sessions,
    ) {
        let ids: Vec<JobId> = written.keys().filter(|id| !changed.jobs.contains(*id)).cloned().collect();
        for id in changed.jobs.iter().chain(&ids) {
            let record = written.remove(id);
            self.set_job(state, id, record);
        }
        if !changed.workers.is_empty() {
            self.fleet = state.fleet_snapshot();
        }
        for id in changed.workers {
            match state.worker_snapshot(&id) {
                Some(found) => {
                    let heard = sessions.last_heard(&id);
                    self.workers.insert_mut(id, WorkerView { snapshot: Arc::new(found), heard });
                }
                None => {
                    self.workers.remove_mut(&id);
                }
            }
        }
    }

    fn set_job(&mut self, state: &State, id: &JobId, written: Option<Arc<JobRecord>>) {
        let before = self.jobs.get(id).cloned();
        if let Some(before) = &before {
            let count = self.counts.entry(before.snapshot.written().state).or_default();
            *count = count.saturating_sub(1);
        }
        let Some(snapshot) = state.job_snapshot(id) else { return self.remove(id, before.as_deref()) };
        let known = before.as_ref().and_then(|before| before.record.clone());
        let record =
            state.record(id).map(|record| written.or(known).unwrap_or_else(|| Arc::new(record.clone())));
        let status = snapshot.written();
        *self.counts.entry(status.state).or_default() += 1;
        let request = state.request_of(id);
        if let Some(request) = request.as_ref().filter(|_| before.is_none()) {
            self.requests.insert_mut(request.clone(), id.clone());
        }
        let place = (status.submitted_unix_ms, id.clone());
        let job = Arc::new(JobView { snapshot, record, request });
        self.order.insert_mut(place, job.clone());
        self.jobs.insert_mut(id.clone(), job);
    }

    fn remove(&mut self, id: &JobId, job: Option<&JobView>) {
        let Some(job) = job else { return };
        self.jobs.remove_mut(id);
        self.order.remove_mut(&(job.snapshot.written().submitted_unix_ms, id.clone()));
        if let Some(request) = &job.request {
            self.requests.remove_mut(request);
        }
    }
}
