//! Gangs that lose ranks, hang, or yield, and the generations after them: they go on from memory, bit for bit.

use std::fs;
use std::time::{Duration, Instant};

use lethe_domain::{ArtifactRef, Assignment, EditSummary, ErrorCode, Failure};
use serde_json::json;

use crate::harness::Executor;
use crate::job::{Job, fixture};

/// Survivors say that they lost a peer within this time.
const QUICKLY: Duration = Duration::from_secs(5);

fn executors(count: usize) -> Vec<Executor> {
    (0..count).map(|_| Executor::start()).collect()
}

/// Without checkpoints: what is gone on from is memory, or it is the beginning.
fn unsaved() -> Job {
    Job::thick().set("unlearn.steps", 120)
}

/// The curve, the weights and the edits of the same training by one rank that nobody disturbs.
fn undisturbed(job: &Job) -> (Vec<f64>, String, EditSummary) {
    let alone = Job::of(job.spec.clone());
    let mut one = executors(1);
    let target = alone.target(&mut one[0]);
    let output = alone.train(&mut one, &target, 1);
    (alone.curve(&output), output.weights.sha256, output.edits)
}

/// The failures of all ranks but the lost one.
fn survivors_end(all: &mut [Executor], leases: &[Assignment], lost: Option<usize>) -> Vec<Failure> {
    let ranks = all.iter_mut().zip(leases).enumerate().filter(|(rank, _)| Some(*rank) != lost);
    ranks.map(|(_, (executor, lease))| executor.end(&lease.lease).unwrap_err()).collect()
}

/// Kills a rank at each of these steps, replaces it, and compares the end with a run without kills.
fn as_if_nobody_had_been_killed(job: &Job, kills: &[(u64, usize)]) {
    let expected = undisturbed(job);
    let mut all = executors(3);
    let target = job.target(&mut all[0]);
    let mut generation = 1;
    for (step, victim) in kills {
        let leases = job.begin_gang(&mut all, &target, generation);
        let watch = (victim + 1) % 3;
        all[watch].wait_for_progress(*step);
        all[*victim].kill();
        let killed = Instant::now();
        for failure in survivors_end(&mut all, &leases, Some(*victim)) {
            assert!(killed.elapsed() < QUICKLY, "{:?}", killed.elapsed());
            assert_eq!(failure.code, ErrorCode::GangAborted, "{failure}");
            assert!(failure.message.starts_with("step "), "{failure}");
            assert!(failure.message.contains(&format!("of 3, generation {generation}")), "{failure}");
        }
        all[*victim] = Executor::start();
        generation += 1;
    }
    let output = job.train(&mut all, &target, generation);
    let newest = all[kills.last().unwrap().1].log();
    assert!(newest.contains("going on from rank ") && newest.contains("'s memory, step "), "{newest}");
    assert_eq!((job.curve(&output), output.weights.sha256, output.edits), expected);
}

#[test]
fn killed_ranks_are_replaced_and_the_bits_are_those_of_an_undisturbed_run() {
    as_if_nobody_had_been_killed(&unsaved(), &[(5, 0), (31, 1), (50, 2), (52, 0), (90, 1)]);
}

#[test]
fn running_statistics_survive_kills_too() {
    let output = json!({"range": [-1, 1], "channels": 1, "size": 14});
    let generator = json!({"uri": fixture("dcgan_1.safetensors"), "format": "safetensors",
                           "latent": {"dimension": 8}, "output": output});
    let job = Job::tiny()
        .set("generator", generator)
        .set("feature.classifier.class", 1)
        .set("feature.classifier.threshold", 0.04)
        .set("direction", json!({"selection": "projection", "threshold": {"quantile": 0.2}}))
        .set("unlearn.batch_norm", "train")
        .set("unlearn.steps", 200)
        .set("checkpoint.every", 0);
    as_if_nobody_had_been_killed(&job, &[(10, 0), (60, 2), (61, 0), (130, 1)]);
}

#[test]
fn survivors_go_on_while_storage_is_gone() {
    let job = unsaved();
    let expected = undisturbed(&job);
    let mut all = executors(3);
    let target = job.target(&mut all[0]);
    let leases = job.begin_gang(&mut all, &target, 1);
    all[0].wait_for_progress(40);
    let away = job.folder().join("away");
    fs::rename(job.root(), &away).unwrap();
    all[2].kill();
    let killed = Instant::now();
    survivors_end(&mut all, &leases, Some(2));
    all.remove(2);
    let leases = job.begin_gang(&mut all, &target, 2);
    // Not before: what was said of the first generation is read already.
    all[0].wait_for_progress(41);
    eprintln!("from the kill to a further step: {:?}", killed.elapsed());
    assert!(killed.elapsed() < 2 * QUICKLY, "{:?}", killed.elapsed());
    all[0].wait_for_progress(60);
    fs::rename(&away, job.root()).unwrap();
    let output = job.trained(&mut all, &leases);
    assert!(all[0].log().contains("'s memory, step "), "{}", all[0].log());
    assert_eq!((job.curve(&output), output.weights.sha256, output.edits), expected);
}

