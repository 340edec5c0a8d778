//! Each phase up to training, end to end on a tiny model.

use lethe_domain::{Phase, SampleRange, Task, TaskOutput};
use serde_json::json;

use crate::harness::Executor;
use crate::job::{Job, fixture, mnist};

#[test]
fn a_probe_says_what_it_saw() {
    let (job, mut executor) = (Job::tiny(), Executor::start());
    let TaskOutput::Probe(seen) = executor.run(&job.probe()) else { panic!() };
    assert_eq!(seen.image_shape, [1, 12, 12]);
    assert!(0.0 < seen.range[0] && seen.range[0] < seen.range[1] && seen.range[1] < 1.0, "{seen:?}");
    assert!(seen.batch_seconds > 0.0);
    assert_eq!(seen.parameters, 5 * 16 + 16 + 16 * 144 + 144);
    assert_eq!(job.files(), Vec::<String>::new(), "a probe leaves nothing behind");
}

#[test]
fn a_probe_looks_at_everything_a_job_names() {
    let job = Job::thick()
        .set(
            "evaluate.judge",
            json!({"classifier": {"uri": mnist("models/classifier.pt"),
                                                      "output": "logits", "class": 3}}),
        )
        .set("evaluate.reference.uri", mnist("data/test.safetensors"));
    let mut executor = Executor::start();
    assert!(matches!(executor.run(&job.probe()), TaskOutput::Probe(_)));
}

#[test]
fn a_shard_stores_its_scores_and_counts_positives() {
    let (job, mut executor) = (Job::tiny(), Executor::start());
    let output = job.sample_shard(&mut executor, SampleRange { start: 200, count: 200 }, 1);
    assert_eq!(output.samples, 200);
    let scores = job.numbers(&output.scores, "scores");
    assert_eq!((scores.len(), job.numbers(&output.scores, "start")), (200, vec![200.0]));
    let cut = (0.134_f64 / 0.866).ln();
    let positives = scores.iter().filter(|score| **score > cut).count() as u64;
    assert_eq!(output.positives, Some(positives));
    assert!((5..100).contains(&positives), "{positives}");
    assert_eq!(output.scores.path, "jobs/tiny-1/sample/shard-00001-a1.safetensors");
    assert!(executor.progress.iter().all(|progress| progress.total == 200 && progress.done <= 200));
    assert!(!executor.progress.is_empty());
}

#[test]
fn the_target_is_the_same_bit_for_bit_whoever_made_the_shards_and_in_whatever_order() {
    for job in [Job::tiny(), Job::thick()] {
        let mut first = Executor::start();
        let alone = job.target(&mut first);
        let (mut second, mut third) = (Executor::start(), Executor::with(&["--threads", "2"]));
        let ranges: Vec<(SampleRange, u32)> = job.shards(Phase::Sample).into_iter().zip(0..).collect();
        let mut scores: Vec<_> = ranges
            .iter()
            .rev()
            .map(|(range, shard)| {
                let executor = if shard % 2 == 0 { &mut second } else { &mut third };
                job.sample_shard(executor, *range, *shard).scores
            })
            .collect();
        scores.reverse();
        let shared = job.direction(&mut third, scores).target;
        assert_ne!(alone.path, shared.path, "each attempt has a file of its own");
        assert_eq!(alone.sha256, shared.sha256, "{}", job.spec["name"]);
    }
}

#[test]
fn the_top_tenth_is_found_after_sampling() {
    let (job, mut executor) = (Job::thick(), Executor::start());
    let shard = job.sample_shard(&mut executor, SampleRange { start: 0, count: 200 }, 0);
    assert_eq!(shard.positives, None, "nobody knows yet");
    let scores = job.sample(&mut executor);
    let found = job.direction(&mut executor, scores.clone());
    assert_eq!((found.samples, found.positives), (600, 60));
    let mut all: Vec<f64> = scores.iter().flat_map(|shard| job.numbers(shard, "scores")).collect();
    all.sort_by(f64::total_cmp);
    assert_eq!(found.cut.threshold, all[600 - 61], "the 61st highest");
    assert!(found.heldout_auc > 0.7, "{found:?}");
    assert!((0.0..0.6).contains(&found.edited_share), "{found:?}");
    let unit = job.numbers(&found.target, "unit");
    assert!((unit.iter().map(|entry| entry * entry).sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn labels_from_a_file_count_as_scores() {
    let job = Job::tiny();
    let file = job.folder().join("labels.csv");
    let rows: String = (0..600).map(|index| format!("{index},{}\n", u8::from(index % 7 == 0))).collect();
    std::fs::write(&file, format!("index,label\n{rows}")).unwrap();
    let judge = job.spec["feature"]["classifier"].clone();
    let job = job
        .set("feature", json!({"name": "fifth", "labels": {"uri": file}}))
        .set("direction", json!({"selection": "projection"}))
        .set("evaluate.judge", json!({"classifier": judge}));
    let mut executor = Executor::start();
    assert!(matches!(executor.run(&job.probe()), TaskOutput::Probe(_)));
    let shard = job.sample_shard(&mut executor, SampleRange { start: 200, count: 200 }, 1);
    assert_eq!(shard.positives, Some(29));
    assert_eq!(job.numbers(&shard.scores, "scores")[..4], [0.0, 0.0, 0.0, 1.0]);
    let scores = job.sample(&mut executor);
    assert_eq!(job.direction(&mut executor, scores).positives, 86);
}

#[test]
fn shards_out_of_order_are_refused() {
    let (job, mut executor) = (Job::tiny(), Executor::start());
    let mut scores = job.sample(&mut executor);
    scores.swap(0, 1);
    let failure = executor.try_run(&job.assignment(0, Task::Direction { scores })).unwrap_err();
    assert!(failure.message.contains("begins at sample 200, expected 0"), "{failure}");
}

#[test]
fn every_kind_of_generator_goes_through_probe_sample_and_training() {
    let generators = [
        (
            fixture("dcgan_1.safetensors"),
            "safetensors",
            8,
            json!({"range": [-1, 1], "channels": 1, "size": 14}),
        ),
        (fixture("flat_generator.pt"), "torchscript", 5, json!({"range": [0, 1], "channels": 1, "size": 12})),
    ];
    let mut executors = [Executor::start()];
    for (uri, format, latent, output) in generators {
        let job = Job::tiny()
            .set(
                "generator",
                json!({"uri": uri, "format": format, "latent": {"dimension": latent}, "output": output}),
            )
            .set("feature.classifier.class", 1)
            .set("feature.classifier.threshold", 0.04)
            .set("unlearn.steps", 5);
        executors[0].run(&job.probe());
        let target = job.target(&mut executors[0]);
        let trained = job.train(&mut executors, &target, 1);
        assert_eq!(trained.steps, 5, "{uri}");
        assert!(trained.loss_first.is_finite() && trained.loss_last.is_finite(), "{trained:?}");
    }
}
