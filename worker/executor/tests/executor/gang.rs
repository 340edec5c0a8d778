//! Training by one, two and three processes; their deaths; going on from what was saved.

use std::fs;
use std::time::{Duration, Instant};

use lethe_domain::{ErrorCode, TaskOutput};
use safetensors::SafeTensors;
use serde_json::json;

use crate::harness::Executor;
use crate::job::{Job, fixture};

/// Ranks that lost a peer say so within this time.
const QUICKLY: Duration = Duration::from_secs(5);

fn executors(count: usize) -> Vec<Executor> {
    (0..count).map(|_| Executor::start()).collect()
}

fn same_training_at_any_size(job: &Job) {
    let mut all = executors(3);
    let target = job.target(&mut all[0]);
    // A job goes on from its checkpoints, so each gang trains in a folder without any.
    let mut trained_by = |world: u32| {
        let _ = fs::remove_dir_all(job.file("jobs/tiny-1/checkpoints"));
        let output = job.train(&mut all[..world as usize], &target, world);
        assert_eq!(output.world_size, world);
        (job.curve(&output), output.weights.sha256, output.edits)
    };
    let alone = trained_by(1);
    assert!(alone.2.tried > 0 && alone.2.median_step <= alone.2.p99_step, "{:?}", alone.2);
    let worst = alone.0.iter().copied().fold(0.0, f64::max);
    assert!(alone.0[alone.0.len() - 1] < worst, "it learns: {:?}", alone.0);
    for world in [2, 3] {
        let together = trained_by(world);
        assert_eq!(together.0, alone.0, "the curve of {world} ranks");
        assert_eq!(together.1, alone.1, "the weights of {world} ranks");
        assert_eq!(together.2, alone.2, "each edit is counted once by {world} ranks");
    }
}

#[test]
fn training_is_the_same_bit_for_bit_at_one_two_and_three_ranks_with_the_guided_edit() {
    same_training_at_any_size(&Job::tiny().set("unlearn.global_batch", 25));
}

#[test]
fn training_is_the_same_bit_for_bit_at_one_two_and_three_ranks_with_the_papers_edit() {
    same_training_at_any_size(&Job::thick());
}

#[test]
fn training_is_the_same_bit_for_bit_at_one_two_and_three_ranks_with_batch_normalisation() {
    let output = json!({"range": [-1, 1], "channels": 1, "size": 14});
    let generator = json!({"uri": fixture("dcgan_1.safetensors"), "format": "safetensors",
                           "latent": {"dimension": 8}, "output": output});
    let job = Job::tiny()
        .set("generator", generator)
        .set("feature.classifier.class", 1)
        .set("feature.classifier.threshold", 0.04)
        .set("direction", json!({"selection": "projection", "threshold": {"quantile": 0.2}}));
    same_training_at_any_size(&job);
    same_training_at_any_size(&job.set("unlearn.batch_norm", "train"));
}

#[test]
fn a_killed_rank_ends_the_generation_and_the_next_one_goes_on_from_the_checkpoint() {
    let job = Job::thick().set("unlearn.steps", 80).set("checkpoint.every", 10);
    let undisturbed = Job::thick().set("unlearn.steps", 80);
    let mut all = executors(3);
    let target = undisturbed.target(&mut all[0]);
    let expected = undisturbed.train(&mut all[..2], &target, 1);
    let expected = (undisturbed.curve(&expected), expected.weights.sha256);

    let target = job.target(&mut all[0]);
    let leases = job.begin_gang(&mut all, &target, 1);
    all[0].wait_for_progress(20);
    all[1].kill();
    let killed = Instant::now();
    for rank in [0, 2] {
        let failure = all[rank].end(&leases[rank].lease).unwrap_err();
        assert!(killed.elapsed() < QUICKLY, "rank {rank} noticed after {:?}", killed.elapsed());
        assert_eq!(failure.code, ErrorCode::GangAborted, "{failure}");
        assert!(failure.message.contains(&format!("rank {rank} of 3, generation 1")), "{failure}");
        assert!(failure.at_unix_ms > 1_700_000_000_000);
    }

    all.remove(1);
    let output = job.train(&mut all, &target, 2);
    assert!(all[0].log().contains("going on from rank 0's memory, step "), "{}", all[0].log());
    assert_eq!((job.curve(&output), output.weights.sha256.clone()), expected, "as if nobody had been killed");
    assert!(output.checkpoint.ends_with("step-00000080-g2"), "{}", output.checkpoint);
}

