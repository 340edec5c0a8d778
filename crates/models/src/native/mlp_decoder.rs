//! A decoder of linear layers.

use lethe_domain::{HiddenActivation, OutputActivation};
use tch::Tensor;

use super::activate;
use crate::error::Result;

/// All layers.
#[derive(Debug)]
pub(crate) struct MlpDecoder {
    layers: Vec<(Tensor, Tensor)>,
    activation: HiddenActivation,
    output: OutputActivation,
}

impl MlpDecoder {
    pub(super) fn new(
        hidden: usize,
        activation: HiddenActivation,
        output: OutputActivation,
        take: impl Fn(String) -> Tensor,
    ) -> Self {
        let layer = |layer| (take(format!("layers.{layer}.weight")), take(format!("layers.{layer}.bias")));
        Self { layers: (0..=hidden).map(layer).collect(), activation, output }
    }

    pub(super) fn forward(&self, z: &Tensor) -> Result<Tensor> {
        let mut x = z.f_reshape([z.size()[0], -1])?;
        for (place, (weight, bias)) in self.layers.iter().enumerate() {
            x = x.f_linear(weight, Some(bias))?;
            if place + 1 < self.layers.len() {
                x = match self.activation {
                    HiddenActivation::Relu => x.f_relu_()?,
                    HiddenActivation::Tanh => x.f_tanh_()?,
                    HiddenActivation::LeakyRelu => x.f_maximum(&x.f_mul_scalar(0.2)?)?,
                };
            }
        }
        activate(&x, self.output)
    }
}
