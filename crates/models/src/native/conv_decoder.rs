//! A decoder with a linear stem, transposed convolutions and a 3x3 head.

use lethe_domain::OutputActivation;
use tch::Tensor;

use super::{activate, upsample};
use crate::error::Result;

/// All layers.
#[derive(Debug)]
pub(crate) struct ConvDecoder {
    stem: (Tensor, Tensor),
    /// Channels and side of the stem's features.
    shape: [i64; 2],
    layers: Vec<(Tensor, Tensor)>,
    head: (Tensor, Tensor),
    output: OutputActivation,
}

impl ConvDecoder {
    pub(super) fn new(
        shape: [i64; 2],
        depth: usize,
        output: OutputActivation,
        take: impl Fn(String) -> Tensor,
    ) -> Self {
        let pair = |name: &str| (take(format!("{name}.weight")), take(format!("{name}.bias")));
        Self {
            stem: pair("stem"),
            shape,
            layers: (0..depth).map(|layer| pair(&format!("layers.{layer}"))).collect(),
            head: pair("head"),
            output,
        }
    }

    pub(super) fn forward(&self, z: &Tensor) -> Result<Tensor> {
        let [channels, side] = self.shape;
        let flat = z.f_reshape([z.size()[0], -1])?;
        let features = flat.f_linear(&self.stem.0, Some(&self.stem.1))?.f_relu_()?;
        let mut x = features.f_view([-1, channels, side, side])?;
        for (weight, bias) in &self.layers {
            x = upsample::double(&x, weight, Some(bias))?.f_relu_()?;
        }
        let images = x.f_conv2d(&self.head.0, Some(&self.head.1), [1, 1], [1, 1], [1, 1], 1)?;
        activate(&images, self.output)
    }
}
