//! Evaluation, report and publishing: figures checked against what must come out.

use std::fs;
use std::path::Path;

use lethe_domain::{
    ArtifactRef, EvaluateOutput, Figure, Phase, PublishOutput, ReportOutput, Sidecar, Task, TaskOutput,
    WarningCode,
};
use safetensors::tensor::TensorView;
use safetensors::{SafeTensors, serialize};
use serde_json::json;

use crate::harness::Executor;
use crate::job::{Job, mnist, no_report};

pub(crate) fn evaluate(
    job: &Job,
    executor: &mut Executor,
    target: &ArtifactRef,
    weights: &ArtifactRef,
) -> Vec<EvaluateOutput> {
    let shards = job.shards(Phase::Evaluate).into_iter().zip(0..);
    shards
        .map(|(range, shard)| {
            let task = Task::Evaluate { range, target: target.clone(), weights: weights.clone() };
            match executor.run(&job.assignment(shard, task)) {
                TaskOutput::Evaluate(output) => output,
                other => panic!("{other:?}"),
            }
        })
        .collect()
}

pub(crate) fn report(
    job: &Job,
    executor: &mut Executor,
    target: &ArtifactRef,
    shards: &[EvaluateOutput],
) -> ReportOutput {
    let moments = shards.iter().map(|shard| shard.moments.clone()).collect();
    match executor.run(&job.assignment(0, Task::Report { moments, target: target.clone() })) {
        TaskOutput::Report(output) => output,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn publish(
    job: &Job,
    executor: &mut Executor,
    target: &ArtifactRef,
    weights: &ArtifactRef,
    report: &ReportOutput,
) -> PublishOutput {
    let task = Task::Publish { target: target.clone(), weights: weights.clone(), report: report.clone() };
    match executor.run(&job.assignment(0, task)) {
        TaskOutput::Publish(output) => output,
        other => panic!("{other:?}"),
    }
}

/// The original's own weights, as if training had changed nothing.
fn unchanged(job: &Job) -> ArtifactRef {
    job.store("unchanged.safetensors", fs::read(job.spec["generator"]["uri"].as_str().unwrap()).unwrap())
}

/// A copy that gives each latent the image of the opposite one.
fn opposite(job: &Job) -> ArtifactRef {
    const FIRST: &str = "layers.0.weight";
    let bytes = fs::read(job.spec["generator"]["uri"].as_str().unwrap()).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let entries = tensors.tensor(FIRST).unwrap().data().chunks_exact(4);
    let negated: Vec<u8> =
        entries.flat_map(|entry| (-f32::from_le_bytes(entry.try_into().unwrap())).to_le_bytes()).collect();
    let weights = tensors.iter().map(|(name, view)| match name {
        FIRST => (name, TensorView::new(view.dtype(), view.shape().to_vec(), &negated).unwrap()),
        _ => (name, view),
    });
    job.store("opposite.safetensors", serialize(weights, None).unwrap())
}

fn figure<'a>(report: &'a ReportOutput, group: &str, name: &str) -> &'a Figure {
    let found = report.figures.iter().find(|figure| figure.group == group && figure.name == name);
    found.unwrap_or_else(|| panic!("no figure {group}/{name}"))
}

fn near(one: f64, other: f64, tolerance: f64) -> bool {
    (one - other).abs() <= tolerance * one.abs().max(other.abs()).max(1e-9)
}

