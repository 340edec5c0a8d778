//! Who says which images show the feature: a classifier or a scorer, read as one number per image, or several classifiers together.
//!
//! A classifier is read as log-odds, ln p - ln(1 - p), not as a probability: a probability is flat near 0, and an edit that
//! must go a margin beyond the threshold needs a scale that says how far it has come. Of several, each is read less the log-odds of its own
//! threshold, and the mean of that is the score.
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

/// What gives one score per image: the log-odds of a class, a scorer's own number, or the mean of several classifiers' scores.
#[derive(Debug)]
pub struct Labeller {
    /// At least one.
    members: Vec<Member>,
}

/// A model that looks.
#[derive(Debug)]
struct Member {
    model: ImageModel,
    reading: Reading,
    /// What its score is less: where it is positive above 0 among others; 0 alone.
    threshold: f64,
}

/// The scores of images.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// One for each image.
    pub together: Vec<f64>,
    /// Those of each of several classifiers, above 0 where it sees the feature; none where one model looks alone.
    pub each: Vec<Vec<f64>>,
}

impl Scores {
    /// Adds those of more images, by the same labeller.
    pub fn extend(&mut self, more: Self) {
        self.each.resize(more.each.len(), Vec::new());
        self.each.iter_mut().zip(more.each).for_each(|(known, more)| known.extend(more));
        self.together.extend(more.together);
    }
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
        Self::alone(ImageModel::taught(student), Reading::Score)
    }

    /// Several as one: the mean of their scores, each less its threshold. Of one nothing changes.
    pub fn together(several: impl IntoIterator<Item = (Self, f64)>) -> Self {
        let less = |(labeller, threshold): (Self, f64)| {
            labeller.members.into_iter().map(move |member| Member { threshold, ..member })
        };
        let mut members: Vec<Member> = several.into_iter().flat_map(less).collect();
        if let [alone] = members.as_mut_slice() {
            alone.threshold = 0.0;
        }
        Self { members }
    }

    fn alone(model: ImageModel, reading: Reading) -> Self {
        Self { members: vec![Member { model, reading, threshold: 0.0 }] }
    }

    /// Whether it is a student, which only comes near the labeller's scores.
    pub(crate) fn is_taught(&self) -> bool {
        self.members.iter().any(|member| member.model.is_taught())
    }

    fn of_form(spec: spec::Labeller<'_>, raw: RawModel, device: Device, form: Form) -> Result<Self> {
        match spec {
            spec::Labeller::Classifier(classifier) => Self::classifier(classifier, raw, device, form),
            spec::Labeller::Scorer(_) => {
                let (model, _) = ImageModel::new(raw, ModelKind::Scorer, device, form)?;
                Ok(Self::alone(model, Reading::Score))
            }
            spec::Labeller::Classifiers(several) => Err(Error::Mismatch {
                model: "feature.classifiers".to_owned(),
                reason: format!("are {} models, each of which has a file of its own", several.len()),
            }),
            spec::Labeller::Labels(labels) => Err(Error::Mismatch {
                model: labels.uri.clone(),
                reason: "is a labels file, which cannot look at new images: name a classifier or a scorer"
                    .into(),
            }),
        }
    }

    fn classifier(spec: &spec::Classifier, raw: RawModel, device: Device, form: Form) -> Result<Self> {
        let (model, file) = ImageModel::new(raw, ModelKind::Classifier, device, form)?;
        let labeller = Self::alone(model, Reading::Class { class: spec.class, output: spec.output });
        if let Some(classes) = file.sidecar.and_then(|sidecar| sidecar.classes) {
            labeller.members.iter().try_for_each(|member| member.column(classes).map(drop))?;
        }
        Ok(labeller)
    }

    /// One score per image, of images [N, C, H, W] in [0, 1].
    ///
    /// # Errors
    /// [`Error::Forward`], [`Error::Mismatch`] when a model gives the wrong number of outputs or says probabilities
    /// that are none, [`Error::NotFinite`], [`Error::Memory`].
    pub fn scores(&self, images: &Tensor) -> Result<Vec<f64>> {
        numbers(&self.read(&self.seen(images)?)?)
    }

    /// As [`Labeller::scores`], beside them those of each of several classifiers, and all that each model says of the images, as its
    /// opinions, f32 [N, K] on the cpu.
    ///
    /// # Errors
    /// As [`Labeller::scores`].
    pub fn look(&self, images: &Tensor) -> Result<(Scores, Vec<Tensor>)> {
        let outputs = self.seen(images)?;
        let each = match self.members.as_slice() {
            [_] => Vec::new(),
            _ => self
                .zip(&outputs)
                .map(|(member, outputs)| numbers(&member.read(outputs)?))
                .collect::<Result<_>>()?,
        };
        let opinions =
            self.opinions(&outputs)?.into_iter().map(|opinions| Ok(opinions.f_to_kind(Kind::Float)?));
        let opinions = opinions.collect::<Result<_>>()?;
        Ok((Scores { together: numbers(&self.read(&outputs)?)?, each }, opinions))
    }

    /// Outputs of every model on the cpu, after a look at whether they can be right.
    fn seen(&self, images: &Tensor) -> Result<Outputs> {
        let seen = |member: &Member| {
            let outputs = member.model.run(images)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
            if matches!(member.reading, Reading::Class { output: ClassifierOutput::Probability, .. }) {
                outputs::check_probabilities(&member.model, &outputs)?;
            }
            Ok(outputs)
        };
        self.members.iter().map(seen).collect::<Result<_>>().map(Outputs)
    }

    /// As [`Labeller::scores`], f64 `[N]` on the device of the images, without waiting for it: so nothing is said here about numbers that
    /// cannot be right (see [`Labeller::require_finite`]).
    ///
    /// # Errors
    /// As [`Labeller::scores`], without [`Error::NotFinite`].
    pub(crate) fn scores_on_device(&self, images: &Tensor) -> Result<Tensor> {
        let run = |member: &Member| Ok(member.model.run_unseen(images)?.f_to_kind(Kind::Double)?);
        self.read(&Outputs(self.members.iter().map(run).collect::<Result<_>>()?))
    }

    /// Outputs for images that depend on something whose gradient is wanted; of [`Labeller::differentiable`].
    ///
    /// # Errors
    /// [`Error::Forward`], [`Error::Mismatch`].
    pub(crate) fn outputs_with_gradient(&self, images: &Tensor) -> Result<Outputs> {
        let run = |member: &Member| Ok(member.model.run_with_gradient(images)?.f_to_kind(Kind::Double)?);
        self.members.iter().map(run).collect::<Result<_>>().map(Outputs)
    }

    /// The likeliest class besides that of the feature, of each image by each of the M models, int64 [N, M]; none where no model gives
    /// several logits. Of one that does not, the number says nothing.
    pub(crate) fn rivals(&self, outputs: &Outputs) -> Result<Option<Tensor>> {
        let found: Vec<Option<Tensor>> =
            self.zip(outputs).map(|(member, outputs)| member.rivals(outputs)).collect::<Result<_>>()?;
        let Some(some) = found.iter().flatten().next() else { return Ok(None) };
        let none = some.f_zeros_like()?;
        let columns: Vec<&Tensor> = found.iter().map(|column| column.as_ref().unwrap_or(&none)).collect();
        Ok(Some(Tensor::f_cat(&columns, 1)?))
    }

    /// How far the feature's logit is above that of its rival for each image, f64 `[N]`: the mean over the models, of those without rivals
    /// the score.
    pub(crate) fn lead(&self, outputs: &Outputs, rivals: &Tensor) -> Result<Tensor> {
        self.lead_or(&outputs.0, rivals, Member::read)
    }

    /// The mean over the models of how far the feature is above their rivals in what they say; of those without, of their `score`.
    fn lead_or(
        &self,
        said: &[Tensor],
        rivals: &Tensor,
        score: fn(&Member, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let lead = |(place, (member, said)): (i64, (&Member, &Tensor))| match member.has_rivals(said) {
            true => member.lead(said, &rivals.f_narrow(1, place, 1)?),
            false => score(member, said),
        };
        mean((0..).zip(self.members.iter().zip(said)).map(lead))
    }

    /// What a sum of scores says of them.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn require_finite(&self, sum: f64) -> Result<()> {
        if sum.is_finite() {
            return Ok(());
        }
        let names: Vec<&str> = self.members.iter().map(|member| member.model.name.as_str()).collect();
        Err(Error::NotFinite { what: format!("{}: gave NaN or infinity for some image", names.join(" or ")) })
    }

    /// What each model says of the images, f64 [N, K] each: logits less their mean, which says nothing, or else the score alone.
    pub(crate) fn opinions(&self, outputs: &Outputs) -> Result<Vec<Tensor>> {
        self.zip(outputs).map(|(member, outputs)| member.opinions(outputs)).collect()
    }

    /// The score for each row of [`Labeller::opinions`], f64 `[N]`.
    pub(crate) fn score_of(&self, opinions: &[Tensor]) -> Result<Tensor> {
        mean(self.members.iter().zip(opinions).map(|(member, opinions)| member.score_of(opinions)))
    }

    /// As [`Labeller::lead`], by opinions.
    pub(crate) fn lead_of(&self, opinions: &[Tensor], rivals: &Tensor) -> Result<Tensor> {
        self.lead_or(opinions, rivals, Member::score_of)
    }

    /// One score for each image, f64 `[N]`.
    pub(crate) fn read(&self, outputs: &Outputs) -> Result<Tensor> {
        mean(self.zip(outputs).map(|(member, outputs)| member.read(outputs)))
    }

    /// The first look, at a whole batch of images as in [`Labeller::scores`]: whether it is a function of the image, and
    /// gives what the job spec says.
    ///
    /// # Errors
    /// [`Error::NoFunction`]; [`Error::Mismatch`] also when outputs declared as logits can only be probabilities; as
    /// [`Labeller::scores`].
    pub fn check(&self, images: &Tensor) -> Result<()> {
        for member in &self.members {
            let outputs =
                member.model.check_function(images)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
            if let Reading::Class { output: ClassifierOutput::Logits, .. } = member.reading {
                outputs::check_logits(&member.model, &outputs)?;
            }
        }
        self.scores(images).map(drop)
    }

    /// Each model with its outputs.
    fn zip<'a>(&'a self, outputs: &'a Outputs) -> impl Iterator<Item = (&'a Member, &'a Tensor)> {
        self.members.iter().zip(&outputs.0)
    }
}

