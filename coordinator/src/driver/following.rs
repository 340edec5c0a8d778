//! While another coordinator leads: read what it has written down for whoever asks, send everybody else to it, and see
//! its key vanish.

use futures::StreamExt;
use lethe_engine::State;
use lethe_store::Revision;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::task::Driver;
use super::{Answer, Readiness, Request, View, elsewhere};
use crate::Result;
use crate::election::Leader;
use crate::records::Loaded;

/// Requests taken at once: those that read share one reading of the store.
const BATCH: usize = 64;

impl Driver {
    /// Follows a leader until it may be gone. None when it is time to stop.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) async fn follow(
        &mut self,
        leader: Leader,
        seen: Revision,
        stop: &CancellationToken,
    ) -> Option<Result<()>> {
        tracing::info!(leader = leader.address, "another coordinator leads");
        self.set(Readiness::Following(leader.address.clone()));
        self.sessions.close_all();
        // Watches end: they are taken up again where the jobs are driven.
        self.watchers.clear();
        let mut changes = self.election.watch(seen);
        // A watch can be late when its server hangs.
        let mut look = interval(self.election.ttl() / 2);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                // Gone, replaced, or the watch is lost: the next campaign tells.
                _ = changes.next() => return Some(Ok(())),
                _ = look.tick() => match self.election.leader().await {
                    Ok(Some(found)) if found == leader => {}
                    Ok(_) => return Some(Ok(())),
                    Err(error) => return Some(Err(error)),
                },
                taken = self.requests.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return None;
                    }
                    self.answer(&mut batch, &leader).await;
                }
            }
        }
    }

    /// Answers those who read what is written down; the others are sent to the leader.
    async fn answer(&self, batch: &mut Vec<Request>, leader: &Leader) {
        let mut readers: Vec<Answer> = Vec::new();
        for request in batch.drain(..) {
            match request {
                Request::Look { answer, live: false } => readers.push(answer),
                other => other.refuse(&elsewhere(&leader.address)),
            }
        }
        if readers.is_empty() {
            return;
        }
        match self.records.load().await {
            Ok(Loaded { epoch, jobs, workers }) => {
                let now = self.clock.now();
                let state = State::restore(self.config.clone(), epoch, now, jobs, workers);
                let view = View::written(&state, now, &leader.address);
                readers.into_iter().for_each(|answer| answer(Ok(&view)));
            }
            Err(error) => {
                let refusal = super::recovery::store_down(&error);
                readers.into_iter().for_each(|answer| answer(Err(&refusal)));
            }
        }
    }
}
