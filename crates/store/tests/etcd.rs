//! The store on a real etcd cluster: the suite, and what only a cluster can do to it.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use lethe_store::{
    Change, Error, Expectation, Revision, StateStore, Txn,
    etcd_cluster::{Cluster, PASSWORD, Security, User},
};
use tokio::time::{Instant, timeout};

const DEADLINE: Duration = Duration::from_secs(60);
/// What an operation takes at most, and a machine that is busy.
const PROMPT: Duration = Duration::from_secs(8);

async fn put(store: &Arc<dyn StateStore>, key: &str, value: impl Into<bytes::Bytes>) -> Revision {
    store.commit(Txn::new().put(key, value)).await.unwrap()
}

#[tokio::test]
async fn every_case_of_the_suite_passes() {
    let Some(cluster) = Cluster::start(Security::Tls).await else { return };
    lethe_store::conformance!(one_by_one: |case: &str| cluster.store(case));
}

/// Numbers from 0 on, each written once on top of the one before; after an error that leaves it open the writer reads
/// what happened, as a coordinator does.
async fn count_until(store: &Arc<dyn StateStore>, end: u64, told: impl Fn(u64)) -> (Vec<Revision>, u64) {
    let mut commits = Vec::new();
    let (mut last, mut opened) = (None, 0);
    while commits.len() < end as usize {
        let number = commits.len() as u64;
        let expect = last.map_or(Expectation::Absent, Expectation::Version);
        let txn = Txn::new()
            .expect("count", expect)
            .put("count", number.to_string())
            .put("twin", number.to_string());
        match store.commit(txn).await {
            Ok(revision) => commits.push(revision),
            Err(error) => {
                assert!(error.retryable(), "{error:?}");
                opened += 1;
                let Some(found) = read(store, "count").await else { continue };
                if found.value == number.to_string() {
                    commits.push(found.version);
                }
            }
        }
        last = commits.last().copied();
        told(number);
    }
    (commits, opened)
}

/// Whether a commit after an outage is to be tried again: it is not known, or something came between.
fn open_or_late(error: &Error) -> bool {
    error.retryable() || matches!(error, Error::Conflict { .. })
}

async fn read(store: &Arc<dyn StateStore>, key: &str) -> Option<lethe_store::Entry> {
    let begun = Instant::now();
    loop {
        match store.get(key).await {
            Ok(found) => return found,
            Err(error) => assert!(error.retryable() && begun.elapsed() < DEADLINE, "{error:?}"),
        }
    }
}

