//! The metric of latents: how much the original's images change when a latent moves.
//!
//! A latent space knows nothing of images: one step of unit length changes the mouth, another one of the same length everything from hair to background.
//! The shortest way in latents to an image without the feature is not the smallest change of the image. With the mean of
//! `J^T J` over latents, where J is the Jacobian of an image by its latent (the pullback metric: Arvanitidis, Hansen and Hauberg, ICLR 2018),
//! an edit goes against the natural gradient instead: what lowers the score most for the change it makes. Not here: the
//! score, and how far an edit goes (`edit`).

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::generator::Generator;
use crate::latents::{Latents, Stream};
use crate::weights::Tensors;

/// Latents that are looked at, that are looked at once, and how often. For white noise v over pixels the mean of `(J^T v)(J^T v)^T` is `J^T J`.
const IMAGES: u64 = 512;
const BATCH: u64 = 64;
const DRAWS: u64 = 4;

/// `(1 + locality M)^-1`, where M has a mean of 1 on its diagonal: f64 [D, D], of flat latents.
#[derive(Debug)]
pub struct Metric {
    inverse: Tensor,
}

impl Metric {
    /// Latents with more entries are left alone: their metric could not be told from so few images.
    pub const MOST_ENTRIES: usize = 1_024;

    /// Looks how images change. `step` is called before each batch with how many are done, of how many. None where they do not.
    ///
    /// # Errors
    /// As [`Generator::forward`]; those of `step`.
    pub fn of<E: From<Error>>(
        original: &Generator,
        latents: &Latents,
        locality: f64,
        mut step: impl FnMut(u64, u64) -> std::result::Result<(), E>,
    ) -> std::result::Result<Option<Self>, E> {
        let size = latents.numel() as i64;
        let sum = Tensor::f_zeros([size, size], (Kind::Double, original.device())).map_err(Error::from)?;
        for place in 0..IMAGES / BATCH {
            step(place, IMAGES / BATCH)?;
            tch::with_grad(|| look(original, latents, place, &sum))?;
        }
        Ok(Self::from_sum(&sum, locality)?)
    }

    fn from_sum(sum: &Tensor, locality: f64) -> Result<Option<Self>> {
        let scale = f64::try_from(sum.f_diagonal(0, 0, 1)?.f_mean(Kind::Double)?)?;
        if !(scale.is_finite() && scale > 0.0) {
            return Ok(None);
        }
        let one = Tensor::f_eye(sum.size()[0], (Kind::Double, sum.device()))?;
        let metric = sum.f_mul_scalar(locality / scale)?.f_add(&one)?;
        Ok(Some(Self { inverse: metric.f_inverse()? }))
    }

    /// Where gradients f64 [N, D] point when a move costs what it changes.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn natural(&self, gradients: &Tensor) -> Result<Tensor> {
        Ok(gradients.f_matmul(&self.inverse)?)
    }

    /// By name.
    pub(crate) fn state(&self) -> Tensors {
        let mut state = Tensors::new("metric");
        state.insert("inverse", &self.inverse);
        state
    }

    /// What [`Metric::state`] gave, for latents of `entries` entries.
    ///
    /// # Errors
    /// [`Error::Tensors`] when it is something else.
    pub(crate) fn from_state(state: &Tensors, entries: usize, device: Device) -> Result<Self> {
        let size = entries as i64;
        Ok(Self { inverse: state.get_shaped("inverse", &[size, size], Kind::Double)?.f_to_device(device)? })
    }

    /// The same on a device.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn on(&self, device: Device) -> Result<Self> {
        Ok(Self { inverse: self.inverse.f_to_device(device)? })
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.inverse.equal(&other.inverse)
    }
}

/// Adds `(J^T v)(J^T v)^T` of the latents of one batch to `sum`, f64 [D, D].
fn look(original: &Generator, latents: &Latents, place: u64, sum: &Tensor) -> Result<()> {
    let device = original.device();
    let z = latents.batch(Stream::Probe, place * BATCH, BATCH, device)?.f_set_requires_grad(true)?;
    let images = original.to_unit(&original.forward(&z)?)?;
    for draw in 0..DRAWS {
        let noise = latents.signs(Stream::Metric, place * DRAWS + draw, &images.size(), device)?;
        let mixed = images.f_mul(&noise)?.f_sum(Kind::Float)?;
        let gradient = Tensor::f_run_backward(&[mixed], &[&z], true, false)?.swap_remove(0);
        let rows = gradient.f_to_kind(Kind::Double)?.f_flatten(1, -1)?;
        let _ = sum.shallow_clone().f_add_(&rows.f_transpose(0, 1)?.f_matmul(&rows)?)?;
    }
    Ok(())
}
