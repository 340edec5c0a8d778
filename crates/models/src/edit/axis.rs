//! The direction as an axis of latent space: where latents lie on it, and steps back along it.
//!
//! Steps end where the prior has support: what the generator never saw says nothing about its images. An entry that would leave stops at
//! the border, the others go on.

use lethe_domain::spec::Prior;
use tch::{Device, Kind, Tensor};

use crate::direction::Target;
use crate::error::Result;

/// A unit vector, and the border of the prior.
#[derive(Debug)]
pub(super) struct Axis {
    /// [D], f64.
    unit: Tensor,
    /// Lowest and highest entry of a latent; none where the prior has no border.
    support: Option<[f64; 2]>,
}

impl Axis {
    pub(super) fn new(target: &Target, prior: Prior, device: Device) -> Result<Self> {
        let unit = Tensor::f_from_slice(&target.unit)?.f_to_device(device)?;
        let support = match prior {
            Prior::Normal => None,
            Prior::Uniform(low, high) => Some([low, high]),
        };
        Ok(Self { unit, support })
    }

    /// Projections p = z.u of latents [N, ...latent], f64 `[N]`.
    pub(super) fn projections(&self, z: &Tensor) -> Result<Tensor> {
        let flat = z.f_reshape([z.size()[0], -1])?.f_to_kind(Kind::Double)?;
        Ok(flat.f_mul(&self.unit)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?)
    }

    /// z - steps * u, kept where the prior has support; `steps` is f64 `[N]`.
    pub(super) fn back(&self, z: &Tensor, steps: &Tensor) -> Result<Tensor> {
        let count = z.size()[0];
        let moved = steps.f_view([count, 1])?.f_mul(&self.unit)?.f_reshape(z.size())?;
        let moved = z.f_to_kind(Kind::Double)?.f_sub(&moved)?;
        let kept = match self.support {
            Some([low, high]) => moved.f_clamp(low, high)?,
            None => moved,
        };
        Ok(kept.f_to_kind(z.f_kind()?)?)
    }
}
