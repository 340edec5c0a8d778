//! TorchScript modules as people export them: shared, cut and narrow weights, and modules that are no functions
//! (`tests/reference/scripts.py`).

use std::path::PathBuf;

use lethe_domain::spec::{
    self, Classifier, ClassifierOutput, Generator as Spec, ModelFormat, Positive, Scorer,
};
use lethe_domain::{ErrorCode, Failure};
use lethe_models::{Exported, Features, Generator, GeneratorFile, Labeller, Tensors};
use tch::{Device, Kind, Tensor};

use crate::fixture::{distance, model, reference, same, spec};

fn path(name: &str) -> PathBuf {
    model(&format!("../reference/scripts/{name}.pt"))
}

fn small() -> Spec {
    spec(ModelFormat::TorchScript, 4, [1, 8, 8], [0.0, 1.0])
}

fn open(name: &str) -> GeneratorFile {
    let mut spec = small();
    if name == "unbounded" {
        spec.output.range = [-1.2, 1.2];
    }
    GeneratorFile::open(&path(name), &spec).unwrap()
}

fn frozen(name: &str) -> Generator {
    open(name).frozen(Device::Cpu).unwrap()
}

fn trainable(name: &str) -> Generator {
    open(name).trainable(Device::Cpu).unwrap()
}

fn expected() -> Tensors {
    reference("scripts/expected")
}

fn z() -> Tensor {
    expected().get("z").unwrap().shallow_clone()
}

const SOUND: [&str; 13] = [
    "plain",
    "aliased",
    "twice",
    "tied",
    "cut",
    "halves",
    "mixed",
    "half",
    "double",
    "gives_half",
    "flat",
    "unbounded",
    "copied",
];

#[test]
fn images_are_those_of_pytorch_in_single_precision() {
    for name in SOUND {
        let images = frozen(name).check_function(&z()).unwrap();
        assert_eq!(
            (images.kind(), images.size().as_slice()),
            (Kind::Float, [64, 1, 8, 8].as_slice()),
            "{name}"
        );
        let off = distance(&images, &expected().get(name).unwrap().view([64, 1, 8, 8]));
        assert!(off < 1e-5, "{name}: {off}");
    }
    for (name, of) in [("half_without_casts", "half"), ("double_without_casts", "double")] {
        let off = distance(&frozen(name).check_function(&z()).unwrap(), expected().get(of).unwrap());
        assert!(off < 1e-3, "{name}: {off}");
    }
}

#[test]
fn a_module_that_writes_to_its_input_writes_to_a_copy() {
    let z = z();
    let images = frozen("in_place").check_function(&z).unwrap();
    assert!(same(&z, expected().get("z").unwrap()));
    assert!(same(&images, &frozen("copied").forward(&z).unwrap()));
}

/// The gradients of a loss of this size, by name.
fn gradients(copy: &Generator, size: f64) -> Vec<(String, Tensor)> {
    let loss = copy.forward(&z()).unwrap().square().mean(Kind::Float) * size;
    loss.backward();
    copy.parameters().iter().map(|(name, weight)| (name.clone(), weight.grad())).collect()
}

#[test]
fn shared_and_cut_weights_are_trained_once_and_like_any_other() {
    for (name, like) in [("aliased", "plain"), ("cut", "plain"), ("tied", "twice")] {
        let (found, wanted) = (gradients(&trainable(name), 1.0), gradients(&trainable(like), 1.0));
        assert_eq!(found.len(), 6, "{name}");
        for ((one, found), (other, wanted)) in found.iter().zip(&wanted) {
            assert_eq!(one, other, "{name}");
            assert!(found.is_contiguous() && same(found, wanted), "{name}: {one}");
        }
    }
    // Seven, as two halves of one matrix are two weights.
    let halves = gradients(&trainable("halves"), 1.0);
    assert_eq!(halves.len(), 8);
    assert!(halves.iter().all(|(_, gradient)| gradient.defined()));
}

