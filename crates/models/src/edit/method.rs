//! What every way from an image with the feature to one without it is given, and what it gives. A method is one file: `line`, `descent`.

use std::fmt::Debug;

use tch::Tensor;

use super::line::Search;
use crate::error::Result;
use crate::generator::Generator;
use crate::labeller::Labeller;

/// Where an edit is to end, and who says where it is. Scores here are signed: higher is more of the feature.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aim<'a> {
    pub(super) original: &'a Generator,
    pub(super) labeller: &'a Labeller,
    /// 1 or -1: what makes a score of the labeller a signed one.
    pub(super) sign: f64,
    /// The score beyond which latents are moved.
    pub(super) select: f64,
    /// The score beyond which the labeller sees the feature.
    pub(super) threshold: f64,
    /// The score to reach, or go below.
    pub(super) goal: f64,
    /// A score this little below the goal is near enough to it.
    pub(super) slack: f64,
}

impl Aim<'_> {
    /// Images in [0, 1] of latents [N, ...latent].
    pub(super) fn images(&self, z: &Tensor) -> Result<Tensor> {
        self.original.to_unit(&self.original.forward(z)?)
    }

    /// The score that each latent of these scores, f64 `[P]`, is to reach: the goal where the labeller sees the feature, and by degrees less far
    /// below it, so that what is just selected hardly moves. A copy cannot follow a jump.
    pub(super) fn goals(&self, before: &Tensor) -> Result<Tensor> {
        let band = self.threshold - self.select;
        if band <= 0.0 {
            return Ok(before.f_full_like(self.goal)?);
        }
        let share = before.f_sub_scalar(self.select)?.f_div_scalar(band)?.f_clamp(0.0, 1.0)?;
        Ok(share.f_mul_scalar(self.goal - self.select)?.f_add_scalar(self.select)?)
    }

    /// Scores of their images.
    pub(super) fn scores(&self, z: &Tensor) -> Result<Vec<f64>> {
        Ok(self.labeller.scores(&self.images(z)?)?.into_iter().map(|score| self.sign * score).collect())
    }
}

/// Where latents ended.
#[derive(Debug)]
pub(super) struct Reached {
    /// [P, ...latent].
    pub(super) latents: Tensor,
    /// Their scores, f64 `[P]`.
    pub(super) scores: Tensor,
}

/// A way to take the feature from latents.
pub(super) trait Method: Debug {
    /// Moves latents `z`, [P, ...latent], whose scores are `before`, f64 `[P]`: each by the smallest move found that reaches the goal, and
    /// where none does by the one with the lowest score, staying put included.
    fn reach(&self, aim: &Aim<'_>, z: &Tensor, before: &Tensor) -> Result<Reached>;

    /// Other search parameters, where there are any.
    fn set_search(&mut self, _search: Search) {}

    /// How many looks between asking the device which searches are over, where they live there.
    fn set_looks_per_sync(&mut self, _looks: usize) {}
}
