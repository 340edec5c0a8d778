//! What the copy has to show for each latent: the original's image, or, where the feature would be, the original's image of
//! an edited latent.
//!
//! An edit depends on its latent alone, not on the batch around it, so it does not matter which rank makes it. It stays where the prior
//! has support: what the generator never saw says nothing about its images. An entry that would leave stops at the border, the others
//! go on.

mod guided;
mod walk;
mod walks;

use std::rc::Rc;

use lethe_domain::spec::{self, Prior, Selection};
use tch::{Device, Kind, Tensor};

use crate::direction::Target;
use crate::error::{Error, Result};
use crate::generator::Generator;
use crate::labeller::Labeller;

pub use guided::Search;

/// Edits latents along a target vector.
#[derive(Debug)]
pub struct Editor {
    /// [D], f64.
    unit: Tensor,
    /// Lowest and highest entry of a latent; none where the prior has no border.
    support: Option<[f64; 2]>,
    target: Target,
    how: How,
}

#[derive(Debug)]
enum How {
    /// Those beyond the threshold; back by `scale` times the excess.
    Projection { scale: f64 },
    /// Those whose image is positive; back as far as it takes.
    Guided { labeller: Rc<Labeller>, search: Search },
}

/// A batch of edited latents: the original's images of them are what the copy should give.
#[derive(Debug)]
pub struct Edited {
    /// z where the feature is absent or no edit takes it away, z_hat where one does; [N, ...latent].
    pub latents: Tensor,
    /// How much z shows the feature, by the labeller or along the direction: higher is more; f64 `[N]`.
    pub scores: Tensor,
    /// Which latents were to be edited, int64 `[P]`, in order.
    pub places: Tensor,
    /// Which of these P show the feature at every step tried, bool `[P]`: they stay put, and there is no image to teach.
    pub unresolved: Tensor,
}

impl Edited {
    /// How many were to be edited.
    pub fn count(&self) -> u64 {
        self.places.size()[0] as u64
    }
}

impl Editor {
    /// Edits as the job spec says, for latents of this prior. `labeller` is needed for `selection: classifier`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when it is needed and missing.
    pub fn new(
        target: &Target,
        spec: &spec::Direction,
        prior: Prior,
        labeller: Option<Rc<Labeller>>,
        device: Device,
    ) -> Result<Self> {
        let how = match (spec.selection, labeller) {
            (Selection::Projection, _) => {
                How::Projection { scale: if spec.raw { target.raw_norm } else { 1.0 } }
            }
            (Selection::Classifier, Some(labeller)) => {
                How::Guided { labeller, search: Search::new(spec.margin, target).on(device) }
            }
            (Selection::Classifier, None) => {
                return Err(Error::Mismatch {
                    model: "direction.selection".to_owned(),
                    reason: "is classifier, which needs a classifier or scorer to look at images".to_owned(),
                });
            }
        };
        let unit = Tensor::f_from_slice(&target.unit)?.f_to_device(device)?;
        let support = match prior {
            Prior::Normal => None,
            Prior::Uniform(low, high) => Some([low, high]),
        };
        Ok(Self { unit, support, target: target.clone(), how })
    }

    /// The same editor with other search parameters; nothing changes for `selection: projection`.
    #[must_use]
    pub fn with_search(mut self, search: Search) -> Self {
        if let How::Guided { search: present, .. } = &mut self.how {
            *present = search;
        }
        self
    }

    /// How many looks of a guided edit between asking the device which searches are over; see [`Search`].
    pub fn set_looks_per_sync(&mut self, looks: usize) {
        if let How::Guided { search, .. } = &mut self.how {
            search.looks_per_sync = looks;
        }
    }

    /// Projections p = z.u of latents [N, ...latent] onto the unit vector, f64 `[N]`.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn projections(&self, z: &Tensor) -> Result<Tensor> {
        let flat = z.f_reshape([z.size()[0], -1])?.f_to_kind(Kind::Double)?;
        Ok(flat.f_mul(&self.unit)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?)
    }

    /// Edits a batch, without gradients.
    ///
    /// # Errors
    /// As [`Generator::forward`] and [`Labeller::scores`].
    pub fn edit(&self, original: &Generator, z: &Tensor) -> Result<Edited> {
        tch::no_grad(|| match &self.how {
            How::Projection { scale } => {
                // z - (p - t) u where p >= t; u times its raw length as the paper prints it.
                let scores = self.projections(z)?;
                let excess = scores.f_sub_scalar(self.target.threshold)?;
                let latents = self.back(z, &excess.f_clamp_min(0.0)?.f_mul_scalar(*scale)?)?;
                let places = excess.f_ge(0.0)?.f_nonzero()?.f_view([-1])?;
                let unresolved = places.f_zeros_like()?.f_to_kind(Kind::Bool)?;
                Ok(Edited { latents, scores, places, unresolved })
            }
            How::Guided { labeller, search } => guided::edit(self, original, labeller, search, z),
        })
    }

    /// z - steps * u, kept where the prior has support; `steps` is f64 `[N]`.
    fn back(&self, z: &Tensor, steps: &Tensor) -> Result<Tensor> {
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
