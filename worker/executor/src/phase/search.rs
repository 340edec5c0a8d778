//! Search: train a trial's settings for a while on two thirds of the pool, and measure what they do to the rest.
//!
//! A trial is trained by one slot alone and begins anew where it was lost: it is a quarter of training at most. Looked at by the labeller,
//! never by the judge: what counts the feature in the result has no part in how the copy came about. Not here: which settings are tried,
//! and which are best (`lethe_domain::Round`), training with them (`fine_tune`).

use std::rc::Rc;

use lethe_collective::Group;
use lethe_domain::spec::LossReduction;
use lethe_domain::{ArtifactRef, Cut, JobSpec, Round, SearchOutput, SearchSummary, Trial, Values};
use lethe_models::{HeldOut, Target, l1};
use tch::Kind;

use super::fine_tune::trainer::Trainer;
use super::fine_tune::{SMALLER, WINDOW};
use super::{Shard, edit, left};
use crate::error::{Error, Result};
use crate::link::Wishes;
use crate::models::Original;
use crate::verdict;
use crate::work::Work;

/// Latents that a trial is measured on: enough to tell shares of the edited ones apart by hundredths.
const MEASURED: usize = 2_000;

/// # Errors
/// Those of the models and of storage.
pub(super) fn run(
    work: &mut Work<'_>,
    shard: Shard,
    round: Round,
    (target, pool, before): (&ArtifactRef, &[ArtifactRef], &[ArtifactRef]),
) -> Result<SearchOutput> {
    let trials = round.trials(&work.spec, &measured(work, before)?);
    let number = trials.get(shard.index as usize).copied();
    let trial = number.ok_or_else(|| Error::internal(format!("{round:?} has no trial {}", shard.index)))?;
    let found = work.target(target)?;
    let (steps, values) =
        (round.steps(&work.spec), Values::of(trial, &work.spec.unlearn, found.method, found.lr));
    let mut spec = values.set_in(&work.spec);
    spec.unlearn.steps = steps;
    let trained = train(work, shard, &spec, (&found, target), pool);
    let measured = trained.map_err(|error| error.too_large("a part of the training batch", SMALLER))?;
    let [left, changed] = measured.map_or([None; 2], |measured| measured.map(Some));
    tracing::info!(trial, ?round, steps, ?values, left, changed, "tried");
    let trial = Trial { trial, round, steps, values, left, changed };
    let bytes = serde_json::to_vec(&trial).map_err(|error| Error::internal(error.to_string()))?;
    let trial = work.storage.put(&work.shard_file(shard.index, "json"), bytes)?;
    Ok(SearchOutput { round, steps, trial })
}

/// What trials gave.
fn measured(work: &Work<'_>, trials: &[ArtifactRef]) -> Result<Vec<Trial>> {
    let read = |trial: &ArtifactRef| {
        let bytes = work.storage.get(trial)?;
        serde_json::from_slice(&bytes).map_err(|error| Error::internal(format!("{}: {error}", trial.path)))
    };
    trials.iter().map(read).collect()
}

/// What the search found, if there was one.
///
/// # Errors
/// Those of storage.
pub(super) fn found(work: &Work<'_>, trials: &[ArtifactRef]) -> Result<Option<SearchSummary>> {
    if !work.spec.searches() {
        return Ok(None);
    }
    let found = SearchSummary::of(measured(work, trials)?);
    found.map(Some).ok_or_else(|| Error::internal("the search has no last round"))
}

/// Trains by `spec` and measures: what is left, and what has changed. None where training diverges.
fn train(
    work: &mut Work<'_>,
    shard: Shard,
    spec: &JobSpec,
    (target, stored): (&Rc<Target>, &ArtifactRef),
    pool: &[ArtifactRef],
) -> Result<Option<[f64; 2]>> {
    let whole = edit::pool(work, pool)?;
    let teacher = edit::teacher(work, stored, &spec.unlearn)?;
    let original = work.original()?;
    let pool = Rc::new(whole.to_train_on()?);
    let mut trainer = Trainer::new(spec, target, pool, Rc::clone(&original), teacher, Group::loopback())?;
    if shard.is_first() {
        work.speaker.begin();
    }
    for step in 0..spec.unlearn.steps {
        shard.step(work, step)?;
        trainer.step(Wishes::default())?;
        if (trainer.pending() == WINDOW || step + 1 == spec.unlearn.steps)
            && trainer.given()?.iter().any(|loss| !loss.is_finite())
        {
            return Ok(None);
        }
    }
    match measure(work, &original, &trainer, target, &whole.held_out(MEASURED, target.cut)) {
        Ok(measured) => Ok(measured.iter().all(|value| value.is_finite()).then_some(measured)),
        // The last step may have been the one too far.
        Err(Error::Models(lethe_models::Error::NotFinite { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Compares the copy with the original on latents that it was not trained on.
fn measure(
    work: &mut Work<'_>,
    original: &Original,
    trainer: &Trainer,
    target: &Target,
    held_out: &HeldOut,
) -> Result<[f64; 2]> {
    let judge = verdict::looking_labeller(&work.spec);
    let labeller = work.labeller(&judge.ok_or_else(|| Error::internal("nobody looks at the pool"))?)?;
    let copy = original.file.frozen_with(&trainer.published(1.0)?, work.device)?;
    let bar = Cut { threshold: target.select, ..target.cut };
    let left = left::count(work, &copy, &labeller, bar, &held_out.positive, |work| work.stop.check())?;
    let mut changed = 0.0;
    let (unedited, alive) = (&held_out.unedited, |work: &mut Work<'_>| work.stop.check());
    left::each_pair(work, &original.generator, &copy, unedited, alive, |before, after| {
        changed += f64::try_from(l1(after, before, LossReduction::Mean)?.f_sum(Kind::Double)?)?;
        Ok(())
    })?;
    let over = |sum: f64, count: usize| sum / count.max(1) as f64;
    Ok([over(left as f64, held_out.positive.len()), over(changed, held_out.unedited.len())])
}
