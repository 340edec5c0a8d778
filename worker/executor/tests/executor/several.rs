//! Several classifiers that label together, end to end on a tiny model.

use std::fs;

use lethe_domain::{
    ArtifactRef, EditMethod, ErrorCode, Input, InputRole, Inputs, JudgeSummary, JudgingModel, SampleRange,
    TaskOutput, WarningCode,
};
use serde_json::{Value, json};

use crate::evaluation::{evaluate, publish, report};
use crate::harness::Executor;
use crate::job::{Job, fixture};

/// The classes and thresholds of two classifiers: of 600 samples the one sees the feature in one of eight, the other in one of five.
const MEMBERS: [(i64, f64); 2] = [(0, 0.134), (1, 0.035)];

/// The tiny job with these in place of its one classifier. They are one file twice, read differently.
fn job(members: &[(i64, f64)]) -> Job {
    let member = |(class, threshold): &(i64, f64)| json!({"uri": fixture("classifier.pt"), "output": "logits", "class": class, "threshold": threshold});
    let members: Vec<Value> = members.iter().map(member).collect();
    Job::tiny().set("feature", json!({"name": "zero", "classifiers": members}))
}

/// A tensor of every shard, one after the other.
fn all(job: &Job, shards: &[ArtifactRef], name: &str) -> Vec<f64> {
    shards.iter().flat_map(|shard| job.numbers(shard, name)).collect()
}

#[test]
fn a_shard_stores_the_mean_and_what_each_of_them_says() {
    let (together, mut executor) = (job(&MEMBERS), Executor::start());
    let range = SampleRange { start: 200, count: 200 };
    let output = together.sample_shard(&mut executor, range, 1);
    let scores = together.numbers(&output.scores, "scores");
    let each: Vec<Vec<f64>> = MEMBERS
        .iter()
        .enumerate()
        .map(|(place, (class, threshold))| {
            let alone = Job::tiny().set("feature.classifier.class", *class);
            let alone = alone.set("feature.classifier.threshold", *threshold);
            let shard = alone.sample_shard(&mut executor, range, 1);
            let cut = (threshold / (1.0 - threshold)).ln();
            let less: Vec<f64> =
                alone.numbers(&shard.scores, "scores").iter().map(|score| score - cut).collect();
            assert_eq!(together.numbers(&output.scores, &format!("each.{place}")), less);
            less
        })
        .collect();
    let near =
        |(place, score): (usize, &f64)| (score - (each[0][place] + each[1][place]) / 2.0).abs() < 1e-12;
    assert!(scores.iter().enumerate().all(near), "{scores:?}");
    assert_eq!(output.positives, Some(scores.iter().filter(|score| **score > 0.0).count() as u64));
}

#[test]
fn what_any_of_them_sees_is_selected_unless_the_spec_says_how_much() {
    let (job, mut executor) = (job(&MEMBERS).set("direction.margin", 3), Executor::start());
    let shards = job.sample(&mut executor);
    let found = job.direction(&mut executor, shards.clone());
    let (scores, each) =
        (all(&job, &shards, "scores"), ["each.0", "each.1"].map(|name| all(&job, &shards, name)));
    let mut seen: Vec<f64> = (0..600)
        .filter(|place| each.iter().any(|each| each[*place] > 0.0))
        .map(|place| scores[place])
        .collect();
    seen.sort_by(f64::total_cmp);
    let beyond = |cut: f64| scores.iter().filter(|score| **score > cut).count();
    assert_eq!(found.positives as usize, beyond(0.0));
    assert!(seen.len() > found.positives as usize + 10, "they disagree: {} {found:?}", seen.len());
    assert!(found.cut.threshold == 0.0 && found.goal < found.select && found.select < 0.0, "{found:?}");
    let missed = seen.iter().filter(|score| **score <= found.select).count();
    assert_eq!(missed, seen.len() / 100, "one in a hundred of {}", seen.len());
    assert_eq!(found.edited_share, beyond(found.select) as f64 / 600.0);
    assert_eq!(found.edit, EditMethod::Gradient);

    let set = job.set("direction.recall", 0);
    assert_eq!(set.direction(&mut executor, shards).select, 0.0, "the spec says so");
}

