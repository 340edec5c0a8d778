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
