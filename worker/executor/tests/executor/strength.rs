//! How strong the published copy is: on the line between the weights, and no further than the labeller asks for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lethe_domain::FineTuneOutput;
use safetensors::SafeTensors;
use serde_json::json;

use crate::harness::Executor;
use crate::job::{Job, fixture};

fn weights(file: impl AsRef<Path>) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let of = |data: &[u8]| data.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    tensors.iter().map(|(name, view)| (name.to_owned(), of(view.data()))).collect()
}

fn trained(job: &Job, ranks: u32) -> FineTuneOutput {
    let mut all: Vec<Executor> = (0..ranks).map(|_| Executor::start()).collect();
    let target = job.target(&mut all[0]);
    job.train(&mut all, &target, ranks)
}

/// A pool of which enough is kept from training.
fn large() -> Job {
    Job::tiny().set("pool.latents", 4_500).set("pool.shard_size", 4_500)
}

#[test]
fn the_weights_lie_on_the_line_from_the_originals_to_the_trained_ones() {
    let original = weights(fixture("mlp_1.safetensors"));
    let at = |strength: f64| {
        let job = Job::tiny().set("unlearn.strength", strength);
        let output = trained(&job, 1);
        assert_eq!(output.strength, Some(strength));
        weights(job.file(&output.weights.path))
    };
    let (half, whole, beyond) = (at(0.5), at(1.0), at(1.5));
    let mut moved = 0.0_f32;
    for (name, origin) in &original {
        for (place, origin) in origin.iter().enumerate() {
            let way = whole[name][place] - origin;
            moved = moved.max(way.abs());
            for (found, strength) in [(&half, 0.5), (&beyond, 1.5)] {
                assert!((found[name][place] - (origin + strength * way)).abs() < 1e-6, "{name}[{place}]");
            }
        }
    }
    assert!(moved > 1e-3, "it was trained: {moved}");
}

#[test]
fn it_is_found_by_the_labeller_the_same_by_any_ranks_and_can_be_said_again() {
    // Hardly trained, hardly anything is gone at any strength; trained well, less is enough.
    let little = trained(&large().set("unlearn.lr", 1e-9), 1);
    assert_eq!(little.strength, Some(1.25));
    let long = || large().set("direction.margin", 1.0).set("unlearn.steps", 150).set("unlearn.lr", 0.01);
    let well = trained(&long(), 1);
    assert_eq!(well.strength, Some(0.75));
    let together = trained(&long(), 2);
    assert_eq!((together.strength, &together.weights.sha256), (well.strength, &well.weights.sha256));
    let said = trained(&long().set("unlearn.strength", 0.75), 2);
    assert_eq!(said.weights.sha256, well.weights.sha256);
}

#[test]
fn too_few_latents_decide_nothing() {
    assert_eq!(trained(&Job::tiny().set("unlearn.lr", 1e-9), 1).strength, Some(1.0));
    let projected = large().set("unlearn.lr", 1e-9).set("direction", json!({"selection": "projection"}));
    assert_eq!(trained(&projected, 1).strength, Some(1.0));
}
