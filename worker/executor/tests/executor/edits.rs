//! Edits that find nothing to teach: left out, counted, told.

use lethe_domain::{ArtifactRef, ErrorCode};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::harness::Executor;
use crate::job::Job;

fn guided() -> Job {
    Job::thick().set("direction.selection", "classifier").set("unlearn.steps", 24)
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
    assert!(good.edits.median_step > 0.0 && good.edits.p99_step <= 4.0 + 1.0 / 32.0, "{:?}", good.edits);
    assert_eq!(good.edits.warning(), None);

    // Along a worse vector some succeed. Two ranks count each edit once, as one does.
    let worse = bent(&job, &target, |place, entry| if place % 2 == 0 { entry } else { -entry });
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
