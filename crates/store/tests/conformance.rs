//! The suite on the stores of this crate, and its races again on several threads.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;

use futures::StreamExt;
use lethe_store::{Error, StateStore, Txn, conformance};
use tempfile::TempDir;

async fn open_memory() -> (Arc<dyn StateStore>, ()) {
    (lethe_store::connect("memory://").await.unwrap(), ())
}

async fn open_redb() -> (Arc<dyn StateStore>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let uri = format!("redb://{}", folder.path().join("state").display());
    (lethe_store::connect(&uri).await.unwrap(), folder)
}

mod memory {
    use super::*;
    lethe_store::conformance!(clock: paused, open: open_memory());
}

mod redb {
    use super::*;
    lethe_store::conformance!(clock: paused, open: open_redb());
}

async fn races(store: Arc<dyn StateStore>) {
    conformance::commits::one_creator_wins(store.clone()).await;
    conformance::commits::counters_lose_nothing(store.clone()).await;
    conformance::commits::a_list_is_one_moment(store.clone()).await;
    conformance::watches::every_watch_sees_the_same(store.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_races_on_threads() {
    races(open_memory().await.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redb_races_on_threads() {
    let (store, _folder) = open_redb().await;
    races(store).await;
}

/// A watch of a prefix where nothing happens keeps its place, however much happens elsewhere.
#[tokio::test(start_paused = true)]
async fn a_quiet_watch_outlives_the_history() {
    let store = lethe_store::memory();
    let quiet = {
        let mut watch = store.watch("quiet/", lethe_store::Revision(0));
        tokio::spawn(async move { watch.next().await.unwrap().unwrap() })
    };
    for _ in 0..10_100 {
        store.commit(Txn::new().put("busy", "x")).await.unwrap();
        tokio::task::yield_now().await;
    }
    let from_the_start = store.watch("quiet/", lethe_store::Revision(0)).next().await.unwrap();
    assert!(matches!(from_the_start, Err(Error::Compacted { .. })), "{from_the_start:?}");
    let revision = store.commit(Txn::new().put("quiet/1", "x")).await.unwrap();
    assert_eq!(quiet.await.unwrap().revision, revision);
}
