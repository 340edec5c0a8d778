//! Real images to measure distances to: a safetensors file with the tensor `images`.

use std::path::Path;

use lethe_domain::spec::ModelFormat;
use lethe_domain::{Ends, FileKind};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::file::read;
use crate::precision::dtype;
use crate::weights::Tensors;

/// Images [N, C, H, W], u8 in 0..=255 or f32 in [0, 1].
#[derive(Debug)]
pub struct Reference {
    name: String,
    images: Tensor,
}

impl Reference {
    /// Reads the file; its images must have this [C, H, W].
    ///
    /// # Errors
    /// [`Error::Read`], and as [`Reference::from_bytes`].
    pub fn open(path: &Path, shape: [i64; 3]) -> Result<Self> {
        Self::from_bytes(&read(path)?, &path.display().to_string(), shape)
    }

    /// Takes bytes that were read elsewhere.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::Unreadable`], [`Error::Tensors`] without `images`, [`Error::Mismatch`] for other shapes and kinds and
    /// for pixels outside [0, 1], [`Error::NotFinite`].
    pub fn from_bytes(bytes: &[u8], name: &str, shape: [i64; 3]) -> Result<Self> {
        let found = FileKind::of(Ends::of(bytes));
        if let (Some(what), true) = (found.refusal(ModelFormat::Safetensors), found != FileKind::TorchScript)
        {
            return Err(Error::Foreign { file: name.to_owned(), what: what.to_owned(), hint: "" });
        }
        let tensors = Tensors::from_bytes(bytes, name)?;
        let images = tensors.get("images")?.shallow_clone();
        let mismatch = |reason: String| Error::Mismatch { model: name.to_owned(), reason };
        let size = images.size();
        if size.len() != 4 || size[1..] != shape || size[0] < 2 {
            return Err(mismatch(format!(
                "holds images of shape {size:?}, expected [N, {}, {}, {}] with N at least 2",
                shape[0], shape[1], shape[2]
            )));
        }
        match images.f_kind()? {
            Kind::Uint8 => {}
            Kind::Float => {
                let (low, high) = (f64::try_from(images.f_min()?)?, f64::try_from(images.f_max()?)?);
                if !(low.is_finite() && high.is_finite()) {
                    return Err(Error::NotFinite { what: format!("{name}: holds NaN or infinite pixels") });
                }
                if low < 0.0 || high > 1.0 {
                    return Err(mismatch(format!(
                        "holds f32 pixels from {low:.3} to {high:.3}, expected 0 to 1"
                    )));
                }
            }
            other => {
                return Err(mismatch(format!(
                    "holds pixels of the dtype {}, expected uint8 or float32",
                    dtype(other)
                )));
            }
        }
        Ok(Self { name: name.to_owned(), images })
    }

    /// Those of its images that lie at these places, int64 `[P]`.
    pub(crate) fn only(self, places: &Tensor) -> Result<Self> {
        Ok(Self { images: self.images.f_index_select(0, places)?, ..self })
    }

    /// The file, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of images.
    pub fn len(&self) -> u64 {
        self.images.size()[0] as u64
    }

    /// Never: a reference holds at least two images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Images start .. start + count (or to the end) as f32 in [0, 1].
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn batch(&self, start: u64, count: u64, device: Device) -> Result<Tensor> {
        let start = start.min(self.len());
        let count = count.min(self.len() - start);
        let images = self.images.f_narrow(0, start as i64, count as i64)?.f_to_device(device)?;
        Ok(match images.f_kind()? {
            Kind::Uint8 => images.f_to_kind(Kind::Float)?.f_div_scalar_(255.0)?,
            _ => images,
        })
    }
}
