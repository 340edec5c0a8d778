//! Which images changed their class, where the classifier was sure.

use std::path::{Path, PathBuf};

use lethe_domain::ErrorCode;
use lethe_domain::spec::{self, Classifier, ClassifierOutput};
use lethe_models::{Classes, Labeller, RawModel, Tensors};
use tch::{Device, Kind, Tensor};

use crate::fixture::{model, values};

fn open(path: PathBuf, output: ClassifierOutput) -> Classes {
    let spec = spec::Classes { uri: "classifier".to_owned(), output };
    Classes::new(&spec, RawModel::read(&path).unwrap(), Device::Cpu).unwrap()
}

/// The log-odds of a class, as the labeller gives them.
fn log_odds(path: &Path, output: ClassifierOutput, class: Option<i64>, images: &Tensor) -> Vec<f64> {
    let spec = Classifier { uri: "classifier".to_owned(), output, class, threshold: 0.5 };
    let labeller = Labeller::open(spec::Labeller::Classifier(&spec), path, Device::Cpu).unwrap();
    labeller.scores(images).unwrap()
}

/// What must come out for images compared with the next ones: from each image's most probable class and its log-odds.
fn expected(seen: &[(usize, f64)]) -> Vec<Option<bool>> {
    let next = seen.iter().cycle().skip(1);
    let changed = |((class, odds), (now, _)): (&(usize, f64), &(usize, f64))| {
        (*odds > 9_f64.ln()).then_some(class != now)
    };
    seen.iter().zip(next).map(changed).collect()
}

fn assert_changed(classes: &Classes, images: &Tensor, expected: &[Option<bool>]) {
    let changed = values(&classes.changed(images, &images.roll([-1], [0])).unwrap());
    let found: Vec<Option<bool>> =
        changed.into_iter().map(|value| (!value.is_nan()).then_some(value == 1.0)).collect();
    assert_eq!(found, expected);
    for answer in [None, Some(false), Some(true)] {
        assert!(found.contains(&answer), "no image is a case of {answer:?}");
    }
}

#[test]
fn a_class_counts_as_changed_where_the_classifier_was_sure() {
    let mnist = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/mnist");
    let path = mnist.join("models/classifier.pt");
    let bytes = std::fs::read(mnist.join("data/test.safetensors")).unwrap();
    let digits = Tensors::from_bytes(&bytes, "test").unwrap().get("images").unwrap().narrow(0, 0, 200);
    // Of pale digits it is not sure.
    let paleness = Tensor::arange(200, (Kind::Float, Device::Cpu)).remainder(4).view([200, 1, 1, 1]) / 4;
    let images = digits.to_kind(Kind::Float) / 255 * (1 - paleness);
    let of = |class| log_odds(&path, ClassifierOutput::Logits, Some(class), &images);
    let columns: Vec<Vec<f64>> = (0..10).map(of).collect();
    let most = |place: usize| {
        let odds = columns.iter().map(|column| column[place]).enumerate();
        odds.max_by(|one, other| one.1.total_cmp(&other.1)).unwrap()
    };
    let seen: Vec<(usize, f64)> = (0..200).map(most).collect();
    assert_changed(&open(path, ClassifierOutput::Logits), &images, &expected(&seen));
}

#[test]
fn one_number_tells_two_classes_apart() {
    let path = model("../reference/scripts/sigmoid.pt");
    // No pixels, but it answers either way, and is sure of half of them.
    let images = Tensor::randn([64, 1, 8, 8], (Kind::Float, Device::Cpu)) * 3;
    let odds = log_odds(&path, ClassifierOutput::Probability, None, &images);
    let seen: Vec<(usize, f64)> = odds.iter().map(|odds| (usize::from(*odds > 0.0), odds.abs())).collect();
    assert_changed(&open(path, ClassifierOutput::Probability), &images, &expected(&seen));
}

#[test]
fn outputs_that_are_not_what_was_said_are_refused() {
    let check = |name: &str, output, side| {
        let images = Tensor::rand([32, 1, side, side], (Kind::Float, Device::Cpu));
        open(model(name), output).check(&images)
    };
    check("classifier.pt", ClassifierOutput::Logits, 12).unwrap();
    for (name, output, side, words) in [
        ("classifier.pt", ClassifierOutput::Probability, 12, "is it logits?"),
        ("../reference/scripts/softmax.pt", ClassifierOutput::Logits, 8, "is it probability?"),
        ("../reference/scripts/sigmoid.pt", ClassifierOutput::Logits, 8, "is it probability?"),
    ] {
        let error = check(name, output, side).unwrap_err();
        assert!(error.code() == ErrorCode::SpecMismatch && error.to_string().contains(words), "{error}");
    }
}
