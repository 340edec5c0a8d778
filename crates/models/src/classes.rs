//! A classifier read as a whole: which class an image is most probably of.
//!
//! Not here: one of the classes as a score (`labeller`).

use lethe_domain::ModelKind;
use lethe_domain::spec::{self, ClassifierOutput};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::file::RawModel;
use crate::image_model::{Form, ImageModel};
use crate::outputs;

/// A classifier is sure above this probability.
const SURE: f64 = 0.9;

/// A model that tells classes apart.
#[derive(Debug)]
pub struct Classes {
    model: ImageModel,
    output: ClassifierOutput,
}

impl Classes {
    /// Takes the file of the classifier that `spec` describes.
    ///
    /// # Errors
    /// As [`crate::ModelFile::new`]; [`crate::Error::NoForward`].
    pub fn new(spec: &spec::Classes, raw: RawModel, device: Device) -> Result<Self> {
        let (model, _) = ImageModel::new(raw, ModelKind::Classifier, device, Form::Optimised)?;
        Ok(Self { model, output: spec.output })
    }

    /// The first look, at a whole batch of images [N, C, H, W] in [0, 1]: whether it is a function of the image, and gives what the
    /// job spec says.
    ///
    /// # Errors
    /// [`crate::Error::NoFunction`]; [`crate::Error::Mismatch`] also when outputs declared as logits can only be probabilities; as
    /// [`Classes::changed`].
    pub fn check(&self, images: &Tensor) -> Result<()> {
        let outputs = self.model.check_function(images)?.f_to_kind(Kind::Double)?;
        if self.output == ClassifierOutput::Logits {
            outputs::check_logits(&self.model, &outputs)?;
        }
        self.most_probable(images).map(drop)
    }

    /// Of each pair of images [N, C, H, W] in [0, 1]: whether the most probable class of the second is another than that of the first,
    /// 0 or 1, and NaN where the classifier is not sure of the first; f64 `[N]`.
    ///
    /// # Errors
    /// [`crate::Error::Forward`], [`crate::Error::Mismatch`], [`crate::Error::NotFinite`], [`crate::Error::Memory`].
    pub fn changed(&self, before: &Tensor, after: &Tensor) -> Result<Tensor> {
        let (probability, class) = self.most_probable(before)?;
        let (_, now) = self.most_probable(after)?;
        let changed = now.f_ne_tensor(&class)?.f_to_kind(Kind::Double)?;
        Ok(changed.f_masked_fill(&probability.f_le(SURE)?, f64::NAN)?)
    }

    /// The probability of each image's most probable class, f64 `[N]`, and which one it is, int64 `[N]`.
    fn most_probable(&self, images: &Tensor) -> Result<(Tensor, Tensor)> {
        let outputs = self.model.run(images)?.f_to_kind(Kind::Double)?;
        let single = outputs.size()[1] == 1;
        let probabilities = match self.output {
            // A sigmoid is the softmax beside a zero.
            ClassifierOutput::Logits if single => {
                Tensor::f_cat(&[&outputs.f_zeros_like()?, &outputs], 1)?.f_softmax(1, Kind::Double)?
            }
            ClassifierOutput::Logits => outputs.f_softmax(1, Kind::Double)?,
            ClassifierOutput::Probability => {
                outputs::check_probabilities(&self.model, &outputs)?;
                if single { Tensor::f_cat(&[&(1.0 - &outputs), &outputs], 1)? } else { outputs }
            }
        };
        Ok(probabilities.f_max_dim(1, false)?)
    }
}
