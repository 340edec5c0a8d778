//! What the copy has to show for each latent: the original's image, or, where the feature would be, the original's image of
//! an edited latent.
//!
//! An edit depends on its latent and on the batch it is made in, on nothing else: whoever makes the same batch makes the same edits.

mod axis;
mod descent;
mod guided;
mod line;
mod method;
mod walk;
mod walks;

use std::rc::Rc;

use lethe_domain::EditMethod;
use lethe_domain::spec::{Direction, Prior};
use tch::{Device, Kind, Tensor};

use crate::direction::Target;
use crate::error::{Error, Result};
use crate::generator::Generator;
use crate::labeller::Labeller;

use axis::Axis;
use descent::Descent;
use guided::Guided;
use line::Line;
use method::Method;

pub use line::Search;

/// Goes up with every change by which some latent gets another edit, or a shard of the pool other bytes: what an older program made is not
/// used again.
pub const EDIT_VERSION: u32 = 2;

/// Edits latents along a target vector.
#[derive(Debug)]
pub struct Editor {
    target: Target,
    how: How,
}

#[derive(Debug)]
enum How {
    /// Those beyond the threshold; back by `scale` times the excess.
    Projection { axis: Axis, scale: f64 },
    /// Those whose image shows the feature; as far as it takes.
    Guided(Guided),
}

/// Who looks at images: a labeller, and the same or its student in a form that can be differentiated.
#[derive(Debug, Clone)]
pub struct Guide {
    /// Scores images.
    pub labeller: Rc<Labeller>,
    /// As [`Labeller::differentiable`] or [`Labeller::taught`] gives it.
    pub differentiable: Rc<Labeller>,
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
    /// Which of these P show the feature after every move tried, bool `[P]`: they stay put, and there is no image to teach.
    pub unresolved: Tensor,
    /// The original's images of `latents`, in [0, 1]; [N, C, H, W].
    pub images: Tensor,
}

impl Edited {
    /// How many were to be edited.
    pub fn count(&self) -> u64 {
        self.places.size()[0] as u64
    }
}

impl Editor {
    /// Edits as the target and the job spec say, for latents of this prior. A guide is needed unless the target says projection.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when it is needed and missing.
    pub fn new(
        target: &Target,
        direction: &Direction,
        prior: Prior,
        guide: Option<Guide>,
        device: Device,
    ) -> Result<Self> {
        let how = match (target.method, guide) {
            (EditMethod::Projection, _) => How::Projection {
                axis: Axis::new(target, prior, device)?,
                scale: if direction.raw { target.raw_norm } else { 1.0 },
            },
            (method, Some(Guide { labeller, differentiable })) => {
                let method: Box<dyn Method> = match method {
                    EditMethod::Gradient | EditMethod::Student => {
                        Box::new(descent(target, direction.surrogate, prior, differentiable, device)?)
                    }
                    _ => Box::new(line(target, prior, device)?),
                };
                How::Guided(Guided { labeller, method })
            }
            (_, None) => {
                return Err(Error::Mismatch {
                    model: "direction.selection".to_owned(),
                    reason: "is classifier, which needs a classifier or scorer to look at images".to_owned(),
                });
            }
        };
        Ok(Self { target: target.clone(), how })
    }

    /// The same editor with other search parameters, where it searches along the direction.
    #[must_use]
    pub fn with_search(mut self, search: Search) -> Self {
        if let How::Guided(guided) = &mut self.how {
            guided.method.set_search(search);
        }
        self
    }

    /// How many looks of a search between asking the device which are over; see [`Search`].
    pub fn set_looks_per_sync(&mut self, looks: usize) {
        if let How::Guided(guided) = &mut self.how {
            guided.method.set_looks_per_sync(looks);
        }
    }

    /// Edits a batch, without gradients.
    ///
    /// # Errors
    /// As [`Generator::forward`] and [`Labeller::scores`].
    pub fn edit(&self, original: &Generator, z: &Tensor) -> Result<Edited> {
        tch::no_grad(|| match &self.how {
            How::Projection { axis, scale } => {
                // z - (p - t) u where p >= t; u times its raw length as the paper prints it.
                let scores = axis.projections(z)?;
                let excess = scores.f_sub_scalar(self.target.threshold)?;
                let latents = axis.back(z, &excess.f_clamp_min(0.0)?.f_mul_scalar(*scale)?)?;
                let places = excess.f_ge(0.0)?.f_nonzero()?.f_view([-1])?;
                let unresolved = places.f_zeros_like()?.f_to_kind(Kind::Bool)?;
                let images = original.to_unit(&original.forward(&latents)?)?;
                Ok(Edited { latents, scores, places, unresolved, images })
            }
            How::Guided(guided) => guided.edit(&self.target, original, z),
        })
    }
}

fn line(target: &Target, prior: Prior, device: Device) -> Result<Line> {
    Ok(Line {
        axis: Axis::new(target, prior, device)?,
        search: Search::new(target).on(device),
        deviations: [target.score_deviation, target.latent_deviation],
    })
}

fn descent(
    target: &Target,
    share: f64,
    prior: Prior,
    guide: Rc<Labeller>,
    device: Device,
) -> Result<Descent> {
    let surrogate = target.surrogate.as_ref().filter(|_| share > 0.0);
    let surrogate = surrogate.map(|surrogate| Ok::<_, Error>((surrogate.on(device)?, share))).transpose()?;
    let metric = target.metric.as_ref().map(|metric| metric.on(device)).transpose()?;
    Ok(Descent { guide, surrogate, metric, prior, deviation: target.latent_deviation })
}

/// Whether one step along the gradient lowers the scores of these latents more, on average, than one as long along the direction. Not
/// where the gradient is missing, as behind a threshold on pixels.
///
/// # Errors
/// As [`Generator::forward`] and [`Labeller::scores`].
pub fn gradient_leads(
    target: &Target,
    original: &Generator,
    guide: &Guide,
    prior: Prior,
    z: &Tensor,
) -> Result<bool> {
    let aim = guided::aim(target, original, &guide.labeller);
    let descent = descent(target, 0.0, prior, Rc::clone(&guide.differentiable), z.device())?;
    tch::no_grad(|| {
        let by_gradient = match descent.step(&aim, z) {
            Ok(scores) => scores,
            Err(error @ (Error::Memory { .. } | Error::NotFinite { .. })) => return Err(error),
            // It has no derivative.
            Err(_) => return Ok(false),
        };
        let count = z.size()[0];
        let steps = Tensor::f_full([count], descent.longest_step(), (Kind::Double, z.device()))?;
        let along = aim.scores(&Axis::new(target, prior, z.device())?.back(z, &steps)?)?;
        let mean = along.iter().sum::<f64>() / count as f64;
        Ok(f64::try_from(by_gradient.f_mean(Kind::Double)?)? < mean)
    })
}
