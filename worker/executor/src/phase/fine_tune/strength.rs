//! How strong the copy is to be: how far its weights are along the way from the original's to where training took them.
//!
//! One training fits no two features alike: it takes more from one than anybody asks, at the expense of other images, and too little from
//! another. The way between the weights, and a little beyond, gives the copies in between for the price of looking at them, on latents that
//! nothing was trained on. The labeller looks, never the judge: another one sees more of the feature, so where the labeller sees other classes
//! stay as they are, there is room for more than it asks for itself. Not here: which latents these are (`lethe_models::Pool`).

use std::collections::BTreeMap;

use lethe_domain::ArtifactRef;
use lethe_domain::spec::Selection;
use lethe_models::{Classes, Generator, Pool};
use tch::Kind;

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
/// Share at which enough is gone wherever that costs nothing else.
const LEAST: f64 = 0.005;
/// Share of other images whose class the labeller may see changed where more is taken than it asks for: half of what anybody would mind.
const CHANGED: f64 = 0.005;
/// Most of these that are looked at for one strength.
const OTHERS: usize = 2_000;
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
    let of = |share: f64| (share * latents.len() as f64) as usize;
    let (done, total) = (trainer.steps(), work.spec.unlearn.steps);
    let alive = |work: &mut Work<'_>| {
        work.stop.check()?;
        // A word now and then, or the lease would be taken for lost.
        work.speaker.progress(&work.lease, done, total, 0, None);
        Ok(())
    };
    let copy = |work: &Work<'_>, strength| -> Result<Generator> {
        Ok(original.file.frozen_with(&trainer.published(strength)?, work.device)?)
    };
    let mut counted = BTreeMap::new();
    let mut left = |work: &mut Work<'_>, step| -> Result<usize> {
        if let Some(left) = counted.get(&step) {
            return Ok(*left);
        }
        let copy = copy(work, at(step))?;
        let left = left::count(work, &copy, &labeller, cut, &latents, alive)?;
        tracing::info!(strength = at(step), left, of = latents.len(), "by the labeller");
        counted.insert(step, left);
        Ok(left)
    };
    let found = weakest(|step| Ok(left(work, step)? <= of(share)))?;
    let Some(classes) = verdict::labellers_classes(&work.spec) else { return Ok(at(found)) };
    let classes = work.models.classes(&classes, &work.inputs, work.device)?;
    let others = pool.spared(OTHERS);
    let further = further(found, |step| {
        if left(work, step)? <= of(LEAST) {
            return Ok(false);
        }
        let copy = copy(work, at(step + 1))?;
        let changed = changed(work, &original.generator, &copy, &classes, others, alive)?;
        tracing::info!(strength = at(step + 1), changed, "of others, by the labeller");
        Ok(changed <= CHANGED)
    })?;
    Ok(at(further))
}

fn at(step: i32) -> f64 {
    1.0 + STEP * f64::from(step)
}

/// Of those of these latents whose image's class the classifier is sure of, the share for which it finds another one in the copy's; all of
/// them where these are too few to tell.
fn changed(
    work: &mut Work<'_>,
    original: &Generator,
    copy: &Generator,
    classes: &Classes,
    latents: &[u64],
    alive: impl FnMut(&mut Work<'_>) -> Result<()>,
) -> Result<f64> {
    let (mut other, mut sure) = (0.0, 0.0);
    left::each_pair(work, original, copy, latents, alive, |before, after| {
        let changed = classes.changed(before, after)?;
        other += changed.f_nansum(None::<i64>, false, Kind::Double)?.f_double_value(&[])?;
        sure += changed.f_eq_tensor(&changed)?.f_sum(Kind::Double)?.f_double_value(&[])?;
        Ok(())
    })?;
    Ok(if sure >= LATENTS[1] as f64 { other / sure } else { 1.0 })
}

/// The lowest step whose strength is enough, when a higher one is, too; the highest when none is.
fn weakest(mut is_enough: impl FnMut(i32) -> Result<bool>) -> Result<i32> {
    let mut step = 0;
    if is_enough(step)? {
        while step > -STEPS && is_enough(step - 1)? {
            step -= 1;
        }
    } else {
        step += 1;
        while step < STEPS && !is_enough(step)? {
            step += 1;
        }
    }
    Ok(step)
}

/// The step from which there is no reason, or no room, to go one further.
fn further(mut step: i32, mut goes_on: impl FnMut(i32) -> Result<bool>) -> Result<i32> {
    while step < STEPS && goes_on(step)? {
        step += 1;
    }
    Ok(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_that_is_enough_is_found_within_bounds_and_few_are_tried() {
        for (needed, expected, tried) in
            [(-9, -5, 6), (-3, -3, 5), (0, 0, 2), (1, 1, 2), (4, 4, 5), (99, 5, 5)]
        {
            let mut asked = 0;
            let found = weakest(|step| {
                asked += 1;
                Ok(step >= needed)
            });
            assert_eq!((found.unwrap(), asked), (expected, tried), "{needed}");
        }
        assert_eq!([-5, 5].map(at), [0.75, 1.25]);
    }

    #[test]
    fn more_is_taken_as_long_as_there_is_room() {
        assert_eq!(further(-3, |step| Ok(step < 1)).unwrap(), 1);
        assert_eq!(further(-3, |_| Ok(true)).unwrap(), STEPS);
        assert_eq!(further(2, |_| Ok(false)).unwrap(), 2);
    }
}
