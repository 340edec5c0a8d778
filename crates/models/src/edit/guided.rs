//! The edit that asks the labeller: move only latents whose image shows the feature, just far enough that it does not.

use tch::Tensor;

use super::{Edited, Editor};
use crate::direction::Target;
use crate::error::Result;
use crate::generator::Generator;
use crate::labeller::Labeller;

/// How far to look, and how finely.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// Longest step against the direction, in units of the latent.
    pub longest: f64,
    /// Steps tried first, evenly spaced up to the longest, all in one pass.
    pub grid: usize,
    /// Halvings of the interval before the first step that was enough.
    pub bisections: usize,
    /// How far beyond the cut a score must be, in the labeller's own units.
    pub margin: f64,
    /// Most latents rendered at once.
    pub batch: usize,
}

impl Search {
    /// The defaults for this target: up to four standard deviations of the prior, to 1/32 of one; `margin` in standard
    /// deviations of the scores.
    pub fn new(margin: f64, target: &Target) -> Self {
        Self {
            longest: 4.0 * target.latent_deviation,
            grid: 8,
            bisections: 4,
            margin: margin * target.score_deviation,
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
    /// The smallest step of the grid that is enough, then halved towards the one before it. Where no step is enough: the
    /// one with the lowest score, the shortest of equals, staying put included.
    fn steps(&self, before: &[f64]) -> Result<(Vec<f64>, u64)> {
        let cut = self.editor.target.cut;
        let goal = cut.sign * cut.threshold - self.search.margin;
        let (count, grid) = (before.len(), self.search.grid.max(1));
        let spacing = self.search.longest / grid as f64;
        let who: Vec<i64> = (0..count as i64).flat_map(|one| std::iter::repeat_n(one, grid)).collect();
        let tried: Vec<f64> =
            (0..count).flat_map(|_| (1..=grid).map(|place| place as f64 * spacing)).collect();
        let scores = self.scores(&who, &tried)?;

        let mut chosen = vec![0.0; count];
        // Latents with a step that is enough: their number, a step that is too short, one that is enough.
        let mut open: Vec<(i64, f64, f64)> = Vec::new();
        for (one, scores) in scores.chunks(grid).enumerate() {
            match scores.iter().position(|score| *score <= goal) {
                Some(place) => open.push((one as i64, place as f64 * spacing, (place + 1) as f64 * spacing)),
                None => {
                    let mut lowest = before[one];
                    for (place, score) in scores.iter().enumerate() {
                        if *score < lowest {
                            (lowest, chosen[one]) = (*score, (place + 1) as f64 * spacing);
                        }
                    }
                }
            }
        }
        let unresolved = (count - open.len()) as u64;
        for _ in 0..self.search.bisections {
            let who: Vec<i64> = open.iter().map(|entry| entry.0).collect();
            let middles: Vec<f64> = open.iter().map(|entry| 0.5 * (entry.1 + entry.2)).collect();
            let scores = self.scores(&who, &middles)?;
            for ((entry, middle), score) in open.iter_mut().zip(middles).zip(scores) {
                if score <= goal { entry.2 = middle } else { entry.1 = middle }
            }
        }
        for (one, _, enough) in open {
            chosen[one as usize] = enough;
        }
        Ok((chosen, unresolved))
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
