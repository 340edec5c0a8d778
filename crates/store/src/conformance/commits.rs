//! Cases about reading, writing and preconditions.

use bytes::Bytes;

use super::{Store, assert_conflict, keys, next, put, value, within};
use crate::{Change, Error, Expectation, Revision, Txn, limits};

/// Nothing is there before it is put.
pub async fn an_absent_key_reads_as_nothing(store: Store) {
    assert_eq!(store.get("jobs/1").await.unwrap(), None);
    assert_eq!(store.list("jobs/").await.unwrap().entries, []);
}

/// Any bytes under any valid key come back as they were.
pub async fn a_put_is_read_back(store: Store) {
    let all_bytes: Bytes = (0..=255).collect::<Vec<u8>>().into();
    for (key, bytes) in
        [("a", all_bytes), ("leer/ist/erlaubt", Bytes::new()), ("λήθη/川/ß:%.-_ ~", Bytes::from_static(b"x"))]
    {
        let revision = store.commit(Txn::new().put(key, bytes.clone())).await.unwrap();
        let entry = store.get(key).await.unwrap().unwrap();
        assert_eq!((entry.key.as_str(), &entry.value), (key, &bytes));
        assert_eq!((entry.version, entry.created, entry.lease), (revision, revision, None));
    }
}

/// An overwrite has a new version and keeps the created revision.
pub async fn versions_move_and_created_stays(store: Store) {
    let first = put(&store, "a", "1").await;
    let second = put(&store, "a", "2").await;
    assert!(second > first);
    let entry = store.get("a").await.unwrap().unwrap();
    assert_eq!((entry.version, entry.created), (second, first));
}

/// Deleting and putting again starts over: the created revision is a fencing token.
pub async fn a_recreated_key_is_a_new_key(store: Store) {
    let first = put(&store, "leader", "a").await;
    store.commit(Txn::new().delete("leader")).await.unwrap();
    assert_eq!(store.get("leader").await.unwrap(), None);
    let second = put(&store, "leader", "b").await;
    assert_eq!(store.get("leader").await.unwrap().unwrap().created, second);
    let fenced = |epoch| Txn::new().expect("leader", Expectation::Created(epoch)).put("state", "x");
    assert_conflict(store.commit(fenced(first)).await, "leader");
    store.commit(fenced(second)).await.unwrap();
}

/// Each kind of precondition against an absent, a fresh and an overwritten key.
pub async fn each_precondition_holds_when_it_should(store: Store) {
    let created = put(&store, "old", "1").await;
    let version = put(&store, "old", "2").await;
    let fresh = put(&store, "fresh", "1").await;
    let cases = [
        ("none", Expectation::Absent, true),
        ("none", Expectation::Exists, false),
        ("none", Expectation::Version(version), false),
        ("none", Expectation::Created(created), false),
        ("none", Expectation::Version(Revision(0)), false),
        ("fresh", Expectation::Absent, false),
        ("fresh", Expectation::Exists, true),
        ("fresh", Expectation::Version(fresh), true),
        ("fresh", Expectation::Created(fresh), true),
        ("old", Expectation::Version(version), true),
        ("old", Expectation::Version(created), false),
        ("old", Expectation::Created(created), true),
        ("old", Expectation::Created(version), false),
    ];
    for (number, (key, expect, holds)) in cases.into_iter().enumerate() {
        let mark = format!("mark/{number}");
        let result = store.commit(Txn::new().expect(key, expect).put(mark.as_str(), "x")).await;
        assert_eq!(store.get(&mark).await.unwrap().is_some(), holds, "{key} {expect:?}");
        if holds {
            result.unwrap();
        } else {
            assert_conflict(result, key);
        }
    }
}

/// The refusal says which key, what was asked and what is there.
pub async fn a_conflict_names_the_key_and_what_it_found(store: Store) {
    let old = put(&store, "a", "1").await;
    let new = put(&store, "a", "2").await;
    let txn =
        Txn::new().expect("b", Expectation::Absent).expect("a", Expectation::Version(old)).put("c", "x");
    let error = store.commit(txn).await.unwrap_err();
    assert!(error.is_refusal() && !error.retryable() && !error.is_disk_full());
    let Error::Conflict { key, expected, found } = error else { panic!("{error}") };
    assert_eq!((key.as_str(), expected, found), ("a", Expectation::Version(old), Some(new)));
    let error = store.commit(Txn::new().expect("b", Expectation::Exists).put("c", "x")).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { found: None, .. }), "{error}");
}

