//! Whether a classifier's outputs can be what the job spec says they are: logits or probabilities.

use tch::{Kind, Tensor};

use crate::error::Result;
use crate::image_model::ImageModel;

/// Refuses the outputs of a softmax or a sigmoid, [N, K] f64, where logits are meant.
///
/// # Errors
/// [`crate::Error::Mismatch`].
pub(crate) fn check_logits(model: &ImageModel, outputs: &Tensor) -> Result<()> {
    // A few logits may lie anywhere.
    const ENOUGH: i64 = 16;
    const TOLERANCE: f64 = 1e-3;
    let (images, classes) = outputs.size2()?;
    let (low, high) = (f64::try_from(outputs.f_min()?)?, f64::try_from(outputs.f_max()?)?);
    if images < ENOUGH || low < 0.0 || high > 1.0 {
        return Ok(());
    }
    if classes == 1 {
        return Err(model.mismatch(format!(
            "gives numbers from {low:.3} to {high:.3} for {images} images, the job spec says output: logits (is it \
             probability? If these are logits indeed, name it as a scorer, with positive: {{above: LOGIT}})"
        )));
    }
    let sums = outputs.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?;
    let off = f64::try_from(sums.f_sub_scalar(1.0)?.f_abs()?.f_max()?)?;
    if off > TOLERANCE {
        return Ok(());
    }
    Err(model.mismatch(format!(
        "gives {classes} numbers between 0 and 1 that add up to 1 for each of {images} images, the job spec says output: \
         logits (is it probability?)"
    )))
}

/// Refuses what cannot be probabilities, [N, K] f64, where they are meant.
///
/// # Errors
/// [`crate::Error::Mismatch`].
pub(crate) fn check_probabilities(model: &ImageModel, outputs: &Tensor) -> Result<()> {
    const TOLERANCE: f64 = 1e-3;
    let (low, high) = (f64::try_from(outputs.f_min()?)?, f64::try_from(outputs.f_max()?)?);
    if low < -TOLERANCE || high > 1.0 + TOLERANCE {
        return Err(model.mismatch(format!(
            "gives numbers from {low:.3} to {high:.3}, the job spec says output: probability (is it logits?)"
        )));
    }
    Ok(())
}
