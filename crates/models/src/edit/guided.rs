//! The edit that asks the labeller: move only latents whose image shows the feature, just far enough that it does not.
//!
//! A look is an image made and scored, and what to look at next follows from it. On a cpu each search ends by itself, and only those
//! that go on are looked at. A GPU works ahead of the process that tells it what to do, and asking it after each look would
//! make it wait: there the searches live on the device, and it is asked now and then which are over.

use tch::{Device, Kind, Tensor};

use super::walk::{Terms, Walk};
use super::walks::Walks;
use super::{Edited, Editor};
use crate::direction::Target;
use crate::error::Result;
use crate::generator::Generator;
use crate::labeller::Labeller;

/// How far to look, and how finely.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// How far beyond the cut a score must be, in the labeller's own units.
    pub margin: f64,
    /// A score this little beyond the margin is near enough to it, in the labeller's own units.
    pub slack: f64,
    /// Longest step against the direction, in units of the latent.
    pub longest: f64,
    /// Two steps this near to each other are not told apart, in units of the latent.
    pub resolution: f64,
    /// Most images looked at for one latent.
    pub looks: usize,
    /// Most latents rendered at once.
    pub batch: usize,
    /// How many looks between asking which searches are over. 1: after each, decided by this process.
    pub looks_per_sync: usize,
}

/// A search takes six looks or so.
const GPU_LOOKS_PER_SYNC: usize = 4;

impl Search {
    /// The defaults for this target, with `margin` in standard deviations of the scores: up to four standard deviations
    /// of the prior, to 1/32 of one or to 1/20 of the scores' deviation.
    pub fn new(margin: f64, target: &Target) -> Self {
        Self {
            margin: margin * target.score_deviation,
            slack: target.score_deviation / 20.0,
            longest: 4.0 * target.latent_deviation,
            resolution: target.latent_deviation / 32.0,
            looks: 16,
            batch: 256,
            looks_per_sync: 1,
        }
    }

    /// The same, as suits a device.
    #[must_use]
    pub fn on(self, device: Device) -> Self {
        Self { looks_per_sync: if device.is_cuda() { GPU_LOOKS_PER_SYNC } else { 1 }, ..self }
    }

    /// Whether searches live on the device.
    fn stays(&self) -> bool {
        self.looks_per_sync > 1
    }
}

/// The latents that show the feature, with what is needed to try steps on them.
struct Trial<'a> {
    editor: &'a Editor,
    original: &'a Generator,
    labeller: &'a Labeller,
    search: &'a Search,
    /// [P, ...latent].
    z: Tensor,
}

