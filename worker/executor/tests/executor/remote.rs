//! A whole job whose models and artifacts are on an S3 server.

use std::fs;

use lethe_artifacts::{ArtifactStore, Digest, Environment};
use lethe_domain::{Assignment, Phase, Task, TaskOutput};

use crate::harness::Executor;
use crate::job::{Job, no_report};
use lethe_testkit::Moto;

/// An executor of a machine with this environment and cache.
fn executor(moto: &Moto, cache: &std::path::Path) -> Executor {
    let words = moto.variables().into_iter().map(|(name, value)| format!("{name}='{value}'"));
    let words: Vec<String> = words.chain([format!("LETHE_CACHE='{}'", cache.display())]).collect();
    Executor::behind(&format!("export {}", words.join(" ")))
}

fn there(assignment: Assignment) -> Assignment {
    Assignment { artifacts: "s3://bucket/lethe".to_owned(), ..assignment }
}

#[test]
fn a_whole_job_runs_on_s3_and_gives_what_it_gives_on_files() {
    let Some(moto) = Moto::start() else { return };
    moto.bucket("bucket");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let environment = Environment::new(moto.variables());
    let open = |uri: &str| runtime.block_on(ArtifactStore::open_in(uri, &environment)).unwrap();
    let models = open("s3://bucket/models");

    let here = Job::tiny();
    let mut local = Executor::start();
    let target_here = here.target(&mut local);
    let mut executors = [local];
    let trained_here = here.train(&mut executors, &target_here, 1);

    let mut job = Job::tiny().accepted().set("publish.uri", "s3://bucket/published");
    for (key, name) in [("generator", "mlp_1.safetensors"), ("feature.classifier", "classifier.pt")] {
        let file = crate::job::fixture(name);
        for end in ["", ".json"] {
            let bytes = fs::read(format!("{file}{end}")).unwrap();
            runtime.block_on(models.put(&format!("{name}{end}"), bytes)).unwrap();
        }
        job = job.set(&format!("{key}.uri"), format!("s3://bucket/models/{name}"));
    }
    let cache = tempfile::tempdir().unwrap();
    let mut executor = executor(&moto, cache.path());
    assert!(matches!(executor.run(&there(job.probe())), TaskOutput::Probe(_)));
    let mut scores = Vec::new();
    for (range, shard) in job.shards(Phase::Sample).into_iter().zip(0..) {
        match executor.run(&there(job.assignment(shard, Task::Sample { range }))) {
            TaskOutput::Sample(output) => scores.push(output.scores),
            other => panic!("{other:?}"),
        }
    }
    let TaskOutput::Direction(direction) =
        executor.run(&there(job.assignment(0, Task::Direction { scores })))
    else {
        panic!()
    };
    let target = direction.target;
    assert_eq!(target.sha256, target_here.sha256, "the same target, bit for bit");
    for (range, shard) in job.shards(Phase::Edit).into_iter().zip(0..) {
        let task = Task::Edit { range, target: target.clone() };
        match executor.run(&there(job.assignment(shard, task))) {
            TaskOutput::Edit(output) => {
                assert!(!output.reused);
                job.pool.borrow_mut().push(output.pool);
            }
            other => panic!("{other:?}"),
        }
    }
    let other = job.another("tiny-2");
    let (range, target_again) = (job.shards(Phase::Edit)[0], target.clone());
    let again = executor.run(&there(other.assignment(0, Task::Edit { range, target: target_again })));
    let TaskOutput::Edit(again) = again else { panic!("{again:?}") };
    assert!(again.reused && again.pool.path.starts_with("jobs/tiny-2/edit/"), "{again:?}");
    assert_eq!(again.pool.sha256, job.pool.borrow()[0].sha256);
    let TaskOutput::FineTune(Some(trained)) = executor.run(&there(job.rank(&target, 1, 0, 1, None))) else {
        panic!()
    };
    assert_eq!(trained.weights.sha256, trained_here.weights.sha256, "the same weights, bit for bit");
    let weights = trained.weights;
    let published = Task::Publish { target, weights, report: no_report() };
    let TaskOutput::Publish(published) = executor.run(&there(job.assignment(0, published))) else { panic!() };

    let (root, published_at) = (open("s3://bucket/lethe"), open("s3://bucket/published"));
    let names = |store: &ArtifactStore, prefix: &str| -> Vec<String> {
        runtime.block_on(store.list(prefix)).unwrap().into_iter().map(|object| object.path).collect()
    };
    let expected =
        [".lethe/files.json", "before_after.png", "generator.safetensors", "generator.safetensors.json"];
    assert_eq!(names(&published_at, ""), expected);
    let checkpoints = names(&root, "jobs/tiny-1/checkpoints");
    let manifests: Vec<&String> = checkpoints.iter().filter(|name| name.ends_with("manifest.json")).collect();
    assert_eq!(manifests.len(), 2, "checkpoint.keep: {checkpoints:?}");
    let digest: Digest = published.generator.sha256.parse().unwrap();
    let artifact = lethe_artifacts::ArtifactRef {
        path: published.generator.path,
        sha256: digest,
        size: published.generator.size,
    };
    runtime.block_on(root.get(&artifact)).unwrap();
    let cached = fs::read_dir(cache.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().join("model").is_file());
    assert_eq!(cached.count(), 2, "each model once");
    assert!(!executor.log().contains("hunter2"), "a secret in the log");
}

#[test]
fn a_model_that_is_not_there_is_named_by_its_uri() {
    let Some(moto) = Moto::start() else { return };
    moto.bucket("bucket");
    let cache = tempfile::tempdir().unwrap();
    let mut executor = executor(&moto, cache.path());
    let job = Job::tiny().set("generator.uri", "s3://bucket/models/none.safetensors");
    let failure = executor.try_run(&there(job.probe())).unwrap_err();
    assert!(failure.message.contains("s3://bucket/models/none.safetensors does not exist"), "{failure}");
    let job = Job::tiny().set("generator.uri", "s3://nowhere/none.safetensors");
    let failure = executor.try_run(&there(job.probe())).unwrap_err();
    assert!(failure.message.contains("s3://nowhere/none.safetensors"), "{failure}");
}