/// One precondition that does not hold among many that do: none of the writes happens, no revision is used.
pub async fn a_refused_transaction_writes_nothing(store: Store) {
    put(&store, "a", "1").await;
    let before = store.list("").await.unwrap();
    let txn = Txn::new()
        .expect("a", Expectation::Exists)
        .expect("b", Expectation::Exists)
        .put("a", "2")
        .put("b", "2")
        .delete("a2");
    assert_conflict(store.commit(txn).await, "b");
    assert_eq!(store.list("").await.unwrap(), before);
}

/// Puts and deletes of one transaction share their revision.
pub async fn one_transaction_is_one_revision(store: Store) {
    put(&store, "gone", "1").await;
    let revision = store.commit(Txn::new().put("a", "1").delete("gone").put("b", "2")).await.unwrap();
    let listing = store.list("").await.unwrap();
    assert_eq!(listing.revision, revision);
    assert_eq!(keys(&store, "").await, ["a", "b"]);
    assert!(listing.entries.iter().all(|entry| entry.version == revision && entry.created == revision));
}

/// Everything below the folder goes, its neighbours stay, and the writes beside it happen at the same moment.
pub async fn a_folder_is_removed_in_one_commit(store: Store) {
    for key in ["a", "a/1", "a/1/x", "a/10", "a0", "ab/1", "b"] {
        put(&store, key, "1").await;
    }
    let from = store.list("").await.unwrap().revision;
    let revision = store.commit(Txn::new().put("done", "1").delete_folder("a/1")).await.unwrap();
    assert_eq!(keys(&store, "").await, ["a", "a/1", "a/10", "a0", "ab/1", "b", "done"]);
    let revision_of_all = store.commit(Txn::new().delete_folder("a").put("a", "2")).await.unwrap();
    assert_eq!(keys(&store, "").await, ["a", "a0", "ab/1", "b", "done"]);
    assert_eq!(value(&store, "a").await.as_deref(), Some("2"));
    let mut watch = store.watch("a/", from);
    let first = next(&mut watch).await;
    assert_eq!((first.revision, first.changes.len()), (revision, 1));
    let second = next(&mut watch).await;
    let gone: Vec<&str> = second.changes.iter().map(Change::key).collect();
    assert_eq!((second.revision, gone), (revision_of_all, vec!["a/1", "a/10"]));
    // Nothing is left there: no commit, as with the delete of an absent key.
    assert_eq!(store.commit(Txn::new().delete_folder("a")).await.unwrap(), revision_of_all);
}

/// A delete of an absent key succeeds and leaves no trace.
pub async fn deleting_nothing_changes_nothing(store: Store) {
    let revision = put(&store, "a", "1").await;
    assert_eq!(store.commit(Txn::new().delete("b").delete("c/d")).await.unwrap(), revision);
    assert_eq!(store.list("").await.unwrap().revision, revision);
}

/// Preconditions alone are a read: they answer the current revision.
pub async fn a_transaction_without_writes_only_checks(store: Store) {
    let revision = put(&store, "a", "1").await;
    let check = |expect| Txn::new().expect("a", expect);
    assert_eq!(store.commit(check(Expectation::Version(revision))).await.unwrap(), revision);
    assert_conflict(store.commit(check(Expectation::Absent)).await, "a");
    assert_eq!(store.commit(Txn::new()).await.unwrap(), revision);
}

/// Keys that some store could not hold, in a write and in a precondition.
pub async fn invalid_keys_are_refused(store: Store) {
    let long = "k".repeat(limits::KEY_BYTES + 1);
    for key in ["", "/", "/a", "a/", "a//b", "a\nb", "a\0", long.as_str()] {
        for txn in [
            Txn::new().put("ok", "x").put(key, "x"),
            Txn::new().delete(key),
            Txn::new().expect(key, Expectation::Absent).put("ok", "x"),
        ] {
            let error = store.commit(txn).await.unwrap_err();
            assert!(matches!(error, Error::InvalidKey { .. }), "{key:?}: {error}");
            assert!(error.is_refusal());
        }
    }
    assert_eq!(store.get("ok").await.unwrap(), None);
    put(&store, &"k".repeat(limits::KEY_BYTES), "x").await;
}