#[test]
fn a_copy_that_did_not_change_measures_as_the_original() {
    let job = Job::thick().set("evaluate.reference.uri", mnist("data/test.safetensors"));
    let mut executor = Executor::start();
    let (target, weights) = (job.target(&mut executor), unchanged(&job));
    let shards = evaluate(&job, &mut executor, &target, &weights);
    assert!(shards.iter().all(|shard| shard.before.is_some() && shard.before == shard.after), "{shards:?}");
    let figures = report(&job, &mut executor, &target, &shards);

    let positives: u64 = shards.iter().filter_map(|shard| shard.before).sum();
    let share = figure(&figures, "feature", "share");
    assert_eq!((share.samples, share.before), (400, Some(positives as f64 / 400.0)));
    let before = share.before.unwrap();
    assert!((0.03..0.25).contains(&before), "a tenth of the samples were positive: {share:?}");
    let [low, high] = share.ci95_before.unwrap();
    assert!(share.after == share.before && low < before && before < high, "{share:?}");
    let remaining = figure(&figures, "feature", "remaining_share");
    let [low, high] = remaining.ci95_after.unwrap();
    assert!(remaining.after == Some(1.0) && low < 1.0 && 1.0 < high, "{remaining:?}");
    let codes: Vec<WarningCode> = figures.warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(codes, [WarningCode::NotRemoved, WarningCode::JudgeIsLabeller]);

    let (l1, ms_ssim) = (figure(&figures, "locality", "l1"), figure(&figures, "locality", "ms_ssim"));
    assert_eq!((l1.samples, ms_ssim.samples), (400 - positives, 400 - positives));
    assert!(l1.after.unwrap() < 1e-6 && ms_ssim.after.unwrap() > 0.9999, "{l1:?} {ms_ssim:?}");

    let reference = figure(&figures, "fidelity", "distance");
    assert!(reference.definition.ends_with("images of test.safetensors"), "{reference:?}");
    for distance in figures.figures.iter().filter(|figure| figure.group == "fidelity") {
        let after = distance.after.unwrap();
        assert!(distance.before.is_none_or(|before| near(before, after, 1e-4)), "{distance:?}");
    }
    let value = |name| figure(&figures, "fidelity", name).after.unwrap();
    let (rejection, free) = (value("rejection_distance"), value("feature_free_distance"));
    assert!(near(rejection, free, 0.1), "nine tenths of the images are the same: {rejection} {free}");
    assert!(rejection != free, "the others are not: {rejection}");
    assert!(near(value("distance_over_rejection"), free / rejection, 1e-12));
    // Edited images are no longer those of the copy, which is the original here, and lie among those without the feature.
    let ideal = value("ideal_distance_over_rejection");
    assert!(ideal > 0.0 && !near(ideal, value("distance_over_rejection"), 1e-3), "{ideal}");
    let typical = figure(&figures, "edits", "typical");
    assert!(typical.samples >= positives && (0.4..1.0).contains(&typical.after.unwrap()), "{typical:?}");
    let rejected = figure(&figures, "fidelity", "rejection_distance");
    assert_eq!((rejected.before, rejected.samples), (None, 400), "as many as the copy has");
    let own = figure(&figures, "fidelity", "own_distance");
    assert!(
        own.before < reference.before,
        "its own samples are nearer than real images: {own:?} {reference:?}"
    );
}

#[test]
fn the_figures_do_not_depend_on_how_the_range_was_cut() {
    let job = Job::thick();
    let mut executor = Executor::start();
    let (target, weights) = (job.target(&mut executor), unchanged(&job));
    let whole = evaluate(&job, &mut executor, &target, &weights);
    let whole = report(&job, &mut executor, &target, &whole);
    let job = job.set("evaluate.shard_size", 100);
    let parts = evaluate(&job, &mut executor, &target, &weights);
    assert_eq!(parts.len(), 4);
    let parts = report(&job, &mut executor, &target, &parts);
    assert_eq!(whole.judge, parts.judge);
    let names: Vec<&str> = whole.figures.iter().map(|figure| figure.name.as_str()).collect();
    let expected = [
        "share",
        "remaining_share",
        "missed",
        "edit",
        "fit",
        "new",
        "own_feature_free_distance",
        "distance_over_rejection",
        "ideal_distance_over_rejection",
        "rejection_distance",
        "own_distance",
        "l1",
        "ms_ssim",
        "outside_share",
        "typical",
    ];
    assert_eq!(names, expected, "without a reference");
    for (whole, part) in whole.figures.iter().zip(&parts.figures) {
        let same = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => near(one, other, 1e-6),
            (one, other) => one == other,
        };
        assert!(same(whole.before, part.before) && same(whole.after, part.after), "{whole:?} {part:?}");
    }
}

