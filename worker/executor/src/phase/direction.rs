//! Direction: locate the feature in latent space from the scores of all samples.
//!
//! Everything is folded in the order of the index, so the target vector is the same bit for bit whoever made the shards.

use std::rc::Rc;

use lethe_domain::spec::{Costs, EditChoice, Labeller};
use lethe_domain::{ArtifactRef, DirectionOutput, EditMethod, JobSpec, SampleRange, Warning, WarningCode};
use lethe_models::{Defaults, Lessons, Metric, Scores, Select, Stream, Student, Surrogate, Target};
use tch::{Kind, Tensor};

use super::sample::{self, Samples};
use super::{cost, edit};
use crate::error::{Error, Result};
use crate::work::Work;
use crate::{memory, verdict};

/// A classifier that is right on 99 of 100 real images misses a tenth and more of what another one sees in generated ones; among twice its
/// positives it misses one in a hundred. What it calls barely negative the next one calls positive: edits go to the median.
const OF_CLASSIFIER: Defaults = Defaults { select: Select::More(1.0), typical: 0.5 };
/// What a scorer measures is what it measures. A few more are there for the copy, which cannot follow a jump at the threshold.
const OF_SCORER: Defaults = Defaults { select: Select::More(0.2), typical: 0.75 };

/// # Errors
/// `NO_POSITIVES` and `NO_NEGATIVES`; those of storage.
pub(super) fn run(work: &mut Work<'_>, shards: &[ArtifactRef]) -> Result<DirectionOutput> {
    let Samples { scores: samples, opinions } = sample::read(work, shards)?;
    let scores = &samples.together;
    let labeller = verdict::labeller(&work.spec)?;
    let cut = verdict::line(labeller).among(scores)?;
    let defaults = match labeller {
        Labeller::Classifier(_) => OF_CLASSIFIER,
        Labeller::Classifiers(_) => {
            seen_by_any(&samples).map_or(OF_CLASSIFIER, |select| Defaults { select, ..OF_CLASSIFIER })
        }
        Labeller::Scorer(_) | Labeller::Labels(_) => OF_SCORER,
    };
    let defaults = known(work, cut.sign)?.map_or(defaults, |select| Defaults { select, ..defaults });
    let latents = work.latents();
    let bytes = (scores.len() * latents.numel() * size_of::<f32>()) as u64;
    memory::require(bytes, &format!("the latents of {} samples", scores.len()), "lower sample.until")?;
    let lr = learning_rate(work)?;
    let located = lethe_models::locate(&latents, scores, cut, &work.spec.direction, defaults, lr)?;
    work.stop.check()?;

    let (mut target, mut warnings) = (located.target, located.warnings);
    if target.method != EditMethod::Projection {
        choose(work, &mut target, scores)?;
    }
    if matches!(target.method, EditMethod::Gradient | EditMethod::Student) {
        if !opinions.is_empty() {
            target.surrogate = surrogate(work, &opinions)?.map(Rc::new);
        }
        target.metric = metric(work)?.map(Rc::new);
    }
    // Where there is no budget nobody asks for them.
    let budgeted = work.spec.unlearn.minutes() > 0.0;
    let costs = if budgeted { cost::measure(work, &target)? } else { Costs::default() };
    warnings.extend(work.spec.within_budget(&costs).map(|spec| lowered(&work.spec, &spec)));
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let name = format!("direction/target-a{}.safetensors", work.lease.attempt.0);
    let stored = work.storage.put(&work.path(&name), target.to_bytes()?)?;
    tracing::info!(
        positives = target.positives,
        samples = target.samples,
        edited_share = target.edited_share,
        heldout_auc = target.heldout_auc,
        select = target.select,
        goal = target.goal,
        method = ?target.method,
        lr = target.lr,
        "located the feature"
    );
    Ok(DirectionOutput {
        target: stored,
        samples: target.samples,
        positives: target.positives,
        cut,
        select: target.select,
        goal: target.goal,
        edit: target.method,
        threshold: target.threshold,
        edited_share: target.edited_share,
        heldout_auc: target.heldout_auc,
        costs,
        warnings,
    })
}