/// Every commit once, in order and whole, as a watch from the beginning saw it.
fn assert_story(story: &[lethe_store::Changes], commits: &[Revision]) {
    assert_eq!(story.iter().map(|changes| changes.revision).collect::<Vec<_>>(), commits);
    for (number, changes) in story.iter().enumerate() {
        let [Change::Put(count), Change::Put(twin)] = changes.changes.as_slice() else {
            panic!("{changes:?}")
        };
        assert_eq!(
            (&count.value[..], &twin.value[..]),
            (number.to_string().as_bytes(), number.to_string().as_bytes())
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_leads_is_lost_and_no_commit_with_it() {
    const COMMITS: u64 = 400;
    let Some(mut cluster) = Cluster::start(Security::Tls).await else { return };
    let store = cluster.store("kill").await;
    let start = store.list("").await.unwrap().revision;
    let watch = {
        let mut watch = store.watch("", start);
        tokio::spawn(async move {
            let mut story = Vec::new();
            while story.len() < COMMITS as usize {
                story.push(watch.next().await.unwrap().unwrap());
            }
            story
        })
    };
    let (progress, mut seen) = tokio::sync::watch::channel(0);
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            count_until(&store, COMMITS, |number| {
                progress.send_replace(number);
            })
            .await
        })
    };
    let mut reached = async |number| {
        timeout(DEADLINE, seen.wait_for(|seen| *seen >= number)).await.unwrap().unwrap();
    };
    reached(60).await;
    let stopped = cluster.leader().await;
    cluster.pause(stopped);
    reached(140).await;
    cluster.resume(stopped);
    reached(200).await;
    let killed = cluster.leader().await;
    cluster.kill(killed);
    reached(280).await;
    cluster.restart(killed);
    let (commits, opened) = timeout(DEADLINE, writer).await.unwrap().unwrap();
    let story = timeout(DEADLINE, watch).await.unwrap().unwrap();
    eprintln!("{opened} commits were open and read again");
    assert_story(&story, &commits);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_operations_fail_in_time_and_work_again_after() {
    let Some(cluster) = Cluster::start(Security::Plain).await else { return };
    let store = cluster.store("majority").await;
    let lease = store.grant(Duration::from_secs(3600)).await.unwrap();
    let before = put(&store, "a", "1").await;
    let mut watch = store.watch("", before);
    let leader = cluster.leader().await;
    let stopped = [leader, (leader + 1) % cluster.size()];
    stopped.iter().for_each(|place| cluster.pause(*place));
    let begun = Instant::now();
    let (got, list, commit, alive) = tokio::join!(
        store.get("a"),
        store.list(""),
        store.commit(Txn::new().expect("a", Expectation::Version(before)).put("a", "2")),
        store.keep_alive(lease),
    );
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    for error in [got.unwrap_err(), list.unwrap_err(), commit.unwrap_err(), alive.unwrap_err()] {
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
        assert!(error.retryable() && !error.is_refusal());
        assert!(
            error
                .to_string()
                .contains(cluster.uri("").trim_start_matches("etcd://").split(',').next().unwrap()),
            "{error}"
        );
    }
    stopped.iter().for_each(|place| cluster.resume(*place));
    let begun = Instant::now();
    // The write of the outage may still arrive, also between this read and this commit.
    let after = loop {
        let entry = read(&store, "a").await.unwrap();
        let txn = Txn::new().expect("a", Expectation::Version(entry.version)).put("a", "3");
        match store.commit(txn).await {
            Ok(revision) => break revision,
            Err(error) => assert!(begun.elapsed() < DEADLINE && open_or_late(&error), "{error:?}"),
        }
    };
    assert_eq!(store.keep_alive(lease).await.unwrap(), Duration::from_secs(3600));
    loop {
        let changes = timeout(DEADLINE, watch.next()).await.unwrap().unwrap().unwrap();
        if changes.revision == after {
            break;
        }
    }
}

#[tokio::test]
async fn who_may_not_is_told_what_to_do() {
    let Some(cluster) = Cluster::start(Security::Tls).await else { return };
    let mut root = cluster.client("root").await;
    root.put("/elsewhere", "not ours", None).await.unwrap();
    root.put("/lethe", "not ours either", None).await.unwrap();
    root.put("/lethe0", "nor this", None).await.unwrap();

    let store = cluster.store_of(User::Lethe, "/lethe");
    put(&store, "a", "1").await;
    put(&cluster.store_of(User::Password(PASSWORD), "/lethe"), "b", "1").await;
    let keys: Vec<String> =
        store.list("").await.unwrap().entries.into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["a", "b"], "what others keep is not seen");
    store.commit(Txn::new().delete("a").delete("b")).await.unwrap();
    let left = root.get("", Some(etcd_client::GetOptions::new().with_all_keys())).await.unwrap();
    let left: Vec<&str> = left.kvs().iter().map(|entry| entry.key_str().unwrap()).collect();
    assert_eq!(left, ["/elsewhere", "/lethe", "/lethe0"], "what others keep is left alone");

    for (user, prefix) in [
        (User::Lethe, "/elsewhere"),
        (User::Stranger, "/lethe"),
        (User::Password("wrong"), "/lethe"),
        (User::Nobody, "/lethe"),
    ] {
        let store = cluster.store_of(user, prefix);
        let begun = Instant::now();
        let watched = store.watch("", Revision(0)).next().await.unwrap();
        for error in [
            store.get("a").await.map(|_| ()).unwrap_err(),
            store.commit(Txn::new().put("a", "1")).await.map(|_| ()).unwrap_err(),
            watched.map(|_| ()).unwrap_err(),
        ] {
            assert!(matches!(error, Error::Denied { .. }), "{user:?} {prefix}: {error:?}");
            assert!(!error.retryable() && !error.is_refusal());
            let text = error.to_string();
            assert!(text.contains(prefix) && text.contains("its role grants read and write"), "{text}");
            assert!(!text.contains("wrong") && !format!("{store:?}").contains("wrong"), "{text}");
        }
        assert!(begun.elapsed() < PROMPT);
    }
}

/// Large enough for several pages and for answers that etcd cuts into pieces.
#[tokio::test]
async fn long_lists_and_large_commits_arrive_whole() {
    let Some(cluster) = Cluster::start(Security::Plain).await else { return };
    let store = cluster.store("large").await;
    let start = store.list("").await.unwrap().revision;
    let mut commits = Vec::new();
    for commit in 0..12 {
        let txn = (0..100)
            .fold(Txn::new(), |txn, key| txn.put(format!("k/{commit:02}/{key:02}"), vec![commit; 10_000]));
        commits.push(store.commit(txn).await.unwrap());
    }
    let listing = store.list("k/").await.unwrap();
    assert_eq!(listing.entries.len(), 1200);
    assert!(listing.entries.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(Some(&listing.revision), commits.last());
    let mut watch = store.watch("k/", start);
    for revision in commits {
        let changes = timeout(DEADLINE, watch.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((changes.revision, changes.changes.len()), (revision, 100));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_clients_one_wins_every_race() {
    let Some(cluster) = Cluster::start(Security::Plain).await else { return };
    let clients = [cluster.store("race").await, cluster.store("race").await];
    for round in 0..100 {
        let key = format!("leader/{round}");
        let campaign =
            |name: &'static str| Txn::new().expect(key.as_str(), Expectation::Absent).put(key.as_str(), name);
        let (a, b) = tokio::join!(clients[0].commit(campaign("a")), clients[1].commit(campaign("b")));
        let winner = match (&a, &b) {
            (Ok(_), Err(Error::Conflict { .. })) => "a",
            (Err(Error::Conflict { .. }), Ok(_)) => "b",
            other => panic!("{other:?}"),
        };
        assert_eq!(clients[0].get(&key).await.unwrap().unwrap().value, winner);
    }
}
