//! A model that looks at images, TorchScript or a student: what labellers and feature extractors have in common.

use lethe_domain::ModelKind;
use lethe_domain::spec::ModelFormat;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::file::{ModelFile, RawModel};
use crate::function;
use crate::script::Script;
use crate::student::Student;

/// What a model is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Inference: no gradient passes.
    Optimised,
    /// Gradients with respect to images.
    Differentiable,
}

/// Images [N, C, H, W] in [0, 1] to numbers [N, D], frozen.
#[derive(Debug)]
pub(crate) struct ImageModel {
    pub(crate) name: String,
    net: Net,
}

#[derive(Debug)]
enum Net {
    Script(Script),
    Student(Student),
}

impl ImageModel {
    /// Takes a file that was read.
    ///
    /// # Errors
    /// As [`ModelFile::new`]; [`Error::NoForward`].
    pub(crate) fn new(
        raw: RawModel,
        kind: ModelKind,
        device: Device,
        form: Form,
    ) -> Result<(Self, ModelFile)> {
        let file = ModelFile::of(raw, kind, ModelFormat::TorchScript)?;
        let mut script = Script::load(&file.bytes, &file.name, device)?;
        match form {
            Form::Optimised => script.optimise()?,
            Form::Differentiable => {
                for named in script.tensors()?.into_iter().filter(|named| named.parameter) {
                    let _ = named.tensor.f_set_requires_grad(false)?;
                }
            }
        }
        Ok((Self { name: file.name.clone(), net: Net::Script(script) }, file))
    }

    pub(crate) fn taught(student: Student) -> Self {
        Self { name: "the labeller's student".to_owned(), net: Net::Student(student) }
    }

    pub(crate) fn is_taught(&self) -> bool {
        matches!(self.net, Net::Student(_))
    }

    /// Runs it on a batch several times, whole and in parts. Gives its outputs.
    ///
    /// # Errors
    /// [`Error::NoFunction`] when what it says about an image depends on anything but the image; as [`ImageModel::run`].
    pub(crate) fn check_function(&self, images: &Tensor) -> Result<Tensor> {
        let Net::Script(script) = &self.net else { return self.run(images) };
        let kept = script.tensors()?.into_iter().filter(|named| !named.parameter);
        let buffers: Vec<(String, Tensor)> = kept.map(|named| (named.name, named.tensor)).collect();
        function::check(&self.name, images, &buffers, || script.precision(), |images| self.run(images))
    }

    /// [N, D] f32; a model that gives [N] has D = 1.
    ///
    /// # Errors
    /// [`Error::Forward`]; [`Error::Mismatch`] for any other shape; [`Error::NotFinite`].
    pub(crate) fn run(&self, images: &Tensor) -> Result<Tensor> {
        // Asked of the images too: oneDNN's max(x, 0) makes a zero of NaN, and the outputs would look sound. The sum of
        // pixels in [0, 1] cannot overflow.
        if !f64::try_from(images.f_sum(Kind::Float)?)?.is_finite() {
            return Err(Error::NotFinite {
                what: format!("{}: was given images with NaN or infinity", self.name),
            });
        }
        let output = self.run_unseen(images)?;
        if bool::try_from(output.f_isfinite()?.f_all()?)? { Ok(output) } else { Err(self.not_finite()) }
    }

    /// As [`ImageModel::run`], without looking at a number: looking waits for the device.
    ///
    /// # Errors
    /// [`Error::Forward`]; [`Error::Mismatch`].
    pub(crate) fn run_unseen(&self, images: &Tensor) -> Result<Tensor> {
        tch::no_grad(|| self.run_with_gradient(images))
    }

    /// As [`ImageModel::run_unseen`], of images that depend on something whose gradient is wanted.
    ///
    /// # Errors
    /// [`Error::Forward`]; [`Error::Mismatch`].
    pub(crate) fn run_with_gradient(&self, images: &Tensor) -> Result<Tensor> {
        let output = match &self.net {
            Net::Script(script) => script.forward(images)?,
            Net::Student(student) => student.forward(images)?,
        };
        let count = images.size()[0];
        let output = match output.size().as_slice() {
            [n] if *n == count => output.f_view([count, 1])?,
            [n, _] if *n == count => output,
            other => {
                return Err(self.mismatch(format!(
                    "gives {other:?} for {count} images, expected [{count}] or [{count}, D]"
                )));
            }
        };
        Ok(output)
    }

    pub(crate) fn not_finite(&self) -> Error {
        Error::NotFinite { what: format!("{}: gave NaN or infinity for some image", self.name) }
    }

    pub(crate) fn mismatch(&self, reason: String) -> Error {
        Error::Mismatch { model: self.name.clone(), reason }
    }
}
