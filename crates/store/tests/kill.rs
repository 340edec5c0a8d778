//! kill -9 in the middle of commits: each is afterwards whole or absent, and no acknowledged one is lost.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use lethe_store::{Error, StateStore, Txn, redb};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const FOLDER: &str = "LETHE_STORE_TEST_FOLDER";
/// Keys of one commit. Their sizes make it span several pages.
const KEYS: usize = 6;

fn value(number: u64, key: usize) -> Vec<u8> {
    [number.to_le_bytes().as_slice(), &vec![number.to_le_bytes()[0]; key * 3000]].concat()
}

fn commit(number: u64) -> Txn {
    let txn = (0..KEYS).fold(Txn::new(), |txn, key| txn.put(format!("round/{key}"), value(number, key)));
    // Something appears and disappears with every other commit.
    if number.is_multiple_of(2) { txn.put("even", "x") } else { txn.delete("even") }
}

/// The number of the last commit, after checking that all of it is there.
async fn last_whole(store: &Arc<dyn StateStore>) -> u64 {
    let entries = store.list("").await.unwrap().entries;
    let Some(first) = entries.iter().find(|entry| entry.key == "round/0") else {
        assert_eq!(entries, []);
        return 0;
    };
    let number = u64::from_le_bytes(first.value[..8].try_into().unwrap());
    for key in 0..KEYS {
        let entry = entries.iter().find(|entry| entry.key == format!("round/{key}")).unwrap();
        assert!(
            entry.value == value(number, key) && entry.version == first.version,
            "key {key} of commit {number}"
        );
    }
    assert_eq!(entries.iter().any(|entry| entry.key == "even"), number.is_multiple_of(2), "commit {number}");
    number
}

#[tokio::test]
#[ignore = "the process that `commits_survive_kill_nine` starts and kills"]
async fn child() {
    let folder = std::env::var(FOLDER).unwrap();
    let store = redb(Path::new(&folder)).await.unwrap();
    let mut number = last_whole(&store).await;
    let mut out = std::io::stdout();
    writeln!(out, "\nopened at {number}").unwrap();
    loop {
        number += 1;
        store.commit(commit(number)).await.unwrap();
        writeln!(out, "committed {number}").unwrap();
        out.flush().unwrap();
    }
}

fn start(folder: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

fn number_after(word: &str, line: &str) -> Option<u64> {
    line.strip_prefix(word)?.trim().parse().ok()
}

#[tokio::test]
async fn commits_survive_kill_nine() {
    let folder = tempfile::tempdir().unwrap();
    let mut chance = ChaCha8Rng::seed_from_u64(20_240_819);
    let (mut kept, mut beyond_the_acknowledged) = (0, 0);
    for round in 0..40 {
        let (mut child, mut lines) = start(folder.path());
        let opened = lines.by_ref().find_map(|line| number_after("opened at ", &line.unwrap()));
        assert_eq!(opened, Some(kept), "round {round}");
        if round == 0 {
            let error = redb(folder.path()).await.map(|store| format!("{store:?}")).unwrap_err();
            assert!(
                matches!(error, Error::InUse { owner: Some(owner), .. } if owner == child.id()),
                "{error:?}"
            );
        }
        let mut acknowledged = kept;
        for line in lines.by_ref().take(chance.random_range(0..12)) {
            acknowledged = number_after("committed ", &line.unwrap()).unwrap();
        }
        // A moment, not known beforehand, inside one of the next commits.
        let moment = Instant::now() + Duration::from_micros(chance.random_range(0..2500));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died.
        acknowledged = lines
            .filter_map(|line| number_after("committed ", &line.unwrap()))
            .last()
            .unwrap_or(acknowledged);

        let store = redb(folder.path()).await.unwrap();
        kept = last_whole(&store).await;
        assert!(
            kept == acknowledged || kept == acknowledged + 1,
            "round {round}: {acknowledged} acknowledged, {kept} kept"
        );
        beyond_the_acknowledged += kept - acknowledged;
    }
    eprintln!("{kept} commits, {beyond_the_acknowledged} of them whole but not yet acknowledged");
    assert!(kept > 40);
}
