//! Where the fixtures are, and the specs that go with them.

use std::fs;
use std::path::PathBuf;

use lethe_domain::spec::{Generator, ImageOutput, Latent, ModelFormat, Prior, Size};
use lethe_models::{GeneratorFile, Tensors};
use tch::{Kind, Tensor};

/// A file made by tools/export.
pub(crate) fn model(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The tensors of a model's expected inputs and outputs.
pub(crate) fn expected(name: &str) -> Tensors {
    read(model(&format!("{name}.expected.safetensors")))
}

/// The tensors of a file made by tests/reference/make.py.
pub(crate) fn reference(name: &str) -> Tensors {
    read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/reference/{name}.safetensors")))
}

fn read(path: PathBuf) -> Tensors {
    Tensors::from_bytes(&fs::read(&path).unwrap(), &path.display().to_string()).unwrap()
}

/// Values of a tensor in row-major order.
pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1).contiguous()).unwrap()
}

/// Largest absolute difference; the shapes must be equal.
pub(crate) fn distance(one: &Tensor, other: &Tensor) -> f64 {
    assert_eq!(one.size(), other.size());
    (one.to_kind(Kind::Double) - other.to_kind(Kind::Double)).abs().max().double_value(&[])
}

/// Whether every bit is equal.
pub(crate) fn same(one: &Tensor, other: &Tensor) -> bool {
    one.size() == other.size() && one.equal(other)
}

/// A generator's spec.
pub(crate) fn spec(format: ModelFormat, latent: i64, shape: [i64; 3], range: [f64; 2]) -> Generator {
    Generator {
        uri: "model".to_owned(),
        format,
        latent: Latent::Dimension(latent),
        prior: Prior::Normal,
        output: ImageOutput {
            range,
            channels: shape[0],
            size: Size::Rectangle([shape[1], shape[2]]),
            clamp: false,
        },
    }
}

/// Every sound generator among the fixtures, with its spec.
pub(crate) fn generators() -> Vec<(&'static str, Generator)> {
    let native = |latent, shape, range| spec(ModelFormat::Safetensors, latent, shape, range);
    vec![
        ("dcgan_1", native(8, [1, 14, 14], [-1.0, 1.0])),
        ("dcgan_3", native(6, [3, 32, 32], [0.0, 1.0])),
        ("mlp_1", native(5, [1, 12, 12], [0.0, 1.0])),
        ("mlp_2", native(4, [3, 6, 8], [-1.0, 1.0])),
        ("mlp_tanh", native(3, [1, 5, 5], [0.0, 1.0])),
        ("conv_1", native(3, [3, 6, 6], [0.0, 1.0])),
        ("conv_2", native(6, [1, 16, 16], [0.0, 1.0])),
        ("flat_generator", spec(ModelFormat::TorchScript, 5, [1, 12, 12], [0.0, 1.0])),
    ]
}

/// Opens one of them.
pub(crate) fn open(name: &str) -> GeneratorFile {
    let (_, spec) = generators().into_iter().find(|(other, _)| *other == name).unwrap();
    let suffix = if spec.format == ModelFormat::TorchScript { "pt" } else { "safetensors" };
    GeneratorFile::open(&model(&format!("{name}.{suffix}")), &spec).unwrap()
}
