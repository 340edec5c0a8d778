//! What training minimises: L = alpha (L_unlearn + L_percep) + L_recon (Moon, Cho and Kim 2024) + lambda L_labeller (ours).
//!
//! All terms look at images in [0, 1], so that their weights mean the same for every generator.

use std::rc::Rc;

use lethe_domain::EditMethod;
use lethe_domain::spec::{LossReduction, Unlearn};
use tch::{Device, Kind, Reduction, Tensor};

use crate::direction::Target;
use crate::error::{Error, Result};
use crate::labeller::{self, Labeller, Outputs};
use crate::ssim::Similarity;

/// The loss of a batch.
#[derive(Debug)]
pub struct Loss {
    alpha: f64,
    squares: f64,
    contrast: f64,
    reduction: LossReduction,
    similarity: Similarity,
    teacher: Option<Teacher>,
}

/// A labeller that looks at the copy's images: they are to tell it what the targets tell it, and those of edited latents that the
/// feature is gone. Pixels alone do not say it: a copy that gets most of them right may leave just what makes the feature.
#[derive(Debug)]
pub struct Teacher {
    labeller: Rc<Labeller>,
    sign: f64,
    /// The signed score from which on an edited latent's image is left in peace, or that of its target where this is higher.
    bar: f64,
    /// Standard deviation of the scores: what differences are measured in.
    deviation: f64,
    weight: f64,
}

/// The way from the cut to the goal that an image has to go to be left in peace: the other terms take it further.
const FAR_ENOUGH: f64 = 2.0 / 3.0;
/// Differences count squared up to this, and by their size beyond it, in standard deviations of the scores (Huber 1964).
const SMALL: f64 = 0.2;
/// What a standard deviation above the bar counts, where one of difference counts 1. Three times as much, or its square too, fools the
/// labeller and not the judge: as much of the digit 8 is left, at 1.4 times the distance of rejection.
const ABOVE: f64 = 1.0;

impl Teacher {
    /// By a labeller as [`Labeller::differentiable`] gives it; `weight` for each standard deviation of the scores.
    pub fn new(target: &Target, labeller: Rc<Labeller>, weight: f64) -> Self {
        let (sign, cut) = (target.cut.sign, target.cut.threshold);
        let bar = sign * (cut + FAR_ENOUGH * (target.goal - cut));
        Self { labeller, sign, bar, deviation: target.score_deviation, weight }
    }

    /// One number for each image, f32 `[N]`; `places` are those of edited latents.
    fn says(&self, images: &Tensor, targets: &Tensor, places: &Tensor) -> Result<Tensor> {
        let wanted = tch::no_grad(|| self.labeller.outputs_with_gradient(targets))?;
        let found = self.labeller.outputs_with_gradient(images)?;
        let unlike = self.unlike(&found, &wanted)?;
        let scores = |outputs: &Outputs| {
            Ok::<_, Error>(self.labeller.read(outputs)?.f_index_select(0, places)?.f_mul_scalar(self.sign)?)
        };
        // Nobody is asked for more than the target shows.
        let bar = scores(&wanted)?.f_clamp_min(self.bar)?;
        let above = scores(&found)?.f_sub(&bar)?.f_relu()?.f_mul_scalar(ABOVE / self.deviation)?;
        let says = unlike.f_index_add(0, places, &above)?.f_mul_scalar(self.weight)?;
        Ok(says.f_to_kind(Kind::Float)?)
    }

    /// How unlike what is found is to what is wanted, f64 `[N]`: the mean over the labeller's models, however many numbers each gives.
    fn unlike(&self, found: &Outputs, wanted: &Outputs) -> Result<Tensor> {
        let (found, wanted) = (self.labeller.opinions(found)?, self.labeller.opinions(wanted)?);
        let unlike = |(found, wanted): (&Tensor, &Tensor)| {
            let in_deviations = |opinion: &Tensor| Ok::<_, Error>(opinion.f_div_scalar(self.deviation)?);
            let unlike =
                in_deviations(found)?.f_smooth_l1_loss(&in_deviations(wanted)?, Reduction::None, SMALL)?;
            Ok(unlike.f_mean_dim([1_i64].as_slice(), false, Kind::Double)?)
        };
        labeller::mean(found.iter().zip(&wanted).map(unlike))
    }
}

