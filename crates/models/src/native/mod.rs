//! Native architectures as layers over named tensors.
//!
//! Where PyTorch would pick a slow kernel, these pick another one for the same sum: the results agree to rounding.
//! Not here: files, names and shapes (`architecture`), checks of the output (`generator`).

mod conv_decoder;
mod dcgan;
mod mlp_decoder;
mod upsample;

use std::collections::BTreeMap;

use lethe_domain::{Architecture, OutputActivation};
use tch::Tensor;

use crate::error::Result;
use conv_decoder::ConvDecoder;
use dcgan::Dcgan;
use mlp_decoder::MlpDecoder;

/// The layers of one architecture. They share the tensors they were built from.
#[derive(Debug)]
pub(crate) enum Native {
    Dcgan(Dcgan),
    Mlp(MlpDecoder),
    Conv(ConvDecoder),
}

impl Native {
    /// Layers over tensors that were checked against `architecture::tensors`.
    pub(crate) fn new(architecture: &Architecture, tensors: &BTreeMap<String, Tensor>) -> Self {
        let take = |name: String| tensors[&name].shallow_clone();
        match architecture {
            Architecture::Dcgan { widths, output, .. } => {
                Native::Dcgan(Dcgan::new(widths.len(), *output, take))
            }
            Architecture::MlpDecoder { hidden, activation, output, .. } => {
                Native::Mlp(MlpDecoder::new(hidden.len(), *activation, *output, take))
            }
            Architecture::ConvDecoder { base, stem, widths, output, .. } => {
                Native::Conv(ConvDecoder::new([*stem, *base], widths.len(), *output, take))
            }
        }
    }

    /// [N, latent] to images, flat or not.
    pub(crate) fn forward(&self, z: &Tensor) -> Result<Tensor> {
        match self {
            Native::Dcgan(net) => net.forward(z),
            Native::Mlp(net) => net.forward(z),
            Native::Conv(net) => net.forward(z),
        }
    }

    /// Whether batch normalisation uses and updates batch statistics.
    pub(crate) fn set_batch_norm(&mut self, training: bool) {
        match self {
            Native::Dcgan(net) => net.set_batch_norm(training),
            // They have none.
            Native::Mlp(_) | Native::Conv(_) => {}
        }
    }
}

fn activate(images: &Tensor, output: OutputActivation) -> Result<Tensor> {
    Ok(match output {
        OutputActivation::Tanh => images.f_tanh()?,
        OutputActivation::Sigmoid => images.f_sigmoid()?,
    })
}
