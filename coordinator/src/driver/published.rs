//! The way from the driver to those who read: what it has published, and a signal for each change of a job.
//!
//! Not here: what is published (`snapshot`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lethe_domain::JobId;
use lethe_proto::status::Refusal;
use tokio::sync::watch;

use super::snapshot::Snapshot;
use crate::election::TermEnd;

/// What can be read.
#[derive(Clone)]
pub(crate) enum Published {
    /// It leads, until its term ends.
    Leading(Snapshot, TermEnd),
    /// Another one leads, at this address.
    Following(String),
    /// Nothing, for this reason.
    Nothing(Refusal),
}

/// Who wants to hear of changes of which job. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchers {
    jobs: Arc<Mutex<BTreeMap<JobId, watch::Sender<()>>>>,
}

impl Watchers {
    /// A signal for each change of a job.
    pub(crate) fn subscribe(&self, job: JobId) -> watch::Receiver<()> {
        let mut jobs = self.jobs();
        jobs.retain(|_, watchers| watchers.receiver_count() > 0);
        jobs.entry(job).or_insert_with(|| watch::channel(()).0).subscribe()
    }

    /// A job has changed.
    pub(crate) fn notify(&self, job: &JobId) {
        if let Some(watchers) = self.jobs().get(job) {
            watchers.send_replace(());
        }
    }

    /// Every job may have changed.
    pub(crate) fn notify_all(&self) {
        self.jobs().values().for_each(|watchers| {
            watchers.send_replace(());
        });
    }

    /// Ends every watch.
    pub(crate) fn end_all(&self) {
        self.jobs().clear();
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, watch::Sender<()>>> {
        // Nobody panics with it in hand.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
