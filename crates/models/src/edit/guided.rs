//! The edit that asks the labeller: move only latents whose image shows the feature, just far enough that it does not.

use tch::Tensor;

use super::walk::{Terms, Walk};
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
}

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
        }
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
    /// Signed scores (positive side up) of latent `who[i]` moved by `steps[i]`.
    fn scores(&self, who: &[i64], steps: &[f64]) -> Result<Vec<f64>> {
        let sign = self.editor.target.cut.sign;
        let mut scores = Vec::with_capacity(who.len());
        for (who, steps) in who.chunks(self.search.batch).zip(steps.chunks(self.search.batch)) {
            let images = self.original.forward(&self.moved(who, steps)?)?;
            scores.extend(self.labeller.scores(&self.original.to_unit(&images)?)?.iter().map(|s| sign * s));
        }
        Ok(scores)
    }

    fn moved(&self, who: &[i64], steps: &[f64]) -> Result<Tensor> {
        let device = self.z.device();
        let who = Tensor::f_from_slice(who)?.f_to_device(device)?;
        let steps = Tensor::f_from_slice(steps)?.f_to_device(device)?;
        self.editor.back(&self.z.f_index_select(0, &who)?, &steps)
    }

    /// A step for each latent, and how many of them are not enough.
    ///
    /// The smallest step that is enough; where none is, the one with the lowest score, staying put included.
    fn steps(&self, before: &[f64]) -> Result<(Vec<f64>, u64)> {
        let target = &self.editor.target;
        let terms = Terms {
            goal: target.cut.sign * target.cut.threshold - self.search.margin,
            slack: self.search.slack,
            longest: self.search.longest,
            resolution: self.search.resolution,
        };
        // Were the feature linear in the latent, a deviation of the score would be one of the latent.
        let guess = |score: f64| (score - terms.goal) / target.score_deviation * target.latent_deviation;
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
        let results = walks.iter().map(Walk::result);
        let unresolved = results.clone().filter(|(_, enough)| !enough).count() as u64;
        Ok((results.map(|(step, _)| step).collect(), unresolved))
    }
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
    let images = original.forward(z)?;
    let scores = labeller.scores(&original.to_unit(&images)?)?;
    let flags: Vec<bool> = scores.iter().map(|score| cut.is_positive(*score)).collect();
    let edited = Tensor::f_from_slice(&flags)?.f_to_device(z.device())?;
    let (places, before): (Vec<i64>, Vec<f64>) = (0..)
        .zip(&scores)
        .filter(|(_, score)| cut.is_positive(**score))
        .map(|(place, score)| (place, cut.sign * score))
        .unzip();
    if places.is_empty() {
        return Ok(Edited { latents: z.shallow_clone(), images, edited, count: 0, unresolved: 0 });
    }
    let index = Tensor::f_from_slice(&places)?.f_to_device(z.device())?;
    let trial = Trial { editor, original, labeller, search, z: z.f_index_select(0, &index)? };
    let (steps, unresolved) = trial.steps(&before)?;
    let everyone: Vec<i64> = (0..places.len() as i64).collect();
    let moved = trial.moved(&everyone, &steps)?;
    let rendered = original.forward(&moved)?;
    Ok(Edited {
        latents: z.f_index_copy(0, &index, &moved)?,
        images: images.f_index_copy(0, &index, &rendered)?,
        edited,
        count: places.len() as u64,
        unresolved,
    })
}
