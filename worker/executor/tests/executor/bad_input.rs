//! Everything that can be wrong with a job: one sentence that names the object and what to do, and nothing half-written.

use std::fs;
use std::path::{Path, PathBuf};

use lethe_domain::{ErrorCode, Failure, Input, InputRole, Inputs, Task, TaskOutput};
use safetensors::tensor::TensorView;
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};

use crate::harness::Executor;
use crate::job::{Job, fixture, mnist};
use lethe_testkit::small_disk;

/// Probes the job, which must fail like this, and then a good one.
fn refused(executor: &mut Executor, job: &Job, code: ErrorCode, words: &[&str]) -> Failure {
    let failure = executor.try_run(&job.probe()).expect_err(&format!("{words:?}"));
    assert_eq!(failure.code, code, "{failure}");
    let text = format!("{} ({})", failure.message, failure.hint);
    for word in words {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    assert!(!text.contains("frame #0") && !text.contains("\n"), "{text}");
    assert!(job.files().is_empty(), "{:?}", job.files());
    failure
}

/// A copy of a model without its sidecar.
fn bare(job: &Job, name: &str) -> PathBuf {
    let copy = job.folder().join(format!("bare-{name}"));
    fs::copy(fixture(name), &copy).unwrap();
    copy
}

fn scripted(job: Job) -> Job {
    let uri = bare(&job, "flat_generator.pt");
    job.set("generator.uri", uri.to_str().unwrap()).set("generator.format", "torchscript")
}

#[test]
fn a_generator_that_is_not_what_the_spec_says() {
    let mut executor = Executor::start();
    let mut refused = |job: &Job, words: &[&str]| {
        refused(&mut executor, job, ErrorCode::SpecMismatch, words);
    };
    let scripted = || scripted(Job::tiny());
    refused(
        &scripted().set("generator.output.size", 10),
        &["bare-flat_generator.pt", "[64, 144]", "the job spec says [64, 1, 10, 10]"],
    );
    refused(
        &scripted().set("generator.output.range", json!([-1, 1])),
        &["bare-flat_generator.pt", "gives pixels from 0.", "generator.output.range is [-1, 1]"],
    );
    refused(&Job::tiny().set("generator.output.size", 10), &["mlp_1.safetensors", "12", "10"]);
    refused(&Job::tiny().set("generator.latent.dimension", 6), &["mlp_1.safetensors", "5", "6"]);
}

#[test]
fn a_latent_that_the_script_does_not_take() {
    let job = scripted(Job::tiny()).set("generator.latent.dimension", 6);
    let words = ["bare-flat_generator.pt", "forward failed", "generator.latent"];
    refused(&mut Executor::start(), &job, ErrorCode::BadModel, &words);
}

#[test]
fn a_generator_that_gives_nan() {
    let job = Job::tiny();
    let bytes = fs::read(fixture("mlp_1.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let nan: Vec<u8> = (0..144).flat_map(|_| f32::NAN.to_le_bytes()).collect();
    let spoilt = tensors.iter().map(|(name, view)| match name {
        "layers.1.bias" => (name, TensorView::new(view.dtype(), view.shape().to_vec(), &nan).unwrap()),
        _ => (name, view),
    });
    let bytes = serialize(spoilt, None).unwrap();
    let mut sidecar: Value =
        serde_json::from_slice(&fs::read(fixture("mlp_1.safetensors.json")).unwrap()).unwrap();
    sidecar["sha256"] = json!(lethe_artifacts::Digest::of(&bytes).to_string());
    let file = job.folder().join("nan.safetensors");
    fs::write(&file, bytes).unwrap();
    fs::write(job.folder().join("nan.safetensors.json"), sidecar.to_string()).unwrap();
    let job = job.set("generator.uri", file.to_str().unwrap());
    refused(
        &mut Executor::start(),
        &job,
        ErrorCode::NotFinite,
        &["nan.safetensors", "NaN", "check the weights"],
    );
}

#[test]
fn a_labeller_with_the_wrong_number_of_outputs() {
    let mut executor = Executor::start();
    let job = Job::tiny().set("feature.classifier.class", 7);
    refused(&mut executor, &job, ErrorCode::SpecMismatch, &["classifier.pt", "3 outputs", "class 7"]);
    let job = Job::tiny();
    let uri = bare(&job, "classifier.pt");
    let job = job.set("feature", json!({"name": "f", "scorer": {"uri": uri, "positive": {"top": 0.1}}}));
    refused(
        &mut executor,
        &job,
        ErrorCode::SpecMismatch,
        &["bare-classifier.pt", "3 numbers", "a scorer gives one"],
    );
    let job = Job::tiny().set("feature.classifier.output", "probability");
    refused(&mut executor, &job, ErrorCode::SpecMismatch, &["classifier.pt", "is it logits?"]);
    let job = Job::tiny().set(
        "evaluate.judge",
        json!({"classifier": {"uri": mnist("models/classifier.pt"),
        "output": "logits", "class": 12}}),
    );
    refused(&mut executor, &job, ErrorCode::SpecMismatch, &["models/classifier.pt", "class 12"]);
}

#[test]
fn files_that_are_broken_foreign_or_missing() {
    let mut executor = Executor::start();
    let uri = |name: &str| Job::tiny().set("generator.uri", fixture(name));
    let script = |name: &str| uri(name).set("generator.format", "torchscript");
    let mut refused = |job: Job, code, words: &[&str]| {
        refused(&mut executor, &job, code, words);
    };
    refused(
        uri("broken_truncated.safetensors"),
        ErrorCode::Damaged,
        &["broken_truncated.safetensors", "copy or export"],
    );
    refused(
        uri("broken_bitflip.safetensors"),
        ErrorCode::Damaged,
        &["broken_bitflip.safetensors", "its sidecar says"],
    );
    refused(script("broken_no_forward.pt"), ErrorCode::BadModel, &["broken_no_forward.pt", "forward"]);
    refused(
        script("broken_pickled_module.pt"),
        ErrorCode::BadModel,
        &["broken_pickled_module.pt", "tools/export"],
    );
    refused(uri("nowhere.safetensors"), ErrorCode::InvalidSpec, &["nowhere.safetensors", "check the uri"]);
    refused(
        Job::tiny().set("feature.classifier.uri", fixture("broken_no_forward.pt")),
        ErrorCode::BadModel,
        &["broken_no_forward.pt"],
    );
    let reference = fixture("mlp_1.safetensors");
    refused(
        Job::thick().set("evaluate.reference.uri", reference),
        ErrorCode::BadModel,
        &["mlp_1.safetensors", "images"],
    );
}

#[test]
fn a_truncated_file_without_a_sidecar_to_tell() {
    let job = Job::thick();
    let file = job.folder().join("short.safetensors");
    let bytes = fs::read(mnist("data/test.safetensors")).unwrap();
    fs::write(&file, &bytes[..100_000]).unwrap();
    let job = job.set("evaluate.reference.uri", file.to_str().unwrap());
    refused(&mut Executor::start(), &job, ErrorCode::BadModel, &["short.safetensors", "truncated"]);
}

#[test]
fn a_feature_that_nobody_shows_or_everybody() {
    let mut executor = Executor::start();
    for (threshold, code, words) in [
        (0.99, ErrorCode::NoPositives, "0 of 600 samples show the feature"),
        (0.0001, ErrorCode::NoNegatives, "0 of 600 samples lack the feature"),
    ] {
        let job = Job::tiny().set("feature.classifier.threshold", threshold);
        let scores = job.sample(&mut executor);
        let failure = executor.try_run(&job.assignment(0, Task::Direction { scores })).unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
        assert!(failure.hint.contains("threshold"), "{}", failure.hint);
    }
}

#[test]
fn labels_that_are_all_the_same_or_not_labels() {
    let mut executor = Executor::start();
    for (label, code) in
        [(0, ErrorCode::NoPositives), (1, ErrorCode::NoNegatives), (2, ErrorCode::InvalidSpec)]
    {
        let job = Job::tiny();
        let file = job.folder().join("labels.csv");
        fs::write(&file, (0..600).map(|index| format!("{index},{label}\n")).collect::<String>()).unwrap();
        let judge = job.spec["feature"]["classifier"].clone();
        let job = job
            .set("feature", json!({"name": "f", "labels": {"uri": file}}))
            .set("direction", json!({"selection": "projection"}))
            .set("evaluate.judge", json!({"classifier": judge}));
        refused(&mut executor, &job, code, &[]);
    }
}

#[test]
fn a_place_that_cannot_be_written_to() {
    let mut executor = Executor::start();
    let job = Job::tiny();
    fs::write(job.folder().join("file"), "in the way").unwrap();
    let mut assignment = job.probe();
    assignment.artifacts = job.folder().join("file/artifacts").display().to_string();
    let failure = executor.try_run(&assignment).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Storage, "{failure}");
    assert!(failure.message.contains("file/artifacts"), "{failure}");
    let publish = job.folder().join("file/published");
    let job = job.set("publish.uri", publish.to_str().unwrap());
    refused(&mut executor, &job, ErrorCode::Storage, &["file/published"]);

    // What is there stays there: another try finds it again.
    let taken = job.folder().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("before_after.png"), "somebody's").unwrap();
    let job = job.set("publish.uri", taken.to_str().unwrap());
    refused(&mut executor, &job, ErrorCode::InvalidSpec, &["taken", "before_after.png"]);

    let disk = tempfile::tempdir().unwrap();
    let Some(()) = small_disk::mounted(disk.path(), "1m") else { return };
    small_disk::read_only(disk.path());
    let mut executor = Executor::start();
    let mut assignment = Job::tiny().probe();
    assignment.artifacts = disk.path().join("artifacts").display().to_string();
    let failure = executor.try_run(&assignment).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Storage, "{failure}");
    assert!(failure.hint.contains("right to write"), "{}", failure.hint);
}

