//! What is particular to the embedded store: one owner, durability, full and read-only disks, damage.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{fs, path::Path, sync::Arc, time::Duration};

use futures::StreamExt;
use lethe_store::{Error, StateStore, Txn, redb};
use lethe_testkit::small_disk;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

async fn put(
    store: &Arc<dyn StateStore>,
    key: &str,
    value: impl Into<bytes::Bytes>,
) -> lethe_store::Revision {
    store.commit(Txn::new().put(key, value)).await.unwrap()
}

async fn refusal(folder: &Path) -> Error {
    redb(folder).await.map(|store| format!("{store:?}")).unwrap_err()
}

#[tokio::test]
async fn uris_name_a_store_or_say_what_is_allowed() {
    for uri in
        ["", "memory", "memory://x", "redb://relative", "redb:/one/slash", "etcd://a,b", "REDB:///x", "://"]
    {
        let error = lethe_store::connect(uri).await.map(|store| format!("{store:?}")).unwrap_err();
        assert!(matches!(error, Error::InvalidUri { .. }), "{uri}: {error}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("{uri:?}")) && text.contains("memory://, redb:///absolute/folder"),
            "{text}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("a folder with %20 and ü");
    lethe_store::connect(&format!("redb://{}", odd.display())).await.unwrap();
    assert!(odd.join("state.redb").is_file());
}

#[tokio::test]
async fn a_second_owner_is_told_who_has_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = redb(folder.path()).await.unwrap();
    let error = refusal(folder.path()).await;
    assert!(
        matches!(error, Error::InUse { owner: Some(owner), .. } if owner == std::process::id()),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains("another lethe run uses") && text.contains(&folder.path().display().to_string()),
        "{text}"
    );
    assert!(error.retryable());
    put(&store, "a", "still works").await;
    drop(store);
    redb(folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_watch_ends_with_its_store_and_does_not_keep_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = redb(folder.path()).await.unwrap();
    let revision = put(&store, "a", "1").await;
    let mut watch = store.watch("", revision);
    let waiting = tokio::spawn(async move { watch.next().await.is_none() });
    tokio::task::yield_now().await;
    drop(store);
    assert!(waiting.await.unwrap());
    redb(folder.path()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn everything_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let ttl = Duration::from_secs(10);
    let store = redb(folder.path()).await.unwrap();
    let kept = store.grant(ttl).await.unwrap();
    let ended = store.grant(ttl).await.unwrap();
    put(&store, "a", vec![0, 255]).await;
    put(&store, "b", "gone").await;
    store
        .commit(Txn::new().delete("b").put_leased("w/1", "x", kept).put_leased("w/2", "x", ended))
        .await
        .unwrap();
    store.revoke(ended).await.unwrap();
    let before = store.list("").await.unwrap();
    tokio::time::advance(ttl * 9 / 10).await;
    drop(store);

    let store = redb(folder.path()).await.unwrap();
    assert_eq!(store.list("").await.unwrap(), before);
    tokio::time::advance(ttl * 9 / 10).await;
    assert_eq!(store.list("").await.unwrap(), before, "a lease has its whole time again");
    assert!(matches!(store.keep_alive(ended).await, Err(Error::LeaseNotFound { .. })));
    let new = store.grant(ttl).await.unwrap();
    assert!(new > ended, "numbers of leases are not used again");

    let earlier = lethe_store::Revision(before.revision.0 - 1);
    let missed = store.watch("", earlier).next().await.unwrap();
    assert!(
        matches!(missed, Err(Error::Compacted { .. })),
        "the history is not kept over a restart: {missed:?}"
    );
    let gone = store.watch("", before.revision).next().await.unwrap().unwrap();
    assert_eq!(gone.changes, [lethe_store::Change::Delete { key: "w/1".to_owned() }]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = refusal(&path).await;
        assert!(matches!(error, Error::Unwritable { .. }), "{error:?}");
        assert!(!error.retryable() && !error.is_disk_full());
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn a_read_only_disk_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let Some(()) = small_disk::mounted(folder.path(), "8m") else { return };
    let state = folder.path().join("state");
    small_disk::block_on(async {
        put(&redb(&state).await.unwrap(), "a", "1").await;
    });
    small_disk::read_only(folder.path());
    small_disk::block_on(async {
        for path in [&state, &folder.path().join("new")] {
            let error = refusal(path).await;
            assert!(matches!(error, Error::Unwritable { .. }), "{error:?}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
    });
}

#[test]
fn no_room_for_a_new_state_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let Some(()) = small_disk::mounted(folder.path(), "16k") else { return };
    let state = folder.path().join("state");
    small_disk::block_on(async {
        let error = refusal(&state).await;
        assert!(error.is_disk_full() && error.retryable(), "{error:?}");
        assert!(error.to_string().contains(&state.join("state.redb").display().to_string()), "{error}");
        let left: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
        assert!(refusal(&state).await.is_disk_full(), "and the same when tried again");
    });
}

#[test]
fn a_full_disk_refuses_commits_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    let Some(()) = small_disk::mounted(folder.path(), "6m") else { return };
    let ballast = folder.path().join("ballast");
    fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    small_disk::block_on(async {
        let state = folder.path().join("state");
        let mut store = redb(&state).await.unwrap();
        let mut kept = 0;
        let error = loop {
            match store.commit(Txn::new().put(format!("k/{kept:03}"), vec![7; 100_000])).await {
                Ok(_) => kept += 1,
                Err(error) => break error,
            }
        };
        assert!(error.is_disk_full(), "{error:?}");
        assert!(kept > 5, "{kept}");
        for _ in 0..3 {
            let error = store.commit(Txn::new().put("k/one more", vec![7; 100_000])).await.unwrap_err();
            assert!(error.is_disk_full(), "still: {error:?}");
        }
        fs::remove_file(&ballast).unwrap();
        for reopened in [false, true] {
            if reopened {
                drop(store);
                store = redb(&state).await.unwrap();
            }
            let listing = store.list("k/").await.unwrap();
            assert_eq!(listing.entries.len(), kept, "reopened: {reopened}");
            assert!(listing.entries.iter().all(|entry| entry.value == vec![7; 100_000]));
            put(&store, &format!("goes on/{reopened}"), "x").await;
        }
    });
}

/// A store with a few hundred entries, as bytes of its file.
async fn written(folder: &Path) -> Vec<u8> {
    let store = redb(folder).await.unwrap();
    for number in 0..40u8 {
        let txn =
            (0..8).fold(Txn::new(), |txn, key| txn.put(format!("jobs/{key}/{number}"), vec![number; 300]));
        store.commit(txn).await.unwrap();
    }
    drop(store);
    fs::read(folder.join("state.redb")).unwrap()
}

fn assert_damaged(error: &Error, file: &Path) {
    assert!(matches!(error, Error::Corrupted { .. }), "{error:?}");
    assert!(!error.retryable());
    let text = error.to_string();
    assert!(text.contains(&file.display().to_string()) && text.contains("move it away"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_not_a_state_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = written(folder.path()).await;
    let file = folder.path().join("state.redb");
    let elsewhere = folder.path().join("elsewhere.redb");
    drop(::redb::Database::create(&elsewhere).unwrap());
    let foreign = fs::read(&elsewhere).unwrap();
    for bytes in [&[][..], b"not redb", &[0; 1 << 20], &whole[..100], &whole[..whole.len() / 2], &foreign] {
        fs::write(&file, bytes).unwrap();
        assert_damaged(&refusal(folder.path()).await, &file);
    }
    fs::write(&file, whole).unwrap();
    redb(folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(redb(folder.path()).await.unwrap());
    let file = folder.path().join("state.redb");
    let database = ::redb::Database::open(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = ::redb::TableDefinition::<&str, u64>::new("meta");
    transaction.open_table(meta).unwrap().insert("format", 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = refusal(folder.path()).await;
    assert!(matches!(error, Error::NewerFormat { found: 2, supported: 1, .. }), "{error:?}");
}

/// Bits flipped anywhere: refused, or harmless. What is read was once committed as it is, and never a mixture.
#[tokio::test]
async fn flipped_bits_are_refused_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let whole = written(folder.path()).await;
    let file = folder.path().join("state.redb");
    let used: Vec<usize> = (0..whole.len()).filter(|&at| whole[at] != 0).collect();
    let mut chance = ChaCha8Rng::seed_from_u64(20_240_818);
    let (mut refused, mut harmless) = (0, 0);
    for round in 0..300 {
        let mut damaged = whole.clone();
        for _ in 0..=round % 3 {
            // Half of them in the header, where the commit slots are; the rest where something is written.
            let at = if chance.random() {
                chance.random_range(0..512)
            } else {
                *used.choose(&mut chance).unwrap()
            };
            damaged[at] ^= 1 << chance.random_range(0..8);
        }
        fs::write(&file, &damaged).unwrap();
        match redb(folder.path()).await {
            Ok(store) => {
                let listing = store.list("").await.unwrap();
                let commits = listing.revision.0;
                assert_eq!(listing.entries.len() as u64, commits * 8, "round {round}");
                for entry in &listing.entries {
                    let number: u8 = entry.key.rsplit('/').next().unwrap().parse().unwrap();
                    assert_eq!(entry.value, vec![number; 300], "round {round}");
                    assert_eq!(entry.version.0, u64::from(number) + 1, "round {round}");
                }
                assert!(
                    commits >= 39,
                    "round {round}: at most the last commit may be given up, not {commits}"
                );
                harmless += 1;
            }
            Err(error) => {
                assert!(
                    matches!(error, Error::Corrupted { .. } | Error::Io { .. }),
                    "round {round}: {error:?}"
                );
                refused += 1;
            }
        }
    }
    eprintln!("{refused} refused, {harmless} harmless");
    assert!(refused > 100, "{refused} refused, {harmless} harmless");
}