/// That a job gets less than its effort stands for.
fn lowered(asked: &JobSpec, given: &JobSpec) -> Warning {
    let message = format!(
        "to stay near {} minutes of one slot, {} latents of the pool, {} steps and {} latents of the evaluation were lowered to {}, {} and \
         {}: more of the feature may be left",
        asked.unlearn.minutes(),
        asked.pool.latents,
        asked.unlearn.steps,
        asked.evaluate.samples,
        given.pool.latents,
        given.unlearn.steps,
        given.evaluate.samples
    );
    Warning::new(
        WarningCode::EffortLowered,
        message,
        "raise unlearn.slot_minutes (0 = however long it takes), or use a faster device",
    )
}

/// Where classifiers disagree, one of them is mistaken, and nobody knows which: what any of them calls positive is edited, but for the
/// hundredth that the others are surest of. None where nobody sees the feature.
fn seen_by_any(samples: &Scores) -> Option<Select> {
    let is_seen =
        |place: usize| samples.each.iter().any(|scores| scores.get(place).is_some_and(|score| *score > 0.0));
    let seen: Vec<f64> =
        (0..).zip(&samples.together).filter(|(place, _)| is_seen(*place)).map(|(_, score)| *score).collect();
    tracing::info!(seen_by_any = seen.len(), "counted what any of the classifiers sees");
    lethe_models::recalled(&seen, 1.0).map(Select::Beyond)
}

/// What selects the images that somebody knows to show the feature, but for one in a hundred; none where the spec names no such images.
fn known(work: &mut Work<'_>, sign: f64) -> Result<Option<Select>> {
    let Some(images) = work.calibration()? else { return Ok(None) };
    let judge = verdict::looking_labeller(&work.spec)
        .ok_or_else(|| Error::internal("direction.calibration without a model that looks"))?;
    let labeller = work.labeller(&judge)?;
    let all = SampleRange { start: 0, count: images.len() };
    let mut scores = Vec::new();
    for part in all.in_steps_of(work.spec.sample.batch) {
        work.step(part.start, all.count)?;
        scores.extend(labeller.scores(&images.batch(part.start, part.count, work.device)?)?);
    }
    let select = lethe_models::recalled(&scores, sign);
    tracing::info!(images = scores.len(), ?select, "scored what is known to show the feature");
    Ok(select.map(Select::Beyond))
}

/// The learning rate that suits the generator.
fn learning_rate(work: &mut Work<'_>) -> Result<f64> {
    let original = work.original()?;
    Ok(lethe_models::learning_rate(&original.file.trainable(work.device)?, &work.latents())?)
}

/// Latents on which ways to edit are tried.
const TRIED: usize = 64;

/// Chooses how latents are edited: as the spec says, or as a step on those latents that show the feature most says.
fn choose(work: &mut Work<'_>, target: &mut Target, scores: &[f64]) -> Result<()> {
    let choice = work.spec.direction.edit;
    if matches!(choice, EditChoice::Auto | EditChoice::Gradient) {
        if choice == EditChoice::Gradient || leads(work, target, scores)? {
            target.method = EditMethod::Gradient;
            return Ok(());
        }
        tracing::info!(
            "the labeller's gradient leads no further than the direction: it is taught to a student"
        );
    }
    if matches!(choice, EditChoice::Auto | EditChoice::Student) {
        target.student = Some(Rc::new(teach(work, scores)?));
        if choice == EditChoice::Student || leads(work, target, scores)? {
            target.method = EditMethod::Student;
            return Ok(());
        }
        target.student = None;
        tracing::info!("nor does the student's: edits go along the direction");
    }
    Ok(())
}