#[test]
fn a_disk_without_room_for_the_job() {
    let disk = tempfile::tempdir().unwrap();
    let Some(()) = small_disk::mounted(disk.path(), "10m") else { return };
    let mut executor = Executor::start();
    let mut assignment = Job::tiny().probe();
    assignment.artifacts = disk.path().display().to_string();
    let failure = executor.try_run(&assignment).unwrap_err();
    assert_eq!(failure.code, ErrorCode::DiskFull, "{failure}");
    assert!(failure.message.contains(&disk.path().display().to_string()), "{failure}");
    assert!(failure.hint.contains("checkpoint.keep"), "{}", failure.hint);
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0, "nothing is left there");
}

#[test]
fn a_disk_that_fills_up_while_training() {
    let job = Job::thick().set("checkpoint.every", 2).set("unlearn.steps", 80).set("checkpoint.keep", 30);
    let disk = job.root();
    fs::create_dir_all(&disk).unwrap();
    let Some(()) = small_disk::mounted(&disk, "60m") else { return };
    let mut executors = [Executor::start()];
    let target = job.target(&mut executors[0]);
    let leases = job.begin_gang(&mut executors, &target, 1);
    // Training goes on without checkpoints; the result, though, must be stored.
    let failure = executors[0].end(&leases[0].lease).unwrap_err();
    assert_eq!(failure.code, ErrorCode::DiskFull, "{failure}");
    assert!(failure.message.contains(&disk.display().to_string()), "{failure}");
    let log = executors[0].log();
    assert!(log.contains("a checkpoint could not be saved, training goes on"), "{log}");
    let last = executors[0].progress.last().unwrap();
    assert!(last.done > 60, "most of the steps were taken without room for a checkpoint: {last:?}");
    let files = job.files();
    assert!(files.iter().all(|file| !file.contains('#')), "no file is half-written: {files:?}");
    let whole = checkpoints(&job);
    assert!(whole.len() < 40, "some were left out: {whole:?}");

    // With room again, another generation goes on, and saves.
    whole[..whole.len() - 2].iter().for_each(|folder| fs::remove_dir_all(folder).unwrap());
    let job = job.set("unlearn.steps", 100).set("checkpoint.keep", 1);
    let again = job.begin_gang(&mut executors, &target, 2);
    let TaskOutput::FineTune(Some(trained)) = executors[0].end(&again[0].lease).unwrap() else { panic!() };
    assert!(executors[0].log().contains("going on from"), "{}", executors[0].log());
    assert_eq!(trained.steps, 100);
    let newest = checkpoints(&job).pop().unwrap();
    assert!(newest.ends_with("step-00000100-g2"), "{}", newest.display());
}

