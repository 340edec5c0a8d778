//! Edits that find nothing to teach: left out, counted, told.

use lethe_domain::{ArtifactRef, DirectionOutput, EditMethod, ErrorCode, Phase};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::json;

use crate::harness::Executor;
use crate::job::Job;

fn guided() -> Job {
    Job::thick()
        .set("direction.selection", "classifier")
        .set("direction.edit", "line")
        .set("unlearn.steps", 24)
}

/// The target with each entry of its unit vector changed.
fn bent(job: &Job, target: &ArtifactRef, bend: impl Fn(usize, f64) -> f64) -> ArtifactRef {
    let bytes = std::fs::read(job.file(&target.path)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let unit: Vec<u8> = (0..)
        .zip(job.numbers(target, "unit"))
        .flat_map(|(place, entry)| bend(place, entry).to_le_bytes())
        .collect();
    let views = tensors.tensors().into_iter().map(|(name, view)| match name.as_str() {
        "unit" => (name, TensorView::new(view.dtype(), view.shape().to_vec(), &unit).unwrap()),
        _ => (name, view),
    });
    job.store("bent.safetensors", safetensors::serialize(views, None).unwrap())
}

#[test]
fn a_direction_along_which_no_edit_succeeds_ends_the_job() {
    let job = guided();
    let mut all = [Executor::start()];
    let target = job.target(&mut all[0]);
    // Towards the feature instead of away from it.
    let wrong = bent(&job, &target, |_, entry| -entry);
    job.edit(&mut all[0], &wrong);
    let leases = job.begin_gang(&mut all, &wrong, 1);
    let failure = all[0].end(&leases[0].lease).unwrap_err();
    assert_eq!(failure.code, ErrorCode::NoEdits, "{failure}");
    assert!(
        failure.message.starts_with("none of ") && failure.hint.contains("direction.margin"),
        "{failure}"
    );
}

#[test]
fn edits_that_fail_are_left_out_counted_and_told() {
    let job = guided();
    let mut all = [Executor::start(), Executor::start()];
    let target = job.target(&mut all[0]);
    let good = job.train(&mut all[..1], &target, 1);
    assert!(good.edits.tried > 20 && good.edits.unresolved * 100 <= good.edits.tried, "{:?}", good.edits);
    assert!(good.edits.median_step > 0.0 && good.edits.p99_step <= 4.0, "{:?}", good.edits);
    assert_eq!(good.edits.warning(), None);

    // Along a worse vector some succeed. Every rank knows of all edits.
    let worse = bent(&job, &target, |place, entry| if place % 2 == 0 { entry } else { -entry });
    job.edit(&mut all[1], &worse);
    let edits = |all: &mut [Executor], generation| {
        // A job goes on from its checkpoints.
        std::fs::remove_dir_all(job.file("jobs/tiny-1/checkpoints")).unwrap();
        let output = job.train(all, &worse, generation);
        (output.edits, output.weights.sha256, all[0].log())
    };
    let (alone, weights, log) = edits(&mut all[..1], 2);
    assert!(alone.unresolved > 0 && alone.unresolved < alone.tried, "{alone:?}");
    assert!(alone.warning().is_some() && log.contains("EDITS_UNRESOLVED"), "{log}");
    let (together, same, _) = edits(&mut all, 3);
    assert_eq!((together, same), (alone, weights));
}

#[test]
fn a_shard_holds_scores_and_edits_and_has_the_same_bits_whoever_makes_it() {
    for job in [Job::tiny(), Job::thick()] {
        let (mut one, mut other) = (Executor::start(), Executor::start());
        let target = job.target(&mut one);
        let shard = job.shards(Phase::Edit)[2];
        let again = job.edit_shard(&mut other, &target, shard, 2);
        let first = job.pool.borrow()[2].clone();
        assert_eq!((again.samples, &again.pool.sha256), (100, &first.sha256), "the last shard is shorter");
        assert!(
            again.pool.path.starts_with("jobs/tiny-1/edit/shard-00002-a") && again.pool.path != first.path
        );
        let (scores, steps) = (job.numbers(&first, "scores"), job.numbers(&first, "steps"));
        assert_eq!((scores.len(), job.numbers(&first, "start")), (100, vec![400.0]));
        assert!(!steps.is_empty() && steps.len() < 60 && steps.iter().all(|step| *step > 0.0), "{steps:?}");
    }
}

#[test]
fn labels_from_a_file_are_enough_to_edit_along_the_direction() {
    let job = Job::tiny();
    let file = job.folder().join("labels.csv");
    let rows: String = (0..600).map(|index| format!("{index},{}\n", u8::from(index % 7 == 0))).collect();
    std::fs::write(&file, format!("index,label\n{rows}")).unwrap();
    let judge = job.spec["feature"]["classifier"].clone();
    let job = job
        .set("feature", json!({"name": "fifth", "labels": {"uri": file}}))
        .set("direction", json!({"selection": "projection"}))
        .set("evaluate.judge", json!({"classifier": judge}));
    let mut all = [Executor::start()];
    let target = job.target(&mut all[0]);
    let trained = job.train(&mut all, &target, 1);
    assert!(trained.edits.tried > 0 && trained.edits.unresolved == 0, "{:?}", trained.edits);
}

#[test]
fn edits_follow_a_gradient_the_labellers_or_its_students() {
    let mut executor = Executor::start();
    let mut found = |job: &Job| {
        let scores = job.sample(&mut executor);
        job.direction(&mut executor, scores)
    };
    // The thickness of strokes is counted behind a threshold: a student has to learn it.
    assert_eq!(found(&guided().set("direction.edit", "auto")).edit, EditMethod::Student);
    assert_eq!(found(&Job::thick()).edit, EditMethod::Projection);
    let by_classifier = found(&Job::tiny());
    assert_eq!(by_classifier.edit, EditMethod::Gradient);
    assert_eq!(found(&Job::tiny().set("direction.edit", "line")).edit, EditMethod::Line);

    // A classifier can be unsure: up to twice its positives are edited (here many have the same score, so fewer). What a scorer measures
    // is nearly what it measures.
    let share = |found: &DirectionOutput| found.edited_share * found.samples as f64 / found.positives as f64;
    assert!((1.2..2.05).contains(&share(&by_classifier)), "{by_classifier:?}");
    let by_scorer = found(&guided());
    assert!((1.15..1.25).contains(&share(&by_scorer)), "{by_scorer:?}");
    assert!(by_scorer.goal < by_scorer.select && by_scorer.select < by_scorer.cut.threshold, "{by_scorer:?}");
    assert!(executor.log().contains("it is taught to a student"), "{}", executor.log());
}
