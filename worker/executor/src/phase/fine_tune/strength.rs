//! How strong the copy is to be: how far its weights are along the way from the original's to where training took them.
//!
//! One training fits no two features alike: it takes more from one than anybody asks, at the expense of other images, and too little from
//! another. The way between the weights, and a little beyond, gives the copies in between for the price of looking at them, on latents that
//! nothing was trained on. The labeller looks, never the judge. Not here: which latents these are (`lethe_models::Pool`).

use lethe_domain::ArtifactRef;
use lethe_domain::spec::Selection;
use lethe_models::Pool;

use super::super::left;
use super::trainer::Trainer;
use crate::error::Result;
use crate::verdict;
use crate::work::Work;

/// Most latents that are looked at for one strength, and fewest by which one can be chosen.
const LATENTS: [usize; 2] = [1_000, 50];
/// Share of them in whose images the labeller may see the feature: where training looked through it, another one sees up to twice as much.
const LEFT: f64 = 0.025;
/// The same where it did not, and nobody was taught to please it.
const LEFT_UNASKED: f64 = 0.04;
/// Strengths that are tried, in steps from 1 down or up: 0.75 to 1.25.
const STEP: f64 = 0.05;
const STEPS: i32 = 5;

/// What the spec says, or what is found.
///
/// # Errors
/// Those of the models; a stop.
pub(super) fn find(work: &mut Work<'_>, trainer: &Trainer, target: &ArtifactRef, pool: &Pool) -> Result<f64> {
    if let Some(strength) = work.spec.unlearn.strength {
        return Ok(strength);
    }
    // The scores of a projection are not the labeller's.
    let looking = verdict::looking_labeller(&work.spec)
        .filter(|_| work.spec.direction.selection == Selection::Classifier);
    let Some(judge) = looking else { return Ok(1.0) };
    let target = work.target(target)?;
    let cut = target.cut;
    let share = if work.spec.unlearn.labeller_term(target.method) > 0.0 { LEFT } else { LEFT_UNASKED };
    let latents = pool.kept(LATENTS[0], cut);
    if latents.len() < LATENTS[1] {
        return Ok(1.0);
    }
    let (labeller, original) = (work.labeller(&judge)?, work.original()?);
    let allowed = (share * latents.len() as f64) as usize;
    let (done, total) = (trainer.steps(), work.spec.unlearn.steps);
    weakest(|strength| {
        let copy = original.file.frozen_with(&trainer.published(strength)?, work.device)?;
        let left = left::count(work, &copy, &labeller, cut, &latents, |work| {
            work.stop.check()?;
            // A word now and then, or the lease would be taken for lost.
            work.speaker.progress(&work.lease, done, total, 0, None);
            Ok(())
        })?;
        tracing::info!(strength, left, of = latents.len(), allowed, "by the labeller");
        Ok(left <= allowed)
    })
}

/// The lowest strength that is enough, when a higher one is, too; the highest when none is.
fn weakest(mut is_enough: impl FnMut(f64) -> Result<bool>) -> Result<f64> {
    let at = |step: i32| 1.0 + STEP * f64::from(step);
    let mut step = 0;
    if is_enough(at(step))? {
        while step > -STEPS && is_enough(at(step - 1))? {
            step -= 1;
        }
    } else {
        step += 1;
        while step < STEPS && !is_enough(at(step))? {
            step += 1;
        }
    }
    Ok(at(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_that_is_enough_is_found_within_bounds_and_few_are_tried() {
        for (needed, expected, tried) in
            [(0.0, 0.75, 6), (0.83, 0.85, 5), (1.0, 1.0, 2), (1.01, 1.05, 2), (1.2, 1.2, 5), (9.0, 1.25, 5)]
        {
            let mut asked = 0;
            let found = weakest(|strength| {
                asked += 1;
                Ok(strength >= needed - 1e-9)
            });
            assert!((found.unwrap() - expected).abs() < 1e-9, "{needed}");
            assert_eq!(asked, tried, "{needed}");
        }
    }
}