/// Folders of whole checkpoints, oldest first.
fn checkpoints(job: &Job) -> Vec<PathBuf> {
    let folder = job.file("jobs/tiny-1/checkpoints");
    let mut folders: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("manifest.json").is_file())
        .collect();
    folders.sort();
    folders
}

#[test]
fn a_batch_that_no_machine_can_hold() {
    let mut executor = Executor::start();
    let job = Job::tiny().set("sample.batch", 1_u64 << 40).set("sample.shard_size", 1_u64 << 40);
    let words =
        ["a batch of 1099511627776 images (sample.batch) does not fit in memory", "lower sample.batch"];
    refused(&mut executor, &job, ErrorCode::OutOfMemory, &words);
    let job = Job::tiny().set("unlearn.global_batch", 1_u64 << 40).set("unlearn.micro_batches", 1);
    let words = ["a part of 1099511627776 latents of the training batch", "lower unlearn.global_batch"];
    refused(&mut executor, &job, ErrorCode::OutOfMemory, &words);
    assert!(matches!(executor.run(&Job::tiny().probe()), TaskOutput::Probe(_)), "the slot is as good as new");
}

#[test]
fn a_training_batch_that_this_machine_cannot_hold_fails_inside_libtorch_and_not_in_the_kernel() {
    // As on a machine with two gigabytes: the ceiling never goes above the hard limit.
    let limited = ["-Sd", "-Hd"].map(|which| format!("ulimit {which} 2097152"));
    let mut executor = Executor::behind(&limited.join(" && "));
    let job = Job::tiny().set("unlearn.global_batch", 800_000).set("unlearn.micro_batches", 2);
    let words = ["a part of 400000 latents", "does not fit in memory", "raise unlearn.micro_batches"];
    refused(&mut executor, &job, ErrorCode::OutOfMemory, &words);
    let job = Job::tiny().set("sample.batch", 2_000_000).set("sample.shard_size", 2_000_000);
    let words = ["a batch of 2000000 images (sample.batch)", "does not fit in memory", "lower sample.batch"];
    refused(&mut executor, &job, ErrorCode::OutOfMemory, &words);
    assert!(matches!(executor.run(&Job::tiny().probe()), TaskOutput::Probe(_)), "the slot is as good as new");
}

