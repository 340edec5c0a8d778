//! Images of which somebody knows whether they show the feature, end to end on a tiny model.

use std::fs;

use lethe_domain::spec::{self, Classifier};
use lethe_domain::{ErrorCode, Input, InputRole, Inputs, TaskOutput};
use lethe_models::{Labeller, Tensors};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::harness::Executor;
use crate::job::{Job, fixture};

/// So many images of 12x12 pixels of noise, darker and darker.
fn images(count: i64) -> Tensor {
    tch::manual_seed(3);
    let shades = Tensor::linspace(1.0, 0.2, count, (Kind::Float, Device::Cpu)).view([count, 1, 1, 1]);
    Tensor::rand([count, 1, 12, 12], (Kind::Float, Device::Cpu)) * shades
}

/// The job with a file of these images, of which so many are labelled.
fn calibrated(job: Job, images: &Tensor, positives: i64) -> Job {
    let mut tensors = Tensors::new("known");
    tensors.insert("images", images);
    let places = Tensor::arange(images.size()[0], (Kind::Int64, Device::Cpu));
    tensors.insert("labels", &places.lt(positives).to_kind(Kind::Uint8));
    let file = job.folder().join("known.safetensors");
    fs::write(&file, tensors.to_bytes().unwrap()).unwrap();
    job.set("direction.calibration.uri", file.to_str().unwrap())
}

/// What the tiny job's classifier says of images, less the log-odds of its threshold.
fn beyond_the_cut(images: &Tensor) -> Vec<f64> {
    let job = Job::tiny();
    let classifier: Classifier = serde_json::from_value(job.spec["feature"]["classifier"].clone()).unwrap();
    let path = fixture("classifier.pt");
    let labeller =
        Labeller::open(spec::Labeller::Classifier(&classifier), path.as_ref(), Device::Cpu).unwrap();
    labeller.scores(images).unwrap().into_iter().map(|score| score - classifier.cut().threshold).collect()
}

#[test]
fn what_is_known_to_show_the_feature_is_selected() {
    let mut executor = Executor::start();
    let all = images(300);
    let mut known = beyond_the_cut(&all.narrow(0, 0, 150));
    known.sort_by(f64::total_cmp);
    assert!(known[1] < 0.0 && known[1] > -3.0, "the labeller misses some of them: {:?}", &known[..5]);
    // As one classifier, and as two that say the same: theirs is the distance to the cut.
    let both = |job: Job| {
        let mut member = job.spec["feature"]["classifier"].clone();
        let copy = job.folder().join("copy.pt");
        fs::copy(fixture("classifier.pt"), &copy).unwrap();
        let first = member.clone();
        member["uri"] = json!(copy);
        job.set("feature", json!({"name": "zero", "classifiers": [first, member]}))
    };
    for job in [Job::tiny(), both(Job::tiny())] {
        let job = calibrated(job.set("direction.margin", 30), &all, 150);
        assert!(matches!(executor.run(&job.probe()), TaskOutput::Probe(_)));
        let shards = job.sample(&mut executor);
        let found = job.direction(&mut executor, shards.clone());
        let select = found.select - found.cut.threshold;
        assert!((select - known[1]).abs() < 1e-5, "all but one in a hundred: {select} {:?}", &known[..5]);
        let scores: Vec<f64> = shards.iter().flat_map(|shard| job.numbers(shard, "scores")).collect();
        let beyond = scores.iter().filter(|score| **score > found.select).count();
        assert_eq!(found.edited_share, beyond as f64 / 600.0);
        assert!(beyond as u64 > found.positives, "{found:?}");

        // Nobody is edited from where edits lead on.
        let near = job.set("direction.margin", 0.01).direction(&mut executor, shards);
        assert!(near.select == near.goal && near.goal < near.cut.threshold, "{near:?}");
    }
}

#[test]
fn what_the_labeller_sees_is_selected_all_the_same() {
    let mut executor = Executor::start();
    let all = images(400);
    let scores = beyond_the_cut(&all);
    let seen: Vec<i64> =
        (0_i64..).zip(&scores).filter(|(_, score)| **score > 0.3).map(|(place, _)| place).collect();
    assert!(seen.len() >= 20, "{}", seen.len());
    let job = calibrated(Job::tiny(), &all.index_select(0, &Tensor::from_slice(&seen)), seen.len() as i64);
    let shards = job.sample(&mut executor);
    let found = job.direction(&mut executor, shards);
    assert_eq!(found.select, found.cut.threshold);
}

#[test]
fn images_that_say_nothing_are_refused() {
    let mut executor = Executor::start();
    let mut refused = |job: &Job, code: ErrorCode, words: &[&str]| {
        let failure = executor.try_run(&job.probe()).unwrap_err();
        let text = format!("{failure} ({})", failure.hint);
        assert!(failure.code == code && words.iter().all(|word| text.contains(word)), "{text}");
    };
    let few = ["known.safetensors", "19 of its 40 images are labelled 1, at least 20", "direction.recall"];
    refused(&calibrated(Job::tiny(), &images(40), 19), ErrorCode::InvalidSpec, &few);
    let wide = Tensor::rand([40, 1, 10, 12], (Kind::Float, Device::Cpu));
    let words = ["known.safetensors", "[40, 1, 10, 12]", "expected [N, 1, 12, 12]"];
    refused(&calibrated(Job::tiny(), &wide, 30), ErrorCode::SpecMismatch, &words);

    let mut job = calibrated(Job::tiny(), &images(40), 30);
    let uri = job.spec["direction"]["calibration"]["uri"].as_str().unwrap().to_owned();
    let pinned = Input { uri, sha256: "5".repeat(64), size: 1 };
    job.inputs = Inputs([(InputRole::Calibration, pinned)].into());
    refused(&job, ErrorCode::InputChanged, &["known.safetensors", "submit"]);
}