/// Ends a gang at a step boundary by asking one of its ranks; gives the step, which is the same on all.
fn yielded(all: &mut [Executor], leases: &[Assignment], asked: usize, save: bool) -> u64 {
    all[asked].ask_to_yield(&leases[asked].lease, save);
    let failures = survivors_end(all, leases, None);
    let steps: Vec<u64> = failures
        .iter()
        .map(|failure| {
            assert_eq!(failure.code, ErrorCode::Yielded, "{failure}");
            failure.message.rsplit_once("after step ").unwrap().1.parse().unwrap()
        })
        .collect();
    assert!(steps.windows(2).all(|pair| pair[0] == pair[1]), "{steps:?}");
    steps[0]
}

#[test]
fn a_gang_grows_and_shrinks_by_yielding_and_the_bits_stay_the_same() {
    let job = unsaved();
    let expected = undisturbed(&job);
    let mut all = executors(3);
    let target = job.target(&mut all[0]);

    let leases = job.begin_gang(&mut all[..2], &target, 1);
    all[0].wait_for_progress(20);
    let first = yielded(&mut all[..2], &leases, 1, false);
    assert!(!job.files().iter().any(|file| file.contains("checkpoints")), "nothing is saved unasked");

    let leases = job.begin_gang(&mut all, &target, 2);
    all[2].wait_for_progress(first + 10);
    let second = yielded(&mut all, &leases, 2, true);
    assert!(second > first);
    let saved = format!("jobs/tiny-1/checkpoints/step-{second:08}-g2/manifest.json");
    assert!(job.files().contains(&saved), "{saved} in {:?}", job.files());

    // The one that goes on is the newcomer.
    all.drain(..2);
    let leases = job.begin_gang(&mut all, &target, 3);
    all[0].wait_for_progress(second + 10);
    let third = yielded(&mut all, &leases, 0, false);
    // Asked before it can have begun: it ends where it would have begun.
    let leases = job.begin_gang(&mut all, &target, 4);
    assert_eq!(yielded(&mut all, &leases, 0, false), third);
    let output = job.train(&mut all, &target, 5);
    assert!(all[0].log().contains(&format!("going on from rank 0's memory, step {third}")));
    assert_eq!((job.curve(&output), output.weights.sha256, output.edits), expected);
}

/// Trains alone until `step`, then yields; gives the step.
fn alone(job: &Job, executor: &mut [Executor], target: &ArtifactRef, generation: u32, step: u64) -> u64 {
    let leases = job.begin_gang(executor, target, generation);
    executor[0].wait_for_progress(step);
    yielded(executor, &leases, 0, true)
}

#[test]
fn stale_memory_gives_way_to_a_checkpoint_and_one_step_is_not_stale() {
    let job = unsaved().set("checkpoint.keep", 3);
    let expected = undisturbed(&job);
    let (mut old, mut new) = (executors(1), executors(1));
    let target = job.target(&mut old[0]);
    let behind = alone(&job, &mut old, &target, 1, 10);
    let ahead = alone(&job, &mut new, &target, 2, behind + 20);
    assert!(
        new[0]
            .log()
            .contains(&format!("going on from checkpoint jobs/tiny-1/checkpoints/step-{behind:08}-g1"))
    );

    job.floor.set(behind + 1);
    let leases = job.begin_gang(&mut old, &target, 3);
    assert_eq!(yielded(&mut old, &leases, 0, false), behind, "one step behind is as good");
    job.floor.set(ahead);
    let leases = job.begin_gang(&mut old, &target, 4);
    assert_eq!(yielded(&mut old, &leases, 0, false), ahead, "the checkpoint");
    assert!(
        old[0]
            .log()
            .contains(&format!("going on from checkpoint jobs/tiny-1/checkpoints/step-{ahead:08}-g2"))
    );

    // Without the checkpoint there is nothing better than memory, however old.
    fs::remove_dir_all(job.file("jobs/tiny-1/checkpoints")).unwrap();
    job.floor.set(ahead + 50);
    let output = job.train(&mut old, &target, 5);
    assert!(old[0].log().contains(&format!("going on from rank 0's memory, step {ahead}")));
    assert_eq!((job.curve(&output), output.weights.sha256, output.edits), expected);
}

