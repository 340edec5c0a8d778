//! The generator of a DCGAN (Radford et al. 2015): transposed convolutions, batch normalisation, ReLU.

use lethe_domain::OutputActivation;
use tch::{Kind, Tensor};

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
enum Norm {
    Live(Box<Statistics>),
    /// What is left of it once its scale went into the convolution's weight.
    Folded {
        bias: Tensor,
    },
}

#[derive(Debug)]
struct Statistics {
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
                norm: Norm::Live(Box::new(Statistics {
                    weight: norm("weight"),
                    bias: norm("bias"),
                    mean: norm("running_mean"),
                    variance: norm("running_var"),
                })),
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

    pub(super) fn freeze(&mut self) -> Result<()> {
        for block in &mut self.blocks {
            if let Norm::Live(statistics) = &block.norm {
                let (weight, bias) = fold(&block.weight.f_detach()?, statistics)?;
                block.weight = weight.f_detach()?;
                block.norm = Norm::Folded { bias: bias.f_detach()? };
            }
        }
        Ok(())
    }

    pub(super) fn forward(&self, z: &Tensor) -> Result<Tensor> {
        let mut x = z.shallow_clone();
        for (layer, block) in self.blocks.iter().enumerate() {
            let convolve = |weight: &Tensor, bias: Option<&Tensor>| {
                if layer == 0 {
                    upsample::project(&x, weight, bias)
                } else {
                    upsample::double(&x, weight, bias)
                }
            };
            let mut features = match &block.norm {
                Norm::Folded { bias } => convolve(&block.weight, Some(bias))?,
                Norm::Live(norm) if self.training => normalise(&convolve(&block.weight, None)?, norm)?,
                // With its statistics fixed, batch normalisation is affine: folding it each time costs a pass over
                // the weights instead of two over the features, and gives gradients to all of its weights.
                Norm::Live(norm) => {
                    let (weight, bias) = fold(&block.weight, norm)?;
                    convolve(&weight, Some(&bias))?
                }
            };
            x = features.f_relu_()?;
        }
        activate(&upsample::double(&x, &self.last, None)?, self.output)
    }
}

fn normalise(features: &Tensor, norm: &Statistics) -> Result<Tensor> {
    let (weight, bias) = (Some(&norm.weight), Some(&norm.bias));
    Ok(features.f_batch_norm(
        weight,
        bias,
        Some(&norm.mean),
        Some(&norm.variance),
        true,
        MOMENTUM,
        EPS,
        false,
    )?)
}

/// A convolution's weight [in, out, k, k] times the scale of what follows it, and the bias that remains.
fn fold(weight: &Tensor, norm: &Statistics) -> Result<(Tensor, Tensor)> {
    let kind = weight.f_kind()?;
    let exact = |tensor: &Tensor| tensor.f_to_kind(Kind::Double);
    let scale = exact(&norm.variance)?.f_add_scalar(EPS)?.f_rsqrt()?.f_mul(&exact(&norm.weight)?)?;
    let bias = exact(&norm.bias)?.f_sub(&exact(&norm.mean)?.f_mul(&scale)?)?;
    let weight = weight.f_mul(&scale.f_to_kind(kind)?.f_view([1, -1, 1, 1])?)?;
    Ok((weight, bias.f_to_kind(kind)?))
}
