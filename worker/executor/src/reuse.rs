//! Shards of edits that any job of the same artifact root may use again: found by a key of everything their bytes depend on.
//!
//! | path | content |
//! |---|---|
//! | `edits/KEY/SHA256.safetensors` | a shard, put in one moment; its digest is its name |
//!
//! A job copies what it finds to a path of its own, so nobody depends on an entry for longer than it takes to read it. Whatever is wrong
//! with one, the shard is made anew. Not here: making it (`phase::edit`), removing old entries (the coordinator).

use bytes::Bytes;
use lethe_artifacts::Digest;
use lethe_domain::{ArtifactRef, EDITS_FOLDER, InputRole, Inputs, JobSpec, SampleRange};
use lethe_models::EDIT_VERSION;
use serde_json::{Value, json};

use crate::device::Arithmetic;
use crate::error::Result;
use crate::storage::Storage;
use crate::work::Work;

const END: &str = ".safetensors";

/// Where a shard is, if somebody has made it.
#[derive(Debug)]
pub(crate) struct Entry {
    folder: String,
}

/// The entry of a shard; none where the job wants none, or nobody looked at its files when it was accepted.
pub(crate) fn entry(work: &Work<'_>, range: SampleRange, target: &ArtifactRef) -> Option<Entry> {
    if !work.spec.pool.reuse {
        return None;
    }
    let key = key(&work.spec, &work.inputs, target, range, &work.arithmetic)?;
    Some(Entry { folder: format!("{EDITS_FOLDER}/{key}") })
}

impl Entry {
    /// Its bytes, if it is there and whole.
    pub(crate) fn find(&self, storage: &Storage) -> Option<Bytes> {
        match self.read(storage) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(entry = self.folder, %error, "cannot look for edits made before: they are made anew");
                None
            }
        }
    }

    fn read(&self, storage: &Storage) -> Result<Option<Bytes>> {
        for object in storage.list(&self.folder)? {
            let name = object.path.strip_prefix(&self.folder).and_then(|rest| rest.strip_prefix('/'));
            let Some(digest) = name.and_then(|name| name.strip_suffix(END)) else { continue };
            if digest.parse::<Digest>().is_err() {
                continue;
            }
            let sha256 = digest.to_owned();
            match storage.get(&ArtifactRef { path: object.path.clone(), sha256, size: object.size }) {
                Ok(bytes) => {
                    tracing::info!(path = object.path, "edits made before are used again");
                    return Ok(Some(bytes));
                }
                Err(error) => tracing::warn!(%error, "edits made before cannot be used: they are made anew"),
            }
        }
        Ok(None)
    }

    /// Keeps a shard for others. That it cannot be is no harm to this job.
    pub(crate) fn keep(&self, storage: &Storage, sha256: &str, bytes: Bytes) {
        if let Err(error) = storage.put(&format!("{}/{sha256}{END}", self.folder), bytes) {
            tracing::warn!(entry = self.folder, %error, "edits cannot be kept for other jobs");
        }
    }
}

/// SHA-256 of everything the bytes of a shard depend on, as JSON with sorted keys. Files count by what they hold, wherever they are.
fn key(
    spec: &JobSpec,
    inputs: &Inputs,
    target: &ArtifactRef,
    range: SampleRange,
    arithmetic: &Arithmetic,
) -> Option<String> {
    let file = |role| inputs.get(role).map(|input| input.sha256.as_str());
    let _ = file(InputRole::Labeller)?;
    let labellers: Vec<_> = InputRole::LABELLERS.into_iter().map(file).collect();
    let feature = &spec.feature;
    let Arithmetic { device, instructions, threads, tf32, torch } = arithmetic;
    let content = json!({
        "version": EDIT_VERSION,
        "generator": [file(InputRole::Generator)?, file(InputRole::Sidecar), contract(json!(spec.generator))],
        "labeller": [labellers, contract(json!([feature.classifier, feature.classifiers, feature.scorer]))],
        // It holds the direction, the cut, the goal, the way to edit, and the student.
        "target": target.sha256,
        "selection": spec.direction.selection,
        "raw": spec.direction.raw,
        "surrogate": spec.direction.surrogate,
        "locality": spec.direction.locality,
        "seed": spec.sample.seed,
        "batch": spec.pool.batch,
        "range": [range.start, range.count],
        "targets": spec.stores_targets(),
        "arithmetic": {
            "device": device,
            "instructions": instructions,
            "threads": threads,
            "tf32": tf32,
            "torch": torch,
        },
    });
    Some(Digest::of(content.to_string().as_bytes()).to_string())
}

