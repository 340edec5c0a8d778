//! Models as people bring them: what is refused at the probe, and what is trained like any other.
//!
//! The modules are those of `crates/models/tests/reference/scripts.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use lethe_domain::{ErrorCode, TaskOutput, WarningCode};
use safetensors::SafeTensors;
use serde_json::json;

use crate::harness::Executor;
use crate::job::{Job, fixture};

fn script(name: &str) -> String {
    fixture(&format!("../reference/scripts/{name}.pt"))
}

/// 8x8 pixels of a script; one image in five is positive.
fn small(generator: &str) -> Job {
    Job::of(json!({
        "name": "small",
        "generator": {"uri": script(generator), "format": "torchscript", "latent": {"dimension": 4},
                      "output": {"range": [0, 1], "channels": 1, "size": 8}},
        "feature": {"name": "bright", "scorer": {"uri": script("score"), "positive": {"top": 0.2}}},
        "sample": {"seed": 3, "shard_size": 200, "batch": 64, "until": {"total": 600}},
        "unlearn": {"steps": 12, "global_batch": 24, "lr": 0.002, "batch_norm": "eval"},
        "evaluate": {"samples": 200},
    }))
}

#[track_caller]
fn refused(executor: &mut Executor, job: &Job, code: ErrorCode, words: &[&str]) {
    let failure = executor.try_run(&job.probe()).expect_err(&format!("{words:?}"));
    assert_eq!(failure.code, code, "{failure}");
    let text = format!("{} ({})", failure.message, failure.hint);
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not in: {text}");
    assert!(job.files().is_empty(), "{:?}", job.files());
}

#[test]
fn a_model_in_any_position_that_is_no_function_of_its_input() {
    let mut executor = Executor::start();
    let mut refused = |job: Job, file: &str| {
        refused(
            &mut executor,
            &job,
            ErrorCode::BadModel,
            &[file, "is no function of its input", "tools/export"],
        );
    };
    for name in ["noise", "dropped", "normed", "stateful", "centred", "fixed_batch"] {
        refused(small(name), name);
    }
    let classifier = |name: &str| json!({"uri": script(name), "output": "logits", "class": 1});
    let plain = || small("plain");
    refused(
        plain().set("feature", json!({"name": "f", "classifier": classifier("dropped_eyes")})),
        "dropped_eyes.pt",
    );
    refused(
        plain().set("evaluate.judge", json!({"classifier": classifier("normed_eyes")})),
        "normed_eyes.pt",
    );
    let classes = json!({"uri": script("dropped_eyes"), "output": "logits"});
    refused(plain().set("evaluate.classifier", classes), "dropped_eyes.pt");
    refused(plain().set("evaluate.features", script("dropped_eyes")), "dropped_eyes.pt");
}

#[test]
fn probabilities_declared_as_logits_in_any_position() {
    let mut executor = Executor::start();
    for (name, class) in [("softmax", Some(1)), ("sigmoid", None)] {
        let classifier = |output: &str| {
            let mut spec = json!({"uri": script(name), "output": output});
            if let Some(class) = class {
                spec["class"] = class.into();
            }
            spec
        };
        let labeller = |output| json!({"name": "f", "classifier": classifier(output)});
        let words = [name, "output: logits (is it probability?"];
        let code = ErrorCode::SpecMismatch;
        refused(&mut executor, &small("plain").set("feature", labeller("logits")), code, &words);
        let judge = json!({"classifier": classifier("logits")});
        refused(&mut executor, &small("plain").set("evaluate.judge", judge), code, &words);
        executor.run(&small("plain").set("feature", labeller("probability")).probe());
    }
}

#[test]
fn scripts_that_this_libtorch_cannot_run() {
    let mut executor = Executor::start();
    for (name, words) in [
        ("operator", ["torchvision::sigmoid", "PyTorch's own operators"]),
        ("newer", ["newer than this libtorch", "export it with that version"]),
        ("on_a_gpu", ["forward failed", "trace it on the cpu"]),
        ("overlapping", ["l1.weight and l3.weight", "clone()"]),
        ("complex", ["phase has the dtype complex64", ""]),
    ] {
        refused(&mut executor, &small(name), ErrorCode::BadModel, &words);
    }
}

