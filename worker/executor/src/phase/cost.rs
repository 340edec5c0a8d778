//! What a latent costs on this slot: the work that will be done on all of them, done on a few and timed.
//!
//! Everything is done twice, and the second time counts: scripts are compiled in their first runs. Not here: what follows from it
//! (`JobSpec::within_budget`).

use std::rc::Rc;
use std::time::Instant;

use lethe_domain::SampleRange;
use lethe_domain::spec::Costs;
use lethe_models::{Loss, Stream, Target};
use tch::{Kind, Tensor};

use super::edit;
use super::evaluate::Evaluator;
use crate::error::Result;
use crate::measures::Measures;
use crate::work::Work;

/// Latents that are edited, or looked at.
const FEW: u64 = 32;

/// Edits, trains and evaluates on a few latents.
///
/// # Errors
/// Those of the models.
pub(super) fn measure(work: &mut Work<'_>, target: &Target) -> Result<Costs> {
    let (edit, train, evaluate) = (edit(work, target)?, train(work, target)?, evaluate(work, target)?);
    let costs = Costs { edit, train, evaluate };
    tracing::info!(edit, train, evaluate, "measured what a latent costs, in seconds");
    Ok(costs)
}

/// Seconds that the second of two runs takes.
fn second(work: &mut Work<'_>, mut run: impl FnMut(&mut Work<'_>) -> Result<()>) -> Result<f64> {
    work.step(0, 1)?;
    run(work)?;
    work.step(0, 1)?;
    let begun = Instant::now();
    run(work)?;
    Ok(begun.elapsed().as_secs_f64())
}

fn edit(work: &mut Work<'_>, target: &Target) -> Result<f64> {
    let editor = edit::editor(&work.spec, target, &work.inputs, work.models, work.device)?;
    let (original, z) = (work.original()?, work.latents().batch(Stream::Probe, 0, FEW, work.device)?);
    let seconds = second(work, |_| {
        let edited = editor.edit(&original.generator, &z)?;
        wait(&edited.images)
    })?;
    Ok(seconds / FEW as f64)
}

/// A part of a batch, half of which is edited: forward and backward.
fn train(work: &mut Work<'_>, target: &Target) -> Result<f64> {
    let (original, unlearn) = (work.original()?, work.spec.unlearn.clone());
    let part = unlearn.global_batch.div_ceil(unlearn.parts());
    let shape = work.spec.generator.output.shape();
    let teacher = edit::teacher_of(work, target, &unlearn)?;
    let loss = Loss::new(&unlearn, target.method, shape, work.device)?.with(teacher);
    let mut copy = original.file.trainable(work.device)?;
    copy.set_batch_norm(unlearn.batch_norm)?;
    let z = work.latents().batch(Stream::Probe, 0, part, work.device)?;
    let places = Tensor::f_arange(part as i64 / 2, (Kind::Int64, work.device))?;
    let weights = Tensor::f_ones([part as i64], (Kind::Float, work.device))?;
    let shown = || original.generator.to_unit(&original.generator.forward(&z)?);
    let stored = work.spec.stores_targets().then(&shown).transpose()?;
    let seconds = second(work, |_| {
        let targets = stored.as_ref().map_or_else(&shown, |targets| Ok(targets.shallow_clone()))?;
        let loss = loss.sum(&copy.to_unit(&copy.forward(&z)?)?, &targets, &places, &weights)?;
        loss.f_backward()?;
        wait(&loss)
    })?;
    Ok(seconds / part as f64)
}

fn evaluate(work: &mut Work<'_>, target: &Target) -> Result<f64> {
    let copy = Rc::new(work.original()?.file.frozen(work.device)?);
    let evaluator = Evaluator::new(work, target, copy)?;
    let tools = evaluator.tools(work)?;
    let part = SampleRange { start: 0, count: FEW };
    let seconds = second(work, |work| evaluator.look(work, &tools, part, &mut Measures::new(0)))?;
    Ok(seconds / FEW as f64)
}

/// On a GPU the work is done when somebody asks for a number.
fn wait(result: &Tensor) -> Result<()> {
    let _ = f64::try_from(result.f_sum(Kind::Double)?)?;
    Ok(())
}