/// What each model of a labeller gives for the same images, f64 [N, K] each.
#[derive(Debug)]
pub(crate) struct Outputs(Vec<Tensor>);

impl Member {
    /// As [`Labeller::rivals`], int64 [N, 1].
    fn rivals(&self, outputs: &Tensor) -> Result<Option<Tensor>> {
        if !self.has_rivals(outputs) {
            return Ok(None);
        }
        let outputs = outputs.f_detach()?;
        Ok(Some(others(&outputs, self.column(outputs.size()[1])?)?.f_argmax(1, true)?))
    }

    fn has_rivals(&self, outputs: &Tensor) -> bool {
        matches!(self.reading, Reading::Class { output: ClassifierOutput::Logits, .. })
            && outputs.size()[1] > 1
    }

    /// As [`Labeller::lead`], by its rivals, int64 [N, 1].
    fn lead(&self, outputs: &Tensor, rivals: &Tensor) -> Result<Tensor> {
        let own = outputs.f_select(1, self.column(outputs.size()[1])?)?;
        Ok(own.f_sub(&outputs.f_gather(1, rivals, false)?.f_squeeze_dim(1)?)?)
    }

    fn opinions(&self, outputs: &Tensor) -> Result<Tensor> {
        if self.has_rivals(outputs) {
            return Ok(outputs.f_sub(&outputs.f_mean_dim([1_i64].as_slice(), true, Kind::Double)?)?);
        }
        Ok(self.read(outputs)?.f_unsqueeze(1)?)
    }