#[test]
fn only_the_last_checkpoints_are_kept_and_the_last_one_holds_the_result() {
    let (job, mut all) = (Job::tiny(), executors(1));
    let target = job.target(&mut all[0]);
    let output = job.train(&mut all, &target, 1);
    let files = job.files();
    let manifests: Vec<&String> = files.iter().filter(|file| file.ends_with("manifest.json")).collect();
    assert_eq!(manifests.len(), 2, "{manifests:?}");
    assert!(manifests.iter().any(|file| file.contains("step-00000024-g1")), "{manifests:?}");
    assert_eq!(output.checkpoint, "jobs/tiny-1/checkpoints/step-00000024-g1");
    // What is published is the average that the checkpoint holds beside the weights themselves.
    let saved = fs::read(job.file(&format!("{}/training.safetensors", output.checkpoint))).unwrap();
    let published = fs::read(job.file(&output.weights.path)).unwrap();
    let (saved, published) =
        (SafeTensors::deserialize(&saved).unwrap(), SafeTensors::deserialize(&published).unwrap());
    for (name, view) in published.iter() {
        assert_eq!(view.data(), saved.tensor(&format!("average.{name}")).unwrap().data(), "{name}");
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_word() {
    let (job, mut all) = (Job::tiny(), executors(1));
    let target = job.target(&mut all[0]);
    let before = job.train(&mut all, &target, 1);
    let file = job.file(&format!("{}/generator.safetensors", before.checkpoint));
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();

    let after = job.train(&mut all, &target, 2);
    let log = all[0].log();
    assert!(log.contains("skipped checkpoint jobs/tiny-1/checkpoints/step-00000024-g1"), "{log}");
    assert!(log.contains("going on from checkpoint jobs/tiny-1/checkpoints/step-00000020-g1"), "{log}");
    assert_eq!(job.curve(&before), job.curve(&after));
    assert_eq!(before.weights.sha256, after.weights.sha256, "one rank repeats itself bit for bit");
}

#[test]
fn a_generation_after_the_last_step_has_nothing_left_to_train() {
    let (job, mut all) = (Job::tiny(), executors(2));
    let target = job.target(&mut all[0]);
    let before = job.train(&mut all, &target, 1);
    let after = job.train(&mut all, &target, 2);
    assert_eq!(before.weights.sha256, after.weights.sha256);
    assert_eq!(job.curve(&before), job.curve(&after));
    assert_eq!((after.steps, after.world_size), (24, 2));
}

#[test]
fn training_stops_when_the_loss_no_longer_falls_and_every_rank_agrees() {
    let job = Job::tiny()
        .set("unlearn.steps", 4000)
        .set("unlearn.lr", 1e-9)
        .set("unlearn.plateau", json!({"patience": 12, "min_delta": 0.3}));
    let mut all = executors(2);
    let target = job.target(&mut all[0]);
    let output = job.train(&mut all, &target, 1);
    assert!(output.steps.is_multiple_of(12) && (24..4000).contains(&output.steps), "{output:?}");
    assert_eq!(job.curve(&output).len() as u64, output.steps);
}

#[test]
fn divergence_is_told_with_its_step_and_what_to_change() {
    let job = Job::tiny().set("unlearn.lr", 1e38).set("unlearn.steps", 200);
    let mut all = executors(2);
    let target = job.target(&mut all[0]);
    let leases = job.begin_gang(&mut all, &target, 1);
    for (executor, assignment) in all.iter_mut().zip(&leases) {
        let failure = executor.end(&assignment.lease).unwrap_err();
        assert_eq!(failure.code, ErrorCode::NotFinite, "{failure}");
        assert!(failure.message.starts_with("the loss of step "), "{failure}");
        assert!(failure.hint.contains("lower unlearn.lr"), "{}", failure.hint);
    }
}

#[test]
fn batch_statistics_are_used_when_asked_for() {
    let generator = json!({"uri": fixture("dcgan_1.safetensors"), "format": "safetensors",
                           "latent": {"dimension": 8},
                           "output": {"range": [-1, 1], "channels": 1, "size": 14}});
    let of = |mode: &str| {
        let job = Job::tiny()
            .set("generator", generator.clone())
            .set("feature.classifier.class", 1)
            .set("feature.classifier.threshold", 0.04)
            .set("unlearn.batch_norm", mode)
            .set("unlearn.steps", 3);
        let mut all = executors(1);
        let target = job.target(&mut all[0]);
        let output = job.train(&mut all, &target, 1);
        job.curve(&output)
    };
    let (kept, own) = (of("eval")[2], of("train")[2]);
    assert!((kept - own).abs() > 1e-3 * kept, "{kept} {own}");
}

#[test]
fn a_stop_ends_every_rank_at_once_wherever_it_waits() {
    let (job, mut all) = (Job::tiny().set("unlearn.steps", 1_000_000), executors(2));
    let target = job.target(&mut all[0]);
    let leases = job.begin_gang(&mut all, &target, 1);
    all[0].wait_for_progress(10);
    for (executor, assignment) in all.iter_mut().zip(&leases) {
        executor.stop(&assignment.lease);
    }
    for (executor, assignment) in all.iter_mut().zip(&leases) {
        let failure = executor.end(&assignment.lease).unwrap_err();
        // A rank may hear of the other's end before its own stop.
        assert!([ErrorCode::Cancelled, ErrorCode::GangAborted].contains(&failure.code), "{failure}");
    }

    // Rank 0 alone, waiting for a rank that never comes.
    let alone = job.rank(&target, 2, 0, 2, None);
    all[0].begin(&alone);
    all[0].store_open(&alone.lease);
    let begun = Instant::now();
    all[0].stop(&alone.lease);
    let failure = all[0].end(&alone.lease).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Cancelled, "{failure}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    // And the slots are as good as new.
    let job = Job::tiny();
    let target = job.target(&mut all[1]);
    assert_eq!(job.train(&mut all, &target, 3).steps, 24);
    assert!(matches!(all[0].run(&job.probe()), TaskOutput::Probe(_)));
}
