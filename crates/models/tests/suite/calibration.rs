//! Labelled images: which of them count, and what is wrong with a file.

use lethe_domain::ErrorCode;
use lethe_models::{Error, Reference, Tensors};
use tch::{Device, Kind, Tensor};

use crate::fixture::same;

const SHAPE: [i64; 3] = [1, 4, 4];

fn file(images: &Tensor, labels: Option<&Tensor>) -> Vec<u8> {
    let mut tensors = Tensors::new("known");
    tensors.insert("images", images);
    if let Some(labels) = labels {
        tensors.insert("labels", labels);
    }
    tensors.to_bytes().unwrap()
}

/// Ones for the first `positives` of so many images.
fn labels(count: i64, positives: i64) -> Tensor {
    Tensor::arange(count, (Kind::Int64, Device::Cpu)).lt(positives)
}

#[test]
fn the_images_that_are_labelled_are_those_that_count() {
    let images = Tensor::rand([50, 1, 4, 4], (Kind::Float, Device::Cpu));
    let order = Tensor::randperm(50, (Kind::Int64, Device::Cpu));
    let mixed = labels(50, 20).index_select(0, &order);
    let expected = images.index_select(0, &mixed.nonzero().view(-1));
    for labels in [&mixed, &mixed.to_kind(Kind::Uint8)] {
        let found = Reference::labelled(&file(&images, Some(labels)), "known.safetensors", SHAPE).unwrap();
        assert_eq!(found.len(), 20);
        assert!(same(&found.batch(0, 50, Device::Cpu).unwrap(), &expected));
    }
}

#[test]
fn what_is_wrong_with_a_file_of_labels_is_told() {
    let images = Tensor::rand([30, 1, 4, 4], (Kind::Float, Device::Cpu));
    let refused = |labels: Option<&Tensor>| {
        Reference::labelled(&file(&images, labels), "known.safetensors", SHAPE).unwrap_err()
    };
    let few = refused(Some(&labels(30, 19)));
    assert!(matches!(few, Error::FewLabelled { positives: 19, images: 30, needed: 20, .. }), "{few}");
    assert_eq!(few.code(), ErrorCode::InvalidSpec);
    assert!(few.hint().contains("direction.recall"), "{}", few.hint());
    let good = labels(30, 25);
    for (labels, words) in [
        (None, "labels"),
        (Some(labels(29, 25)), "holds labels of shape [29], expected [30], one for each image"),
        (Some(good.view([30, 1])), "holds labels of shape [30, 1], expected [30]"),
        (Some(good.to_kind(Kind::Int64)), "holds labels of the dtype int64, expected uint8 or bool"),
        (Some(good.to_kind(Kind::Uint8) * 3), "holds labels up to 3, expected 0 and 1"),
    ] {
        let error = refused(labels.as_ref()).to_string();
        assert!(error.starts_with("known.safetensors") && error.contains(words), "{error}");
    }
    let other = Reference::labelled(&file(&images, Some(&good)), "known.safetensors", [3, 4, 4]);
    assert!(other.unwrap_err().to_string().contains("holds images of shape [30, 1, 4, 4]"));
}
