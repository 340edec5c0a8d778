//! While another coordinator leads: read what it has written down for whoever asks, send everybody else to it, and see
//! its key vanish.

use std::time::Duration;

use futures::StreamExt;
use lethe_engine::State;
use lethe_proto::status::Refusal;
use lethe_store::Revision;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::published::Published;
use super::snapshot::Snapshot;
use super::task::Driver;
use super::{Readiness, Reply, Request, View, elsewhere};
use crate::election::Leader;
use crate::records::Loaded;

/// Requests taken at once: those that read share one reading of the store.
const BATCH: usize = 64;

/// So long a reading of the store is good for all who ask.
const FRESH: Duration = Duration::from_secs(1);
/// And for so many times as long as it took: however large the store and whoever asks, this one reads a tenth of its time.
const RESTS: u32 = 9;

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
    ) -> Option<crate::Result<()>> {
        tracing::info!(leader = leader.address, "another coordinator leads");
        self.set(Readiness::Following(leader.address.clone()));
        self.publish(Published::Following(leader.address.clone()));
        self.sessions.close_all();
        // Watches end: they are taken up again where the jobs are driven.
        self.watchers.end_all();
        let mut copy = Copy::default();
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
                    self.answer(&mut batch, &leader, &mut copy).await;
                }
            }
        }
    }

    /// Answers those who read what is written down; the others are sent to the leader.
    async fn answer(&self, batch: &mut Vec<Request>, leader: &Leader, copy: &mut Copy) {
        let mut readers: Vec<Reply<View>> = Vec::new();
        for request in batch.drain(..) {
            match request {
                Request::Read { reply } => readers.push(reply),
                other => other.refuse(&elsewhere(&leader.address)),
            }
        }
        if readers.is_empty() {
            return;
        }
        let read = self.read(copy).await;
        let view = read.map(|snapshot| View::written(snapshot, self.clock.now(), leader.address.clone()));
        for reply in readers {
            // Nobody waits for it any more: no harm.
            let _ = reply.send(view.clone());
        }
    }

    /// What is written down, not older than a moment.
    async fn read(&self, copy: &mut Copy) -> Result<Snapshot, Refusal> {
        if let Some((snapshot, _)) = copy.0.as_ref().filter(|(_, until)| Instant::now() < *until) {
            return Ok(snapshot.clone());
        }
        let begin = Instant::now();
        let loaded = self.records.load().await.map_err(|error| super::recovery::store_down(&error))?;
        let Loaded { epoch, jobs, workers, forgotten: _ } = loaded;
        let state = State::restore(self.config.clone(), epoch, self.clock.now(), jobs, workers);
        let snapshot = Snapshot::of(&state);
        let rest = FRESH.max(begin.elapsed() * RESTS);
        copy.0 = Some((snapshot.clone(), Instant::now() + rest));
        Ok(snapshot)
    }
}

/// What was read last, and until when it is good enough.
#[derive(Default)]
struct Copy(Option<(Snapshot, Instant)>);