#[test]
fn pixels_beyond_the_range() {
    let mut executor = Executor::start();
    let job = || small("unbounded").set("generator.output.range", json!([-1, 1]));
    let words = ["unbounded.pt", "generator.output.range is [-1, 1]", "generator.output.clamp: true"];
    refused(&mut executor, &job(), ErrorCode::SpecMismatch, &words);
    let TaskOutput::Probe(probe) = executor.run(&job().set("generator.output.clamp", true).probe()) else {
        panic!()
    };
    assert!(probe.range[0] < -1.0 && probe.range[1] > 1.0, "{:?}", probe.range);
    let job = small("unbounded").set("generator.output.clamp", true);
    refused(&mut executor, &job, ErrorCode::SpecMismatch, &["too far beyond it for clamp"]);
}

#[test]
fn what_is_not_trained_is_said() {
    let mut executor = Executor::start();
    let TaskOutput::Probe(probe) = executor.run(&small("frozen_layer").probe()) else { panic!() };
    let [warning] = &probe.warnings[..] else { panic!("{:?}", probe.warnings) };
    assert_eq!(warning.code, WarningCode::NotTrained);
    assert!(warning.message.ends_with("requires_grad is False in the file: l0.weight, l0.bias"), "{warning}");
    let TaskOutput::Probe(probe) = executor.run(&small("plain").probe()) else { panic!() };
    assert!(probe.warnings.is_empty(), "{:?}", probe.warnings);
}

/// The digest of the trained weights and the names of those that changed.
fn trained(generator: &str, world: usize) -> (String, BTreeSet<String>) {
    let job = small(generator);
    let mut executors: Vec<Executor> = (0..world).map(|_| Executor::start()).collect();
    let target = job.target(&mut executors[0]);
    let output = job.train(&mut executors, &target, 1);
    let bytes = fs::read(job.file(&output.weights.path)).unwrap();
    let after = SafeTensors::deserialize(&bytes).unwrap();
    // What a job of no steps would store: a learning rate of almost nothing.
    let still = small(generator).set("unlearn.lr", 1e-30).set("unlearn.steps", 1);
    let target = still.target(&mut executors[0]);
    let output = still.train(&mut executors[..1], &target, 1);
    let bytes = fs::read(still.file(&output.weights.path)).unwrap();
    let before = SafeTensors::deserialize(&bytes).unwrap();
    let moved = after.iter().filter(|(name, view)| before.tensor(name).unwrap().data() != view.data());
    (output_digest(&after), moved.map(|(name, _)| name.to_owned()).collect())
}

fn output_digest(weights: &SafeTensors<'_>) -> String {
    let mut all: Vec<_> =
        weights.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect();
    all.sort();
    lethe_artifacts::Digest::of(&serde_json::to_vec(&all).unwrap()).to_string()
}

#[test]
fn weights_of_every_form_are_trained_the_same_by_one_rank_and_by_two() {
    let mut digests = BTreeMap::new();
    for name in ["plain", "aliased", "cut", "tied", "twice", "mixed", "half", "double"] {
        let (alone, moved) = trained(name, 1);
        assert_eq!(moved.len(), 6, "{name}: {moved:?}");
        assert_eq!(trained(name, 2).0, alone, "{name}");
        digests.insert(name, alone);
    }
    assert_eq!(digests["aliased"], digests["plain"]);
    assert_eq!(digests["cut"], digests["plain"]);
    assert_eq!(digests["tied"], digests["twice"]);
    assert_ne!(digests["plain"], digests["twice"]);
}

#[test]
fn a_module_that_writes_to_its_input_is_trained_like_one_that_does_not() {
    assert_eq!(trained("in_place", 1), trained("copied", 1));
}

#[test]
fn other_files_in_the_place_of_a_model() {
    let mut executor = Executor::start();
    let files: [(&[u8], &str); 6] = [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Quota exceeded</body></html>\n", "is a web page"),
        (b"", "is empty"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0", "unpack it"),
        (b"\x10\0\0\0\0\0\0\0{              }", "is safetensors, not TorchScript"),
        (b"PK\x03\x04\0\0\0\0\0\0", "was cut off"),
    ];
    for (bytes, words) in files {
        let job = || {
            let job = small("plain");
            let file = job.folder().join("model.pt");
            fs::write(&file, bytes).unwrap();
            (job, file.display().to_string())
        };
        for key in ["generator.uri", "feature.scorer.uri", "evaluate.features", "evaluate.judge"] {
            let (job, file) = job();
            let value = match key {
                "evaluate.judge" => json!({"scorer": {"uri": file, "positive": {"above": 0}}}),
                _ => file.into(),
            };
            refused(&mut executor, &job.set(key, value), ErrorCode::BadModel, &["model.pt: is", words]);
        }
    }
}
