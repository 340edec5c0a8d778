//! The target vector with its figures, and its file.

use std::rc::Rc;

use lethe_domain::{Cut, EditMethod};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::student::Student;
use crate::surrogate::Surrogate;
use crate::weights::Tensors;

/// Under which a student's weights are kept.
const STUDENT: &str = "student";
/// Likewise a surrogate's.
const SURROGATE: &str = "surrogate";
/// And the metric of latents.
const METRIC: &str = "metric";

/// Where the feature is, and where the edit begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Unit vector towards the feature, flattened.
    pub unit: Vec<f64>,
    /// Shape of one latent.
    pub shape: Vec<i64>,
    /// Length of the raw mean difference.
    pub raw_norm: f64,
    /// Where the edit begins, as a projection onto the unit vector.
    pub threshold: f64,
    /// Which scores mean the feature is there.
    pub cut: Cut,
    /// The score beyond which a latent is edited, in the labeller's own units.
    pub select: f64,
    /// The score that an edited image must reach.
    pub goal: f64,
    /// How latents are edited.
    pub method: EditMethod,
    /// What leads edits and training where the labeller has no gradient.
    pub student: Option<Rc<Student>>,
    /// What edits by a gradient ask besides.
    pub surrogate: Option<Rc<Surrogate>>,
    /// What a move changes, for edits by a gradient.
    pub metric: Option<Rc<Metric>>,
    /// Standard deviation of the scores.
    pub score_deviation: f64,
    /// Standard deviation of a latent's entry under the prior.
    pub latent_deviation: f64,
    /// The learning rate that suits the generator.
    pub lr: f64,
    /// Samples looked at.
    pub samples: u64,
    /// Those that show the feature.
    pub positives: u64,
    /// Share of latents that training will edit.
    pub edited_share: f64,
    /// Area under the ROC curve of the projection as a predictor of the label, on held-out samples.
    pub heldout_auc: f64,
}

impl Target {
    /// As a safetensors file; the same target always gives the same bytes.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut tensors = Tensors::new("target");
        tensors.insert("unit", &Tensor::f_from_slice(&self.unit)?.f_reshape(&self.shape)?);
        for (name, value) in self.figures() {
            tensors.insert_f64(name, value);
        }
        if let Some(student) = &self.student {
            tensors.nest(STUDENT, student.state());
        }
        if let Some(surrogate) = &self.surrogate {
            tensors.nest(SURROGATE, surrogate.state());
        }
        if let Some(metric) = &self.metric {
            tensors.nest(METRIC, metric.state());
        }
        tensors.to_bytes()
    }

    /// What [`Target::to_bytes`] wrote. `file` is named in errors.
    ///
    /// # Errors
    /// [`Error::Unreadable`], [`Error::Tensors`].
    pub fn from_bytes(bytes: &[u8], file: &str) -> Result<Self> {
        let tensors = Tensors::from_bytes(bytes, file)?;
        let unit = tensors.get("unit")?;
        if unit.f_kind()? != Kind::Double || unit.numel() == 0 {
            let reason = "the tensor unit is not an f64 vector".to_owned();
            return Err(Error::Tensors { file: file.to_owned(), reason });
        }
        let student = tensors.nested(STUDENT);
        let student =
            (!student.is_empty()).then(|| Student::from_state(&student, Device::Cpu)).transpose()?;
        let surrogate = tensors.nested(SURROGATE);
        let surrogate =
            (!surrogate.is_empty()).then(|| Surrogate::from_state(&surrogate, Device::Cpu)).transpose()?;
        let metric = tensors.nested(METRIC);
        let metric = (!metric.is_empty()).then(|| Metric::from_state(&metric, unit.numel(), Device::Cpu));
        Ok(Self {
            student: student.map(Rc::new),
            metric: metric.transpose()?.map(Rc::new),
            surrogate: surrogate.map(Rc::new),
            shape: unit.size(),
            unit: Vec::try_from(unit.f_reshape([-1])?)?,
            raw_norm: tensors.get_f64("raw_norm")?,
            threshold: tensors.get_f64("threshold")?,
            cut: Cut { sign: tensors.get_f64("cut_sign")?, threshold: tensors.get_f64("cut_threshold")? },
            select: tensors.get_f64("select")?,
            goal: tensors.get_f64("goal")?,
            method: method(tensors.get_f64("method")?, file)?,
            score_deviation: tensors.get_f64("score_deviation")?,
            latent_deviation: tensors.get_f64("latent_deviation")?,
            lr: tensors.get_f64("lr")?,
            samples: tensors.get_f64("samples")? as u64,
            positives: tensors.get_f64("positives")? as u64,
            edited_share: tensors.get_f64("edited_share")?,
            heldout_auc: tensors.get_f64("heldout_auc")?,
        })
    }

    /// Every figure as f64: exact, as counts stay below 2^53.
    fn figures(&self) -> [(&'static str, f64); 14] {
        [
            ("raw_norm", self.raw_norm),
            ("threshold", self.threshold),
            ("cut_sign", self.cut.sign),
            ("cut_threshold", self.cut.threshold),
            ("select", self.select),
            ("goal", self.goal),
            ("method", f64::from(self.method as u8)),
            ("score_deviation", self.score_deviation),
            ("latent_deviation", self.latent_deviation),
            ("lr", self.lr),
            ("samples", self.samples as f64),
            ("positives", self.positives as f64),
            ("edited_share", self.edited_share),
            ("heldout_auc", self.heldout_auc),
        ]
    }
}

/// The method whose number stands in a file.
fn method(number: f64, file: &str) -> Result<EditMethod> {
    let all = [EditMethod::Projection, EditMethod::Line, EditMethod::Gradient, EditMethod::Student];
    all.into_iter().find(|method| f64::from(*method as u8) == number).ok_or_else(|| {
        let reason = format!("the number {number} is no method of editing");
        Error::Tensors { file: file.to_owned(), reason }
    })
}