#[test]
fn weights_of_every_precision_are_trained_in_single_precision() {
    // The gradient of a pixel of a large batch of large images is 1e-7: nothing in f16.
    for size in [1.0, 1e-3] {
        let wanted = gradients(&trainable("plain"), size);
        for (name, allowed) in [
            ("double", 1e-4),
            ("double_without_casts", 1e-4),
            ("mixed", 0.1),
            ("half", 0.02),
            ("half_without_casts", 0.02),
            ("gives_half", 0.02),
        ] {
            let found = gradients(&trainable(name), size);
            assert_eq!(found.len(), wanted.len(), "{name}");
            for ((weight, found), (_, wanted)) in found.iter().zip(&wanted) {
                assert_eq!(found.kind(), Kind::Float);
                let off = distance(found, wanted) / wanted.abs().max().double_value(&[]);
                assert!(off < allowed, "{name}, {weight}, {size}: {off}");
            }
        }
    }
}

#[test]
fn a_published_module_keeps_its_precision_its_ties_and_what_is_frozen() {
    for name in
        ["mixed", "half", "double", "half_without_casts", "aliased", "tied", "cut", "halves", "frozen_layer"]
    {
        let file = open(name);
        let copy = file.trainable(Device::Cpu).unwrap();
        for (_, weight) in copy.parameters() {
            let _ = weight.detach().g_add_(&(weight.detach().randn_like() * 0.05));
        }
        let state = Tensors::from_bytes(&copy.state().to_bytes().unwrap(), "weights").unwrap();
        let Exported { model, sidecar } = file.export(&state, "a test").unwrap();
        let published = GeneratorFile::new("published.pt", model.clone(), Some(&sidecar), &small()).unwrap();

        // What is evaluated is what is published, bit for bit.
        let used = file.frozen_with(&state, Device::Cpu).unwrap().forward(&z()).unwrap();
        let images = published.frozen(Device::Cpu).unwrap().forward(&z()).unwrap();
        assert!(same(&images, &used), "{name}");
        assert!(!same(&images, &file.frozen(Device::Cpu).unwrap().forward(&z()).unwrap()), "{name}");
        let off = distance(&images, &tch::no_grad(|| copy.forward(&z()).unwrap()));
        assert!(off < 0.05, "{name}: {off}");

        let again = published.trainable(Device::Cpu).unwrap();
        assert_eq!(again.parameters().len(), copy.parameters().len(), "{name}");
        assert_eq!(again.untrained(), copy.untrained(), "{name}");
        let kinds = |bytes: &[u8]| {
            let module = tch::CModule::load_data(&mut std::io::Cursor::new(bytes)).unwrap();
            let mut kinds: Vec<_> = module
                .named_parameters()
                .unwrap()
                .into_iter()
                .map(|(name, weight)| (name, weight.kind()))
                .collect();
            kinds.sort_by(|a, b| a.0.cmp(&b.0));
            kinds
        };
        assert_eq!(kinds(&model), kinds(&std::fs::read(path(name)).unwrap()), "{name}");
    }
}

#[test]
fn what_the_file_freezes_stays_and_is_named() {
    let copy = trainable("frozen_layer");
    let names: Vec<_> = copy.parameters().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["l1.weight", "l1.bias", "l2.weight", "l2.bias"]);
    assert_eq!(copy.untrained(), ["l0.weight", "l0.bias"]);
    // A module that was only ever used says nothing about what may be trained.
    let copy = trainable("frozen");
    assert_eq!((copy.parameters().len(), copy.untrained().len()), (6, 0));
}

#[test]
fn weights_that_cannot_be_trained_alone_are_refused_by_name() {
    for (name, words) in [
        ("overlapping", ["l1.weight and l3.weight are different views", "clone()"]),
        ("transposed", ["l1.weight and l3.weight are different views", "clone()"]),
        ("complex", ["phase has the dtype complex64", "which Lethe does not use"]),
    ] {
        let error = open(name).trainable(Device::Cpu).unwrap_err();
        assert_eq!(error.code(), ErrorCode::BadModel, "{error}");
        assert!(words.iter().all(|words| error.to_string().contains(words)), "{error}");
    }
}