    fn score_of(&self, opinions: &Tensor) -> Result<Tensor> {
        // Where they are not logits they are the score.
        if self.has_rivals(opinions) { self.read(opinions) } else { Ok(opinions.f_select(1, 0)?) }
    }

    /// Its score for each image, f64 `[N]`.
    fn read(&self, outputs: &Tensor) -> Result<Tensor> {
        let column = self.column(outputs.size()[1])?;
        let own = outputs.f_select(1, column)?;
        let score = match self.reading {
            Reading::Score => own,
            Reading::Class { output: ClassifierOutput::Logits, .. } if outputs.size()[1] == 1 => own,
            Reading::Class { output: ClassifierOutput::Logits, .. } => {
                own.f_sub(&others(outputs, column)?.f_logsumexp([1_i64].as_slice(), false)?)?
            }
            Reading::Class { output: ClassifierOutput::Probability, .. } => own.f_logit(SMALLEST)?,
        };
        Ok(if self.threshold == 0.0 { score } else { score.f_sub_scalar(self.threshold)? })
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

/// The mean of what several models say of the same images; of one, just that.
pub(crate) fn mean(of_each: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    let mut count = 0_u32;
    for one in of_each {
        let one = one?;
        count += 1;
        sum = Some(match sum {
            Some(sum) => sum.f_add(&one)?,
            None => one,
        });
    }
    match sum {
        Some(one) if count == 1 => Ok(one),
        Some(sum) => Ok(sum.f_mul_scalar(1.0 / f64::from(count))?),
        None => Err(Error::Mismatch { model: "the labeller".to_owned(), reason: "has no model".to_owned() }),
    }
}

fn numbers(scores: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(scores.f_contiguous()?)?)
}

/// Probabilities nearer to 0 or 1 than this are taken for it: their log-odds would be infinite.
const SMALLEST: f64 = 1e-9;

/// Logits with nothing in the column of one class.
fn others(outputs: &Tensor, column: i64) -> Result<Tensor> {
    let (before, after) = (outputs.f_narrow(1, 0, column)?, outputs.size()[1] - column - 1);
    let nothing = outputs.f_narrow(1, column, 1)?.f_full_like(f64::NEG_INFINITY)?;
    Ok(Tensor::f_cat(&[before, nothing, outputs.f_narrow(1, column + 1, after)?], 1)?)
}
