//! A TorchScript model that looks at images: what labellers and feature extractors have in common.

use lethe_domain::ModelKind;
use lethe_domain::spec::ModelFormat;
use std::path::Path;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::script::Script;

/// Images [N, C, H, W] in [0, 1] to numbers [N, D], frozen.
#[derive(Debug)]
pub(crate) struct ImageModel {
    pub(crate) name: String,
    script: Script,
}

impl ImageModel {
    /// Reads the model and its sidecar.
    ///
    /// # Errors
    /// As [`ModelFile::open`]; [`Error::NoForward`].
    pub(crate) fn open(path: &Path, kind: ModelKind, device: Device) -> Result<(Self, ModelFile)> {
        let file = ModelFile::open(path, kind, ModelFormat::TorchScript)?;
        let mut script = Script::load(&file.bytes, &file.name, device)?;
        script.optimise()?;
        Ok((Self { name: file.name.clone(), script }, file))
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
        let output = tch::no_grad(|| self.script.forward(images))?;
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
        let output = output.f_to_kind(Kind::Float)?;
        if bool::try_from(output.f_isfinite()?.f_all()?)? {
            Ok(output)
        } else {
            Err(Error::NotFinite { what: format!("{}: gave NaN or infinity for some image", self.name) })
        }
    }

    pub(crate) fn mismatch(&self, reason: String) -> Error {
        Error::Mismatch { model: self.name.clone(), reason }
    }
}
