//! Who says which images show the feature: a classifier or a scorer, read as one number per image.
//!
//! A classifier is read as log-odds, ln p - ln(1 - p), not as a probability: a probability is flat near 0, and an edit that
//! must go a margin beyond the threshold needs a scale that says how far it has come.
//!
//! Not here: labels made elsewhere (`labels`), which scores are positive (`Cut`, in the domain).

use std::path::Path;

use lethe_domain::ModelKind;
use lethe_domain::spec::{self, ClassifierOutput};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::image_model::ImageModel;

/// A model that gives one score per image: the log-odds of a class, or a scorer's own number.
#[derive(Debug)]
pub struct Labeller {
    model: ImageModel,
    reading: Reading,
}

/// How the model's outputs become a score.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// Log-odds of this class; of the only one when none is named.
    Class { class: Option<i64>, output: ClassifierOutput },
    /// The only output, as it is.
    Score,
}

impl Labeller {
    /// Loads the classifier or scorer that `spec` describes from `path`.
    ///
    /// # Errors
    /// As [`crate::ModelFile::open`]; [`Error::NoForward`]; [`Error::Mismatch`] when the sidecar's number of classes does not
    /// fit, or when `spec` is a labels file, which cannot look at images.
    pub fn open(spec: spec::Labeller<'_>, path: &Path, device: Device) -> Result<Self> {
        match spec {
            spec::Labeller::Classifier(classifier) => Self::classifier(classifier, path, device),
            spec::Labeller::Scorer(_) => {
                let (model, _) = ImageModel::open(path, ModelKind::Scorer, device)?;
                Ok(Self { model, reading: Reading::Score })
            }
            spec::Labeller::Labels(labels) => Err(Error::Mismatch {
                model: labels.uri.clone(),
                reason: "is a labels file, which cannot look at new images: name a classifier or a scorer"
                    .into(),
            }),
        }
    }

    fn classifier(spec: &spec::Classifier, path: &Path, device: Device) -> Result<Self> {
        let (model, file) = ImageModel::open(path, ModelKind::Classifier, device)?;
        let labeller = Self { model, reading: Reading::Class { class: spec.class, output: spec.output } };
        if let Some(classes) = file.sidecar.and_then(|sidecar| sidecar.classes) {
            let _ = labeller.column(classes)?;
        }
        Ok(labeller)
    }

    /// One score per image, of images [N, C, H, W] in [0, 1].
    ///
    /// # Errors
    /// [`Error::Forward`], [`Error::Mismatch`] when the model gives the wrong number of outputs or says probabilities
    /// that are none, [`Error::NotFinite`], [`Error::Memory`].
    pub fn scores(&self, images: &Tensor) -> Result<Vec<f64>> {
        let outputs = self.model.run(images)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        let column = self.column(outputs.size()[1])?;
        let own = outputs.f_select(1, column)?;
        let scores = match self.reading {
            Reading::Score => own,
            Reading::Class { output: ClassifierOutput::Logits, .. } if outputs.size()[1] == 1 => own,
            Reading::Class { output: ClassifierOutput::Logits, .. } => own.f_sub(&rest(&outputs, column)?)?,
            Reading::Class { output: ClassifierOutput::Probability, .. } => {
                self.check_probabilities(&outputs)?;
                own.f_logit(SMALLEST)?
            }
        };
        Ok(Vec::try_from(scores.f_contiguous()?)?)
    }

    /// Which of `outputs` is the score.
    fn column(&self, outputs: i64) -> Result<i64> {
        match self.reading {
            Reading::Score if outputs == 1 => Ok(0),
            Reading::Score => Err(self
                .model
                .mismatch(format!("gives {outputs} numbers per image, a scorer gives one"))),
            Reading::Class { class: None, .. } if outputs == 1 => Ok(0),
            Reading::Class { class: None, .. } => Err(self.model.mismatch(format!(
                "gives {outputs} outputs per image, and the job spec does not say which class is the feature"
            ))),
            Reading::Class { class: Some(class), .. } if (0..outputs).contains(&class) => Ok(class),
            Reading::Class { class: Some(class), .. } => Err(self.model.mismatch(format!(
                "gives {outputs} outputs per image, the job spec says the feature is class {class} (counted from 0)"
            ))),
        }
    }

    fn check_probabilities(&self, outputs: &Tensor) -> Result<()> {
        const TOLERANCE: f64 = 1e-3;
        let (low, high) = (f64::try_from(outputs.f_min()?)?, f64::try_from(outputs.f_max()?)?);
        if low < -TOLERANCE || high > 1.0 + TOLERANCE {
            return Err(self.model.mismatch(format!(
                "gives numbers from {low:.3} to {high:.3}, the job spec says output: probability (is it logits?)"
            )));
        }
        Ok(())
    }
}

/// Probabilities nearer to 0 or 1 than this are taken for it: their log-odds would be infinite.
const SMALLEST: f64 = 1e-9;

/// ln of the summed exponentials of every column but one; [N, K] to [N].
fn rest(outputs: &Tensor, column: i64) -> Result<Tensor> {
    let others = outputs.f_index_fill(1, &Tensor::from_slice(&[column]), f64::NEG_INFINITY)?;
    Ok(others.f_logsumexp([1_i64].as_slice(), false)?)
}