/// Whether the gradient of the labeller, or of the target's student, leads further than the direction.
fn leads(work: &mut Work<'_>, target: &Target, scores: &[f64]) -> Result<bool> {
    let student = target.student.as_deref();
    let Some(guide) = edit::guide(&work.spec, student, &work.inputs, work.models, work.device)? else {
        return Ok(false);
    };
    let original = work.original()?;
    let mut most: Vec<u64> = (0..scores.len() as u64).collect();
    let score = |index: &u64| target.cut.sign * scores[*index as usize];
    most.sort_by(|one, other| score(other).total_cmp(&score(one)));
    most.truncate(TRIED);
    let z = work.latents().gather(Stream::Sample, &most, work.device)?;
    let prior = work.spec.generator.prior;
    Ok(lethe_models::gradient_leads(target, &original.generator, &guide, prior, &z)?)
}

/// A surrogate that explains less of the variance of what the labeller says knows too little to have a say.
const LEAST_EXPLAINED: f64 = 0.1;

/// A surrogate of the labeller, where the spec wants one and there is one to be had.
fn surrogate(work: &mut Work<'_>, opinions: &[Tensor]) -> Result<Option<Surrogate>> {
    let latents = work.latents();
    if work.spec.direction.surrogate == 0.0 || latents.numel() > Surrogate::MOST_ENTRIES {
        return Ok(None);
    }
    let device = work.device;
    let (surrogate, explained) =
        Surrogate::teach(&latents, opinions, device, |done, all| work.step(done, all))?;
    tracing::info!(
        "a surrogate explains {:.1} % of the variance of what the labeller says",
        100.0 * explained
    );
    Ok((explained >= LEAST_EXPLAINED).then_some(surrogate))
}

/// How images change when latents move, where the spec wants to know and it can be told.
fn metric(work: &mut Work<'_>) -> Result<Option<Metric>> {
    let (latents, locality) = (work.latents(), work.spec.direction.locality);
    if locality == 0.0 || latents.numel() > Metric::MOST_ENTRIES {
        return Ok(None);
    }
    let original = work.original()?;
    Metric::of(&original.generator, &latents, locality, |done, all| work.step(done, all))
}

/// Most bytes that the images of a student's lessons take.
const LESSONS_FIT_IN: u64 = 1 << 28;

/// A student of the labeller, taught on the samples, or as many of them as memory is meant for.
fn teach(work: &mut Work<'_>, scores: &[f64]) -> Result<Student> {
    let original = work.original()?;
    let (latents, generator) = (work.latents(), &original.generator);
    let bytes = work.spec.generator.output.shape().iter().product::<i64>() as u64;
    let count = (scores.len() as u64).min(LESSONS_FIT_IN / bytes).max(1);
    memory::require(2 * count * bytes, &format!("{count} images to teach a student"), "lower sample.until")?;
    let batch = work.spec.sample.batch;
    let renders = count.div_ceil(batch);
    let mut images = Vec::new();
    for (done, part) in (0..).zip((SampleRange { start: 0, count }).in_steps_of(batch)) {
        work.step(done, renders)?;
        let z = latents.batch(Stream::Sample, part.start, part.count, work.device)?;
        let shown = generator.to_unit(&generator.forward(&z)?)?.f_clamp(0.0, 1.0)?.f_mul_scalar(255.0)?;
        images.push(shown.f_round()?.f_to_kind(Kind::Uint8)?);
    }
    let images = Tensor::f_cat(&images, 0)?;
    let mut lessons = Lessons::new(latents, images, &scores[..count as usize])?;
    for step in 0..lessons.steps() {
        work.step(renders + step, renders + lessons.steps())?;
        lessons.step()?;
    }
    let (student, explained) = lessons.end()?;
    tracing::info!("a student explains {:.1} % of the variance of the labeller's scores", 100.0 * explained);
    Ok(student)
}