#[test]
fn a_job_goes_through_every_phase_and_they_are_its_judge() {
    let (job, mut executors) = (job(&MEMBERS), [Executor::start()]);
    assert!(matches!(executors[0].run(&job.probe()), TaskOutput::Probe(_)));
    let target = job.target(&mut executors[0]);
    let trained = job.train(&mut executors, &target, 1);
    assert!(trained.steps == 24 && trained.edits.tried > 0, "{trained:?}");
    let executor = &mut executors[0];
    let shards = evaluate(&job, executor, &target, &trained.weights);
    assert!(shards.iter().all(|shard| shard.before.is_some_and(|before| before > 5)), "{shards:?}");
    let figures = report(&job, executor, &target, &shards);
    let uri = fixture("classifier.pt");
    let sha256 = lethe_artifacts::Digest::of(&fs::read(&uri).unwrap()).to_string();
    let judge = JudgeSummary {
        uri: uri.clone(),
        sha256: sha256.clone(),
        others: vec![JudgingModel { uri, sha256 }],
        same_as_labeller: true,
    };
    assert_eq!(figures.judge, judge);
    assert!(figures.warnings.iter().any(|warning| warning.code == WarningCode::JudgeIsLabeller));
    let published = publish(&job, executor, &target, &trained.weights, &figures);
    let sidecar = fs::read_to_string(job.file(&published.sidecar.path)).unwrap();
    let model = format!("classifier.pt (sha256 {})", &judge.sha256[..12]);
    assert!(sidecar.contains(&format!("judged by {model} and {model}, the labeller")), "{sidecar}");

    // One of them alone judges as it does alone, and is no independent witness.
    let alone = json!({"uri": judge.uri, "output": "logits", "class": 0, "threshold": 0.134});
    let job = job.set("evaluate.judge", json!({"classifier": alone}));
    let shards = evaluate(&job, executor, &target, &trained.weights);
    let figures = report(&job, executor, &target, &shards);
    assert!(figures.judge.others.is_empty() && figures.judge.same_as_labeller, "{:?}", figures.judge);
}

#[test]
fn a_student_learns_the_mean() {
    let (job, mut executor) = (job(&MEMBERS).set("direction.edit", "student"), Executor::start());
    let shards = job.sample(&mut executor);
    let found = job.direction(&mut executor, shards);
    assert_eq!(found.edit, EditMethod::Student);
    job.edit(&mut executor, &found.target);
}

#[test]
fn what_is_wrong_with_one_of_them_names_it() {
    let mut executor = Executor::start();
    let mut refused = |job: &Job, code: ErrorCode, words: &[&str]| {
        let failure = executor.try_run(&job.probe()).unwrap_err();
        let text = format!("{failure} ({})", failure.hint);
        assert!(failure.code == code && words.iter().all(|word| text.contains(word)), "{text}");
    };
    refused(
        &job(&[(0, 0.134), (7, 0.5)]),
        ErrorCode::SpecMismatch,
        &["classifier.pt", "3 outputs", "class 7"],
    );

    let mut changed = job(&MEMBERS);
    let copy = changed.folder().join("second.pt").display().to_string();
    fs::copy(fixture("classifier.pt"), &copy).unwrap();
    changed.spec["feature"]["classifiers"][1]["uri"] = json!(copy);
    let pin = |sha256: String| {
        Inputs([(InputRole::Labeller2, Input { uri: copy.clone(), sha256, size: 1 })].into())
    };
    changed.inputs = pin("5".repeat(64));
    refused(&changed, ErrorCode::InputChanged, &["second.pt", "submit"]);
    changed.inputs = pin(lethe_artifacts::Digest::of(&fs::read(&copy).unwrap()).to_string());
    assert!(matches!(executor.run(&changed.probe()), TaskOutput::Probe(_)));
}
