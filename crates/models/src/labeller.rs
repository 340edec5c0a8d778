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
use crate::file::RawModel;
use crate::image_model::{Form, ImageModel};
use crate::outputs;
use crate::student::Student;

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
        Self::new(spec, RawModel::read(path)?, device)
    }

    /// Takes the file of the classifier or scorer that `spec` describes.
    ///
    /// # Errors
    /// As [`Labeller::open`].
    pub fn new(spec: spec::Labeller<'_>, raw: RawModel, device: Device) -> Result<Self> {
        Self::of_form(spec, raw, device, Form::Optimised)
    }

    /// The same in a form through which gradients pass; slower.
    ///
    /// # Errors
    /// As [`Labeller::open`].
    pub fn differentiable(spec: spec::Labeller<'_>, raw: RawModel, device: Device) -> Result<Self> {
        Self::of_form(spec, raw, device, Form::Differentiable)
    }

    /// What stands in for a labeller that has no gradient: a student of its scores.
    pub fn taught(student: Student) -> Self {
        Self { model: ImageModel::taught(student), reading: Reading::Score }
    }

    /// Whether it is a student, which only comes near the labeller's scores.
    pub(crate) fn is_taught(&self) -> bool {
        self.model.is_taught()
    }

    fn of_form(spec: spec::Labeller<'_>, raw: RawModel, device: Device, form: Form) -> Result<Self> {
        match spec {
            spec::Labeller::Classifier(classifier) => Self::classifier(classifier, raw, device, form),
            spec::Labeller::Scorer(_) => {
                let (model, _) = ImageModel::new(raw, ModelKind::Scorer, device, form)?;
                Ok(Self { model, reading: Reading::Score })
            }
            spec::Labeller::Labels(labels) => Err(Error::Mismatch {
                model: labels.uri.clone(),
                reason: "is a labels file, which cannot look at new images: name a classifier or a scorer"
                    .into(),
            }),
        }
    }

    fn classifier(spec: &spec::Classifier, raw: RawModel, device: Device, form: Form) -> Result<Self> {
        let (model, file) = ImageModel::new(raw, ModelKind::Classifier, device, form)?;
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
        Ok(Vec::try_from(self.read(&self.outputs(images)?)?.f_contiguous()?)?)
    }

    /// Outputs, f64 [N, K] on the cpu.
    fn outputs(&self, images: &Tensor) -> Result<Tensor> {
        let outputs = self.model.run(images)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        if matches!(self.reading, Reading::Class { output: ClassifierOutput::Probability, .. }) {
            outputs::check_probabilities(&self.model, &outputs)?;
        }
        Ok(outputs)
    }

    /// As [`Labeller::scores`], and all that it says of the images: logits less their mean, or else the score alone, f32 [N, K] on the
    /// cpu.
    ///
    /// # Errors
    /// As [`Labeller::scores`].
    pub fn look(&self, images: &Tensor) -> Result<(Vec<f64>, Tensor)> {
        let outputs = self.outputs(images)?;
        let scores = Vec::try_from(self.read(&outputs)?.f_contiguous()?)?;
        Ok((scores, self.opinions(&outputs)?.f_to_kind(Kind::Float)?))
    }

    /// As [`Labeller::scores`], f64 `[N]` on the device of the images, without waiting for it: so nothing is said here about numbers that
    /// cannot be right (see [`Labeller::require_finite`]).
    ///
    /// # Errors
    /// As [`Labeller::scores`], without [`Error::NotFinite`].
    pub(crate) fn scores_on_device(&self, images: &Tensor) -> Result<Tensor> {
        self.read(&self.model.run_unseen(images)?.f_to_kind(Kind::Double)?)
    }

    /// Outputs for images that depend on something whose gradient is wanted, f64 [N, K]; of [`Labeller::differentiable`].
    ///
    /// # Errors
    /// [`Error::Forward`], [`Error::Mismatch`].
    pub(crate) fn outputs_with_gradient(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.model.run_with_gradient(images)?.f_to_kind(Kind::Double)?)
    }

    /// The likeliest class of each row of outputs besides that of the feature, int64 [N, 1]; none without several logits.
    pub(crate) fn rivals(&self, outputs: &Tensor) -> Result<Option<Tensor>> {
        match self.reading {
            Reading::Class { output: ClassifierOutput::Logits, .. } if outputs.size()[1] > 1 => {
                Ok(Some(others(outputs, self.column(outputs.size()[1])?)?.f_argmax(1, true)?))
            }
            _ => Ok(None),
        }
    }

    /// How far the feature's logit is above that of its rival in each row, f64 `[N]`.
    pub(crate) fn lead(&self, outputs: &Tensor, rivals: &Tensor) -> Result<Tensor> {
        let own = outputs.f_select(1, self.column(outputs.size()[1])?)?;
        Ok(own.f_sub(&outputs.f_gather(1, rivals, false)?.f_squeeze_dim(1)?)?)
    }

    /// What a sum of scores says of them.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn require_finite(&self, sum: f64) -> Result<()> {
        if sum.is_finite() { Ok(()) } else { Err(self.model.not_finite()) }
    }

    /// What rows of outputs say of their images, f64 [N, K]: logits less their mean, which says nothing, or else the score alone.
    pub(crate) fn opinions(&self, outputs: &Tensor) -> Result<Tensor> {
        match self.reading {
            Reading::Class { output: ClassifierOutput::Logits, .. } if outputs.size()[1] > 1 => {
                Ok(outputs.f_sub(&outputs.f_mean_dim([1_i64].as_slice(), true, Kind::Double)?)?)
            }
            _ => Ok(self.read(outputs)?.f_unsqueeze(1)?),
        }
    }

    /// One score for each row of [`Labeller::opinions`], f64 `[N]`.
    pub(crate) fn score_of(&self, opinions: &Tensor) -> Result<Tensor> {
        match self.reading {
            Reading::Class { output: ClassifierOutput::Logits, .. } => self.read(opinions),
            // They are the score.
            _ => Ok(opinions.f_select(1, 0)?),
        }
    }

    /// One score for each row of outputs, f64 [N, D].
    pub(crate) fn read(&self, outputs: &Tensor) -> Result<Tensor> {
        let column = self.column(outputs.size()[1])?;
        let own = outputs.f_select(1, column)?;
        Ok(match self.reading {
            Reading::Score => own,
            Reading::Class { output: ClassifierOutput::Logits, .. } if outputs.size()[1] == 1 => own,
            Reading::Class { output: ClassifierOutput::Logits, .. } => {
                own.f_sub(&others(outputs, column)?.f_logsumexp([1_i64].as_slice(), false)?)?
            }
            Reading::Class { output: ClassifierOutput::Probability, .. } => own.f_logit(SMALLEST)?,
        })
    }

    /// The first look, at a whole batch of images as in [`Labeller::scores`]: whether it is a function of the image, and
    /// gives what the job spec says.
    ///
    /// # Errors
    /// [`Error::NoFunction`]; [`Error::Mismatch`] also when outputs declared as logits can only be probabilities; as
    /// [`Labeller::scores`].
    pub fn check(&self, images: &Tensor) -> Result<()> {
        let outputs = self.model.check_function(images)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        if let Reading::Class { output: ClassifierOutput::Logits, .. } = self.reading {
            outputs::check_logits(&self.model, &outputs)?;
        }
        self.scores(images).map(drop)
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
}

/// Probabilities nearer to 0 or 1 than this are taken for it: their log-odds would be infinite.
const SMALLEST: f64 = 1e-9;

/// Logits with nothing in the column of one class.
fn others(outputs: &Tensor, column: i64) -> Result<Tensor> {
    let (before, after) = (outputs.f_narrow(1, 0, column)?, outputs.size()[1] - column - 1);
    let nothing = outputs.f_narrow(1, column, 1)?.f_full_like(f64::NEG_INFINITY)?;
    Ok(Tensor::f_cat(&[before, nothing, outputs.f_narrow(1, column + 1, after)?], 1)?)
}
