//! Cases about following what happens.

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt};

use super::{Store, next, put, within};
use crate::{Change, Changes, Error, Revision, Txn, Watch};

async fn refusal(watch: &mut Watch) -> Error {
    let error = within("an answer", watch.next()).await.expect("the watch ended without a word").unwrap_err();
    assert!(within("the end", watch.next()).await.is_none(), "after an error the watch ends");
    error
}

/// A commit is one item, in the order of the transaction, with what the watch asked for and no more.
pub async fn commits_arrive_whole_and_in_order(store: Store) {
    let start = put(&store, "jobs/gone", "1").await;
    let first = store
        .commit(Txn::new().put("jobs/b", "1").put("other", "1").delete("jobs/gone").put("jobs/a", "2"))
        .await
        .unwrap();
    put(&store, "other", "2").await;
    let second = put(&store, "jobs/b", "3").await;
    let mut watch = store.watch("jobs/", start);
    let changes = next(&mut watch).await;
    assert_eq!(changes.revision, first);
    let [Change::Put(b), Change::Delete { key }, Change::Put(a)] = changes.changes.as_slice() else {
        panic!("{changes:?}");
    };
    assert_eq!((b.key.as_str(), &b.value[..], b.version, b.created), ("jobs/b", &b"1"[..], first, first));
    assert_eq!(key, "jobs/gone");
    assert_eq!((a.key.as_str(), &a.value[..]), ("jobs/a", &b"2"[..]));
    let changes = next(&mut watch).await;
    assert_eq!(changes.revision, second);
    assert!(matches!(&changes.changes[..], [Change::Put(b)] if b.created == first && b.version == second));
}

/// Nothing has happened yet: the watch waits, and wakes up for its prefix.
pub async fn a_watch_waits_for_what_is_to_come(store: Store) {
    let start = store.list("").await.unwrap().revision;
    let mut watch = store.watch("jobs/", start);
    assert!(watch.next().now_or_never().is_none());
    put(&store, "other", "1").await;
    let revision = put(&store, "jobs/1", "1").await;
    assert_eq!(next(&mut watch).await.revision, revision);
    store.commit(Txn::new().delete("jobs/1")).await.unwrap();
    assert_eq!(next(&mut watch).await.changes, [Change::Delete { key: "jobs/1".to_owned() }]);
}

/// From every place in the history the rest is the same: no gap and no repetition.
pub async fn a_watch_resumes_after_any_revision(store: Store) {
    let start = store.list("").await.unwrap().revision;
    for number in 0..30 {
        let key = format!("jobs/{}", number % 7);
        let txn =
            if number % 5 == 4 { Txn::new().delete(key) } else { Txn::new().put(key, number.to_string()) };
        store.commit(txn).await.unwrap();
        put(&store, "other", "x").await;
    }
    let end = put(&store, "jobs/end", "x").await;
    let all = follow_until(store.watch("jobs/", start), end).await;
    assert!(all.len() > 20);
    assert!(all.is_sorted_by(|a, b| a.revision < b.revision));
    for (seen, changes) in all.iter().enumerate() {
        if changes.revision < end {
            assert_eq!(follow_until(store.watch("jobs/", changes.revision), end).await, all[seen + 1..]);
        }
    }
}

async fn follow_until(mut watch: Watch, end: Revision) -> Vec<Changes> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|changes: &Changes| changes.revision < end) {
        seen.push(next(&mut watch).await);
    }
    seen
}

/// A listing plus the watch from it is the state at any later time, whatever is written in between.
pub async fn a_watch_from_a_listing_misses_nothing(store: Store) {
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..60 {
                let key = format!("jobs/{}", number % 11);
                let txn = if number % 4 == 3 {
                    Txn::new().delete(key)
                } else {
                    Txn::new().put(key, number.to_string())
                };
                store.commit(txn).await.unwrap();
                tokio::task::yield_now().await;
            }
            put(&store, "jobs/end", "x").await
        })
    };
    let mut pictures = Vec::new();
    for _ in 0..5 {
        pictures.push(store.list("jobs/").await.unwrap());
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
    let end = within("the writes", writer).await.unwrap();
    let last = store.list("jobs/").await.unwrap();
    for picture in pictures {
        let mut state: BTreeMap<_, _> =
            picture.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        let rest = if picture.revision < end {
            follow_until(store.watch("jobs/", picture.revision), end).await
        } else {
            vec![]
        };
        for change in rest.into_iter().flat_map(|changes| changes.changes) {
            match change {
                Change::Put(entry) => state.insert(entry.key.clone(), entry),
                Change::Delete { key } => state.remove(&key),
            };
        }
        assert_eq!(state.into_values().collect::<Vec<_>>(), last.entries);
    }
}

/// Many watches at once, started before and after: one story.
pub async fn every_watch_sees_the_same(store: Store) {
    let start = store.list("").await.unwrap().revision;
    let watchers: Vec<_> = (0..40)
        .map(|_| {
            let mut watch = store.watch("jobs/", start);
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for _ in 0..25 {
                    seen.push(next(&mut watch).await);
                }
                seen
            })
        })
        .collect();
    let mut end = start;
    for number in 0..25 {
        end = put(&store, "jobs/1", &number.to_string()).await;
    }
    let late = follow_until(store.watch("jobs/", start), end).await;
    assert_eq!(late.len(), 25);
    for watcher in watchers {
        assert_eq!(within("a watcher", watcher).await.unwrap(), late);
    }
}

/// Compacted away: a typed answer, and a list to go on from. What is still kept can be resumed.
pub async fn a_watch_that_missed_too_much_is_told_to_list_again(store: Store) {
    let start = put(&store, "jobs/1", "0").await;
    for number in 1..=5 {
        put(&store, "jobs/1", &number.to_string()).await;
    }
    let kept = put(&store, "jobs/1", "6").await;
    let last = put(&store, "jobs/2", "7").await;
    let mut behind = store.watch("jobs/", start);
    store.compact(kept).await.unwrap();

    assert_eq!(next(&mut store.watch("jobs/", kept)).await.revision, last);
    for watch in [&mut behind, &mut store.watch("jobs/", start), &mut store.watch("none/", start)] {
        let error = refusal(watch).await;
        assert!(matches!(error, Error::Compacted { after, .. } if after == start), "{error}");
        assert!(error.is_refusal());
    }
    let listing = store.list("jobs/").await.unwrap();
    assert_eq!(listing.entries.len(), 2);
    let mut watch = store.watch("jobs/", listing.revision);
    let revision = put(&store, "jobs/3", "8").await;
    assert_eq!(next(&mut watch).await.revision, revision);
    store.compact(start).await.unwrap();
    assert_eq!(
        next(&mut store.watch("jobs/", kept)).await.revision,
        last,
        "an older compaction changes nothing"
    );
    assert!(matches!(refusal(&mut store.watch("jobs/", start)).await, Error::Compacted { .. }));
}

/// A resume token of another store, or of one since set back, is not waited for in silence.
pub async fn a_revision_the_store_has_not_reached_is_refused(store: Store) {
    let revision = put(&store, "jobs/1", "1").await;
    let error = refusal(&mut store.watch("jobs/", Revision(revision.0 + 1_000_000))).await;
    assert!(matches!(error, Error::Compacted { .. }), "{error}");
}