/// What a file holds, as admission writes it down.
fn input(uri: &str) -> Input {
    let bytes = fs::read(uri).unwrap();
    Input { uri: uri.to_owned(), sha256: lethe_models::sha256(&bytes), size: bytes.len() as u64 }
}

#[test]
fn a_file_that_is_not_the_one_the_job_was_accepted_with() {
    let mut executor = Executor::start();
    let judge = json!({"scorer": {"uri": mnist("models/slant.pt"), "positive": {"above": 0}}});
    let classifier = json!({"uri": mnist("models/classifier.pt"), "output": "logits"});
    let job =
        || Job::thick().set("evaluate.judge", judge.clone()).set("evaluate.classifier", classifier.clone());
    let spec = job().parsed();
    let mut all: Vec<(InputRole, Input)> =
        spec.files().into_iter().map(|(key, uri)| (InputRole::of_key(key).unwrap(), input(uri))).collect();
    all.push((InputRole::Sidecar, input(&format!("{}.json", spec.generator.uri))));
    let accepted = |inputs: Vec<(InputRole, Input)>| {
        let mut job = job();
        job.inputs = Inputs(inputs.into_iter().collect());
        job
    };
    for changed in 0..all.len() {
        let mut others = all.clone();
        others[changed].1.sha256 = "5".repeat(64);
        let file = all[changed].1.uri.rsplit('/').next().unwrap();
        let words = [file, &all[changed].1.sha256, &"5".repeat(64), "submit"];
        refused(&mut executor, &accepted(others), ErrorCode::InputChanged, &words);
        assert!(matches!(executor.run(&accepted(all.clone()).probe()), TaskOutput::Probe(_)));
    }
}

