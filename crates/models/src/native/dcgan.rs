//! The generator of a DCGAN (Radford et al. 2015): transposed convolutions, batch normalisation, ReLU.

use lethe_domain::OutputActivation;
use tch::Tensor;

use super::{activate, upsample};
use crate::error::Result;

/// PyTorch's defaults.
const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// All layers.
#[derive(Debug)]
pub(crate) struct Dcgan {
    blocks: Vec<Block>,
    last: Tensor,
    output: OutputActivation,
    training: bool,
}

#[derive(Debug)]
struct Block {
    weight: Tensor,
    norm: Norm,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl Dcgan {
    pub(super) fn new(depth: usize, output: OutputActivation, take: impl Fn(String) -> Tensor) -> Self {
        let block = |layer: usize| {
            let norm = |part: &str| take(format!("layers.{layer}.norm.{part}"));
            Block {
                weight: take(format!("layers.{layer}.conv.weight")),
                norm: Norm {
                    weight: norm("weight"),
                    bias: norm("bias"),
                    mean: norm("running_mean"),
                    variance: norm("running_var"),
                },
            }
        };
        Self {
            blocks: (0..depth).map(block).collect(),
            last: take(format!("layers.{depth}.conv.weight")),
            output,
            training: false,
        }
    }

    pub(super) fn set_batch_norm(&mut self, training: bool) {
        self.training = training;
    }

    pub(super) fn forward(&self, z: &Tensor) -> Result<Tensor> {
        let mut x = z.shallow_clone();
        for (layer, block) in self.blocks.iter().enumerate() {
            let features = match layer {
                0 => upsample::project(&x, &block.weight)?,
                _ => upsample::double(&x, &block.weight, None)?,
            };
            x = block.norm.apply(&features, self.training)?.f_relu_()?;
        }
        activate(&upsample::double(&x, &self.last, None)?, self.output)
    }
}

impl Norm {
    // Folding this into the convolutions was measured, frozen and in training: a convolution with a bias costs more than
    // it saves.
    fn apply(&self, features: &Tensor, training: bool) -> Result<Tensor> {
        let [weight, bias, mean, variance] = [&self.weight, &self.bias, &self.mean, &self.variance].map(Some);
        Ok(features.f_batch_norm(weight, bias, mean, variance, training, MOMENTUM, EPS, true)?)
    }
}
