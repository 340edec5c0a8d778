//! A layer of the small networks that are taught here, weights and a bias, and a step of their lessons. Not here: what they are put together to (`student`,
//! `surrogate`).

use rand_chacha::rand_core::Rng;
use rand_distr::{Distribution, StandardUniform};
use tch::{Device, Kind, Tensor};

use crate::adam::Adam;
use crate::error::{Error, Result};
use crate::weights::Tensors;

/// Weight and bias, f32.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
}

impl Layer {
    /// With these many inputs to each number, uniform within their root's reciprocal (as PyTorch's layers begin).
    pub(crate) fn new(shape: &[i64], random: &mut impl Rng, device: Device) -> Result<Self> {
        let inputs: i64 = shape[1..].iter().product();
        let bound = 1.0 / (inputs as f64).sqrt();
        let mut draw = |count: i64| -> Vec<f32> {
            let unit = |_| -> f64 { StandardUniform.sample(random) };
            (0..count).map(unit).map(|unit| (bound * (2.0 * unit - 1.0)) as f32).collect()
        };
        let weight = Tensor::f_from_slice(&draw(shape.iter().product()))?.f_reshape(shape)?;
        let bias = Tensor::f_from_slice(&draw(shape[0]))?;
        Ok(Self { weight: weight.f_to_device(device)?, bias: bias.f_to_device(device)? })
    }

    /// The one that [`named`] gave these names.
    ///
    /// # Errors
    /// [`crate::Error::Tensors`] when a part is missing.
    pub(crate) fn from_state(state: &Tensors, name: &str, device: Device) -> Result<Self> {
        let part = |part: &str| -> Result<Tensor> {
            let tensor = state.get(&format!("{name}.{part}"))?;
            Ok(tensor.f_to_kind(Kind::Float)?.f_to_device(device)?.f_detach()?)
        };
        Ok(Self { weight: part("weight")?, bias: part("bias")? })
    }

    /// x W' + b.
    pub(crate) fn linear(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight, Some(&self.bias))?)
    }
}

/// What changes these weights, which gradients reach from now on.
///
/// # Errors
/// As [`Adam::new`].
pub(crate) fn pupil(weights: &[(String, Tensor)]) -> Result<Adam> {
    for (_, weight) in weights {
        let _ = weight.f_set_requires_grad(true)?;
    }
    Adam::new(weights)
}

/// One step of these weights down a loss.
///
/// # Errors
/// Those of `loss`; [`crate::Error::Memory`].
pub(crate) fn learn(
    adam: &mut Adam,
    weights: &[(String, Tensor)],
    rate: f64,
    loss: impl FnOnce() -> Result<Tensor>,
) -> Result<()> {
    tch::with_grad(|| {
        for (_, weight) in weights {
            weight.shallow_clone().zero_grad();
        }
        Ok::<_, Error>(loss()?.f_backward()?)
    })?;
    adam.step(rate)
}

/// Names and weights of layers, sharing storage.
pub(crate) fn named<'a>(layers: impl Iterator<Item = (String, &'a Layer)>) -> Vec<(String, Tensor)> {
    let parts = |(name, layer): (String, &Layer)| {
        let both = [("weight", &layer.weight), ("bias", &layer.bias)];
        both.map(|(part, tensor)| (format!("{name}.{part}"), tensor.shallow_clone()))
    };
    layers.flat_map(parts).collect()
}