#[test]
fn a_judge_that_takes_the_top_share_gets_its_cut_from_the_originals_images() {
    let judge = json!({"scorer": {"uri": mnist("models/slant.pt"), "positive": {"top": 0.2}}});
    let job = Job::thick().set("evaluate.judge", judge);
    let mut executor = Executor::start();
    let (target, weights) = (job.target(&mut executor), unchanged(&job));
    let shards = evaluate(&job, &mut executor, &target, &weights);
    assert!(shards.iter().all(|shard| shard.before.is_none() && shard.after.is_none()), "{shards:?}");
    let figures = report(&job, &mut executor, &target, &shards);
    assert_eq!(figure(&figures, "feature", "share").before, Some(0.2));
    assert_eq!(figure(&figures, "locality", "l1").samples, 320);
    assert!(
        !figures.judge.same_as_labeller && figures.judge.uri.ends_with("slant.pt"),
        "{:?}",
        figures.judge
    );
    let open = figure(&figures, "fidelity", "own_feature_free_distance").before.unwrap();
    let rejected = figure(&figures, "fidelity", "rejection_distance");
    assert!((390..=410).contains(&rejected.samples), "about as many as the copy has: {rejected:?}");

    // The same cut, known beforehand, gives the same figures.
    let mut scores: Vec<f64> =
        shards.iter().flat_map(|shard| job.numbers(&shard.moments, "before")).collect();
    scores.sort_by(f64::total_cmp);
    let judge = json!({"scorer": {"uri": mnist("models/slant.pt"), "positive": {"above": scores[400 - 81]}}});
    let job = job.set("evaluate.judge", judge);
    let shards = evaluate(&job, &mut executor, &target, &weights);
    assert_eq!(shards.iter().filter_map(|shard| shard.before).sum::<u64>(), 80);
    let picked = report(&job, &mut executor, &target, &shards);
    let picked = figure(&picked, "fidelity", "own_feature_free_distance").before.unwrap();
    assert!(near(open, picked, 1e-6), "{open} {picked}");
}

#[test]
fn what_is_left_is_traced_to_its_cause() {
    let job = Job::thick().set("direction.selection", "classifier");
    let mut executor = Executor::start();
    let (target, weights) = (job.target(&mut executor), unchanged(&job));
    let mut parts = |job: &Job| {
        let shards = evaluate(job, &mut executor, &target, &weights);
        let report = report(job, &mut executor, &target, &shards);
        let parts =
            ["missed", "edit", "fit", "new"].map(|part| figure(&report, "remaining", part).after.unwrap());
        let remaining = figure(&report, "feature", "remaining_share").after.unwrap();
        assert!((parts.iter().sum::<f64>() - remaining).abs() < 1e-12, "{parts:?} {remaining}");
        let scores: Vec<f64> =
            shards.iter().flat_map(|shard| job.numbers(&shard.moments, "before")).collect();
        (parts, report.advice.unwrap(), scores)
    };
    // The labeller judges: it selected all it sees, its edits are clean, and a copy that was not trained has learnt nothing.
    let ([missed, edit, fit, new], advice, mut scores) = parts(&job);
    assert!(missed == 0.0 && new == 0.0 && edit < 0.1 && fit > 0.9, "{missed} {edit} {fit} {new}");
    assert!(advice.ends_with("raise unlearn.effort (unlearn.steps and pool.latents, where they are set), or else unlearn.strength"), "{advice}");
    // One that sees the feature in seven of ten images: most were never selected, and no edit goes far enough for it.
    scores.sort_by(f64::total_cmp);
    let judge = json!({"scorer": {"uri": mnist("models/thickness.pt"), "positive": {"above": scores[119]}}});
    let ([missed, edit, fit, new], advice, _) = parts(&job.set("evaluate.judge", judge));
    assert!(missed > 0.6 && edit > 0.05 && fit < 0.1 && new == 0.0, "{missed} {edit} {fit} {new}");
    assert!(advice.contains("never selected for an edit"), "{advice}");
}

#[test]
fn who_tells_classes_apart_says_whether_they_stayed() {
    let classifier = json!({"uri": mnist("models/classifier.pt"), "output": "logits"});
    let job = Job::thick().set("evaluate.classifier", classifier.clone());
    let mut executor = Executor::start();
    assert!(matches!(executor.run(&job.probe()), TaskOutput::Probe(_)));
    let target = job.target(&mut executor);
    let mut changed = |job: &Job, weights: &ArtifactRef| {
        let shards = evaluate(job, &mut executor, &target, weights);
        let report = report(job, &mut executor, &target, &shards);
        let ideal = figure(&report, "edits", "ideal_class_changed");
        assert!((0.001..0.3).contains(&ideal.after.unwrap()), "whatever the copy is: {ideal:?}");
        figure(&report, "locality", "class_changed").clone()
    };
    let same = changed(&job, &unchanged(&job));
    assert!((200..360).contains(&same.samples), "it is sure of most, not of all: {same:?}");
    assert!(same.after == Some(0.0) && same.ci95_after.unwrap()[1] < 0.02, "{same:?}");

    let other = changed(&job, &opposite(&job));
    assert_eq!(other.samples, same.samples, "whom it is sure of does not depend on the copy");
    assert!(other.after.unwrap() > 0.3, "{other:?}");

    // Nobody else is named: the judge.
    let mut judge = classifier;
    judge["class"] = 3.into();
    let judged = Job::thick().set("evaluate.judge", json!({"classifier": judge}));
    judged.store(&target.path, fs::read(job.file(&target.path)).unwrap());
    assert!(changed(&judged, &unchanged(&judged)).samples > 200);
}

