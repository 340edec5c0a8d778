//! What training minimises: L = alpha (L_unlearn + L_percep) + L_recon (Moon, Cho and Kim 2024).
//!
//! All terms look at images in [0, 1], so that alpha means the same for every generator.

use lethe_domain::spec::{LossReduction, Unlearn};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::ssim::Similarity;

/// The loss of a batch.
#[derive(Debug)]
pub struct Loss {
    alpha: f64,
    reduction: LossReduction,
    similarity: Similarity,
}

impl Loss {
    /// As the job spec says, for images of this [C, H, W].
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn new(spec: &Unlearn, shape: [i64; 3], device: Device) -> Result<Self> {
        let similarity = Similarity::new(shape[1], shape[2], device)?;
        Ok(Self { alpha: spec.alpha, reduction: spec.loss_reduction, similarity })
    }

    /// The sum over a batch; divide by the global batch.
    ///
    /// With s = 1 where the latent was edited, x the copy's image, y the target and w what it counts:
    /// `sum_i w_i (s_i alpha (|x_i - y_i| + 1 - MS-SSIM(x_i, y_i)) + (1 - s_i) |x_i - y_i|)`.
    /// `images` and `targets` are [N, C, H, W] in [0, 1], `places` where s is 1, int64 `[P]`, `weights` f32 `[N]`.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn sum(
        &self,
        images: &Tensor,
        targets: &Tensor,
        places: &Tensor,
        weights: &Tensor,
    ) -> Result<Tensor> {
        let distances = l1(images, targets, self.reduction)?;
        let edited = weights.f_index_select(0, places)?.f_mul_scalar(self.alpha)?;
        let pixels = distances.f_dot(&weights.f_index_copy(0, places, &edited)?)?;
        if places.size()[0] == 0 {
            return Ok(pixels);
        }
        // Only the edited ones are compared: the others have no perceptual term.
        let (images, targets) = (images.f_index_select(0, places)?, targets.f_index_select(0, places)?);
        let similar = self.similarity.ms_ssim(&images, &targets)?.f_dot(&edited)?;
        Ok(pixels.f_add(&edited.f_sum(Kind::Float)?.f_sub(&similar)?)?)
    }
}

/// Absolute differences of each pair of images, [N, C, H, W] to `[N]`.
///
/// # Errors
/// [`crate::Error::Memory`].
pub fn l1(one: &Tensor, other: &Tensor, reduction: LossReduction) -> Result<Tensor> {
    let differences = one.f_sub(other)?.f_abs()?.f_flatten(1, -1)?;
    let axis = [1_i64].as_slice();
    Ok(match reduction {
        LossReduction::Mean => differences.f_mean_dim(axis, false, Kind::Float)?,
        LossReduction::Sum => differences.f_sum_dim_intlist(axis, false, Kind::Float)?,
    })
}
