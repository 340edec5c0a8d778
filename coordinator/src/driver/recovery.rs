//! What the driver does when a write has failed: leadership is lost, the state is dropped and read again, however long
//! that takes. Until then every request is refused, and nobody waits.

use std::time::Duration;

use lethe_domain::JobState;
use lethe_engine::State;
use lethe_proto::status::Refusal;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::task::Driver;
use super::{Readiness, Request, View};
use crate::Error;
use crate::records::Loaded;

/// Pauses between tries to read the state again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Driver {
    /// Leadership is lost with a write that failed: read everything again, however long it takes.
    pub(super) async fn recover(&mut self, error: Error, stop: &CancellationToken) {
        tracing::error!(%error, "cannot write the state down: it is read again, workers must join again");
        self.readiness.send_replace(Readiness::StoreDown(error.to_string()));
        self.sessions.close_all();
        let mut pause = FIRST_PAUSE;
        loop {
            let refusal = match self.records.lead().await {
                Ok(Loaded { epoch, jobs }) => {
                    self.state = State::restore(self.config.clone(), epoch, self.clock.now(), jobs);
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "cannot read the state");
                    self.readiness.send_replace(Readiness::StoreDown(error.to_string()));
                    store_down(&error)
                }
            };
            if !self.refuse_for(pause, &refusal, stop).await {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.metrics.restored();
        self.restored();
        self.readiness.send_replace(Readiness::Ready);
        self.watchers.values().for_each(|watchers| {
            watchers.send_replace(());
        });
    }

    /// After the state was read: what a crash may have left undone.
    pub(super) fn restored(&mut self) {
        let now = self.clock.now();
        self.settle_at = Some(now.mono_ms + self.config.dead_after_ms);
        let view = View::new(&self.state, now);
        let succeeded = view.records().filter(|record| record.state == JobState::Succeeded);
        let results = succeeded
            .filter_map(|record| view.result(&record.id).map(|result| (result, record.spec.publish.clone())));
        self.results.write_missing(results.collect());
        tracing::info!(epoch = %self.state.epoch(), jobs = self.state.job_ids().len(), "the state is read");
    }

    /// Refuses whatever comes for a while. False when it is time to stop.
    async fn refuse_for(&mut self, pause: Duration, refusal: &Refusal, stop: &CancellationToken) -> bool {
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(end) => return true,
                () = stop.cancelled() => return false,
                request = self.requests.recv() => match request {
                    Some(request) => refuse(request, refusal),
                    None => return false,
                },
            }
        }
    }
}

fn refuse(request: Request, refusal: &Refusal) {
    match request {
        Request::Submit { reply, .. } | Request::Cancel { reply, .. } => {
            let _ = reply.send(Err(refusal.clone()));
        }
        Request::Join { reply, .. } => {
            let _ = reply.send(Err(refusal.clone()));
        }
        Request::Watch { reply, .. } => {
            let _ = reply.send(Err(refusal.clone()));
        }
        Request::Look(answer) => answer(Err(refusal)),
        Request::Worker { .. } | Request::Leave { .. } => {}
    }
}

/// Why nothing is accepted.
pub(super) fn store_down(error: &Error) -> Refusal {
    Refusal::Unavailable { message: format!("the state cannot be written down: {error}") }
}
