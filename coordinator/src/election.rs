//! Who leads: one key in the state store, held by a lease, and with it the right to write.
//!
//! | key | value |
//! |---|---|
//! | `leader` | `{"version": 2, "leader": {"address": ..., "id": ..., "started_unix_ms": ...}}`, gone with the leader's lease |
//! | `epoch` | a decimal number, raised with every election and every time a leader reads its state again |
//!
//! Both are written in one transaction, and every later write of that leader requires both as they are ([`Fence`]): the
//! first shuts out a leader that was replaced, the second a write of its own that was given up and arrives late. A store
//! that only this process can open needs no lease: a key found there is of a process that is gone, and is taken over.
//!
//! Not here: what a leader does (driver), what is written (`records`).

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use lethe_store::{Expectation, LeaseId, Revision, StateStore, Txn};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::metrics::{Metrics, StoreOp};
use crate::{Error, Result};

pub(crate) const LEADER: &str = "leader";
pub(crate) const EPOCH: &str = "epoch";

/// Between two tries to renew a lease while the store does not answer.
const RENEWAL_PAUSE: Duration = Duration::from_millis(100);

/// What a leader says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leader {
    /// Where clients and workers reach it: `host:port`.
    pub(crate) address: String,
    /// This process, among all there ever were.
    pub(crate) id: String,
    pub(crate) started_unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u32,
    leader: Leader,
}

/// What every write of a leader requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    leader: Revision,
    epoch: Revision,
}

impl Fence {
    /// A transaction that nobody but this leader can commit.
    pub(crate) fn txn(&self) -> Txn {
        Txn::new()
            .expect(LEADER, Expectation::Created(self.leader))
            .expect(EPOCH, Expectation::Version(self.epoch))
    }
}

/// How an election ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// We lead, and nobody else.
    Leads,
    /// Somebody else does, as of this revision.
    Follows(Leader, Revision),
}

/// One coordinator's part in the elections.
#[derive(Debug)]
pub(crate) struct Election {
    store: Arc<dyn StateStore>,
    metrics: Arc<Metrics>,
    me: Leader,
    ttl: Duration,
    /// While the key is ours, as far as we know.
    term: Option<Term>,
}

#[derive(Debug)]
struct Term {
    fence: Fence,
    /// None in a store of our own.
    lease: Option<LeaderLease>,
}

impl Election {
    pub(crate) fn new(store: Arc<dyn StateStore>, metrics: Arc<Metrics>, me: Leader, ttl: Duration) -> Self {
        // No store grants less.
        Self { store, metrics, me, ttl: ttl.max(Duration::from_secs(1)), term: None }
    }

    /// One try to lead, or to go on leading after the state was dropped.
    ///
    /// # Errors
    /// [`Error::Store`]: try again; a conflict means that another was faster. [`Error::Record`] names what cannot be read.
    pub(crate) async fn campaign(&mut self) -> Result<Outcome> {
        if let Some(lease) = self.term.as_ref().and_then(|term| term.lease.as_ref()) {
            let renewed = lease.renew(&*self.store).await;
            match renewed {
                Ok(()) => {}
                Err(lethe_store::Error::LeaseNotFound { .. }) => self.term = None,
                Err(error) => return Err(error.into()),
            }
        }
        let listing = self.metrics.store_request(StoreOp::List, self.store.list(LEADER)).await?;
        let found = listing.entries.iter().find(|entry| entry.key == LEADER);
        let last = self.metrics.store_request(StoreOp::Get, self.store.get(EPOCH)).await?;
        let epoch = last.as_ref().map_or(Ok(0), |last| read_epoch(&last.value))? + 1;
        let epoch_is = last.map_or(Expectation::Absent, |last| Expectation::Version(last.version));
        if let Some(term) = &mut self.term {
            if found.is_some_and(|found| found.created == term.fence.leader) {
                let txn = Txn::new()
                    .expect(LEADER, Expectation::Created(term.fence.leader))
                    .expect(EPOCH, epoch_is)
                    .put(EPOCH, epoch.to_string());
                term.fence.epoch =
                    self.metrics.store_request(StoreOp::Commit, self.store.commit(txn)).await?;
                return Ok(Outcome::Leads);
            }
            self.term = None;
        }
        let free = match found {
            None => Expectation::Absent,
            Some(left) if self.store.is_exclusive() => Expectation::Version(left.version),
            Some(held) => return Ok(Outcome::Follows(read_leader(&held.value)?, listing.revision)),
        };
        let lease = if self.store.is_exclusive() {
            None
        } else {
            Some(LeaderLease::granted(&self.store, self.ttl).await?)
        };
        let txn = Txn::new().expect(LEADER, free).expect(EPOCH, epoch_is).put(EPOCH, epoch.to_string());
        let value = self.value()?;
        let txn = match &lease {
            Some(lease) => txn.put_leased(LEADER, value, lease.id),
            None => txn.put(LEADER, value),
        };
        let committed = self.metrics.store_request(StoreOp::Commit, self.store.commit(txn)).await?;
        let created = found.map_or(committed, |left| left.created);
        self.term = Some(Term { fence: Fence { leader: created, epoch: committed }, lease });
        self.metrics.elected();
        Ok(Outcome::Leads)
    }

