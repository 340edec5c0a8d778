//! Specs that are refused before anything runs, and what is written down of those that are not.

use lethe_artifacts::Digest;
use serde_json::{Value, json};

use super::*;

/// A safetensors file without tensors.
const WEIGHTS: &[u8] = b"\x02\0\0\0\0\0\0\0{}";

struct World {
    folder: tempfile::TempDir,
    artifacts: ArtifactStore,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let artifacts = ArtifactStore::open(root.to_str().unwrap()).await.unwrap();
        let world = Self { folder, artifacts };
        world.file("vae.safetensors", WEIGHTS);
        world.describe("vae.safetensors", "generator", &Digest::of(WEIGHTS).to_string());
        world.copy("examples/mnist/models/thickness.pt", "thickness.pt");
        world
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Copies a file of this repository.
    fn copy(&self, from: &str, name: &str) {
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(from), self.path(name)).unwrap();
    }

    /// A safetensors file of so many zero bytes, with one tensor.
    fn tensor(&self, name: &str, tensor: &str, dtype: &str, shape: &[usize], bytes: usize) {
        let header = json!({(tensor): {"dtype": dtype, "shape": shape, "data_offsets": [0, bytes]}});
        self.tensors(name, &header, bytes);
    }

    /// The same with this header.
    fn tensors(&self, name: &str, header: &Value, bytes: usize) {
        let header = header.to_string();
        let whole = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; bytes]].concat();
        self.file(name, &whole);
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn describe(&self, name: &str, kind: &str, sha256: &str) {
        let sidecar = json!({"schema_version": 1, "kind": kind, "format": "safetensors", "sha256": sha256});
        self.file(&format!("{name}.json"), sidecar.to_string().as_bytes());
    }

    fn spec(&self) -> Value {
        json!({
            "name": "thick-vae",
            "generator": {"uri": self.path("vae.safetensors"), "format": "safetensors",
                          "latent": {"dimension": 20}, "output": {"range": [0, 1], "channels": 1, "size": 28}},
            "feature": {"name": "thick", "scorer": {"uri": self.path("thickness.pt"), "positive": {"top": 0.1}}},
        })
    }

    async fn problems(&self, spec: Value) -> Vec<(String, String)> {
        let spec = JobSpec::from_value(spec).unwrap();
        let problems = match check(&spec, &self.artifacts).await {
            Ok(_) => vec![],
            Err(Refusal::Spec(error)) => error.problems,
            Err(refusal) => panic!("{refusal}"),
        };
        problems.into_iter().map(|problem| (problem.path, problem.message)).collect()
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_good_spec_passes_and_nothing_is_left_behind() {
    let world = World::new().await;
    let before = world.names();
    let mut spec = world.spec();
    spec["publish"] = json!({"uri": world.path("new/deep")});
    assert_eq!(world.problems(spec).await, vec![]);
    assert_eq!(world.names(), before);
    assert_eq!(fs::read_dir(world.folder.path().join("root")).unwrap().count(), 0);
}

#[tokio::test]
async fn every_problem_is_told_at_once_under_its_key() {
    let world = World::new().await;
    world.describe("vae.safetensors", "generator", &"0".repeat(64));
    world.file("empty.pt", b"");
    let mut spec = world.spec();
    spec["feature"]["scorer"]["uri"] = json!("models/thickness.pt");
    spec["evaluate"] = json!({"features": world.path("missing.pt"), "reference": {"uri": world.path("root")},
        "judge": {"scorer": {"uri": world.path("empty.pt"), "positive": {"above": 1}}}});
    spec["publish"] = json!({"uri": world.path("thickness.pt/out")});
    let problems = world.problems(spec).await;
    let expected = [
        ("generator.uri", "one of them is damaged or out of date"),
        ("feature.scorer.uri", "found the relative path 'models/thickness.pt'"),
        ("evaluate.judge.scorer.uri", "is empty"),
        ("evaluate.features", "there is no file"),
        ("evaluate.reference.uri", "is a folder, expected a file"),
        ("publish.uri", "is a file, expected a folder"),
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for ((path, message), (key, part)) in problems.iter().zip(expected) {
        assert!(path == key && message.contains(part), "{path}: {message}, expected {key}: {part}");
    }
}

#[tokio::test]
async fn descriptions_are_needed_and_must_fit() {
    let world = World::new().await;
    world.describe("vae.safetensors", "scorer", &Digest::of(WEIGHTS).to_string());
    let problems = world.problems(world.spec()).await;
    assert!(problems[0].1.contains("is of the kind scorer, expected generator"), "{problems:?}");
    world.file("vae.safetensors.json", b"{}");
    assert!(world.problems(world.spec()).await[0].1.contains("is no description of a model"));
    fs::remove_file(world.path("vae.safetensors.json")).unwrap();
    let problems = world.problems(world.spec()).await;
    assert!(problems[0].1.contains("safetensors weights need one"), "{problems:?}");
}

#[tokio::test]
async fn what_could_not_be_read_back_is_refused() {
    let world = World::new().await;
    let mut spec = JobSpec::from_value(world.spec()).unwrap();
    spec.generator.output.range = [0.0, f64::INFINITY];
    let error = check(&spec, &world.artifacts).await.unwrap_err();
    assert!(error.to_string().contains("not finite"), "{error}");
    let mut spec = JobSpec::from_value(world.spec()).unwrap();
    spec.evaluate.space = "x".repeat(RECORD_BYTES);
    let error = check(&spec, &world.artifacts).await.unwrap_err();
    assert!(error.to_string().contains("expected at most"), "{error}");
}

#[tokio::test]
async fn an_artifact_root_that_takes_nothing_is_no_fault_of_the_spec() {
    let world = World::new().await;
    fs::remove_dir(world.folder.path().join("root")).unwrap();
    world.file("root", b"a file now");
    let spec = JobSpec::from_value(world.spec()).unwrap();
    let Err(Refusal::Failure(failure)) = check(&spec, &world.artifacts).await else {
        panic!("it was accepted")
    };
    assert_eq!(failure.code, ErrorCode::Storage);
    assert!(failure.message.contains("artifact root cannot take results"), "{failure}");
}

#[tokio::test]
async fn what_every_file_holds_is_written_down_and_a_change_is_noticed() {
    let world = World::new().await;
    world.copy("examples/mnist/models/features.pt", "features.pt");
    // Its description says ten classes, and no one of them is asked for.
    world.copy("examples/mnist/models/classifier.pt", "classifier.pt");
    world.copy("examples/mnist/models/classifier.pt.json", "classifier.pt.json");
    world.tensor("real.safetensors", "images", "U8", &[2, 1, 28, 28], 2 * 28 * 28);
    let mut spec = world.spec();
    spec["evaluate"] = json!({"features": world.path("features.pt"), "reference": {"uri": world.path("real.safetensors")},
        "judge": {"scorer": {"uri": world.path("thickness.pt"), "positive": {"above": 1}}},
        "classifier": {"uri": world.path("classifier.pt"), "output": "logits"}});
    let inputs = check(&JobSpec::from_value(spec).unwrap(), &world.artifacts).await.unwrap();
    let bytes = |name: &str| fs::read(world.path(name)).unwrap();
    for (role, name) in [
        (InputRole::Generator, "vae.safetensors"),
        (InputRole::Sidecar, "vae.safetensors.json"),
        (InputRole::Labeller, "thickness.pt"),
        (InputRole::Judge, "thickness.pt"),
        (InputRole::Classifier, "classifier.pt"),
        (InputRole::Features, "features.pt"),
        (InputRole::Reference, "real.safetensors"),
    ] {
        let Input { uri, sha256, size } = inputs.get(role).unwrap();
        assert_eq!((uri, *size), (&world.path(name), bytes(name).len() as u64), "{role}");
        assert_eq!(*sha256, Digest::of(&bytes(name)).to_string(), "{role}");
    }
    assert_eq!(inputs.0.len(), 7);
    assert_eq!(changed(&inputs).await, Ok(None));
    world.file("features.pt", b"FEATURES");
    assert_eq!(changed(&inputs).await.unwrap().unwrap().0, InputRole::Features);
}

#[tokio::test]
async fn what_is_no_model_is_refused_by_what_it_holds() {
    let world = World::new().await;
    let fixture = |name: &str| format!("crates/models/tests/fixtures/{name}");
    let script = fs::read(world.path("thickness.pt")).unwrap();
    type Writes<'a> = &'a dyn Fn(&str);
    let cases: [(Writes<'_>, &str); 6] = [
        (
            &|name| world.file(name, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "git lfs pull",
        ),
        (&|name| world.file(name, b"<!DOCTYPE html><title>Sign in</title>"), "is a web page"),
        (
            &|name| world.copy(&fixture("broken_pickled_module.pt"), name),
            "convert it with `python tools/export --kind",
        ),
        (&|name| world.copy(&fixture("broken_no_forward.pt"), name), "without the method forward"),
        (
            &|name| world.copy("examples/mnist/models/vae.safetensors", name),
            "is safetensors, not TorchScript",
        ),
        (&|name| world.file(name, &script[..script.len() / 2]), "was cut off"),
    ];
    for (make, words) in cases {
        make("model.pt");
        let mut spec = world.spec();
        spec["generator"]["uri"] = json!(world.path("model.pt"));
        spec["generator"]["format"] = json!("torchscript");
        spec["feature"]["scorer"]["uri"] = json!(world.path("model.pt"));
        spec["evaluate"] = json!({"features": world.path("model.pt"),
            "judge": {"scorer": {"uri": world.path("model.pt"), "positive": {"above": 1}}},
            "classifier": {"uri": world.path("model.pt"), "output": "logits"}});
        let problems = world.problems(spec).await;
        let keys: Vec<&str> = problems.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "generator.uri",
                "feature.scorer.uri",
                "evaluate.judge.scorer.uri",
                "evaluate.classifier.uri",
                "evaluate.features"
            ]
        );
        for (key, message) in &problems {
            assert!(
                message.contains(words) && message.contains("model.pt"),
                "{key}: {message}, expected {words}"
            );
        }
    }
}

#[tokio::test]
async fn safetensors_that_were_cut_off_are_refused() {
    let world = World::new().await;
    let whole =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/mnist/models/vae.safetensors"))
            .unwrap();
    let half = &whole[..whole.len() / 2];
    world.file("vae.safetensors", half);
    world.describe("vae.safetensors", "generator", &Digest::of(half).to_string());
    let problems = world.problems(world.spec()).await;
    assert!(problems[0].1.contains("its header says") && problems[0].1.contains("cut off"), "{problems:?}");
}

#[tokio::test]
async fn a_sidecar_that_contradicts_the_spec_is_told_key_by_key() {
    let world = World::new().await;
    let sidecar = json!({"schema_version": 1, "kind": "generator", "format": "safetensors",
        "sha256": Digest::of(WEIGHTS).to_string(), "latent": {"shape": [20], "prior": {"uniform": [-1, 1]}},
        "output": {"range": [0, 1], "channels": 3, "height": 28, "width": 28}});
    world.file("vae.safetensors.json", sidecar.to_string().as_bytes());
    let problems = world.problems(world.spec()).await;
    let expected = [
        ("generator.prior", "found normal, but ", "says uniform: [-1, 1]"),
        ("generator.output.channels", "found 1, but ", "says 3"),
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for ((path, message), (key, found, said)) in problems.iter().zip(expected) {
        assert!(path == key && message.starts_with(found) && message.ends_with(said), "{path}: {message}");
    }
}

#[tokio::test]
async fn a_class_that_the_classifier_does_not_have_is_refused() {
    let world = World::new().await;
    world.copy("crates/models/tests/fixtures/classifier.pt", "c.pt");
    world.copy("crates/models/tests/fixtures/classifier.pt.json", "c.pt.json");
    for (class, words) in [(json!(3), "found class 3, but"), (Value::Null, "which one is the feature?")] {
        let mut spec = world.spec();
        spec["feature"] = json!({"name": "f", "classifier": {"uri": world.path("c.pt"), "output": "logits", "class": class}});
        let problems = world.problems(spec).await;
        assert!(problems[0].0 == "feature.classifier.uri" && problems[0].1.contains(words), "{problems:?}");
    }
}

#[tokio::test]
async fn a_calibration_has_a_label_for_each_image() {
    let world = World::new().await;
    let mut spec = world.spec();
    spec["direction"] = json!({"calibration": {"uri": world.path("known.safetensors")}});
    for (labels, words) in [
        (json!({"dtype": "U8", "shape": [3], "data_offsets": [2352, 2355]}), ""),
        (json!({"dtype": "BOOL", "shape": [3], "data_offsets": [2352, 2355]}), ""),
        (Value::Null, "has no tensor labels, expected [3] of U8 or BOOL, one for each image"),
        (
            json!({"dtype": "U8", "shape": [1, 3], "data_offsets": [2352, 2355]}),
            "holds labels [1, 3] of U8, expected [3]",
        ),
        (
            json!({"dtype": "I8", "shape": [3], "data_offsets": [2352, 2355]}),
            "holds labels [3] of I8, expected [3]",
        ),
    ] {
        let images = json!({"dtype": "U8", "shape": [3, 1, 28, 28], "data_offsets": [0, 2352]});
        let mut header = json!({"images": images});
        let mut bytes = 2352;
        if !labels.is_null() {
            header["labels"] = labels;
            bytes += 3;
        }
        world.tensors("known.safetensors", &header, bytes);
        let problems = world.problems(spec.clone()).await;
        if words.is_empty() {
            assert_eq!(problems, vec![]);
            let inputs = check(&JobSpec::from_value(spec.clone()).unwrap(), &world.artifacts).await.unwrap();
            assert_eq!(inputs.get(InputRole::Calibration).unwrap().uri, world.path("known.safetensors"));
        } else {
            assert!(
                problems[0].0 == "direction.calibration.uri" && problems[0].1.contains(words),
                "{problems:?}"
            );
        }
    }
}

#[tokio::test]
async fn each_of_several_classifiers_is_looked_at_under_its_place() {
    let world = World::new().await;
    for name in ["c.pt", "d.pt"] {
        world.copy("crates/models/tests/fixtures/classifier.pt", name);
        world.copy("crates/models/tests/fixtures/classifier.pt.json", &format!("{name}.json"));
    }
    let spec = |class: i64| {
        let one =
            |name: &str, class: i64| json!({"uri": world.path(name), "output": "logits", "class": class});
        let mut spec = world.spec();
        spec["feature"] = json!({"name": "f", "classifiers": [one("c.pt", 0), one("d.pt", class)]});
        spec
    };
    let problems = world.problems(spec(3)).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    let (key, message) = &problems[0];
    assert!(key == "feature.classifiers.1.uri" && message.contains("found class 3, but"), "{problems:?}");
    let inputs = check(&JobSpec::from_value(spec(2)).unwrap(), &world.artifacts).await.unwrap();
    for (role, name) in [(InputRole::Labeller, "c.pt"), (InputRole::Labeller2, "d.pt")] {
        assert_eq!(inputs.get(role).unwrap().uri, world.path(name));
    }
    world.file("d.pt", b"<!DOCTYPE html><title>Sign in</title>");
    let problems = world.problems(spec(2)).await;
    assert!(
        problems[0].0 == "feature.classifiers.1.uri" && problems[0].1.contains("is a web page"),
        "{problems:?}"
    );
}

#[tokio::test]
async fn a_reference_has_images_of_the_generators_shape() {
    let world = World::new().await;
    for (tensor, dtype, shape, words) in [
        ("pictures", "U8", [2, 1, 28, 28], "has no tensor images"),
        ("images", "U8", [2, 3, 28, 28], "holds images [2, 3, 28, 28] of U8, expected [N, 1, 28, 28]"),
        ("images", "F64", [2, 1, 28, 28], "of F64, expected"),
        ("images", "F32", [1, 1, 28, 28], "N at least 2"),
    ] {
        world.tensor("real.safetensors", tensor, dtype, &shape, 16);
        let mut spec = world.spec();
        world.copy("examples/mnist/models/features.pt", "features.pt");
        spec["evaluate"] = json!({"features": world.path("features.pt"), "reference": {"uri": world.path("real.safetensors")}});
        let problems = world.problems(spec).await;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].0 == "evaluate.reference.uri" && problems[0].1.contains(words), "{problems:?}");
    }
}