impl Trial<'_> {
    fn terms(&self) -> Terms {
        let cut = self.editor.target.cut;
        Terms {
            goal: cut.sign * cut.threshold - self.search.margin,
            slack: self.search.slack,
            longest: self.search.longest,
            resolution: self.search.resolution,
        }
    }

    /// Latents `who` of these moved by `steps`.
    fn moved(&self, who: &Tensor, steps: &Tensor) -> Result<Tensor> {
        self.editor.back(&self.z.f_index_select(0, who)?, steps)
    }

    /// Images in [0, 1] of latents `who` moved by `steps`.
    fn look(&self, who: &Tensor, steps: &Tensor) -> Result<Tensor> {
        self.original.to_unit(&self.original.forward(&self.moved(who, steps)?)?)
    }

    /// Signed scores (positive side up) of latent `who[i]` moved by `steps[i]`.
    fn scores(&self, who: &[i64], steps: &[f64]) -> Result<Vec<f64>> {
        let (sign, device) = (self.editor.target.cut.sign, self.z.device());
        let mut scores = Vec::with_capacity(who.len());
        for (who, steps) in who.chunks(self.search.batch).zip(steps.chunks(self.search.batch)) {
            let who = Tensor::f_from_slice(who)?.f_to_device(device)?;
            let steps = Tensor::f_from_slice(steps)?.f_to_device(device)?;
            scores.extend(self.labeller.scores(&self.look(&who, &steps)?)?.iter().map(|s| sign * s));
        }
        Ok(scores)
    }

    /// A step for each latent, and the signed score there; f64 `[P]`.
    ///
    /// The smallest step that is enough; where none is, the one with the lowest score, staying put included. `before` are the signed
    /// scores without a step, f64 `[P]`.
    fn steps(&self, before: &Tensor) -> Result<(Tensor, Tensor)> {
        let (terms, target) = (self.terms(), &self.editor.target);
        if self.search.stays() {
            // Were the feature linear in the latent, a deviation of the score would be one of the latent.
            let guess = before.f_sub_scalar(terms.goal)?.f_div_scalar(target.score_deviation)?;
            return self.steps_on_device(before, &guess.f_mul_scalar(target.latent_deviation)?, &terms);
        }
        let guess = |score: f64| (score - terms.goal) / target.score_deviation * target.latent_deviation;
        let before = Vec::<f64>::try_from(before)?;
        let mut walks: Vec<Walk> = before.iter().map(|score| Walk::new(*score, guess(*score))).collect();
        for _ in 0..self.search.looks {
            let open = (0..).zip(&walks).filter_map(|(who, walk)| Some((who, walk.next(&terms)?)));
            let (who, steps): (Vec<i64>, Vec<f64>) = open.unzip();
            if who.is_empty() {
                break;
            }
            let scores = self.scores(&who, &steps)?;
            for ((who, step), score) in who.into_iter().zip(steps).zip(scores) {
                walks[who as usize].tell(step, score, &terms);
            }
        }
        let (steps, scores): (Vec<f64>, Vec<f64>) = walks.iter().map(Walk::result).unzip();
        let device = self.z.device();
        let steps = Tensor::f_from_slice(&steps)?.f_to_device(device)?;
        Ok((steps, Tensor::f_from_slice(&scores)?.f_to_device(device)?))
    }

    fn steps_on_device(&self, before: &Tensor, guess: &Tensor, terms: &Terms) -> Result<(Tensor, Tensor)> {
        let mut walks = Walks::new(before, guess, terms)?;
        let mut who = everyone(&self.z)?;
        let mut total = before.f_sum(Kind::Double)?;
        for look in 0..self.search.looks {
            let looks = walks.next(terms)?;
            if look > 0 && look % self.search.looks_per_sync == 0 {
                // Waits for the device.
                who = looks.open.f_nonzero()?.f_view([-1])?;
                if who.numel() == 0 {
                    break;
                }
            }
            let scores = self.scores_on_device(&who, &looks.steps.f_index_select(0, &who)?)?;
            total = total.f_add(&scores.f_sum(Kind::Double)?)?;
            // The others are over: whatever stands for their scores is not read.
            walks.tell(&looks, &before.f_index_copy(0, &who, &scores)?, terms)?;
        }
        // Finite numbers of this size have a finite sum.
        self.labeller.require_finite(f64::try_from(total)?)?;
        walks.result()
    }

    /// As [`Trial::scores`], `who` int64 and `steps` f64 on the device, and without waiting for it.
    fn scores_on_device(&self, who: &Tensor, steps: &Tensor) -> Result<Tensor> {
        let mut scores = Vec::new();
        for start in (0..who.size()[0]).step_by(self.search.batch) {
            let count = (who.size()[0] - start).min(self.search.batch as i64);
            let (who, steps) = (who.f_narrow(0, start, count)?, steps.f_narrow(0, start, count)?);
            scores.push(self.labeller.scores_on_device(&self.look(&who, &steps)?)?);
        }
        Ok(Tensor::f_cat(&scores, 0)?.f_mul_scalar(self.editor.target.cut.sign)?)
    }
}

/// All places of a batch.
fn everyone(z: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_arange(z.size()[0], (Kind::Int64, z.device()))?)
}

/// Edits the latents whose image the labeller calls positive.
pub(super) fn edit(
    editor: &Editor,
    original: &Generator,
    labeller: &Labeller,
    search: &Search,
    z: &Tensor,
) -> Result<Edited> {
    let cut = editor.target.cut;
    let units = original.to_unit(&original.forward(z)?)?;
    let scores = if search.stays() {
        labeller.scores_on_device(&units)?
    } else {
        Tensor::f_from_slice(&labeller.scores(&units)?)?.f_to_device(z.device())?
    };
    // As Cut::is_positive.
    let scores = scores.f_mul_scalar(cut.sign)?;
    let edited = scores.f_gt(cut.sign * cut.threshold)?;
    // Waits for the device, once for the batch: how many there are decides the shape of what follows.
    let places = edited.f_nonzero()?.f_view([-1])?;
    if places.numel() == 0 {
        let unresolved = edited.f_narrow(0, 0, 0)?;
        return Ok(Edited { latents: z.shallow_clone(), scores, places, unresolved });
    }
    let trial = Trial { editor, original, labeller, search, z: z.f_index_select(0, &places)? };
    let (steps, reached) = trial.steps(&scores.f_index_select(0, &places)?)?;
    // What no step takes the feature from stays put.
    let unresolved = reached.f_gt(cut.sign * cut.threshold)?;
    let moved = editor.back(&trial.z, &steps.f_masked_fill(&unresolved, 0.0)?)?;
    Ok(Edited { latents: z.f_index_copy(0, &places, &moved)?, scores, places, unresolved })
}
