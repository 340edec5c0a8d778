//! What is measured on each pair of images of a latent, the original's and the copy's. Its mean over the images that never showed the
//! feature is a figure of the result: nothing should have changed there.
//!
//! A new measure is a line of [`PAIRS`]: whatever carries, folds and shows it goes by its name.

use std::rc::Rc;

use lethe_domain::spec::LossReduction;
use lethe_domain::{Better, Figure, Unit, mean_ci95, proportion_ci95};
use lethe_models::{Classes, Similarity, l1};
use tch::{Device, Tensor};

use crate::error::Result;

/// A measure of a pair of images.
#[derive(Debug)]
pub(crate) struct PairMeasure {
    pub(crate) name: &'static str,
    unit: Unit,
    better: Better,
    definition: &'static str,
    /// Of images [N, C, H, W] in [0, 1], the original's and the copy's: `[N]`, NaN where there is nothing to say. None without the tool.
    of: fn(&Tools, &Tensor, &Tensor) -> Result<Option<Tensor>>,
}

/// Every measure.
pub(crate) const PAIRS: [PairMeasure; 3] = [
    PairMeasure {
        name: "l1",
        unit: Unit::PixelValue,
        better: Better::Lower,
        definition: "Mean absolute difference per pixel between the original's and the copy's image of a latent, over the \
                     latents whose original image does not show the feature; pixels go from 0 to 1",
        of: |_, before, after| Ok(Some(l1(before, after, LossReduction::Mean)?)),
    },
    PairMeasure {
        name: "ms_ssim",
        unit: Unit::Similarity,
        better: Better::Higher,
        definition: "Mean MS-SSIM between the original's and the copy's image of a latent, over the latents whose original \
                     image does not show the feature; 1 = identical",
        of: |tools, before, after| Ok(Some(tools.similarity.ms_ssim(before, after)?)),
    },
    CLASS_CHANGED,
];

/// Whether a sure image is of another class now, where there is a classifier.
pub(crate) const CLASS_CHANGED: PairMeasure = PairMeasure {
    name: "class_changed",
    unit: Unit::Share,
    better: Better::Lower,
    definition: "Share of latents whose image changed its most probable class from the original to the copy, of those whose \
                 original image does not show the feature and of whose class the classifier is sure (above 0.9): \
                 evaluate.classifier, else the judge, else the labeller",
    of: |tools, before, after| {
        let changed = tools.classes.as_ref().map(|classes| classes.changed(before, after));
        Ok(changed.transpose()?)
    },
};

/// What measures need to be made once.
#[derive(Debug)]
pub(crate) struct Tools {
    similarity: Similarity,
    classes: Option<Rc<Classes>>,
}

impl Tools {
    /// For images of this [C, H, W].
    ///
    /// # Errors
    /// Lack of memory.
    pub(crate) fn new(
        [_, height, width]: [i64; 3],
        classes: Option<Rc<Classes>>,
        device: Device,
    ) -> Result<Self> {
        Ok(Self { similarity: Similarity::new(height, width, device)?, classes })
    }
}

impl PairMeasure {
    /// Of each pair of images [N, C, H, W] in [0, 1]; none without what it takes.
    ///
    /// # Errors
    /// Those of the models.
    pub(crate) fn of(&self, tools: &Tools, before: &Tensor, after: &Tensor) -> Result<Option<Tensor>> {
        (self.of)(tools, before, after)
    }

    /// The figure, from the values of the latents that it is about, in the order of the index.
    pub(crate) fn figure(&self, values: impl Iterator<Item = f64>) -> Figure {
        let values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
        let (sum, count) = (values.iter().sum::<f64>(), values.len() as u64);
        let ci95_after = match self.unit {
            // Values of 0 and 1, counted.
            Unit::Share => (count > 0).then(|| proportion_ci95(sum as u64, count)),
            _ => mean_ci95(&values),
        };
        Figure {
            name: self.name.to_owned(),
            group: "locality".to_owned(),
            before: None,
            after: (count > 0).then(|| sum / count as f64),
            unit: self.unit,
            ci95_before: None,
            ci95_after,
            better: self.better,
            samples: count,
            definition: self.definition.to_owned(),
        }
    }
}