#[test]
fn modules_that_libtorch_does_not_run_here_are_refused_with_what_to_do() {
    for (name, message, hint) in [
        ("operator", "uses the operator torchvision::sigmoid", "PyTorch's own operators"),
        ("newer", "was written by a PyTorch newer than this libtorch (2.", "or an older one"),
        ("on_a_gpu", "forward failed on an input of shape [64, 4]", "trace it on the cpu"),
        ("gives_complex", "it gives numbers of type complex64", "in single precision"),
    ] {
        let failure =
            open(name).frozen(Device::Cpu).and_then(|generator| generator.forward(&z())).unwrap_err();
        let failure = Failure::from(failure);
        assert_eq!(failure.code, ErrorCode::BadModel, "{failure}");
        assert!(failure.message.contains(message), "{failure}");
        assert!(failure.hint.contains(hint), "{}", failure.hint);
    }
}

#[test]
fn what_is_no_function_of_its_input_is_refused() {
    for (name, words) in [
        ("noise", "the same input gives outputs that differ"),
        ("dropped", "the same input gives outputs that differ"),
        ("normed", "changes its own buffer norm."),
        ("stateful", "changes its own buffer average"),
        ("centred", "depends on the batch around it"),
        ("fixed_batch", "takes a batch of 64 but not one of 1"),
    ] {
        let failure = Failure::from(frozen(name).check_function(&z()).unwrap_err());
        assert_eq!(failure.code, ErrorCode::BadModel, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
        assert!(failure.hint.contains("module.eval()"), "{}", failure.hint);
    }
}

fn classifier(name: &str, output: ClassifierOutput) -> Labeller {
    let class = (name != "sigmoid" && name != "score").then_some(1);
    let spec = Classifier { uri: name.to_owned(), output, class, threshold: 0.5 };
    Labeller::open(spec::Labeller::Classifier(&spec), &path(name), Device::Cpu).unwrap()
}

fn plain_images() -> Tensor {
    expected().get("plain").unwrap().shallow_clone()
}

#[test]
fn probabilities_declared_as_logits_are_refused() {
    for name in ["softmax", "sigmoid"] {
        let error = classifier(name, ClassifierOutput::Logits).check(&plain_images()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::SpecMismatch);
        assert!(error.to_string().contains("is it probability?"), "{error}");
        classifier(name, ClassifierOutput::Probability).check(&plain_images()).unwrap();
    }
    for name in ["eyes", "score"] {
        classifier(name, ClassifierOutput::Logits).check(&plain_images()).unwrap();
        let error = classifier(name, ClassifierOutput::Probability).check(&plain_images()).unwrap_err();
        assert!(error.to_string().contains("is it logits?"), "{error}");
    }
    // A few images say little.
    classifier("sigmoid", ClassifierOutput::Logits).check(&plain_images().narrow(0, 0, 3)).unwrap();
}

#[test]
fn labellers_of_any_precision_see_the_same() {
    let logits = expected().get("eyes").unwrap().to_kind(Kind::Double);
    let wanted = Vec::<f64>::try_from((logits.select(1, 1) - logits.select(1, 0)).contiguous()).unwrap();
    for (name, allowed) in [("eyes", 1e-4), ("double_eyes", 1e-4), ("half_eyes", 0.1)] {
        let labeller = classifier(name, ClassifierOutput::Logits);
        labeller.check(&plain_images()).unwrap();
        let scores = labeller.scores(&plain_images()).unwrap();
        let off = scores.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < allowed, "{name}: {off}");
    }
}

#[test]
fn who_looks_at_images_leaves_them_as_they_are() {
    let images = plain_images();
    classifier("writing_eyes", ClassifierOutput::Logits).check(&images).unwrap();
    assert!(same(&images, &plain_images()));
}

#[test]
fn labellers_and_features_that_are_no_functions_are_refused() {
    for (name, words) in [("dropped_eyes", "outputs that differ"), ("normed_eyes", "")] {
        let images = plain_images();
        let scorer = Scorer { uri: name.to_owned(), positive: Positive::Top(0.1) };
        let refusals = [
            classifier(name, ClassifierOutput::Logits).check(&images).unwrap_err(),
            Features::open(&path(name), Device::Cpu).unwrap().check(&images).unwrap_err(),
            Labeller::open(spec::Labeller::Scorer(&scorer), &path(name), Device::Cpu)
                .unwrap()
                .check(&images)
                .unwrap_err(),
        ];
        for error in refusals {
            assert!(error.to_string().contains("is no function of its input"), "{name}: {error}");
            assert!(error.to_string().contains(words), "{name}: {error}");
        }
    }
}
