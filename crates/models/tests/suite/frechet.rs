//! The Frechet distance, against values computed elsewhere.

use lethe_models::{Error, Moments, Tensors, frechet_distance};
use tch::{Device, Kind, Tensor};

use crate::fixture::reference;

fn moments(vectors: &Tensor) -> Moments {
    let mut moments = Moments::new(vectors.size()[1]);
    moments.add(vectors).unwrap();
    moments
}

#[test]
fn distances_agree_with_scipy() {
    let reference = reference("frechet");
    // The singular case has sqrtm's own error: it needs a ridge of 1e-13.
    for (name, tolerance) in [("full", 1e-9), ("singular", 1e-5), ("line", 1e-9)] {
        let of = |part: &str| moments(reference.get(&format!("{name}.{part}")).unwrap());
        let expected = reference.get_f64(&format!("{name}.distance")).unwrap();
        for (a, b) in [("one", "other"), ("other", "one")] {
            let found = frechet_distance(&of(a), &of(b)).unwrap();
            assert!((found - expected).abs() < tolerance * expected, "{name}: {found}, scipy {expected}");
        }
        let itself = frechet_distance(&of("one"), &of("one")).unwrap();
        assert!(itself < 1e-6, "{name}: {itself}");
    }
}

#[test]
fn a_shift_alone_is_its_square() {
    let vectors = Tensor::randn([500, 6], (Kind::Double, Device::Cpu));
    let distance = frechet_distance(&moments(&vectors), &moments(&(&vectors + 2.0))).unwrap();
    assert!((distance - 24.0).abs() < 1e-8, "{distance}");
}

#[test]
fn merged_and_stored_moments_are_those_of_all() {
    let vectors = Tensor::randn([31, 4], (Kind::Float, Device::Cpu));
    let mut merged = moments(&vectors.narrow(0, 0, 10));
    merged.merge(&moments(&vectors.narrow(0, 10, 21))).unwrap();
    let mut file = Tensors::new("shard");
    file.nest("after", merged.to_tensors());
    let stored = Tensors::from_bytes(&file.to_bytes().unwrap(), "shard").unwrap();
    let merged = Moments::from_tensors(&stored.nested("after")).unwrap();
    assert_eq!(merged.count(), 31);

    let mut kept = Moments::new(4);
    let keep: Vec<bool> = (0..31).map(|place| place % 3 == 0).collect();
    kept.add_where(&vectors, &keep).unwrap();
    kept.add_where(&vectors, &keep.iter().map(|keep| !keep).collect::<Vec<_>>()).unwrap();
    kept.add_where(&vectors, &[false; 31]).unwrap();

    let (mean, covariance) = moments(&vectors).gaussian().unwrap();
    let exact = vectors.to_kind(Kind::Double);
    assert!(
        crate::fixture::distance(&mean, &exact.mean_dim([0_i64].as_slice(), false, Kind::Double)) < 1e-12
    );
    assert!(
        crate::fixture::distance(&covariance, &exact.transpose(0, 1).cov(1, None::<Tensor>, None::<Tensor>))
            < 1e-12
    );
    for other in [&merged, &kept] {
        let (m, c) = other.gaussian().unwrap();
        assert!(
            crate::fixture::distance(&m, &mean) < 1e-12 && crate::fixture::distance(&c, &covariance) < 1e-12
        );
    }
}

#[test]
fn one_image_and_other_lengths_are_refused() {
    let one = moments(&Tensor::ones([1, 3], (Kind::Float, Device::Cpu)));
    assert!(matches!(frechet_distance(&one, &one), Err(Error::Mismatch { .. })));
    let two = moments(&Tensor::ones([2, 4], (Kind::Float, Device::Cpu)));
    assert!(frechet_distance(&one, &two).unwrap_err().to_string().contains("length 3"));
    let nan = moments(&Tensor::full([2, 3], f64::NAN, (Kind::Float, Device::Cpu)));
    assert!(matches!(frechet_distance(&nan, &nan), Err(Error::NotFinite { .. })));
}
