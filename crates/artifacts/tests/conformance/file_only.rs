//! What only files have: disks that are full, read-only or closed, hidden uploads, folders.

use std::{fs, path::Path};

use bytes::Bytes;
use futures::stream;
use lethe_artifacts::{ArtifactStore, Error};
use tempfile::TempDir;

use lethe_testkit::small_disk;

use crate::store::pattern;

async fn store() -> (ArtifactStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(&format!("file://{}/artifacts", folder.path().display())).await.unwrap();
    (store, folder)
}

#[tokio::test]
async fn a_path_is_as_good_as_a_uri_and_files_lie_where_they_are_named() {
    let (store, folder) = store().await;
    let put = store.put("models/a b/ü.pt", "x").await.unwrap();
    let path = folder.path().join("artifacts");
    assert_eq!(fs::read_to_string(path.join("models/a b/ü.pt")).unwrap(), "x");
    let again = ArtifactStore::open(path.to_str().unwrap()).await.unwrap();
    assert_eq!(again.get(&put).await.unwrap(), "x");
    assert_eq!(again.location().local_path(), Some(path.as_path()));
    again.delete_prefix("models").await.unwrap();
    assert!(!path.join("models").exists(), "empty folders go too");
}

#[tokio::test]
async fn an_upload_that_fails_leaves_no_hidden_file() {
    let (store, folder) = store().await;
    let good = std::iter::repeat_with(|| Ok(Bytes::from(vec![1; 8 << 20]))).take(3);
    let broken = good.chain([Err(std::io::Error::other("the cable"))]);
    store.put_stream("models/x", stream::iter(broken)).await.unwrap_err();
    let models = folder.path().join("artifacts/models");
    assert!(!models.exists() || fs::read_dir(models).unwrap().count() == 0);
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
