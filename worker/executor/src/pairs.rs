//! What is measured on each pair of images of a latent, the original's and the copy's. Its mean over the images that never showed the
//! feature is a figure of the result: nothing should have changed there.
//!
//! A new measure is a line of [`PAIRS`]: whatever carries, folds and shows it goes by its name.

use lethe_domain::spec::LossReduction;
use lethe_domain::{Better, Figure, Unit, mean_ci95};
use lethe_models::{Similarity, l1};
use tch::{Device, Tensor};

use crate::error::Result;

/// A measure of a pair of images.
#[derive(Debug)]
pub(crate) struct PairMeasure {
    pub(crate) name: &'static str,
    unit: Unit,
    better: Better,
    definition: &'static str,
    /// Of images [N, C, H, W] in [0, 1], the original's and the copy's: `[N]`.
    of: fn(&Tools, &Tensor, &Tensor) -> Result<Tensor>,
}

/// Every measure.
pub(crate) const PAIRS: [PairMeasure; 2] = [
    PairMeasure {
        name: "l1",
        unit: Unit::PixelValue,
        better: Better::Lower,
        definition: "Mean absolute difference per pixel between the original's and the copy's image of a latent, over the \
                     latents whose original image does not show the feature; pixels go from 0 to 1",
        of: |_, before, after| Ok(l1(before, after, LossReduction::Mean)?),
    },
    PairMeasure {
        name: "ms_ssim",
        unit: Unit::Similarity,
        better: Better::Higher,
        definition: "Mean MS-SSIM between the original's and the copy's image of a latent, over the latents whose original \
                     image does not show the feature; 1 = identical",
        of: |tools, before, after| Ok(tools.similarity.ms_ssim(before, after)?),
    },
];

/// What measures need to be made once.
#[derive(Debug)]
pub(crate) struct Tools {
    similarity: Similarity,
}

impl Tools {
    /// For images of this [C, H, W].
    ///
    /// # Errors
    /// Lack of memory.
    pub(crate) fn new([_, height, width]: [i64; 3], device: Device) -> Result<Self> {
        Ok(Self { similarity: Similarity::new(height, width, device)? })
    }
}

impl PairMeasure {
    /// Of each pair of images [N, C, H, W] in [0, 1].
    ///
    /// # Errors
    /// Lack of memory.
    pub(crate) fn of(&self, tools: &Tools, before: &Tensor, after: &Tensor) -> Result<Tensor> {
        (self.of)(tools, before, after)
    }

    /// The figure, from the values of the latents that it is about, in the order of the index.
    pub(crate) fn figure(&self, values: &[f64]) -> Figure {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Figure {
            name: self.name.to_owned(),
            group: "locality".to_owned(),
            before: None,
            after: Some(mean),
            unit: self.unit,
            ci95_before: None,
            ci95_after: mean_ci95(values),
            better: self.better,
            samples: values.len() as u64,
            definition: self.definition.to_owned(),
        }
    }
}
