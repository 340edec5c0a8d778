//! From no leadership to leadership, however long that takes: stand for election, read the state, or follow whoever
//! leads. Until then requests are refused, and nobody waits.

use std::time::Duration;

use lethe_engine::State;
use lethe_proto::status::Refusal;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::published::Published;
use super::snapshot::Snapshot;
use super::task::Driver;
use super::{Readiness, Request};
use crate::election::Outcome;
use crate::records::Loaded;
use crate::{Error, Result};

/// Pauses between tries while the store does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Driver {
    /// Leadership is lost, or a write failed and it is open what is written down: the state is worth nothing any more.
    pub(super) fn lose(&mut self, error: &Error) {
        tracing::error!(%error, "the state is read again, workers must join again");
        self.set(Readiness::StoreDown(error.to_string()));
        self.refuse(match error {
            Error::TermOver => no_leader(),
            error => store_down(error),
        });
        self.sessions.close_all();
        // Whoever leads next begins it anew.
        std::mem::take(&mut self.upkeep_end).cancel();
        self.forgetting = None;
        self.metrics.restored();
    }

    /// Nothing is accepted, and nothing can be read, for this reason.
    fn refuse(&mut self, refusal: Refusal) {
        self.publish(Published::Nothing(refusal.clone()));
        self.refusal = refusal;
    }

    /// Stands for election until it leads. False when it is told to stop.
    pub(super) async fn stand(&mut self, stop: &CancellationToken) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            let campaign = self.election.campaign();
            let Some(outcome) = refuse_during(campaign, &mut self.requests, &self.refusal, stop).await else {
                return false;
            };
            let entered = match outcome {
                Ok(Outcome::Leads) => {
                    let load = self.records.load();
                    match refuse_during(load, &mut self.requests, &self.refusal, stop).await {
                        Some(loaded) => loaded.map(Some),
                        None => return false,
                    }
                }
                Ok(Outcome::Follows(leader, revision)) => {
                    self.refuse(no_leader());
                    pause = FIRST_PAUSE;
                    match self.follow(leader, revision, stop).await {
                        Some(followed) => followed.map(|()| None),
                        None => return false,
                    }
                }
                Err(error) => Err(error),
            };
            match entered {
                Ok(Some(loaded)) => {
                    self.begin(loaded);
                    return true;
                }
                Ok(None) => {}
                Err(error) => {
                    if !error.is_conflict() {
                        tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "cannot read the state");
                        self.set(Readiness::StoreDown(error.to_string()));
                        self.refuse(store_down(&error));
                    }
                    let paused = sleep(pause);
                    if refuse_during(paused, &mut self.requests, &self.refusal, stop).await.is_none() {
                        return false;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// One try to lead.
    pub(super) async fn enter(&mut self) -> Result<Outcome> {
        let outcome = self.election.campaign().await?;
        if let Outcome::Leads = outcome {
            let loaded = self.records.load().await?;
            self.begin(loaded);
        }
        Ok(outcome)
    }

    /// Leads from here on: sets the state up, and does what a crash may have left undone.
    fn begin(&mut self, Loaded { epoch, jobs, workers, forgotten }: Loaded) {
        let now = self.clock.now();
        self.state = State::restore(self.config.clone(), epoch, now, jobs, workers);
        for chore in self.state.left_undone(forgotten) {
            self.look_after(chore);
        }
        self.forgetting = Some(self.upkeep.forget_edits());
        self.state.take_changed();
        self.progressed.clear();
        self.snapshot = Snapshot::of(&self.state);
        self.publish(Published::Leading(self.snapshot.clone(), self.election.term_end()));
        tracing::info!(epoch = %self.state.epoch(), jobs = self.state.job_ids().len(), "this coordinator leads");
        self.set(Readiness::Ready);
        self.watchers.notify_all();
    }
}

/// Waits for an event and refuses whatever comes in the meantime. None when it is time to stop.
async fn refuse_during<T>(
    event: impl Future<Output = T>,
    requests: &mut mpsc::Receiver<Request>,
    refusal: &Refusal,
    stop: &CancellationToken,
) -> Option<T> {
    tokio::pin!(event);
    loop {
        tokio::select! {
            value = &mut event => return Some(value),
            () = stop.cancelled() => return None,
            request = requests.recv() => request?.refuse(refusal),
        }
    }
}

impl Request {
    /// Answers with a refusal.
    pub(super) fn refuse(self, refusal: &Refusal) {
        // Nobody waits for it any more: no harm.
        match self {
            Request::Submit { reply, .. } | Request::Cancel { reply, .. } => {
                let _ = reply.send(Err(refusal.clone()));
            }
            Request::Join { reply, .. } => {
                let _ = reply.send(Err(refusal.clone()));
            }
            Request::Order { reply, .. } => {
                let _ = reply.send(Err(refusal.clone()));
            }
            Request::Read { reply } => {
                let _ = reply.send(Err(refusal.clone()));
            }
            Request::Delete { reply, .. } => {
                let _ = reply.send(Err(refusal.clone()));
            }
            Request::Worker { .. } | Request::Leave { .. } | Request::UpkeepDone { .. } => {}
        }
    }
}

/// Why nothing is accepted.
pub(super) fn store_down(error: &Error) -> Refusal {
    Refusal::Unavailable { message: format!("the state cannot be written down: {error}") }
}

/// Nobody leads at the moment, as far as is known here.
pub(super) fn no_leader() -> Refusal {
    Refusal::NotLeader { leader: None }
}
