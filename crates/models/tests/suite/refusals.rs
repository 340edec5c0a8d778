//! Models and files that are refused, each with what to do.

use lethe_domain::spec::{Generator as Spec, Latent, ModelFormat, Prior};
use lethe_domain::{ErrorCode, Failure};
use lethe_models::{Error, GeneratorFile, Tensors, sha256};
use tch::{Device, Kind, Tensor};

use crate::fixture::{generators, model, open, spec};

fn mlp() -> Spec {
    spec(ModelFormat::Safetensors, 5, [1, 12, 12], [0.0, 1.0])
}

fn script() -> Spec {
    Spec { format: ModelFormat::TorchScript, ..mlp() }
}

fn refusal(name: &str, spec: &Spec) -> Error {
    GeneratorFile::open(&model(name), spec).unwrap_err()
}

#[test]
fn a_truncated_file_is_refused() {
    let error = refusal("broken_truncated.safetensors", &mlp());
    assert!(matches!(error, Error::Digest { .. }), "{error}");
    let bytes = std::fs::read(model("broken_truncated.safetensors")).unwrap();
    let sidecar = description(&bytes, "mlp_1.safetensors");
    let error = GeneratorFile::new("x.safetensors", bytes, Some(&sidecar), &mlp()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BadModel);
    assert!(error.to_string().starts_with("x.safetensors: is truncated or not safetensors"), "{error}");
}

#[test]
fn a_flipped_bit_is_found_by_its_digest() {
    let failure = Failure::from(refusal("broken_bitflip.safetensors", &mlp()));
    assert_eq!(failure.code, ErrorCode::Damaged);
    assert!(failure.hint.contains("export the file again"), "{}", failure.hint);
}