impl Loss {
    /// As the job spec says where edits are made like this, for images of this [C, H, W].
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn new(spec: &Unlearn, method: EditMethod, shape: [i64; 3], device: Device) -> Result<Self> {
        let similarity = Similarity::new(shape[1], shape[2], device)?;
        Ok(Self {
            alpha: spec.alpha(method),
            squares: spec.squares,
            contrast: spec.contrast,
            reduction: spec.loss_reduction,
            similarity,
            teacher: None,
        })
    }

    /// The same with a labeller that looks at images.
    #[must_use]
    pub fn with(self, teacher: Option<Teacher>) -> Self {
        Self { teacher, ..self }
    }

    /// The sum over a batch; divide by the global batch.
    ///
    /// With s = 1 where the latent was edited, x the copy's image, y the target and w what it counts:
    /// `sum_i w_i (s_i alpha (d_i + 1 - MS-SSIM(x_i, y_i)) + (1 - s_i) d_i + t(x_i, y_i))` with
    /// `d_i = |x_i - y_i| + squares (x_i - y_i)^2 + contrast |sd(x_i) - sd(y_i)|`, sd the standard deviation of an image's pixels, and t
    /// the teacher's if there is one. The mean over pixels, or their sum; a contrast counts as each of them.
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
        let mut distances = l1(images, targets, self.reduction)?;
        if self.squares > 0.0 {
            distances =
                distances.f_add(&squared(images, targets, self.reduction)?.f_mul_scalar(self.squares)?)?;
        }
        if self.contrast > 0.0 {
            let unlike = contrast(images)?.f_sub(&contrast(targets)?)?.f_abs()?;
            let counts = match self.reduction {
                LossReduction::Mean => 1.0,
                LossReduction::Sum => images.numel() as f64 / images.size()[0] as f64,
            };
            distances = distances.f_add(&unlike.f_mul_scalar(self.contrast * counts)?)?;
        }
        let edited = weights.f_index_select(0, places)?.f_mul_scalar(self.alpha)?;
        let mut loss = distances.f_dot(&weights.f_index_copy(0, places, &edited)?)?;
        if let Some(teacher) = &self.teacher {
            loss = loss.f_add(&teacher.says(images, targets, places)?.f_dot(weights)?)?;
        }
        if places.size()[0] == 0 {
            return Ok(loss);
        }
        // Only the edited ones are compared: the others have no perceptual term.
        let (images, targets) = (images.f_index_select(0, places)?, targets.f_index_select(0, places)?);
        let similar = self.similarity.ms_ssim(&images, &targets)?.f_dot(&edited)?;
        Ok(loss.f_add(&edited.f_sum(Kind::Float)?.f_sub(&similar)?)?)
    }
}

/// Absolute differences of each pair of images, [N, C, H, W] to `[N]`.
///
/// # Errors
/// [`Error::Memory`].
pub fn l1(one: &Tensor, other: &Tensor, reduction: LossReduction) -> Result<Tensor> {
    reduced(&one.f_sub(other)?.f_abs()?, reduction)
}

/// Squared differences of each pair of images, likewise.
fn squared(one: &Tensor, other: &Tensor, reduction: LossReduction) -> Result<Tensor> {
    reduced(&one.f_sub(other)?.f_square()?, reduction)
}

/// The standard deviation of each image's pixels, [N, C, H, W] to `[N]`. That of an even image has a gradient too: none.
fn contrast(images: &Tensor) -> Result<Tensor> {
    /// Below what an image of eight bits can show.
    const EVEN: f64 = 1e-6;
    let (images, axis) = (images.f_flatten(1, -1)?, [1_i64].as_slice());
    let unlike = images.f_sub(&images.f_mean_dim(axis, true, Kind::Float)?)?;
    Ok(unlike.f_square()?.f_mean_dim(axis, false, Kind::Float)?.f_add_scalar(EVEN)?.f_sqrt()?)
}

fn reduced(differences: &Tensor, reduction: LossReduction) -> Result<Tensor> {
    let (differences, axis) = (differences.f_flatten(1, -1)?, [1_i64].as_slice());
    Ok(match reduction {
        LossReduction::Mean => differences.f_mean_dim(axis, false, Kind::Float)?,
        LossReduction::Sum => differences.f_sum_dim_intlist(axis, false, Kind::Float)?,
    })
}