    fn value(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&Envelope { version: crate::records::VERSION, leader: self.me.clone() })
            .map_err(|error| Error::Record { key: LEADER.to_owned(), reason: error.to_string() })
    }

    /// What our writes require; none when the time for which we may lead is over, or nearly so.
    pub(crate) fn fence(&self) -> Option<Fence> {
        let term = self.term.as_ref()?;
        let holds = term.lease.as_ref().is_none_or(|lease| Instant::now() < *lease.until.borrow());
        holds.then_some(term.fence)
    }

    /// Waits until the time for which we may lead is over: the store did not let us renew it. Never in a store of our
    /// own.
    pub(crate) fn over(&self) -> impl Future<Output = ()> + use<> {
        let until =
            self.term.as_ref().and_then(|term| term.lease.as_ref()).map(|lease| lease.until.subscribe());
        async move {
            let Some(mut until) = until else { return std::future::pending().await };
            loop {
                let moment = *until.borrow_and_update();
                tokio::select! {
                    () = sleep_until(moment) => return,
                    // The renewals have ended with the lease: its last word stands.
                    changed = until.changed() => if changed.is_err() { return },
                }
            }
        }
    }

    /// When the time for which we may lead will be over.
    pub(crate) fn term_end(&self) -> TermEnd {
        TermEnd(self.term.as_ref().and_then(|term| term.lease.as_ref()).map(|lease| lease.until.subscribe()))
    }

    /// Who leads.
    pub(crate) async fn leader(&self) -> Result<Option<Leader>> {
        let entry = self.metrics.store_request(StoreOp::Get, self.store.get(LEADER)).await?;
        entry.map(|entry| read_leader(&entry.value)).transpose()
    }

    /// Changes of the leader's key after this revision.
    pub(crate) fn watch(&self, after: Revision) -> lethe_store::Watch {
        self.store.watch(LEADER, after)
    }

    /// How long a leader that has died may seem to lead.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Gives the leadership back, so that the next leader need not wait.
    pub(crate) async fn resign(&mut self) {
        let Some(Term { lease: Some(lease), .. }) = self.term.take() else { return };
        let id = lease.id;
        drop(lease);
        if let Err(error) = self.store.revoke(id).await {
            tracing::warn!(%error, "cannot give the leadership back: the next leader waits until it has expired");
        }
    }
}

/// The end of a term, which moves as long as the lease is renewed. Never, in a store of our own.
#[derive(Debug, Clone)]
pub(crate) struct TermEnd(Option<watch::Receiver<Instant>>);

impl TermEnd {
    /// Whether it has come.
    pub(crate) fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(|until| *until.borrow() <= Instant::now())
    }
}

/// A lease that is renewed until this is dropped.
#[derive(Debug)]
struct LeaderLease {
    id: LeaseId,
    /// Until then, a little less than the store grants, we may lead.
    until: watch::Sender<Instant>,
    renewals: AbortHandle,
}

impl Drop for LeaderLease {
    fn drop(&mut self) {
        self.renewals.abort();
    }
}

/// The end of what was asked for at `asked`, with room for clocks that do not run alike.
fn end(asked: Instant, ttl: Duration) -> Instant {
    asked + ttl * 9 / 10
}

impl LeaderLease {
    async fn granted(store: &Arc<dyn StateStore>, ttl: Duration) -> Result<Self> {
        let asked = Instant::now();
        let id = store.grant(ttl).await?;
        let until = watch::Sender::new(end(asked, ttl));
        let renewals = tokio::spawn(renew_for_ever(store.clone(), id, until.clone())).abort_handle();
        Ok(Self { id, until, renewals })
    }

    /// Renews it now.
    async fn renew(&self, store: &dyn StateStore) -> lethe_store::Result<()> {
        let asked = Instant::now();
        let ttl = store.keep_alive(self.id).await?;
        self.until.send_replace(end(asked, ttl));
        Ok(())
    }
}

/// Renews a lease at half of the time that is left, counted from before the store was asked. When the store does not
/// answer it goes on asking: the lease may outlive the outage, and then the leader does too.
async fn renew_for_ever(store: Arc<dyn StateStore>, id: LeaseId, until: watch::Sender<Instant>) {
    loop {
        let left = until.borrow().saturating_duration_since(Instant::now());
        sleep(left / 2).await;
        let asked = Instant::now();
        match store.keep_alive(id).await {
            Ok(ttl) => {
                until.send_replace(end(asked, ttl));
            }
            Err(error @ lethe_store::Error::LeaseNotFound { .. }) => {
                tracing::warn!(%error, "the leadership has expired");
                until.send_replace(Instant::now());
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot renew the leadership");
                sleep(RENEWAL_PAUSE).await;
            }
        }
    }
}

pub(crate) fn read_epoch(value: &[u8]) -> Result<u64> {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::Record { key: EPOCH.to_owned(), reason: "it is not a number".to_owned() })
}

fn read_leader(value: &[u8]) -> Result<Leader> {
    let Envelope { leader, .. } = crate::records::open(LEADER, value)?;
    Ok(leader)
}
