//! kill -9 while checkpoints are saved, at random moments: each is afterwards whole or absent, and the newest that
//! was acknowledged is found.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    num::NonZeroUsize,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lethe_artifacts::{ArtifactStore, Checkpoints, Fault, Header, Keep, NewFile};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use lethe_testkit::Moto;

use crate::place::{BUCKET, Place};

const PLACE: &str = "LETHE_ARTIFACTS_TEST_PLACE";
const GENERATION: &str = "LETHE_ARTIFACTS_TEST_GENERATION";
const FILES: usize = 5;

/// Every byte tells the step, so that a mixture of two steps would show. The last one goes up in two parts.
fn file(step: u64, number: usize) -> Vec<u8> {
    let size = if number + 1 == FILES { (8 << 20) + 8 } else { 8 * (1 + number * 6000) };
    step.to_le_bytes().iter().copied().cycle().take(size).collect()
}

#[tokio::test]
#[ignore = "the process that `checkpoints_survive_kill_nine` starts and kills"]
async fn child() {
    let store = ArtifactStore::open(&std::env::var(PLACE).unwrap()).await.unwrap();
    let checkpoints = Checkpoints::new(store, "checkpoints", "job");
    let generation = std::env::var(GENERATION).unwrap().parse().unwrap();
    let latest = checkpoints.latest_valid().await.unwrap().checkpoint;
    let mut step = latest.map_or(0, |checkpoint| checkpoint.manifest.header.step);
    let mut out = std::io::stdout();
    writeln!(out, "\nresumed {step}").unwrap();
    loop {
        step += 1;
        writeln!(out, "saving {step}").unwrap();
        out.flush().unwrap();
        let files =
            (0..FILES).map(|number| NewFile::new(format!("file-{number}"), file(step, number))).collect();
        checkpoints.save(Header { step, generation, ..Header::default() }, files).await.unwrap();
        writeln!(out, "saved {step}").unwrap();
        out.flush().unwrap();
        checkpoints.retain(Keep::last(NonZeroUsize::new(2).unwrap())).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_survive_kill_nine() {
    survive(&Place::file(), vec![], 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_on_s3_survive_kill_nine() {
    let Some(moto) = Moto::start() else { return };
    moto.bucket(BUCKET);
    survive(&Place::s3("torn", moto.variables()), moto.variables(), 20).await;
}

async fn survive(place: &Place, variables: Vec<(String, String)>, rounds: u64) {
    let mut chance = ChaCha8Rng::seed_from_u64(20_240_821);
    let (mut newest, mut torn, mut unacknowledged) = (0, 0, 0);
    let mut saving_takes = Duration::from_millis(5);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "torn::child", "--ignored", "--nocapture"])
            .env(PLACE, place.uri())
            .envs(variables.clone())
            .env(GENERATION, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let number =
            |word: &str, line: &str| line.strip_prefix(word).and_then(|rest| rest.trim().parse::<u64>().ok());
        assert_eq!(lines.by_ref().find_map(|line| number("resumed ", &line)), Some(newest), "round {round}");
        let mut acknowledged = newest;
        for _ in 0..chance.random_range(0..4) {
            assert!(lines.next().unwrap().starts_with("saving "));
            let begun = Instant::now();
            acknowledged = number("saved ", &lines.next().unwrap()).unwrap();
            saving_takes = begun.elapsed();
        }
        // A moment, not known beforehand, inside the next saving or the retention after it.
        assert!(lines.next().unwrap().starts_with("saving "));
        let moment = Instant::now() + saving_takes.mul_f64(chance.random_range(0.0..1.3));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged = lines.filter_map(|line| number("saved ", &line)).last().unwrap_or(acknowledged);

        let checkpoints = Checkpoints::new(place.store().await, "checkpoints", "job");
        let latest = checkpoints.latest_valid().await.unwrap();
        // A kill leaves unfinished checkpoints, never damaged ones.
        assert!(
            latest.skipped.iter().all(|skipped| skipped.fault == Fault::Unfinished),
            "round {round}: {latest:?}"
        );
        torn += latest.skipped.len();
        let mut folders: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in place.names("checkpoints").await {
            let (folder, file) = name.split_once('/').unwrap();
            folders.entry(folder.to_owned()).or_default().push(file.to_owned());
        }
        for (folder, files) in folders {
            let whole = (0..FILES).all(|number| files.contains(&format!("file-{number}")));
            let committed = files.contains(&"manifest.json".to_owned());
            assert!(whole || !committed, "round {round}: {folder} is half removed");
        }
        newest = latest.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.manifest.header.step);
        assert!(
            newest == acknowledged || newest == acknowledged + 1,
            "round {round}: {acknowledged} acknowledged, {newest} found"
        );
        unacknowledged += newest - acknowledged;
        if let Some(checkpoint) = &latest.checkpoint {
            for number in 0..FILES {
                let bytes = checkpoints.load(checkpoint, &format!("file-{number}")).await.unwrap();
                assert!(bytes == file(newest, number), "round {round}: file {number} of step {newest}");
            }
        }
    }
    eprintln!("{newest} steps; {torn} unfinished passed over; {unacknowledged} whole but not acknowledged");
    assert!(
        newest > rounds / 2 && torn >= rounds as usize / 12,
        "the kills must hit: {newest} steps, {torn} torn"
    );
}