#[test]
fn a_feature_goes_away_and_the_published_generator_is_the_one_that_was_measured() {
    let job = Job::thick().set("unlearn.steps", 60).set("direction.selection", "classifier");
    let folder = job.folder().join("published");
    let job = job.set("publish.uri", folder.to_str().unwrap());
    let mut executors = [Executor::start()];
    let target = job.target(&mut executors[0]);
    let trained = job.train(&mut executors, &target, 1);
    let executor = &mut executors[0];
    let shards = evaluate(&job, executor, &target, &trained.weights);
    let figures = report(&job, executor, &target, &shards);
    let (remaining, similar) =
        (figure(&figures, "feature", "remaining_share"), figure(&figures, "locality", "ms_ssim"));
    assert!(remaining.after.unwrap() < 0.5, "{remaining:?}");
    assert!(similar.after.unwrap() > 0.8, "{similar:?}");

    let output = publish(&job, executor, &target, &trained.weights, &figures);
    assert_eq!(output.generator.path, "jobs/tiny-1/result/generator.safetensors");
    assert_eq!(output.versions.device, "cpu");
    for artifact in [&output.generator, &output.sidecar, &output.before_after_png] {
        let name = Path::new(&artifact.path).file_name().unwrap();
        assert_eq!(fs::read(job.file(&artifact.path)).unwrap(), fs::read(folder.join(name)).unwrap());
    }
    let png = fs::read(job.file(&output.before_after_png.path)).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    let sidecar: Sidecar =
        serde_json::from_slice(&fs::read(job.file(&output.sidecar.path)).unwrap()).unwrap();
    assert_eq!(sidecar.sha256, output.generator.sha256);
    let said =
        ["to unlearn 'thick'", "remaining share", "judged by thickness.pt", "warnings: JUDGE_IS_LABELLER"];
    assert!(said.iter().all(|part| sidecar.source.contains(part)), "{}", sidecar.source);
    assert!(!sidecar.source.contains("removed"), "{}", sidecar.source);

    // Used as a generator of its own, it shows the feature as often as the report says.
    let again = Job::thick()
        .set("direction.selection", "classifier")
        .set("generator.uri", folder.join("generator.safetensors").to_str().unwrap());
    assert!(matches!(executor.run(&again.probe()), TaskOutput::Probe(_)));
    let cut = json!({"scorer": {"uri": mnist("models/thickness.pt"), "positive": {"above":
        job.numbers(&target, "cut_threshold")[0]}}});
    let again = again.set("evaluate.judge", cut);
    for artifact in [&target, &trained.weights] {
        assert_eq!(again.store(&artifact.path, fs::read(job.file(&artifact.path)).unwrap()), *artifact);
    }
    let shards = evaluate(&again, executor, &target, &trained.weights);
    let before: u64 = shards.iter().filter_map(|shard| shard.before).sum();
    assert_eq!(Some(before as f64 / 400.0), figure(&figures, "feature", "share").after);
}

#[test]
fn a_torchscript_generator_comes_back_as_torchscript() {
    let output = json!({"range": [0, 1], "channels": 1, "size": 12});
    let generator = json!({"uri": crate::job::fixture("flat_generator.pt"), "format": "torchscript",
                           "latent": {"dimension": 5}, "output": output});
    let job = Job::tiny()
        .set("generator", generator)
        .set("feature.classifier.class", 1)
        .set("feature.classifier.threshold", 0.04);
    let mut executors = [Executor::start()];
    let target = job.target(&mut executors[0]);
    let trained = job.train(&mut executors, &target, 1);
    let output = publish(&job, &mut executors[0], &target, &trained.weights, &no_report());
    assert_eq!(output.generator.path, "jobs/tiny-1/result/generator.pt");
    let published = job.file(&output.generator.path);
    let again = job.set("generator.uri", published.to_str().unwrap());
    assert!(matches!(executors[0].run(&again.probe()), TaskOutput::Probe(_)));
}