#[test]
fn an_archive_without_forward_is_refused() {
    let file = GeneratorFile::open(&model("broken_no_forward.pt"), &script()).unwrap();
    let error = file.frozen(Device::Cpu).unwrap_err();
    assert!(matches!(error, Error::NoForward { .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::BadModel);
}

#[test]
fn pickles_are_refused_with_the_command_that_converts_them() {
    let zipped = refusal("broken_pickled_module.pt", &script());
    let raw = GeneratorFile::new("old.pth", b"\x80\x02ccollections\n".to_vec(), None, &mlp()).unwrap_err();
    for error in [zipped, raw] {
        assert!(matches!(error, Error::Pickle { .. }), "{error}");
        assert!(error.to_string().contains("python tools/export --kind generator"), "{error}");
    }
}

#[test]
fn damaged_archives_never_reach_a_user_as_a_stack_trace() {
    let whole = std::fs::read(model("flat_generator.pt")).unwrap();
    for end in [0, 3, 100, whole.len() / 2, whole.len() - 1] {
        let file = GeneratorFile::new("half.pt", whole[..end].to_vec(), None, &script());
        let error = file.and_then(|file| file.frozen(Device::Cpu).map(drop)).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.code(), ErrorCode::BadModel, "{message}");
        assert!(message.starts_with("half.pt: is ") && message.lines().count() == 1, "{message}");
    }
    let error = GeneratorFile::new("text.pt", b"hello".to_vec(), None, &script()).unwrap_err();
    assert!(error.to_string().starts_with("text.pt: is text, not a model"), "{error}");
    let error = GeneratorFile::new("zip.safetensors", whole, None, &mlp()).unwrap_err();
    assert!(error.to_string().contains("say format: torchscript"), "{error}");
}

#[test]
fn a_missing_file_is_the_specs_fault() {
    let error = refusal("nowhere.pt", &script());
    assert_eq!(error.code(), ErrorCode::InvalidSpec);
}

/// The sidecar of a fixture, with the digest of other bytes.
fn description(bytes: &[u8], of: &str) -> Vec<u8> {
    let text = std::fs::read(model(&format!("{of}.json"))).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    value["sha256"] = sha256(bytes).into();
    value.to_string().into_bytes()
}

#[test]
fn weights_that_are_not_the_architectures_are_named() {
    let whole = std::fs::read(model("mlp_1.safetensors")).unwrap();
    let mut weights = Tensors::new("w");
    for (name, tensor) in Tensors::from_bytes(&whole, "w").unwrap().iter() {
        match name {
            "layers.0.bias" => weights.insert("layers.0.beta", tensor),
            "layers.1.weight" => weights.insert(name, &tensor.transpose(0, 1)),
            _ => weights.insert(name, tensor),
        }
    }
    let bytes = weights.to_bytes().unwrap();
    let sidecar = description(&bytes, "mlp_1.safetensors");
    let message = GeneratorFile::new("w.safetensors", bytes, Some(&sidecar), &mlp()).unwrap_err().to_string();
    for part in [
        "layers.0.bias is missing",
        "layers.1.weight has shape [16, 144], expected [144, 16]",
        "layers.0.beta is not part of the model",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

/// The weights of mlp_1 in another kind of number, with a sidecar.
fn weights_in(kind: Kind) -> (Vec<u8>, Vec<u8>) {
    let whole = std::fs::read(model("mlp_1.safetensors")).unwrap();
    let mut weights = Tensors::new("w");
    for (name, tensor) in Tensors::from_bytes(&whole, "w").unwrap().iter() {
        weights.insert(name, &tensor.to_kind(kind));
    }
    let bytes = weights.to_bytes().unwrap();
    let sidecar = description(&bytes, "mlp_1.safetensors");
    (bytes, sidecar)
}

#[test]
fn weights_of_another_precision_are_trained_in_single_and_published_in_their_own() {
    for kind in [Kind::Half, Kind::BFloat16, Kind::Double] {
        let (bytes, sidecar) = weights_in(kind);
        let file = GeneratorFile::new("w.safetensors", bytes, Some(&sidecar), &mlp()).unwrap();
        let copy = file.trainable(Device::Cpu).unwrap();
        for (_, weight) in copy.parameters() {
            assert!(weight.kind() == Kind::Float && weight.requires_grad());
            let _ = weight.detach().g_add_scalar_(0.01);
        }
        let published = file.export(&copy.state(), "a test").unwrap();
        let found = Tensors::from_bytes(&published.model, "published").unwrap();
        assert!(found.iter().all(|(_, tensor)| tensor.kind() == kind));
        let published =
            GeneratorFile::new("published", published.model, Some(&published.sidecar), &mlp()).unwrap();
        let z = Tensor::randn([4, 5], (Kind::Float, Device::Cpu));
        let images = |generator: lethe_models::Generator| generator.forward(&z).unwrap();
        let used = images(file.frozen_with(&copy.state(), Device::Cpu).unwrap());
        assert!(images(published.frozen(Device::Cpu).unwrap()).equal(&used), "{kind:?}");
        assert!(!images(file.frozen(Device::Cpu).unwrap()).equal(&used), "{kind:?}");
    }
}

#[test]
fn weights_that_are_no_floating_numbers_are_refused() {
    let (bytes, sidecar) = weights_in(Kind::Int8);
    let error = GeneratorFile::new("w.safetensors", bytes, Some(&sidecar), &mlp()).unwrap_err();
    assert!(
        error.to_string().contains("layers.0.bias has the dtype int8, expected a floating one"),
        "{error}"
    );
}

#[test]
fn safetensors_need_a_sound_sidecar() {
    let bytes = std::fs::read(model("mlp_1.safetensors")).unwrap();
    let sidecar: serde_json::Value =
        serde_json::from_slice(&description(&bytes, "mlp_1.safetensors")).unwrap();
    let with = |key: &str, value: serde_json::Value| {
        let mut changed = sidecar.clone();
        *changed.pointer_mut(key).unwrap() = value;
        GeneratorFile::new("m", bytes.clone(), Some(changed.to_string().as_bytes()), &mlp()).map(drop)
    };
    with("/source", "elsewhere".into()).unwrap();
    let none = GeneratorFile::new("m", bytes.clone(), None, &mlp()).unwrap_err();
    assert!(none.to_string().starts_with("m.json: is missing"), "{none}");
    for (key, value, part) in [
        ("/architecture", serde_json::Value::Null, "no architecture"),
        ("/schema_version", 2.into(), "schema_version 2, expected 1"),
        ("/kind", "scorer".into(), "is of the kind scorer"),
        ("/format", "torchscript".into(), "says the format is torchscript"),
        ("/architecture/hidden/0", (-4).into(), "architecture holds the size -4"),
        ("/architecture/name", "unet".into(), "is not a sidecar"),
        (
            "/latent/shape/0",
            6.into(),
            "generator.latent: found dimension: 5, but its sidecar says dimension: 6",
        ),
        (
            "/latent/prior",
            serde_json::json!({"uniform": [-1.0, 1.0]}),
            "generator.prior: found normal, but its sidecar says uniform",
        ),
        (
            "/output/range/0",
            (-1).into(),
            "generator.output.range: found [0, 1], but its sidecar says [-1, 1]",
        ),
        ("/output/height", 13.into(), "generator.output.size: found 12, but its sidecar says [13, 12]"),
        ("/architecture/latent", 6.into(), "architecture takes latents of 6, the job spec says 5"),
        ("/architecture/output", "tanh".into(), "architecture gives pixels in [-1.0, 1.0]"),
    ] {
        let error = with(key, value).unwrap_err();
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[test]
fn output_of_another_shape_is_refused() {
    let mut other = script();
    other.output = spec(ModelFormat::TorchScript, 5, [1, 10, 10], [0.0, 1.0]).output;
    let bytes = std::fs::read(model("flat_generator.pt")).unwrap();
    let generator = GeneratorFile::new("flat.pt", bytes, None, &other).unwrap().frozen(Device::Cpu).unwrap();
    let error = generator.forward(&Tensor::randn([2, 5], (Kind::Float, Device::Cpu))).unwrap_err();
    assert_eq!(error.code(), ErrorCode::SpecMismatch);
    assert_eq!(error.to_string(), "flat.pt: gives [2, 144] for 2 latents, the job spec says [2, 1, 10, 10]");
}

#[test]
fn latents_of_another_length_are_refused_in_one_sentence() {
    let generator = open("flat_generator").frozen(Device::Cpu).unwrap();
    let error = generator.forward(&Tensor::randn([2, 7], (Kind::Float, Device::Cpu))).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BadModel);
    let message = error.to_string();
    assert!(message.contains("shape [2, 7]: mat1 and mat2 shapes cannot be multiplied"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn pixels_outside_the_range_or_of_another_one_are_refused() {
    let generator = |range| {
        let (_, mut spec) = generators().pop().unwrap();
        spec.output.range = range;
        let bytes = std::fs::read(model("flat_generator.pt")).unwrap();
        GeneratorFile::new("flat.pt", bytes, None, &spec).unwrap().frozen(Device::Cpu).unwrap()
    };
    let images = |low: f32, high: f32| Tensor::from_slice(&[low, 0.5, high]).view([1, 1, 1, 3]);
    let unit = generator([0.0, 1.0]);
    assert_eq!(unit.check_images(&images(0.25, 1.0)).unwrap(), [0.25, 1.0]);
    for (range, low, high) in [([0.0, 1.0], -0.9, 1.0), ([-1.0, 1.0], 0.0, 1.0), ([0.0, 255.0], 0.0, 1.0)] {
        let error = generator(range).check_images(&images(low, high)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::SpecMismatch, "{range:?}");
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = unit.check_images(&images(0.0, bad)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotFinite);
    }
}

#[test]
fn pixels_a_little_outside_the_range_are_cut_where_the_spec_says_so() {
    let generator = |clamp| {
        let (_, mut spec) = generators().pop().unwrap();
        spec.output.clamp = clamp;
        let bytes = std::fs::read(model("flat_generator.pt")).unwrap();
        GeneratorFile::new("flat.pt", bytes, None, &spec).unwrap().frozen(Device::Cpu).unwrap()
    };
    let slightly = Tensor::from_slice(&[-0.05_f32, 0.5, 1.2, 0.0]).set_requires_grad(true);
    let refusal = generator(false).check_images(&slightly).unwrap_err();
    assert_eq!(refusal.hint(), "", "the message says what to do");
    assert!(refusal.to_string().ends_with("say generator.output.clamp: true"), "{refusal}");
    let cutting = generator(true);
    assert_eq!(cutting.check_images(&slightly).unwrap(), [f64::from(-0.05_f32), f64::from(1.2_f32)]);
    let unit = cutting.to_unit(&slightly).unwrap();
    assert!(unit.equal(&Tensor::from_slice(&[0.0_f32, 0.5, 1.0, 0.0])));
    // A pixel beyond the range is trained like any other.
    unit.sum(Kind::Float).backward();
    assert!(slightly.grad().equal(&Tensor::ones([4], (Kind::Float, Device::Cpu))));

    let other = Tensor::from_slice(&[-1.0_f32, -0.9, 1.0, -1.0]);
    for clamp in [false, true] {
        let refusal = generator(clamp).check_images(&other).unwrap_err().to_string();
        assert!(!refusal.contains("clamp: true"), "{refusal}");
    }
}

#[test]
fn too_large_a_batch_is_a_lack_of_memory() {
    let generator = open("mlp_1").frozen(Device::Cpu).unwrap();
    // 2^40 latents that share one row of memory; their features would take 64 TiB.
    let z = Tensor::zeros([1, 5], (Kind::Float, Device::Cpu)).expand([1 << 40, 5], false);
    let failure = Failure::from(generator.forward(&z).unwrap_err());
    assert_eq!(failure.code, ErrorCode::OutOfMemory, "{failure}");
    assert!(failure.hint.contains("lower sample.batch"), "{}", failure.hint);
}

#[test]
fn a_prior_that_contradicts_the_sidecar_is_refused() {
    let mut other = mlp();
    other.prior = Prior::Uniform(-1.0, 1.0);
    assert_eq!(refusal("mlp_1.safetensors", &other).code(), ErrorCode::SpecMismatch);
    other = mlp();
    other.latent = Latent::Shape(vec![5, 1, 1]);
    assert!(refusal("mlp_1.safetensors", &other).to_string().contains("[5, 1, 1]"));
}