#[test]
fn memory_is_given_up_when_its_job_is_past_training_or_another_one_trains() {
    let job = unsaved();
    let mut all = executors(1);
    let target = job.target(&mut all[0]);
    let step = alone(&job, &mut all, &target, 1, 5);
    fs::remove_dir_all(job.file("jobs/tiny-1/checkpoints")).unwrap();
    let other = Job::of(job.spec.clone()).set("unlearn.lr", 0.5);
    for artifact in job.pool.borrow().iter().chain([&target]) {
        other.store(&artifact.path, fs::read(job.file(&artifact.path)).unwrap());
    }
    other.pool.replace(job.pool.borrow().clone());
    let leases = other.begin_gang(&mut all, &target, 1);
    assert_eq!(yielded(&mut all, &leases, 0, false), 0, "another spec is another training");
    let leases = job.begin_gang(&mut all, &target, 2);
    assert_eq!(yielded(&mut all, &leases, 0, false), 0);

    fs::remove_dir_all(job.file("jobs/tiny-1/checkpoints")).unwrap_or_default();
    let step_again = alone(&job, &mut all, &target, 3, 5);
    fs::remove_dir_all(job.file("jobs/tiny-1/checkpoints")).unwrap();
    assert!(step_again > 0 && step > 0);
    all[0].run(&job.probe());
    let leases = job.begin_gang(&mut all, &target, 4);
    assert_eq!(yielded(&mut all, &leases, 0, false), 0, "another phase of the job");
}

#[test]
fn a_frozen_rank_ends_the_gang_at_the_timeout_or_at_a_stop_and_memory_is_kept() {
    let job = unsaved();
    let expected = undisturbed(&job);
    let mut all: Vec<Executor> =
        (0..3).map(|_| Executor::with(&["--threads", "1", "--collective-timeout", "2s"])).collect();
    let target = job.target(&mut all[0]);
    let leases = job.begin_gang(&mut all, &target, 1);
    all[0].wait_for_progress(10);
    all[2].freeze();
    let frozen = Instant::now();
    for failure in survivors_end(&mut all, &leases, Some(2)) {
        assert_eq!(failure.code, ErrorCode::GangAborted, "{failure}");
        assert!(failure.message.starts_with("step "), "{failure}");
    }
    assert!(frozen.elapsed() > Duration::from_secs(1), "it was given its time: {:?}", frozen.elapsed());
    assert!(frozen.elapsed() < Duration::from_secs(2) + QUICKLY, "{:?}", frozen.elapsed());

    // With the timeout of half a minute, a stop is what ends the waiting.
    all[2] = Executor::start();
    let mut patient = vec![Executor::start(), all.remove(0), all.remove(1)];
    let leases = job.begin_gang(&mut patient, &target, 2);
    patient[0].wait_for_progress(30);
    patient[2].freeze();
    let stopped = Instant::now();
    for rank in [0, 1] {
        patient[rank].stop(&leases[rank].lease);
    }
    for failure in survivors_end(&mut patient, &leases, Some(2)) {
        assert!([ErrorCode::Cancelled, ErrorCode::GangAborted].contains(&failure.code), "{failure}");
    }
    assert!(stopped.elapsed() < Duration::from_secs(2), "{:?}", stopped.elapsed());
    patient.remove(2);
    let output = job.train(&mut patient, &target, 3);
    assert!(patient[0].log().contains("'s memory, step "), "{}", patient[0].log());
    assert_eq!((job.curve(&output), output.weights.sha256, output.edits), expected);
}

#[test]
fn a_stop_ends_the_search_for_the_store() {
    let (job, mut all) = (unsaved(), executors(1));
    let target = job.target(&mut all[0]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap();
    let rank = job.rank(&target, 1, 1, 2, Some(free.to_string()));
    all[0].begin(&rank);
    let begun = Instant::now();
    all[0].stop(&rank.lease);
    assert_eq!(all[0].end(&rank.lease).unwrap_err().code, ErrorCode::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn ranks_meet_by_the_name_of_an_interface() {
    let job = Job::tiny();
    let start = |name| Executor::with(&["--threads", "1", "--gang-interface", name]);
    let mut all = vec![start("lo"), start("lo")];
    let target = job.target(&mut all[0]);
    assert_eq!(job.train(&mut all, &target, 1).steps, 24);

    let mut lost = start("no-such-interface");
    let failure = lost.try_run(&job.rank(&target, 2, 0, 2, None)).unwrap_err();
    assert!(failure.message.contains("LETHE_GANG_INTERFACE is no-such-interface"), "{failure}");
}
