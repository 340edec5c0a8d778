//! Generators of every format: their images are those of PyTorch.

use lethe_domain::spec::{BatchNorm, ModelFormat};
use lethe_models::{Error, Exported, Generator, GeneratorFile, Tensors};
use tch::{Device, Kind, Tensor};

use crate::fixture::{distance, expected, generators, model, open, reference, same, spec};

fn images(generator: &Generator, z: &Tensor) -> Tensor {
    tch::no_grad(|| generator.forward(z).unwrap())
}

#[test]
fn images_are_those_of_pytorch() {
    for (name, spec) in generators() {
        let expected = expected(name);
        let (z, images_there) = (expected.get("z").unwrap(), expected.get("images").unwrap());
        let [channels, height, width] = spec.output.shape();
        let frozen = open(name).frozen(Device::Cpu).unwrap();
        let found = images(&frozen, z);
        assert_eq!(found.size(), [z.size()[0], channels, height, width], "{name}");
        let off = distance(&found, &images_there.view([-1, channels, height, width]));
        assert!(off < 1e-5, "{name}: {off}");
        let range = frozen.check_images(&found).unwrap();
        assert!(range[0] >= spec.output.range[0] && range[1] <= spec.output.range[1], "{name}");
    }
}

#[test]
fn unit_images_span_zero_to_one() {
    let frozen = open("dcgan_1").frozen(Device::Cpu).unwrap();
    let ends = Tensor::from_slice(&[-1.0_f32, 0.0, 1.0, 1.5, -7.0]);
    let expected = Tensor::from_slice(&[0.0_f32, 0.5, 1.0, 1.0, 0.0]);
    assert!(same(&frozen.to_unit(&ends).unwrap(), &expected));
    assert_eq!(ends.double_value(&[3]), 1.5, "the input is left as it was");
}

#[test]
fn the_untrained_copy_gives_the_originals_bits() {
    for (name, _) in generators() {
        let file = open(name);
        let z = Tensor::randn([9, file.spec().latent.numel()], (Kind::Float, Device::Cpu));
        let (original, copy) = (file.frozen(Device::Cpu).unwrap(), file.trainable(Device::Cpu).unwrap());
        assert!(same(&images(&original, &z), &images(&copy, &z)), "{name}");
        assert!(original.parameters().iter().all(|(_, w)| !w.requires_grad()), "{name}");
        assert!(copy.parameters().iter().all(|(_, w)| w.requires_grad()), "{name}");
    }
}

/// Every parameter gets the gradient of a difference quotient, in the direction of a random change of all of them.
#[test]
fn gradients_reach_every_parameter() {
    for (name, _) in generators() {
        let file = open(name);
        let copy = file.trainable(Device::Cpu).unwrap();
        let z = Tensor::randn([6, file.spec().latent.numel()], (Kind::Float, Device::Cpu));
        let loss = || copy.forward(&z).unwrap().square().sum(Kind::Double);
        loss().backward();
        tch::manual_seed(5);
        for (weight_name, weight) in copy.parameters() {
            let gradient = weight.grad();
            assert!(gradient.defined(), "{name}: {weight_name} has no gradient");
            let change = Tensor::randn_like(&weight.detach()).sign() * 1e-3;
            let at = |sign: f64| {
                let mut detached = weight.detach();
                let _ = detached.g_add_(&(&change * sign));
                let value = tch::no_grad(|| loss().double_value(&[]));
                let _ = detached.g_sub_(&(&change * sign));
                value
            };
            let quotient = (at(1.0) - at(-1.0)) / 2.0;
            let product = (gradient * &change).sum(Kind::Double).double_value(&[]);
            assert!(
                (quotient - product).abs() < 5e-3 + 0.05 * product.abs(),
                "{name}, {weight_name}: {quotient} {product}"
            );
        }
    }
}

/// Trains a little, so that no weight is what it was.
fn disturb(copy: &Generator) -> Tensors {
    for (_, weight) in copy.parameters() {
        let _ = weight.detach().g_add_(&(weight.detach().randn_like() * 0.01));
    }
    copy.state()
}

