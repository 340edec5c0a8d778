//! The edit that goes back along the direction, as far as it takes.
//!
//! A look is an image made and scored, and what to look at next follows from it. On a cpu each search ends by itself, and only those
//! that go on are looked at. A GPU works ahead of the process that tells it what to do, and asking it after each look would
//! make it wait: there the searches live on the device, and it is asked now and then which are over.

use tch::{Device, Kind, Tensor};

use super::axis::Axis;
use super::method::{Aim, Method, Reached};
use super::walk::{Terms, Walk};
use super::walks::Walks;
use crate::direction::Target;
use crate::error::Result;

/// How far to look, and how finely.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
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
    /// The defaults for this target: up to four standard deviations of the prior, to 1/32 of one.
    pub fn new(target: &Target) -> Self {
        Self {
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

/// Searches along the direction.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) axis: Axis,
    pub(super) search: Search,
    /// Standard deviations of the scores, and of an entry of a latent: were the feature linear in the latent, the one would be the other.
    pub(super) deviations: [f64; 2],
}

impl Method for Line {
    fn reach(&self, aim: &Aim<'_>, z: &Tensor, before: &Tensor) -> Result<Reached> {
        let trial = Trial { line: self, search: &self.search, aim, z };
        let (steps, scores) = trial.steps(before)?;
        Ok(Reached { latents: self.axis.back(z, &steps)?, scores })
    }

    fn set_search(&mut self, search: Search) {
        self.search = search;
    }

    fn set_looks_per_sync(&mut self, looks: usize) {
        self.search.looks_per_sync = looks;
    }
}

/// Latents with what is needed to try steps on them.
struct Trial<'a> {
    line: &'a Line,
    search: &'a Search,
    aim: &'a Aim<'a>,
    /// [P, ...latent].
    z: &'a Tensor,
}

impl Trial<'_> {
    fn terms(&self) -> Terms {
        Terms {
            goal: self.aim.goal,
            slack: self.aim.slack,
            longest: self.search.longest,
            resolution: self.search.resolution,
        }
    }

    /// Latents `who` of these moved by `steps`.
    fn moved(&self, who: &Tensor, steps: &Tensor) -> Result<Tensor> {
        self.line.axis.back(&self.z.f_index_select(0, who)?, steps)
    }

    /// Scores of latent `who[i]` moved by `steps[i]`.
    fn scores(&self, who: &[i64], steps: &[f64]) -> Result<Vec<f64>> {
        let device = self.z.device();
        let mut scores = Vec::with_capacity(who.len());
        for (who, steps) in who.chunks(self.search.batch).zip(steps.chunks(self.search.batch)) {
            let who = Tensor::f_from_slice(who)?.f_to_device(device)?;
            let steps = Tensor::f_from_slice(steps)?.f_to_device(device)?;
            scores.extend(self.aim.scores(&self.moved(&who, &steps)?)?);
        }
        Ok(scores)
    }

    /// A step for each latent, and the score there; f64 `[P]`.
    ///
    /// The smallest step that is enough; where none is, the one with the lowest score, staying put included. `before` are the scores
    /// without a step, f64 `[P]`.
    fn steps(&self, before: &Tensor) -> Result<(Tensor, Tensor)> {
        let (terms, [of_scores, of_latents]) = (self.terms(), self.line.deviations);
        if self.search.stays() {
            let guess = before.f_sub_scalar(terms.goal)?.f_div_scalar(of_scores)?;
            return self.steps_on_device(before, &guess.f_mul_scalar(of_latents)?, &terms);
        }
        let guess = |score: f64| (score - terms.goal) / of_scores * of_latents;
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
        let mut who = Tensor::f_arange(self.z.size()[0], (Kind::Int64, self.z.device()))?;
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
        self.aim.labeller.require_finite(f64::try_from(total)?)?;
        walks.result()
    }

    /// As [`Trial::scores`], `who` int64 and `steps` f64 on the device, and without waiting for it.
    fn scores_on_device(&self, who: &Tensor, steps: &Tensor) -> Result<Tensor> {
        let mut scores = Vec::new();
        for start in (0..who.size()[0]).step_by(self.search.batch) {
            let count = (who.size()[0] - start).min(self.search.batch as i64);
            let (who, steps) = (who.f_narrow(0, start, count)?, steps.f_narrow(0, start, count)?);
            let images = self.aim.images(&self.moved(&who, &steps)?)?;
            scores.push(self.aim.labeller.scores_on_device(&images)?);
        }
        Ok(Tensor::f_cat(&scores, 0)?.f_mul_scalar(self.aim.sign)?)
    }
}
