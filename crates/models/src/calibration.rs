//! Images of which somebody knows whether they show the feature: a safetensors file with the tensors `images` and `labels`.
//!
//! Not here: what their scores decide (`direction::recalled`).

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::precision::dtype;
use crate::reference::Reference;
use crate::weights::Tensors;

/// Of fewer images with the feature nobody can say what 99 % of them score.
const NEEDED: u64 = 20;

impl Reference {
    /// The images that are labelled 1, from a file that has a label for each, `labels` u8 or bool `[N]`; its images must have this [C, H, W].
    ///
    /// # Errors
    /// As [`Reference::from_bytes`]; [`Error::Tensors`] without `labels`; [`Error::Mismatch`] for labels of another shape or kind, or that
    /// are not 0 or 1; [`Error::FewLabelled`] when fewer than 20 are 1.
    pub fn labelled(bytes: &[u8], name: &str, shape: [i64; 3]) -> Result<Self> {
        let all = Self::from_bytes(bytes, name, shape)?;
        let tensors = Tensors::from_bytes(bytes, name)?;
        let shows = read(tensors.get("labels")?, name, all.len())?;
        let places = shows.f_nonzero()?.f_view([-1])?;
        let positives = places.size()[0] as u64;
        if positives < NEEDED {
            let (file, images) = (name.to_owned(), all.len());
            return Err(Error::FewLabelled { file, positives, images, needed: NEEDED });
        }
        all.only(&places)
    }
}

/// Labels as bool `[N]`.
fn read(labels: &Tensor, name: &str, count: u64) -> Result<Tensor> {
    let mismatch = |reason: String| Error::Mismatch { model: name.to_owned(), reason };
    if labels.size() != [count as i64] {
        return Err(mismatch(format!(
            "holds labels of shape {:?}, expected [{count}], one for each image",
            labels.size()
        )));
    }
    match labels.f_kind()? {
        Kind::Bool => Ok(labels.shallow_clone()),
        Kind::Uint8 => {
            let highest = i64::try_from(labels.f_max()?)?;
            if highest > 1 {
                return Err(mismatch(format!("holds labels up to {highest}, expected 0 and 1")));
            }
            Ok(labels.f_to_kind(Kind::Bool)?)
        }
        other => Err(mismatch(format!("holds labels of the dtype {}, expected uint8 or bool", dtype(other)))),
    }
}
