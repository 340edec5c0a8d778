//! The feature space in which distances between sets of images are measured.

use std::path::Path;

use lethe_domain::ModelKind;
use tch::{Device, Tensor};

use crate::error::Result;
use crate::file::RawModel;
use crate::image_model::{Form, ImageModel};

/// A model from images to feature vectors.
#[derive(Debug)]
pub struct Features {
    model: ImageModel,
    dimension: Option<i64>,
}

impl Features {
    /// Loads the TorchScript model at `path`.
    ///
    /// # Errors
    /// As [`crate::ModelFile::open`]; [`crate::Error::NoForward`].
    pub fn open(path: &Path, device: Device) -> Result<Self> {
        Self::new(RawModel::read(path)?, device)
    }

    /// Takes a file that was read.
    ///
    /// # Errors
    /// As [`crate::ModelFile::new`]; [`crate::Error::NoForward`].
    pub fn new(raw: RawModel, device: Device) -> Result<Self> {
        let (model, file) = ImageModel::new(raw, ModelKind::Features, device, Form::Optimised)?;
        Ok(Self { model, dimension: file.sidecar.and_then(|sidecar| sidecar.dimension) })
    }

    /// The first look, at a whole batch of images as in [`Features::of`].
    ///
    /// # Errors
    /// [`crate::Error::NoFunction`]; as [`Features::of`].
    pub fn check(&self, images: &Tensor) -> Result<()> {
        let _ = self.model.check_function(images)?;
        self.of(images).map(drop)
    }

    /// Feature vectors [N, D] f32 of images [N, C, H, W] in [0, 1].
    ///
    /// # Errors
    /// [`crate::Error::Forward`], [`crate::Error::Mismatch`], [`crate::Error::NotFinite`], [`crate::Error::Memory`].
    pub fn of(&self, images: &Tensor) -> Result<Tensor> {
        let vectors = self.model.run(images)?;
        match self.dimension {
            Some(dimension) if vectors.size()[1] != dimension => Err(self.model.mismatch(format!(
                "gives vectors of length {}, its sidecar says {dimension}",
                vectors.size()[1]
            ))),
            _ => Ok(vectors),
        }
    }
}
