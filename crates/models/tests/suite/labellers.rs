//! Classifiers, scorers and features: their numbers are those of PyTorch.

use lethe_domain::ErrorCode;
use lethe_domain::spec::{self, Classifier, ClassifierOutput, Positive, Scorer};
use lethe_models::{Error, Features, Labeller};
use tch::{Device, Kind, Tensor};

use crate::fixture::{distance, expected, model, values};

fn classifier(output: ClassifierOutput, class: Option<i64>) -> Classifier {
    Classifier { uri: "classifier.pt".to_owned(), output, class, threshold: 0.3 }
}

fn open(spec: &Classifier) -> lethe_models::Result<Labeller> {
    Labeller::open(spec::Labeller::Classifier(spec), &model("classifier.pt"), Device::Cpu)
}

#[test]
fn scores_are_the_log_odds_of_pytorchs_logits() {
    let expected = expected("classifier");
    let probabilities = expected.get("outputs").unwrap().softmax(1, Kind::Double);
    let log_odds = probabilities.logit(None::<f64>);
    for class in 0..3 {
        let labeller = open(&classifier(ClassifierOutput::Logits, Some(class))).unwrap();
        let scores = labeller.scores(expected.get("images").unwrap()).unwrap();
        let wanted = values(&log_odds.select(1, class));
        assert!(scores.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{scores:?} {wanted:?}");
    }
}

#[test]
fn a_score_does_not_depend_on_the_batch_around_it() {
    let labeller = open(&classifier(ClassifierOutput::Logits, Some(1))).unwrap();
    let images = Tensor::rand([33, 1, 12, 12], (Kind::Float, Device::Cpu));
    let whole = labeller.scores(&images).unwrap();
    for (size, start) in [(1, 4), (7, 9), (20, 13)] {
        let part = labeller.scores(&images.narrow(0, start, size)).unwrap();
        assert!(part.iter().zip(&whole[start as usize..]).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

#[test]
fn the_score_of_several_is_the_mean_of_theirs_each_less_its_threshold() {
    let images = Tensor::rand([9, 1, 12, 12], (Kind::Float, Device::Cpu));
    let of = |class, threshold| Classifier { threshold, ..classifier(ClassifierOutput::Logits, Some(class)) };
    let specs = [of(0, 0.3), of(2, 0.6), of(1, 0.5)];
    let alone: Vec<Vec<f64>> =
        specs.iter().map(|spec| open(spec).unwrap().scores(&images).unwrap()).collect();
    for count in [2, 3] {
        let members = specs[..count].iter().map(|spec| (open(spec).unwrap(), spec.cut().threshold));
        let together = Labeller::together(members);
        let (scores, _) = together.look(&images).unwrap();
        assert_eq!(scores.together, together.scores(&images).unwrap());
        for (image, score) in scores.together.iter().enumerate() {
            let less: Vec<f64> =
                (0..count).map(|place| alone[place][image] - specs[place].cut().threshold).collect();
            assert!((score - less.iter().sum::<f64>() / count as f64).abs() < 1e-9, "{score} {less:?}");
            assert!((0..count).all(|place| (scores.each[place][image] - less[place]).abs() < 1e-9));
        }
    }
    let one = Labeller::together([(open(&specs[0]).unwrap(), specs[0].cut().threshold)]);
    let (scores, _) = one.look(&images).unwrap();
    assert_eq!((scores.together, scores.each), (alone[0].clone(), vec![]), "one alone stays as it is");

    let error = Labeller::open(spec::Labeller::Classifiers(&specs), &model("classifier.pt"), Device::Cpu);
    assert!(error.unwrap_err().to_string().contains("3 models, each of which has a file of its own"));
}

#[test]
fn each_of_several_is_looked_at_and_named_where_it_is_not_what_the_spec_says() {
    let good = classifier(ClassifierOutput::Logits, Some(0));
    let bad = classifier(ClassifierOutput::Probability, Some(0));
    let together = Labeller::together([&good, &bad].map(|spec| (open(spec).unwrap(), 0.0)));
    let images = expected("classifier");
    for error in [
        together.check(images.get("images").unwrap()).unwrap_err(),
        together.scores(images.get("images").unwrap()).unwrap_err(),
    ] {
        let said = error.to_string();
        assert!(said.contains("classifier.pt") && said.contains("is it logits?"), "{said}");
    }
}

#[test]
fn a_wrong_number_of_outputs_is_refused() {
    // The sidecar says three classes, so this fails before any image is seen.
    let error = open(&classifier(ClassifierOutput::Logits, Some(3))).unwrap_err();
    assert_eq!(error.code(), ErrorCode::SpecMismatch);
    assert!(
        error.to_string().ends_with(
            "gives 3 outputs per image, the job spec says the feature is class 3 (counted from 0)"
        )
    );
    let error = open(&classifier(ClassifierOutput::Logits, None)).unwrap_err();
    assert!(error.to_string().contains("does not say which class is the feature"), "{error}");

    let scorer = Scorer { uri: "classifier.pt".to_owned(), positive: Positive::Below(1.0) };
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("classifier.pt");
    std::fs::copy(model("classifier.pt"), &alone).unwrap();
    let labeller = Labeller::open(spec::Labeller::Scorer(&scorer), &alone, Device::Cpu).unwrap();
    let error = labeller.scores(&Tensor::rand([2, 1, 12, 12], (Kind::Float, Device::Cpu))).unwrap_err();
    assert!(error.to_string().ends_with("gives 3 numbers per image, a scorer gives one"), "{error}");

    // Beside its sidecar the file is known to be no scorer at all.
    let error =
        Labeller::open(spec::Labeller::Scorer(&scorer), &model("classifier.pt"), Device::Cpu).unwrap_err();
    assert!(matches!(error, Error::Sidecar { .. }), "{error}");
}

#[test]
fn logits_declared_as_probabilities_are_refused() {
    let labeller = open(&classifier(ClassifierOutput::Probability, Some(0))).unwrap();
    let error = labeller.scores(expected("classifier").get("images").unwrap()).unwrap_err();
    assert!(error.to_string().contains("is it logits?"), "{error}");
}

#[test]
fn images_of_another_shape_are_refused_in_one_sentence() {
    let labeller = open(&classifier(ClassifierOutput::Logits, Some(0))).unwrap();
    let error = labeller.scores(&Tensor::rand([2, 3, 12, 12], (Kind::Float, Device::Cpu))).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BadModel);
    let message = error.to_string();
    assert!(message.contains("forward failed on an input of shape [2, 3, 12, 12]"), "{message}");
    assert!(message.lines().count() == 1 && !message.contains("frame #"), "{message}");
}

#[test]
fn nan_images_are_not_scored() {
    let labeller = open(&classifier(ClassifierOutput::Logits, Some(0))).unwrap();
    let images = Tensor::full([2, 1, 12, 12], f64::NAN, (Kind::Float, Device::Cpu));
    assert_eq!(labeller.scores(&images).unwrap_err().code(), ErrorCode::NotFinite);
}

#[test]
fn features_are_the_models_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("features.pt");
    std::fs::copy(model("classifier.pt"), &alone).unwrap();
    let expected = expected("classifier");
    let features = Features::open(&alone, Device::Cpu).unwrap();
    let found = features.of(expected.get("images").unwrap()).unwrap();
    assert!(distance(&found, expected.get("outputs").unwrap()) < 1e-5);
}
