//! MS-SSIM and the terms of the loss, against values computed elsewhere.

use lethe_domain::EditMethod;
use lethe_domain::spec::{LossReduction, Unlearn};
use lethe_models::{Loss, Similarity, Tensors};
use tch::{Device, Kind, Tensor};

use crate::fixture::{distance, reference, values};

/// Name, height, width, scales.
const CASES: [(&str, i64, i64, usize); 6] = [
    ("digits", 28, 28, 2),
    ("colour", 64, 48, 3),
    ("odd", 47, 55, 3),
    ("large", 176, 180, 5),
    ("small", 8, 9, 1),
    ("edge", 11, 13, 1),
];

fn image(reference: &Tensors, name: &str) -> Tensor {
    reference.get(name).unwrap().to_kind(Kind::Float) / 255.0
}

#[test]
fn ssim_and_ms_ssim_agree_with_numpy_and_scikit_image() {
    let reference = reference("similarity");
    for (name, height, width, scales) in CASES {
        let similarity = Similarity::new(height, width, Device::Cpu).unwrap();
        assert_eq!(similarity.scales(), scales, "{name}");
        let [x, y] = ["x", "y"].map(|part| image(&reference, &format!("{name}.{part}")));
        let expected = |measure: &str| reference.get(&format!("{name}.{measure}")).unwrap();
        let ssim = similarity.ssim(&x, &y).unwrap();
        assert!(distance(&ssim, expected("ssim")) < 2e-5, "{name}: {ssim:?}");
        let ms_ssim = similarity.ms_ssim(&x, &y).unwrap();
        assert!(distance(&ms_ssim, expected("ms_ssim")) < 2e-5, "{name}: {ms_ssim:?}");
        let itself = similarity.ms_ssim(&x, &x).unwrap();
        assert!(distance(&itself, &itself.ones_like()) < 1e-5, "{name}");
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let reference = reference("similarity");
    for (name, height, width, _) in CASES {
        let similarity = Similarity::new(height, width, Device::Cpu).unwrap();
        let x = image(&reference, &format!("{name}.x")).set_requires_grad(true);
        similarity.ms_ssim(&x, &image(&reference, &format!("{name}.y"))).unwrap().sum(Kind::Float).backward();
        let direction = reference.get(&format!("{name}.direction")).unwrap().to_kind(Kind::Float);
        let slopes = values(&(x.grad() * direction).flatten(1, -1).sum_dim_intlist(1, false, Kind::Double));
        let expected = values(reference.get(&format!("{name}.slope")).unwrap());
        for (found, expected) in slopes.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4 + 1e-3 * expected.abs(), "{name}: {slopes:?} {expected}");
        }
    }
}

#[test]
fn equal_and_opposite_images_have_finite_gradients() {
    let similarity = Similarity::new(28, 28, Device::Cpu).unwrap();
    let blank = Tensor::zeros([1, 1, 28, 28], (Kind::Float, Device::Cpu));
    let noise = Tensor::rand([1, 1, 28, 28], (Kind::Float, Device::Cpu));
    for (one, other) in [(&blank, &blank), (&noise, &(1.0 - &noise)), (&noise, &noise), (&blank, &noise)] {
        let x = one.copy().set_requires_grad(true);
        let value = similarity.ms_ssim(&x, other).unwrap();
        value.sum(Kind::Float).backward();
        assert!(
            value.isfinite().all().int64_value(&[]) == 1 && x.grad().isfinite().all().int64_value(&[]) == 1
        );
    }
}

fn places(edited: &Tensor) -> Tensor {
    edited.nonzero().view([-1])
}

#[test]
fn the_loss_is_the_papers() {
    let reference = reference("loss");
    let [x, y] = ["x", "y"].map(|name| image(&reference, name));
    let edited = reference.get("edited").unwrap();
    let loss_of = |spec: &Unlearn| Loss::new(spec, EditMethod::Gradient, [1, 28, 28], Device::Cpu).unwrap();
    for (reduction, name) in [(LossReduction::Mean, "mean"), (LossReduction::Sum, "sum")] {
        let spec = Unlearn {
            alpha: Some(3.0),
            squares: 0.0,
            contrast: 0.0,
            loss_reduction: reduction,
            ..Unlearn::default()
        };
        let loss = loss_of(&spec);
        let even = |images: &Tensor| Tensor::ones([images.size()[0]], (Kind::Float, Device::Cpu));
        let all = places(edited);
        let found = loss.sum(&x, &y, &all, &even(&x)).unwrap().double_value(&[]);
        let expected = reference.get_f64(name).unwrap();
        assert!((found - expected).abs() < 1e-5 * expected, "{name}: {found}, numpy {expected}");
        // A batch is the sum of its parts, so that ranks may share it out.
        let part = |start: i64, length: i64| {
            let [x, y, edited] = [&x, &y, edited].map(|tensor| tensor.narrow(0, start, length));
            let places = places(&edited);
            loss.sum(&x, &y, &places, &even(&x)).unwrap().double_value(&[])
        };
        assert!((part(0, 2) + part(2, 1) + part(3, 2) - expected).abs() < 1e-5 * expected);
        // Each counts as much as its weight says, edited or not.
        let weights = [2.0_f32, 0.5, 0.0, 1.0, 3.0];
        let weighted = loss.sum(&x, &y, &all, &Tensor::from_slice(&weights)).unwrap().double_value(&[]);
        let by_hand: f64 = (0..).zip(weights).map(|(place, weight)| f64::from(weight) * part(place, 1)).sum();
        assert!((weighted - by_hand).abs() < 1e-5 * by_hand, "{name}: {weighted}, one by one {by_hand}");
        // Squares come to the differences, and count as they do.
        let more = loss_of(&Unlearn { squares: 2.0, ..spec.clone() });
        let squared = (&x - &y).square().flatten(1, -1);
        let squared = match reduction {
            LossReduction::Mean => squared.mean_dim([1_i64].as_slice(), false, Kind::Double),
            LossReduction::Sum => squared.sum_dim_intlist([1_i64].as_slice(), false, Kind::Double),
        };
        let counts = edited.to_kind(Kind::Double) * 2.0 + 1.0;
        let papers = expected;
        let expected = papers + 2.0 * (squared * &counts).sum(Kind::Double).double_value(&[]);
        let found = more.sum(&x, &y, &all, &even(&x)).unwrap().double_value(&[]);
        assert!((found - expected).abs() < 1e-5 * expected, "{name}: {found}, by hand {expected}");
        // So does the difference of standard deviations.
        let more = loss_of(&Unlearn { contrast: 2.0, ..spec.clone() });
        let deviation = |images: &Tensor| images.flatten(1, -1).std_dim(1, false, false);
        let unlike = (deviation(&x) - deviation(&y)).abs().to_kind(Kind::Double);
        let counts = &counts * if reduction == LossReduction::Sum { 784.0 } else { 1.0 };
        let expected = papers + 2.0 * (unlike * counts).sum(Kind::Double).double_value(&[]);
        let found = more.sum(&x, &y, &all, &even(&x)).unwrap().double_value(&[]);
        assert!((found - expected).abs() < 1e-4 * expected, "{name}: {found}, by hand {expected}");
        let nowhere = places(&edited.zeros_like());
        assert_eq!(loss.sum(&x, &x, &nowhere, &even(&x)).unwrap().double_value(&[]), 0.0);
    }
}
