//! An S3 store whose answers are late, lost, half or not what was hoped for.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use lethe_artifacts::{ArtifactStore, Environment, Error};
use lethe_testkit::{Moto, moto::variables};

use crate::{
    place::BUCKET,
    proxy::{Fault, Proxy},
    store::pattern,
};

struct World {
    _moto: Moto,
    proxy: Proxy,
    store: ArtifactStore,
}

impl World {
    /// A store behind a proxy that does nothing yet.
    async fn new(patience: Duration) -> Option<Self> {
        let moto = Moto::start()?;
        moto.bucket(BUCKET);
        let proxy = Proxy::before(moto.address()).await;
        let environment =
            Environment::new(variables(&proxy.address)).patience(Duration::from_secs(2), patience);
        let store = ArtifactStore::open_in(&format!("s3://{BUCKET}/x"), &environment).await.unwrap();
        proxy.requests();
        Some(Self { _moto: moto, proxy, store })
    }

    /// A name that no other test of this world uses.
    fn path(&self) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        format!("object-{}", NUMBER.fetch_add(1, Ordering::SeqCst))
    }
}

const PATIENT: Duration = Duration::from_secs(30);

const PASSING: [Fault; 9] = [
    Fault::Status(500),
    Fault::Status(503),
    Fault::Status(429),
    Fault::DoneAnd(500),
    Fault::DoneAnd(503),
    Fault::Reset,
    Fault::DoneAndReset,
    Fault::HalfAnAnswer,
    Fault::Stall,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_passes_is_waited_for() {
    let Some(world) = World::new(PATIENT).await else { return };
    let (small, large) = (pattern(1000), pattern(12 << 20));
    for fault in PASSING {
        let path = world.path();
        world.proxy.plan(&format!("PUT /{BUCKET}/x/{path}"), fault, 2);
        let put =
            world.store.put(&path, small.clone()).await.unwrap_or_else(|e| panic!("put {fault:?}: {e}"));
        world.proxy.plan(&format!("GET /{BUCKET}/x/{path}"), fault, 1);
        let got = world.store.get(&put).await.unwrap_or_else(|e| panic!("get {fault:?}: {e}"));
        assert_eq!(got, small, "{fault:?}");

        let path = world.path();
        world.proxy.plan(&format!("{path}?uploads"), fault, 1);
        world.proxy.plan(&format!("{path}?partNumber=2"), fault, 1);
        world.proxy.plan(&format!("{path}?uploadId"), fault, 1);
        let put = world.store.put(&path, large.clone()).await;
        let put = put.unwrap_or_else(|error| panic!("multipart {fault:?}: {error}"));
        assert!(world.store.get(&put).await.unwrap() == large, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_whose_answer_is_lost_is_not_lost() {
    let Some(world) = World::new(PATIENT).await else { return };
    for fault in PASSING.into_iter().chain([Fault::Status(409)]) {
        let path = world.path();
        world.proxy.plan(&format!("PUT /{BUCKET}/x/{path}"), fault, 1);
        let put = world.store.create(&path, "ours").await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert_eq!(world.store.get(&put).await.unwrap(), "ours");

        // Somebody else was first, and the faults do not hide it.
        world.proxy.plan(&format!("PUT /{BUCKET}/x/{path}"), fault, 1);
        let error = world.store.create(&path, "theirs").await.unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{fault:?}: {error:?}");
        assert_eq!(world.store.get(&put).await.unwrap(), "ours");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_stays_broken_is_given_up_in_time() {
    let Some(world) = World::new(Duration::from_secs(3)).await else { return };
    for (fault, create) in [
        (Fault::Status(503), false),
        (Fault::Status(503), true),
        (Fault::Status(409), true),
        (Fault::Reset, true),
        (Fault::Stall, true),
        (Fault::Stall, false),
    ] {
        let path = world.path();
        world.proxy.plan(&path, fault, usize::MAX);
        let begun = Instant::now();
        let result = match create {
            true => world.store.create(&path, "x").await,
            false => world.store.put(&path, "x").await,
        };
        let error = result.unwrap_err();
        assert!(error.retryable(), "{fault:?}, {create}: {error:?}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{fault:?}, {create}: {:?}", begun.elapsed());
        assert!(error.to_string().contains(&world.store.name_of(&path)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_object_goes_in_parts_and_comes_in_ranges() {
    let Some(world) = World::new(PATIENT).await else { return };
    let bytes = pattern(12 << 20);
    let put = world.store.put("large", bytes.clone()).await.unwrap();
    let parts = world.proxy.requests().iter().filter(|line| line.contains("partNumber=")).count();
    assert_eq!(parts, 2, "8 MiB and 4 MiB");
    let file = tempfile::tempdir().unwrap();
    world.store.fetch_to(&put, &file.path().join("copy")).await.unwrap();
    assert!(std::fs::read(file.path().join("copy")).unwrap() == bytes);
    let reads = world.proxy.requests().iter().filter(|line| line.starts_with("GET")).count();
    assert_eq!(reads, 2, "read once, in two ranges");
}