#[test]
fn a_published_generator_loads_like_the_one_it_came_from() {
    for (name, spec) in generators() {
        let file = open(name);
        let copy = file.trainable(Device::Cpu).unwrap();
        let state = disturb(&copy).to_bytes().unwrap();
        let state = Tensors::from_bytes(&state, "weights.safetensors").unwrap();
        let Exported { model, sidecar } = file.export(&state, "a test").unwrap();
        let published = GeneratorFile::new("published", model, Some(&sidecar), &spec).unwrap();
        let z = Tensor::randn([4, spec.latent.numel()], (Kind::Float, Device::Cpu));
        let expected = images(&copy, &z);
        assert!(!same(&expected, &images(&file.frozen(Device::Cpu).unwrap(), &z)), "{name}");
        assert!(same(&images(&published.frozen(Device::Cpu).unwrap(), &z), &expected), "{name}");
        assert!(same(&images(&file.frozen_with(&state, Device::Cpu).unwrap(), &z), &expected), "{name}");
        let again = published.export(&published.trainable(Device::Cpu).unwrap().state(), "a test").unwrap();
        assert_eq!(again.sidecar.len(), sidecar.len(), "{name}");
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused_whole() {
    let file = open("dcgan_1");
    let mut copy = file.trainable(Device::Cpu).unwrap();
    let before = copy.state().to_bytes().unwrap();
    let mut state = Tensors::new("checkpoint");
    for (name, tensor) in copy.state().iter().filter(|(name, _)| *name != "layers.0.norm.bias") {
        let reshaped = if name == "layers.1.conv.weight" { tensor.view([-1]) } else { tensor + 1.0 };
        state.insert(name, &reshaped);
    }
    state.insert("layers.9.weight", &Tensor::ones([1], (Kind::Float, Device::Cpu)));
    let message = copy.set_state(&state).unwrap_err().to_string();
    for part in [
        "checkpoint: ",
        "layers.0.norm.bias is missing",
        "layers.1.conv.weight has shape [128], expected [8, 1, 4, 4]",
        "layers.9.weight is not part of the model",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(copy.state().to_bytes().unwrap(), before);
}

#[test]
fn batch_normalisation_keeps_its_statistics_unless_told_otherwise() {
    let file = open("dcgan_1");
    let mut copy = file.trainable(Device::Cpu).unwrap();
    let statistics = |copy: &Generator| copy.buffers().iter().map(|(_, t)| t.copy()).collect::<Vec<_>>();
    let before = statistics(&copy);
    assert_eq!(before.len(), 2);
    let z = Tensor::randn([16, 8], (Kind::Float, Device::Cpu)) + 3.0;
    let _ = copy.forward(&z).unwrap();
    assert!(before.iter().zip(&statistics(&copy)).all(|(a, b)| same(a, b)));

    copy.set_batch_norm(BatchNorm::Train).unwrap();
    let _ = copy.forward(&z).unwrap();
    // PyTorch's rule: new = 0.9 old + 0.1 of the batch, with the unbiased variance.
    let weight = copy.parameters()[0].1.detach();
    let features = z.matmul(&weight.view([8, -1])).view([16, 8, 49]).transpose(0, 1).reshape([8, -1]);
    let mean = &before[0] * 0.9 + features.mean_dim(1, false, Kind::Float) * 0.1;
    let variance = &before[1] * 0.9 + features.var_dim(1, true, false) * 0.1;
    assert!(distance(&copy.buffers()[0].1, &mean) < 1e-5 && distance(&copy.buffers()[1].1, &variance) < 1e-4);

    copy.set_batch_norm(BatchNorm::Eval).unwrap();
    let settled = statistics(&copy);
    let _ = copy.forward(&z).unwrap();
    assert!(settled.iter().zip(&statistics(&copy)).all(|(a, b)| same(a, b)));
}

#[test]
fn parameters_come_in_the_order_of_the_module() {
    let names = |name| {
        let copy = open(name).trainable(Device::Cpu).unwrap();
        copy.parameters().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        names("dcgan_1"),
        ["layers.0.conv.weight", "layers.0.norm.weight", "layers.0.norm.bias", "layers.1.conv.weight"]
    );
    assert_eq!(names("flat_generator"), ["inner.0.weight", "inner.0.bias", "inner.2.weight", "inner.2.bias"]);
}

/// A TorchScript generator with batch normalisation and dropout, and PyTorch's numbers for it.
fn normalised() -> (GeneratorFile, Tensors) {
    let path = model("../reference/normalised.pt");
    let spec = spec(ModelFormat::TorchScript, 3, [1, 4, 4], [0.0, 1.0]);
    (GeneratorFile::open(&path, &spec).unwrap(), reference("normalised"))
}

#[test]
fn a_script_switches_its_normalisation_and_nothing_else() {
    let (file, expected) = normalised();
    let z = expected.get("z").unwrap();
    let mut copy = file.trainable(Device::Cpu).unwrap();
    assert!(distance(&images(&copy, z), expected.get("eval").unwrap()) < 1e-6);
    copy.set_batch_norm(BatchNorm::Train).unwrap();
    // Were dropout on as well, these images would be others.
    assert!(distance(&images(&copy, z), expected.get("train").unwrap()) < 1e-6);
    let state = copy.state();
    assert!(distance(state.get("norm.running_mean").unwrap(), expected.get("mean").unwrap()) < 1e-6);
    assert!(distance(state.get("norm.running_var").unwrap(), expected.get("variance").unwrap()) < 1e-6);
    assert_eq!(state.get("norm.num_batches_tracked").unwrap().int64_value(&[]), 1);
    copy.set_batch_norm(BatchNorm::Eval).unwrap();
    let settled = images(&copy, z);
    assert!(same(&settled, &images(&copy, z)));

    // Statistics travel with the state, into a published archive too.
    let state = Tensors::from_bytes(&state.to_bytes().unwrap(), "weights").unwrap();
    assert!(same(&images(&file.frozen_with(&state, Device::Cpu).unwrap(), z), &settled));
    let Exported { model, sidecar } = file.export(&state, "a test").unwrap();
    let published = GeneratorFile::new("published.pt", model, Some(&sidecar), file.spec()).unwrap();
    assert!(same(&images(&published.frozen(Device::Cpu).unwrap(), z), &settled));
}

#[test]
fn an_archive_without_parameters_cannot_be_trained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("constant.pt");
    let input = Tensor::zeros([2, 4], (Kind::Float, Device::Cpu));
    let traced = tch::CModule::create_by_tracing("Constant", "forward", &[input], &mut |z: &[Tensor]| {
        vec![z[0].sigmoid()]
    });
    traced.unwrap().save(&path).unwrap();
    let file = GeneratorFile::open(&path, &spec(ModelFormat::TorchScript, 4, [1, 2, 2], [0.0, 1.0])).unwrap();
    assert!(file.frozen(Device::Cpu).is_ok());
    assert!(matches!(file.trainable(Device::Cpu), Err(Error::NothingToTrain { .. })));
}