/// The same key twice, too many operations, too many bytes; and everything just within the limits.
pub async fn invalid_transactions_are_refused(store: Store) {
    let many = |count: usize| (0..count).fold(Txn::new(), |txn, i| txn.put(format!("many/{i}"), "x"));
    let asks = |count: usize| (0..count).fold(Txn::new(), |txn, _| txn.expect("z", Expectation::Absent));
    let large = |bytes: usize| Txn::new().put("large", vec![7; bytes]);
    for txn in [
        Txn::new().put("a", "1").put("a", "2"),
        Txn::new().put("a", "1").delete("a"),
        Txn::new().delete("a").delete("a"),
        Txn::new().delete_folder("a").delete_folder("a"),
        Txn::new().delete_folder("a").delete_folder("a/b"),
        Txn::new().delete_folder("a").put("a/b", "1"),
        Txn::new().delete("a/b/c").delete_folder("a"),
        many(limits::TXN_OPERATIONS + 1),
        asks(limits::TXN_OPERATIONS + 1),
        large(limits::TXN_BYTES),
    ] {
        let error = store.commit(txn).await.unwrap_err();
        assert!(matches!(error, Error::InvalidTxn { .. }), "{error}");
        assert!(error.is_refusal());
    }
    assert_eq!(store.list("").await.unwrap().entries, []);

    store.commit(many(limits::TXN_OPERATIONS)).await.unwrap();
    assert_eq!(keys(&store, "many/").await.len(), limits::TXN_OPERATIONS);
    store.commit(asks(limits::TXN_OPERATIONS)).await.unwrap();
    let most = limits::TXN_BYTES - "large".len();
    store.commit(large(most)).await.unwrap();
    assert_eq!(store.get("large").await.unwrap().unwrap().value, vec![7; most]);
}

/// Prefixes are text; order is that of the bytes.
pub async fn a_list_is_ordered_and_ends_at_its_prefix(store: Store) {
    for key in ["jobs/2/b", "jobs/10", "jobs/1", "job", "jobs", "jobs/1/a", "jobs0", "zebra", "jobs/ü", "a"]
    {
        put(&store, key, key).await;
    }
    assert_eq!(keys(&store, "jobs/").await, ["jobs/1", "jobs/1/a", "jobs/10", "jobs/2/b", "jobs/ü"]);
    assert_eq!(keys(&store, "jobs/1").await, ["jobs/1", "jobs/1/a", "jobs/10"]);
    assert_eq!(keys(&store, "jobs/1/").await, ["jobs/1/a"]);
    assert_eq!(keys(&store, "jobs/3").await, Vec::<String>::new());
    assert_eq!(keys(&store, "").await.len(), 10);
    assert_eq!(keys(&store, "").await.first().unwrap(), "a");
}

/// While pairs are overwritten together, no list sees half a pair.
pub async fn a_list_is_one_moment(store: Store) {
    const COMMITS: usize = 60;
    let write =
        |number: usize| Txn::new().put("pair/a", number.to_string()).put("pair/b", number.to_string());
    store.commit(write(0)).await.unwrap();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 1..=COMMITS {
                store.commit(write(number)).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    let mut seen = Vec::new();
    while seen.last() != Some(&COMMITS.to_string()) {
        let listing = store.list("pair/").await.unwrap();
        let [a, b] = listing.entries.as_slice() else { panic!("{listing:?}") };
        assert_eq!((&a.value, a.version), (&b.value, b.version));
        assert!(a.version <= listing.revision);
        seen.push(String::from_utf8(a.value.to_vec()).unwrap());
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

/// Of many that want to create a key at the same time, exactly one does.
pub async fn one_creator_wins(store: Store) {
    for round in 0..10 {
        let key = format!("leader/{round}");
        let contenders: Vec<_> = (0..8)
            .map(|contender: usize| {
                let (store, key) = (store.clone(), key.clone());
                tokio::spawn(async move {
                    let txn = Txn::new()
                        .expect(key.as_str(), Expectation::Absent)
                        .put(key.as_str(), contender.to_string());
                    (contender, store.commit(txn).await)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for contender in contenders {
            match contender.await.unwrap() {
                (winner, Ok(_)) => winners.push(winner.to_string()),
                (_, lost) => assert_conflict(lost, &key),
            }
        }
        assert_eq!(winners, [value(&store, &key).await.unwrap()]);
    }
}

/// Concurrent compare-and-set increments: the sum is exact.
pub async fn counters_lose_nothing(store: Store) {
    const TASKS: usize = 6;
    const INCREMENTS: usize = 20;
    put(&store, "count", "0").await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while done < INCREMENTS {
                    let entry = store.get("count").await.unwrap().unwrap();
                    let count: usize = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                    let txn = Txn::new().expect("count", Expectation::Version(entry.version));
                    match store.commit(txn.put("count", (count + 1).to_string())).await {
                        Ok(_) => done += 1,
                        lost => assert_conflict(lost, "count"),
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        within("the increments", task).await.unwrap();
    }
    assert_eq!(value(&store, "count").await.unwrap(), (TASKS * INCREMENTS).to_string());
}
