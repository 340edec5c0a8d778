//! Cases about keys that vanish.
//!
//! A case waits for the change itself, with a deadline; only where a lease must *not* end does it let time pass.

use std::time::Duration;

use super::{Store, assert_conflict, keys, next, put, value};
use crate::{Change, Error, Expectation, LeaseId, Txn};

const TTL: Duration = Duration::from_secs(2);

fn assert_unknown<T: std::fmt::Debug>(result: Result<T, Error>, lease: LeaseId) {
    match result {
        Err(Error::LeaseNotFound { lease: found }) => assert_eq!(found, lease),
        other => panic!("expected lease {lease} to be unknown, got {other:?}"),
    }
}

/// Nobody keeps it alive: a watch sees the key go, and so does a read; other keys stay.
pub async fn keys_vanish_when_their_lease_ends(store: Store) {
    let lease = store.grant(TTL).await.unwrap();
    let revision =
        store.commit(Txn::new().put_leased("workers/a", "here", lease).put("jobs/1", "x")).await.unwrap();
    assert_eq!(store.get("workers/a").await.unwrap().unwrap().lease, Some(lease));
    let gone = next(&mut store.watch("", revision)).await;
    assert!(gone.revision > revision);
    assert_eq!(gone.changes, [Change::Delete { key: "workers/a".to_owned() }]);
    assert_eq!(keys(&store, "").await, ["jobs/1"]);
    assert_unknown(store.keep_alive(lease).await, lease);
}

/// Renewed before its time, it lives well past its first deadline; then it ends.
pub async fn a_lease_kept_alive_stays(store: Store) {
    let lease = store.grant(TTL).await.unwrap();
    let revision = store.commit(Txn::new().put_leased("workers/a", "here", lease)).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(TTL * 6 / 10).await;
        assert_eq!(store.keep_alive(lease).await.unwrap(), TTL);
    }
    assert_eq!(value(&store, "workers/a").await.as_deref(), Some("here"));
    let gone = next(&mut store.watch("workers/", revision)).await;
    assert_eq!(gone.changes, [Change::Delete { key: "workers/a".to_owned() }]);
}

/// A worker that leaves in good order is gone now, not in a while.
pub async fn a_revoked_lease_ends_at_once(store: Store) {
    let lease = store.grant(Duration::from_secs(3600)).await.unwrap();
    let revision = store.commit(Txn::new().put_leased("workers/a", "here", lease)).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert_eq!(store.get("workers/a").await.unwrap(), None);
    let gone = next(&mut store.watch("workers/", revision)).await;
    assert_eq!(gone.changes, [Change::Delete { key: "workers/a".to_owned() }]);
}

/// It cannot be renewed, revoked or used; a transaction that tries writes nothing. Numbers are never used again.
pub async fn an_ended_lease_is_unknown(store: Store) {
    let lease = store.grant(TTL).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert_unknown(store.revoke(lease).await, lease);
    assert_unknown(store.keep_alive(lease).await, lease);
    let txn = Txn::new().put("jobs/1", "x").put_leased("workers/a", "here", lease);
    assert_unknown(store.commit(txn).await, lease);
    assert_eq!(keys(&store, "").await, Vec::<String>::new());
    assert_ne!(store.grant(TTL).await.unwrap(), lease);
}

/// Watches never see half of a worker.
pub async fn all_keys_of_a_lease_vanish_in_one_commit(store: Store) {
    let lease = store.grant(TTL).await.unwrap();
    let other = store.grant(Duration::from_secs(3600)).await.unwrap();
    let mut revision = store.commit(Txn::new().put_leased("stays", "x", other)).await.unwrap();
    for key in ["w/c", "w/a", "w/b"] {
        revision = store.commit(Txn::new().put_leased(key, "x", lease)).await.unwrap();
    }
    let gone = next(&mut store.watch("", revision)).await;
    let mut gone: Vec<&str> = gone.changes.iter().map(Change::key).collect();
    gone.sort_unstable();
    assert_eq!(gone, ["w/a", "w/b", "w/c"]);
    assert_eq!(keys(&store, "").await, ["stays"]);
}

/// A put without a lease, or with another one, takes the key away from its first lease; so does a delete.
pub async fn a_key_belongs_to_the_lease_of_its_last_put(store: Store) {
    let first = store.grant(TTL).await.unwrap();
    let second = store.grant(Duration::from_secs(3600)).await.unwrap();
    store
        .commit(
            ["freed", "moved", "kept", "again", "deleted"]
                .iter()
                .fold(Txn::new(), |txn, key| txn.put_leased(*key, "1", first)),
        )
        .await
        .unwrap();
    store
        .commit(
            Txn::new().put("freed", "2").put_leased("moved", "2", second).delete("again").delete("deleted"),
        )
        .await
        .unwrap();
    let revision = put(&store, "again", "2").await;
    assert_eq!(store.get("freed").await.unwrap().unwrap().lease, None);
    assert_eq!(store.get("moved").await.unwrap().unwrap().lease, Some(second));
    let gone = next(&mut store.watch("", revision)).await;
    assert_eq!(gone.changes, [Change::Delete { key: "kept".to_owned() }]);
    assert_eq!(keys(&store, "").await, ["again", "freed", "moved"]);
    store.revoke(second).await.unwrap();
    assert_eq!(keys(&store, "").await, ["again", "freed"]);
}

/// Rounded up, so a caller never has less than it asked for.
pub async fn a_time_to_live_is_whole_seconds(store: Store) {
    for (asked, granted) in [(0, 1000), (1, 1000), (1000, 1000), (1001, 2000)] {
        let lease = store.grant(Duration::from_millis(asked)).await.unwrap();
        assert_eq!(store.keep_alive(lease).await.unwrap(), Duration::from_millis(granted));
    }
    let lease = store.grant(Duration::MAX).await.unwrap();
    assert_eq!(store.keep_alive(lease).await.unwrap(), Duration::from_secs(24 * 3600));
}

/// An election: the next leader waits for the first one's key to vanish; the first one's late write is refused.
pub async fn a_stale_leader_cannot_write(store: Store) {
    let campaign = |name: &'static str, lease| {
        Txn::new().expect("leader", Expectation::Absent).put_leased("leader", name, lease)
    };
    let first_lease = store.grant(TTL).await.unwrap();
    let first_epoch = store.commit(campaign("first", first_lease)).await.unwrap();
    let write = |epoch, value: &'static str| {
        Txn::new().expect("leader", Expectation::Created(epoch)).put("jobs/1", value)
    };
    store.commit(write(first_epoch, "by first")).await.unwrap();

    let second_lease = store.grant(Duration::from_secs(3600)).await.unwrap();
    let listing = store.list("leader").await.unwrap();
    assert_conflict(store.commit(campaign("second", second_lease)).await, "leader");
    let gone = next(&mut store.watch("leader", listing.revision)).await;
    assert_eq!(gone.changes, [Change::Delete { key: "leader".to_owned() }]);
    assert_conflict(store.commit(write(first_epoch, "by nobody")).await, "leader");
    let second_epoch = store.commit(campaign("second", second_lease)).await.unwrap();
    assert!(second_epoch > first_epoch);

    assert_conflict(store.commit(write(first_epoch, "by a ghost")).await, "leader");
    store.commit(write(second_epoch, "by second")).await.unwrap();
    assert_eq!(value(&store, "jobs/1").await.as_deref(), Some("by second"));
}
