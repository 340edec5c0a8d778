//! Elections over a store in memory that is shared, and goes down on command.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use lethe_store::{Entry, Listing, Watch};

use super::*;

const TTL: Duration = Duration::from_secs(3);

/// A store in memory as several coordinators share one, which answers nothing while it is down.
#[derive(Debug)]
struct Shared {
    store: Arc<dyn StateStore>,
    down: AtomicBool,
}

impl Shared {
    fn unless_down<'a, T: 'a>(
        &self,
        call: BoxFuture<'a, lethe_store::Result<T>>,
    ) -> BoxFuture<'a, lethe_store::Result<T>> {
        if !self.down.load(Ordering::SeqCst) {
            return call;
        }
        let (endpoints, reason) = ("nowhere".to_owned(), "unplugged".to_owned());
        async { Err(lethe_store::Error::Unreachable { endpoints, reason }) }.boxed()
    }
}

impl StateStore for Shared {
    fn is_exclusive(&self) -> bool {
        false
    }
    fn get(&self, key: &str) -> BoxFuture<'_, lethe_store::Result<Option<Entry>>> {
        self.unless_down(self.store.get(key))
    }
    fn list(&self, prefix: &str) -> BoxFuture<'_, lethe_store::Result<Listing>> {
        self.unless_down(self.store.list(prefix))
    }
    fn commit(&self, txn: Txn) -> BoxFuture<'_, lethe_store::Result<Revision>> {
        self.unless_down(self.store.commit(txn))
    }
    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.store.watch(prefix, after)
    }
    fn compact(&self, through: Revision) -> BoxFuture<'_, lethe_store::Result<()>> {
        self.unless_down(self.store.compact(through))
    }
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, lethe_store::Result<LeaseId>> {
        self.unless_down(self.store.grant(ttl))
    }
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, lethe_store::Result<Duration>> {
        self.unless_down(self.store.keep_alive(lease))
    }
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, lethe_store::Result<()>> {
        self.unless_down(self.store.revoke(lease))
    }
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared { store: lethe_store::memory(), down: AtomicBool::new(false) })
}

fn candidate(store: Arc<dyn StateStore>, id: &str) -> Election {
    let me = Leader { address: format!("{id}:7400"), id: id.to_owned(), started_unix_ms: 1 };
    Election::new(store, Arc::new(Metrics::new().unwrap()), me, TTL)
}

async fn leads(election: &mut Election) -> bool {
    matches!(election.campaign().await.unwrap(), Outcome::Leads)
}

async fn can_write(store: &Arc<Shared>, fence: Fence) -> bool {
    store.commit(fence.txn().put("jobs/j/record", "x")).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn one_leads_as_long_as_it_lives_and_another_follows() {
    let store = shared();
    let (mut first, mut second) = (candidate(store.clone(), "a"), candidate(store.clone(), "b"));
    assert!(leads(&mut first).await);
    let old = first.fence().unwrap();
    // It is renewed for as long as it is held.
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(first.fence(), Some(old));
    let Outcome::Follows(leader, seen) = second.campaign().await.unwrap() else { panic!("two leaders") };
    assert_eq!((leader.address.as_str(), second.fence()), ("a:7400", None));
    let mut changes = second.watch(seen);
    let begun = Instant::now();
    drop(first);
    futures::StreamExt::next(&mut changes).await.unwrap().unwrap();
    assert!(begun.elapsed() <= TTL, "{:?}", begun.elapsed());
    assert!(leads(&mut second).await);
    assert!(!can_write(&store, old).await && can_write(&store, second.fence().unwrap()).await);
}

#[tokio::test(start_paused = true)]
async fn a_leader_stops_before_its_lease_can_end_and_goes_on_when_it_has_not() {
    let store = shared();
    let mut election = candidate(store.clone(), "a");
    assert!(leads(&mut election).await);
    let fence = election.fence().unwrap();
    store.down.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    election.over().await;
    assert!(begun.elapsed() < TTL, "{:?}", begun.elapsed());
    assert_eq!(election.fence(), None);
    assert!(election.campaign().await.unwrap_err().retryable());
    // Back in time: the same leader, under a new epoch, so that a write given up before cannot arrive any more.
    store.down.store(false, Ordering::SeqCst);
    assert!(leads(&mut election).await);
    let again = election.fence().unwrap();
    assert_eq!(again.leader, fence.leader);
    assert!(!can_write(&store, fence).await && can_write(&store, again).await);
    // Back too late: its key is gone, and it stands for election like everybody else.
    store.down.store(true, Ordering::SeqCst);
    sleep(TTL * 2).await;
    store.down.store(false, Ordering::SeqCst);
    assert!(leads(&mut candidate(store.clone(), "b")).await);
    assert!(matches!(election.campaign().await.unwrap(), Outcome::Follows(leader, _) if leader.id == "b"));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_resigns_is_replaced_at_once() {
    let store = shared();
    let (mut first, mut second) = (candidate(store.clone(), "a"), candidate(store.clone(), "b"));
    assert!(leads(&mut first).await && !leads(&mut second).await);
    let begun = Instant::now();
    first.resign().await;
    assert!(first.fence().is_none() && leads(&mut second).await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn in_a_store_of_our_own_nobody_waits_for_a_leader_that_is_gone() {
    let store = lethe_store::memory();
    let mut first = candidate(store.clone(), "a");
    assert!(leads(&mut first).await);
    let (begun, old) = (Instant::now(), first.fence().unwrap());
    let mut second = candidate(store.clone(), "b");
    assert!(leads(&mut second).await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(store.commit(old.txn().put("x", "x")).await.is_err());
    store.commit(second.fence().unwrap().txn().put("x", "x")).await.unwrap();
}

#[tokio::test]
async fn the_state_of_version_1_has_no_leader_and_is_led() {
    let store = shared();
    store.commit(Txn::new().put(EPOCH, "7")).await.unwrap();
    assert!(leads(&mut candidate(store.clone(), "a")).await);
    assert_eq!(store.get(EPOCH).await.unwrap().unwrap().value, "8");
}