/// What a spec says about a model, less where its file is.
fn contract(mut model: Value) -> Value {
    match &mut model {
        Value::Object(entries) => {
            let _ = entries.remove("uri");
            entries.values_mut().for_each(|entry| *entry = contract(entry.take()));
        }
        Value::Array(entries) => entries.iter_mut().for_each(|entry| *entry = contract(entry.take())),
        _ => {}
    }
    model
}

#[cfg(test)]
mod tests {
    use lethe_domain::Input;

    use super::*;

    fn spec() -> Value {
        json!({
            "name": "x",
            "generator": {"uri": "g", "format": "safetensors", "latent": {"dimension": 2},
                          "output": {"range": [0, 1], "channels": 1, "size": 8}},
            "feature": {"name": "f", "classifier": {"uri": "c", "output": "logits", "threshold": 0.5}},
        })
    }

    fn inputs(generator: &str, labeller: &str) -> Inputs {
        let file = |sha256: &str| Input { uri: "u".to_owned(), sha256: sha256.to_owned(), size: 1 };
        Inputs(
            [(InputRole::Generator, file(generator)), (InputRole::Labeller, file(labeller))]
                .into_iter()
                .collect(),
        )
    }

    /// The key of a spec with one entry changed.
    fn of(pointer: &str, value: Value) -> String {
        let mut spec = spec();
        let (group, name) = pointer.rsplit_once('/').unwrap();
        let mut at = &mut spec;
        for part in group.split('/').skip(1) {
            at = at.as_object_mut().unwrap().entry(part).or_insert_with(|| json!({}));
        }
        at[name] = value;
        with(&spec, &inputs("a", "b"), "t", 0, &Arithmetic::of(tch::Device::Cpu, 1, false)).unwrap()
    }

    fn with(
        spec: &Value,
        inputs: &Inputs,
        target: &str,
        start: u64,
        arithmetic: &Arithmetic,
    ) -> Option<String> {
        let spec = JobSpec::from_value(spec.clone()).unwrap();
        let target = ArtifactRef { path: "p".to_owned(), sha256: target.to_owned(), size: 1 };
        key(&spec, inputs, &target, SampleRange { start, count: 500 }, arithmetic)
    }

    #[test]
    fn whatever_changes_a_shard_changes_its_key_and_nothing_else_does() {
        let key = of("/name", json!("x"));
        for (pointer, value) in [
            ("/name", json!("y")),
            ("/generator/uri", json!("elsewhere")),
            ("/feature/classifier/uri", json!("elsewhere")),
            ("/feature/name", json!("another")),
            ("/unlearn/steps", json!(7)),
            ("/unlearn/lr", json!(0.5)),
            ("/pool/latents", json!(1000)),
            ("/evaluate/samples", json!(100)),
            // What the target says already.
            ("/direction/margin", json!(0.5)),
        ] {
            assert_eq!(of(pointer, value), key, "{pointer}");
        }
        let mut others = vec![key.clone()];
        for (pointer, value) in [
            ("/sample/seed", json!(1)),
            ("/pool/batch", json!(100)),
            ("/pool/latents", json!(5_000_000)),
            ("/generator/latent/dimension", json!(3)),
            ("/generator/prior", json!({"uniform": [-1, 1]})),
            ("/feature/classifier/threshold", json!(0.25)),
            ("/direction/selection", json!("projection")),
            ("/direction", json!({"selection": "projection", "raw": true})),
        ] {
            others.push(of(pointer, value));
        }
        let cpu = Arithmetic::of(tch::Device::Cpu, 1, false);
        let mut push = |inputs: &Inputs, target, start, arithmetic: &Arithmetic| {
            others.push(with(&spec(), inputs, target, start, arithmetic).unwrap());
        };
        push(&inputs("other", "b"), "t", 0, &cpu);
        push(&inputs("a", "other"), "t", 0, &cpu);
        push(&inputs("a", "b"), "other", 0, &cpu);
        push(&inputs("a", "b"), "t", 500, &cpu);
        push(&inputs("a", "b"), "t", 0, &Arithmetic { threads: 2, ..cpu.clone() });
        push(&inputs("a", "b"), "t", 0, &Arithmetic { device: "GPU".to_owned(), ..cpu.clone() });
        let count = others.len();
        others.sort();
        others.dedup();
        assert_eq!(others.len(), count, "no two are alike");
    }

    #[test]
    fn files_that_nobody_looked_at_are_no_key() {
        let cpu = Arithmetic::of(tch::Device::Cpu, 1, false);
        assert_eq!(with(&spec(), &Inputs::default(), "t", 0, &cpu), None);
    }
}
