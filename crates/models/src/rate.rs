//! The learning rate that suits a model, measured on it.
//!
//! Adam moves every weight by about the rate in each step, whatever its gradient. How far that takes the images differs from model to model:
//! what a broad network hardly notices shakes a small one with large gains so far that it never finds back to what the original
//! draws. So the rate is given in pixels: a step in random directions is to change them by [`CHANGE`].
//!
//! Not here: how the rate falls over the steps (`lethe_domain::spec::LrSchedule`).

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::generator::Generator;
use crate::latents::{Latents, Stream};

/// What one step may change of a pixel in [0, 1], on average over pixels.
const CHANGE: f64 = 9e-4;
/// Images that are looked at.
const IMAGES: u64 = 64;
/// Where the search begins: small enough that images follow the weights in proportion.
const FIRST: f64 = 1e-4;
/// Times that it is corrected.
const CORRECTIONS: usize = 2;
/// What no model needs more or less than.
const SENSIBLE: [f64; 2] = [1e-6, 1e-2];

/// The learning rate for `copy`, whose weights are moved and put back.
///
/// # Errors
/// [`Error::NotFinite`] when images do not stay finite; as [`Generator::forward`].
pub fn learning_rate(copy: &Generator, latents: &Latents) -> Result<f64> {
    tch::no_grad(|| {
        let z = latents.batch(Stream::Probe, 0, IMAGES, copy.device())?;
        let images = |copy: &Generator| copy.to_unit(&copy.forward(&z)?);
        let before = images(copy)?;
        let weights: Vec<Tensor> = copy
            .parameters()
            .iter()
            .map(|(_, weight)| weight.f_detach())
            .collect::<std::result::Result<_, _>>()?;
        let kept: Vec<Tensor> =
            weights.iter().map(Tensor::f_detach_copy).collect::<std::result::Result<_, _>>()?;
        let signs: Vec<Tensor> = (0..)
            .zip(&weights)
            .map(|(place, weight)| latents.signs(Stream::Rate, place, &weight.size(), copy.device()))
            .collect::<Result<_>>()?;
        let mut rate = FIRST;
        for _ in 0..=CORRECTIONS {
            for ((weight, kept), signs) in weights.iter().zip(&kept).zip(&signs) {
                weight.shallow_clone().f_copy_(&kept.f_add(&signs.f_mul_scalar(rate)?)?)?;
            }
            let change = f64::try_from(images(copy)?.f_sub(&before)?.f_abs()?.f_mean(Kind::Double)?)?;
            if !change.is_finite() {
                return Err(Error::NotFinite { what: "images after one step of every weight".to_owned() });
            }
            rate = (rate * CHANGE / change.max(f64::MIN_POSITIVE)).clamp(SENSIBLE[0], SENSIBLE[1]);
        }
        for (weight, kept) in weights.iter().zip(&kept) {
            weight.shallow_clone().f_copy_(kept)?;
        }
        Ok(rate)
    })
}
