//! The artifact store on real folders: what comes back, what is refused, and what a full or closed disk does.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use futures::stream;
use lethe_artifacts::{ArtifactRef, ArtifactStore, Digest, Error};
use tempfile::TempDir;

mod small_disk;

/// Three pieces and a bit.
const LARGE: usize = 3 * (8 << 20) + 12_345;

async fn store() -> (ArtifactStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(&format!("file://{}/artifacts", folder.path().display())).await.unwrap();
    (store, folder)
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
}

async fn paths(store: &ArtifactStore, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|object| object.path).collect()
}

#[tokio::test]
async fn what_is_put_is_what_comes_back() {
    let (store, folder) = store().await;
    assert_eq!(paths(&store, "").await, Vec::<String>::new(), "the probe leaves nothing");
    for bytes in [Bytes::new(), Bytes::from_static(b"abc"), pattern(100_000).into()] {
        let put = store.put("models/a b/ü.pt", bytes.clone()).await.unwrap();
        let expected = ArtifactRef {
            path: "models/a b/ü.pt".to_owned(),
            sha256: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        assert_eq!(put, expected);
        assert_eq!(store.get(&put).await.unwrap(), bytes);
        store.verify(&put).await.unwrap();
        assert_eq!(fs::read(folder.path().join("artifacts/models/a b/ü.pt")).unwrap(), bytes);
        assert_eq!(serde_json::from_str::<ArtifactRef>(&serde_json::to_string(&put).unwrap()).unwrap(), put);
    }
}

#[tokio::test]
async fn opening_again_finds_everything() {
    let (store, folder) = store().await;
    let put = store.put("reports/1.json", "{}").await.unwrap();
    let path = folder.path().join("artifacts");
    for uri in [path.display().to_string(), format!("file://{}", path.display())] {
        let again = ArtifactStore::open(&uri).await.unwrap();
        assert_eq!(again.get(&put).await.unwrap(), "{}");
        assert_eq!(again.location().local_path(), Some(path.as_path()));
    }
    assert!(matches!(ArtifactStore::open("s3://bucket/x").await, Err(Error::InvalidUri { .. })));
}

#[tokio::test]
async fn large_files_go_in_and_out_in_pieces() {
    let (store, folder) = store().await;
    let source = folder.path().join("source");
    for size in [0, 1, 8 << 20, (8 << 20) + 1, LARGE] {
        let bytes = pattern(size);
        fs::write(&source, &bytes).unwrap();
        let put = store.put_file("models/large", &source).await.unwrap();
        assert_eq!((put.sha256, put.size), (Digest::of(&bytes), size as u64));
        let uneven: Vec<_> = bytes.chunks(777_777).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let streamed = store.put_stream("models/streamed", stream::iter(uneven)).await.unwrap();
        assert_eq!((streamed.sha256, streamed.size), (put.sha256, put.size));
        assert!(store.get(&put).await.unwrap() == bytes);
        store.verify(&streamed).await.unwrap();
        let target = folder.path().join("fetched/here/model");
        store.fetch_to(&streamed, &target).await.unwrap();
        assert!(fs::read(&target).unwrap() == bytes);
    }
    assert_eq!(fs::read_dir(folder.path().join("fetched/here")).unwrap().count(), 1);
    let error = store.put_file("x", &folder.path().join("missing")).await.unwrap_err();
    assert!(matches!(&error, Error::NotFound { object } if object.ends_with("missing")), "{error:?}");
}

#[tokio::test]
async fn a_stream_that_fails_puts_nothing() {
    let (store, folder) = store().await;
    for pieces in [0, 1, 3] {
        let good = std::iter::repeat_with(|| Ok(Bytes::from(vec![1; 8 << 20]))).take(pieces);
        let broken = good.chain([Err(std::io::Error::other("the cable"))]);
        let error = store.put_stream("models/x", stream::iter(broken)).await.unwrap_err();
        assert!(
            matches!(&error, Error::Local { .. }) && error.to_string().contains("the cable"),
            "{error:?}"
        );
    }
    assert_eq!(paths(&store, "").await, Vec::<String>::new());
    let models = folder.path().join("artifacts/models");
    assert!(!models.exists() || fs::read_dir(models).unwrap().count() == 0, "not even a hidden file");
}

#[tokio::test]
async fn damage_of_any_kind_is_found_and_named() {
    let (store, folder) = store().await;
    let bytes = pattern(50_000);
    let put = store.put("models/a", bytes.clone()).await.unwrap();
    let file = folder.path().join("artifacts/models/a");
    let target = folder.path().join("target");
    fs::write(&target, "what was there").unwrap();
    let mut flipped = bytes.clone();
    flipped[49_999] ^= 0x10;
    let longer = [bytes.as_slice(), b"x"].concat();
    for damaged in [&flipped[..], &bytes[..49_999], &longer, &[], &vec![7; 20 << 20]] {
        fs::write(&file, damaged).unwrap();
        let results = [
            store.get(&put).await.map(|_| ()),
            store.verify(&put).await,
            store.fetch_to(&put, &target).await,
        ];
        for result in results {
            let error = result.unwrap_err();
            assert!(!error.retryable());
            let text = error.to_string();
            assert!(
                text.contains(&store.name_of("models/a")) && text.contains(&put.sha256.to_string()),
                "{text}"
            );
            let Error::Damaged { expected, expected_size, found_size, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!((expected, expected_size, found_size), (put.sha256, put.size, damaged.len() as u64));
        }
    }
    assert_eq!(fs::read(&target).unwrap(), b"what was there");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the store and the target, nothing partial");
    fs::remove_file(&file).unwrap();
    for result in
        [store.get(&put).await.map(|_| ()), store.verify(&put).await, store.fetch_to(&put, &target).await]
    {
        assert!(matches!(result, Err(Error::NotFound { object }) if object == store.name_of("models/a")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_creator_wins_and_replacing_is_atomic() {
    let (store, _folder) = store().await;
    for round in 0..10 {
        let path = format!("commits/{round}");
        let contenders: Vec<_> = (0..8u8)
            .map(|contender| {
                let (store, path) = (store.clone(), path.clone());
                tokio::spawn(async move { store.create(&path, vec![contender; 10_000]).await })
            })
            .collect();
        let mut winners = Vec::new();
        for contender in contenders {
            match contender.await.unwrap() {
                Ok(put) => winners.push(put),
                Err(error) => assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}"),
            }
        }
        assert_eq!(winners.len(), 1);
        store.get(&winners[0]).await.unwrap();
    }
    let refs: Vec<ArtifactRef> = {
        let mut refs = Vec::new();
        for value in 0..2u8 {
            refs.push(store.put("replaced", vec![value; 300_000]).await.unwrap());
        }
        refs
    };
    let refs = Arc::new(refs);
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..60u8 {
                store.put("replaced", vec![round % 2; 300_000]).await.unwrap();
            }
        })
    };
    while !writer.is_finished() {
        let read = (store.get(&refs[0]).await, store.get(&refs[1]).await);
        for (result, other) in [(read.0, &refs[1]), (read.1, &refs[0])] {
            if let Err(error) = result {
                let Error::Damaged { found, .. } = error else { panic!("{error:?}") };
                assert_eq!(found, other.sha256, "a mixture");
            }
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_prefix_is_a_folder() {
    let (store, folder) = store().await;
    for path in ["jobs/1/a", "jobs/1/b/c", "jobs/10/a", "jobs/2", "other"] {
        store.put(path, "x").await.unwrap();
    }
    assert_eq!(paths(&store, "jobs").await, ["jobs/1/a", "jobs/1/b/c", "jobs/10/a", "jobs/2"]);
    assert_eq!(paths(&store, "jobs/1").await, ["jobs/1/a", "jobs/1/b/c"]);
    assert_eq!(paths(&store, "none").await, Vec::<String>::new());
    assert_eq!(store.delete_prefix("jobs/1").await.unwrap(), 2);
    assert_eq!(store.delete_prefix("jobs/1").await.unwrap(), 0);
    assert!(!folder.path().join("artifacts/jobs/1").exists(), "empty folders go too");
    assert!(matches!(store.delete_prefix("").await, Err(Error::InvalidPath { .. })));
    store.delete("other").await.unwrap();
    store.delete("other").await.unwrap();
    assert_eq!(paths(&store, "").await, ["jobs/10/a", "jobs/2"]);
}

#[tokio::test]
async fn paths_stay_inside_the_store() {
    let (store, folder) = store().await;
    for path in ["", "/", "/a", "a/", "a//b", "../a", "a/../../b", "./a", "a\0b", "a\nb", "a#1", "#"] {
        let error = store.put(path, "x").await.unwrap_err();
        assert!(matches!(error, Error::InvalidPath { .. }), "{path:?}: {error:?}");
        let outside = ArtifactRef { path: path.to_owned(), sha256: Digest::of(b"x"), size: 1 };
        assert!(matches!(store.get(&outside).await, Err(Error::InvalidPath { .. })), "{path:?}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn assert_names(error: &Error, path: &Path) {
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = ArtifactStore::open(path.to_str().unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::NoAccess { .. }) && !error.retryable(), "{error:?}");
        assert_names(&error, &path);
    }
}

#[test]
fn a_read_only_disk_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let Some(()) = small_disk::mounted(folder.path(), "1m") else { return };
    let uri = folder.path().join("artifacts").display().to_string();
    let (store, put) = small_disk::block_on(async {
        let store = ArtifactStore::open(&uri).await.unwrap();
        let put = store.put("a", "x").await.unwrap();
        (store, put)
    });
    small_disk::read_only(folder.path());
    small_disk::block_on(async {
        for error in [
            ArtifactStore::open(&uri).await.unwrap_err(),
            store.put("b", "x").await.unwrap_err(),
            store.delete("a").await.unwrap_err(),
            store.fetch_to(&put, &folder.path().join("copy")).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::NoAccess { .. }), "{error:?}");
            assert_names(&error, folder.path());
        }
        assert_eq!(store.get(&put).await.unwrap(), "x", "reading goes on");
    });
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let Some(()) = small_disk::mounted(folder.path(), "20m") else { return };
    small_disk::block_on(async {
        let root = folder.path().join("artifacts");
        let store = ArtifactStore::open(root.to_str().unwrap()).await.unwrap();
        let old = store.put("model", vec![1; 1 << 20]).await.unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let source = elsewhere.path().join("source");
        fs::write(&source, vec![2; 30 << 20]).unwrap();
        let stream = stream::iter((0..30).map(|_| Ok(Bytes::from(vec![3; 1 << 20]))));
        for error in [
            store.put("model", vec![2; 30 << 20]).await.unwrap_err(),
            store.create("new", vec![2; 30 << 20]).await.unwrap_err(),
            store.put_file("model", &source).await.unwrap_err(),
            store.put_stream("model", stream).await.unwrap_err(),
        ] {
            assert!(error.is_disk_full() && error.retryable(), "{error:?}");
            assert_names(&error, &root);
            let names: Vec<_> =
                fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["model"]);
            assert_eq!(store.get(&old).await.unwrap(), vec![1; 1 << 20]);
        }

        let big = ArtifactStore::open(elsewhere.path().join("store").to_str().unwrap()).await.unwrap();
        let put = big.put_file("model", &source).await.unwrap();
        let target = folder.path().join("fetched");
        let error = big.fetch_to(&put, &target).await.unwrap_err();
        assert!(error.is_disk_full(), "{error:?}");
        assert_names(&error, &target);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the store alone");

        let fill = fs::File::create(folder.path().join("fill")).unwrap();
        while std::io::Write::write(&mut &fill, &[0; 4096]).is_ok_and(|written| written > 0) {}
        let error = ArtifactStore::open(root.to_str().unwrap()).await.unwrap_err();
        assert!(error.is_disk_full(), "{error:?}");
        assert_names(&error, &root);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "no probe left");
        drop(fill);
        fs::remove_file(folder.path().join("fill")).unwrap();
        ArtifactStore::open(root.to_str().unwrap()).await.unwrap();
    });
}

#[test]
fn a_thread_without_a_runtime_calls_through_a_handle() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (store, _folder) = runtime.block_on(store());
    let handle = runtime.handle().clone();
    let compute = std::thread::spawn(move || {
        let put = handle.block_on(store.put("a", pattern(1000))).unwrap();
        handle.block_on(store.get(&put)).unwrap()
    });
    assert_eq!(compute.join().unwrap(), pattern(1000));
}