#[test]
fn labels_that_are_not_those_the_job_was_accepted_with() {
    let (job, mut executor) = (Job::tiny(), Executor::start());
    let file = job.folder().join("labels.csv");
    fs::write(&file, (0..600).map(|index| format!("{index},{}\n", index % 2)).collect::<String>()).unwrap();
    let uri = file.display().to_string();
    let judge = job.spec["feature"]["classifier"].clone();
    let mut job = job
        .set("feature", json!({"name": "f", "labels": {"uri": uri}}))
        .set("direction", json!({"selection": "projection"}))
        .set("evaluate.judge", json!({"classifier": judge}));
    job.inputs = Inputs([(InputRole::Labeller, input(&uri))].into());
    assert!(matches!(executor.run(&job.probe()), TaskOutput::Probe(_)));
    let text = fs::read_to_string(&uri).unwrap();
    fs::write(&uri, text.replacen(",0", ",1", 1)).unwrap();
    let failure = executor.try_run(&job.probe()).unwrap_err();
    assert_eq!(failure.code, ErrorCode::InputChanged, "{failure}");
}

#[test]
fn a_model_that_is_replaced_while_the_job_is_at_work() {
    let (job, mut executor) = (Job::tiny(), Executor::start());
    let uri = bare(&job, "flat_generator.pt").display().to_string();
    let mut job = job.set("generator.uri", uri.as_str()).set("generator.format", "torchscript");
    job.inputs = Inputs([(InputRole::Generator, input(&uri))].into());
    assert!(matches!(executor.run(&job.probe()), TaskOutput::Probe(_)));
    let mut next = fs::read(&uri).unwrap();
    next.extend(b"the next training's");
    let beside = job.folder().join("next.pt");
    fs::write(&beside, next).unwrap();
    fs::rename(&beside, &uri).unwrap();
    let failure = executor.try_run(&job.probe()).unwrap_err();
    assert_eq!(failure.code, ErrorCode::InputChanged, "{failure}");
    assert!(!failure.code.retryable());
    fs::remove_file(&uri).unwrap();
    executor.try_run(&job.probe()).unwrap_err();
}

#[test]
fn an_artifact_that_was_changed_or_lost() {
    let (job, mut executor) = (Job::tiny(), Executor::start());
    let scores = job.sample(&mut executor);
    let file = job.file(&scores[1].path);
    let bytes = fs::read(&file).unwrap();
    let direction = || job.assignment(0, Task::Direction { scores: scores.clone() });
    let mut broken = bytes.clone();
    broken[bytes.len() - 3] ^= 4;
    fs::write(&file, &broken).unwrap();
    let failure = executor.try_run(&direction()).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Damaged, "{failure}");
    assert!(failure.message.contains(&scores[1].path), "{failure}");
    fs::remove_file(&file).unwrap();
    let failure = executor.try_run(&direction()).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Storage, "{failure}");
    assert!(failure.message.contains("does not exist"), "{failure}");
    fs::write(&file, &bytes).unwrap();
    assert!(matches!(executor.run(&direction()), TaskOutput::Direction(_)));
    assert!(Path::new(&job.root()).exists());
}
