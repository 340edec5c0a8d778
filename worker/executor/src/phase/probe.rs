//! Probe: the first look at everything a job needs. A job that cannot succeed fails here, in seconds and in one sentence.
//!
//! Every model is loaded and runs on one batch, and one training step's memory is used once. Not here: whether anybody shows
//! the feature, which takes all samples (`direction`).

use std::time::Instant;

use lethe_domain::spec::Labeller;
use lethe_domain::{EditMethod, ErrorCode, ProbeOutput, Warning, WarningCode, result_files};
use lethe_models::{Loss, Stream};
use nix::sys::statvfs::statvfs;
use tch::{Kind, Tensor};

use super::fine_tune;
use super::sample::{SMALLER, read_labels};
use crate::error::{Error, Result};
use crate::models::Original;
use crate::work::Work;
use crate::{memory, verdict};

/// # Errors
/// Everything that can be wrong with a model, a file or a place; each names its object and what to do.
pub(super) fn run(work: &mut Work<'_>) -> Result<ProbeOutput> {
    let original = work.original()?;
    let copy = original.file.trainable(work.device)?;
    let parameters = copy.parameter_count();
    let mut warnings = Vec::new();
    warnings.extend(not_trained(copy.untrained(), "their requires_grad is False in the file"));
    drop(copy);
    room(work, parameters)?;
    work.step(0, STAGES)?;

    let batch = work.spec.sample.batch;
    let what = format!("a batch of {batch} images (sample.batch)");
    let (range, batch_seconds) =
        look(work, &original, batch).map_err(|error| error.too_large(&what, SMALLER))?;
    work.step(2, STAGES)?;
    reference(work)?;
    calibration(work)?;
    work.step(3, STAGES)?;

    let unlearn = &work.spec.unlearn;
    let part = unlearn.global_batch.div_ceil(unlearn.parts());
    let what = format!(
        "a part of {part} latents of the training batch (unlearn.global_batch over unlearn.micro_batches)"
    );
    let hint = fine_tune::SMALLER;
    let unused =
        train_once(work, &original, part, &what, hint).map_err(|error| error.too_large(&what, hint))?;
    warnings.extend(not_trained(&unused, "no image depends on them"));
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let image_shape = work.spec.generator.output.shape().to_vec();
    Ok(ProbeOutput { image_shape, range, batch_seconds, parameters, warnings })
}

/// What progress counts.
const STAGES: u64 = 4;

/// Whether the places take what will be written. The artifact root was tried when it was opened.
fn room(work: &Work<'_>, parameters: u64) -> Result<()> {
    const SLACK: u64 = 16 << 20;
    if let Some(publish) = &work.spec.publish {
        let format = work.spec.generator.format;
        let names = [result_files::generator(format), result_files::sidecar(format), result_files::SHEET];
        work.storage.publishable(&publish.uri, work.lease.job.as_str(), &names)?;
    }
    let Some((folder, space)) =
        work.storage.folder().and_then(|folder| Some((folder, statvfs(folder).ok()?)))
    else {
        return Ok(());
    };
    // A checkpoint holds weights, two moments and an average of each; one more is written before the oldest goes.
    let weights = parameters * size_of::<f32>() as u64;
    let needed = weights * (4 * (u64::from(work.spec.checkpoint.keep) + 1) + 2) + SLACK;
    let left = space.blocks_available() * space.fragment_size();
    if left >= needed {
        return Ok(());
    }
    let message = format!(
        "the disk of {} has {} MiB left, the job's checkpoints and results need about {} MiB",
        folder.display(),
        left >> 20,
        needed >> 20
    );
    Err(Error::refused(ErrorCode::DiskFull, message, "free some space, or lower checkpoint.keep"))
}

/// Lets every model look at one batch. Gives the lowest and highest pixel, and the seconds of generating and labelling one.
fn look(work: &mut Work<'_>, original: &Original, batch: u64) -> Result<([f64; 2], f64)> {
    let generator = &original.generator;
    let images = generator.check_function(&latents(work, batch)?)?;
    let range = generator.check_images(&images)?;
    let images = generator.to_unit(&images)?;
    let labeller = verdict::looking_labeller(&work.spec).map(|judge| work.labeller(&judge)).transpose()?;
    if let Some(labeller) = &labeller {
        labeller.check(&images)?;
    }
    if let Some(Labeller::Labels(labels)) = work.spec.feature.labeller() {
        both_kinds(&read_labels(labels, &work.inputs, &work.spec.sample.until)?)?;
    }
    if let Some(judge) = verdict::named_judge(&work.spec) {
        work.labeller(&judge)?.check(&images)?;
    }
    // The judge and the labeller were looked at already.
    if work.spec.evaluate.classifier.is_some()
        && let Some(classes) = work.classes()?
    {
        classes.check(&images)?;
    }
    if let Some(features) = work.features()? {
        features.check(&images)?;
    }
    work.step(1, STAGES)?;

    let begun = Instant::now();
    let images = generator.to_unit(&generator.forward(&latents(work, batch)?)?)?;
    match &labeller {
        Some(labeller) => drop(labeller.scores(&images)?),
        // On a GPU the work is done when somebody asks for a number.
        None => drop(f64::try_from(images.f_sum(Kind::Double)?)?),
    }
    Ok((range, begun.elapsed().as_secs_f64()))
}

/// The first latents of the probe, when there is room for them and their images.
fn latents(work: &Work<'_>, batch: u64) -> Result<Tensor> {
    let latents = work.latents();
    // Rust ends the process where it cannot have memory, libtorch does not: so Rust's part is asked for first. The images
    // come on top, and a batch that has no room for them will not do.
    let pixels: i64 = work.spec.generator.output.shape().iter().product();
    let bytes = batch.saturating_mul(4).saturating_mul(3 * latents.numel() as u64 + pixels as u64);
    memory::require(bytes, &format!("a batch of {batch} images (sample.batch)"), SMALLER)?;
    Ok(latents.batch(Stream::Probe, 0, batch, work.device)?)
}

fn both_kinds(labels: &[bool]) -> Result<()> {
    let samples = labels.len() as u64;
    let positives = labels.iter().filter(|label| **label).count() as u64;
    if positives == 0 {
        return Err(lethe_models::Error::NoPositives { positives, samples, needed: 2 }.into());
    }
    if positives == samples {
        return Err(lethe_models::Error::NoNegatives { negatives: 0, samples, needed: 2 }.into());
    }
    Ok(())
}

/// The reference set has images of this shape, and everybody can look at them.
fn reference(work: &mut Work<'_>) -> Result<()> {
    let Some(reference) = work.spec.evaluate.reference.clone() else { return Ok(()) };
    let images = work.models.reference(&reference, &work.inputs, work.spec.generator.output.shape())?;
    let some = images.batch(0, work.spec.sample.batch.min(16), work.device)?;
    if let Some(features) = work.features()? {
        let _ = features.of(&some)?;
    }
    Ok(())
}

/// The labelled images have this shape too, and the labeller can look at them.
fn calibration(work: &mut Work<'_>) -> Result<()> {
    let Some(images) = work.calibration()? else { return Ok(()) };
    let some = images.batch(0, work.spec.sample.batch.min(16), work.device)?;
    if let Some(judge) = verdict::looking_labeller(&work.spec) {
        let _ = work.labeller(&judge)?.scores(&some)?;
    }
    Ok(())
}

/// The warning that names parameters which stay as they are, if there are any.
fn not_trained(names: &[String], why: &str) -> Option<Warning> {
    const SHOWN: usize = 6;
    if names.is_empty() {
        return None;
    }
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = names[..names.len().min(SHOWN)].join(", ");
    let message = format!("parameters of the generator stay as they are, since {why}: {shown}{more}");
    let hint = "if they may change, export the module with requires_grad_(True) on them and with them in its forward";
    Some(Warning::new(WarningCode::NotTrained, message, hint))
}

/// One forward and backward pass of the largest part of a batch, with every term of the loss. Gives the names of the parameters
/// that no image depends on.
fn train_once(
    work: &Work<'_>,
    original: &Original,
    batch: u64,
    what: &str,
    hint: &str,
) -> Result<Vec<String>> {
    let latents = work.latents();
    memory::require(batch.saturating_mul(12 * latents.numel() as u64), what, hint)?;
    let (device, unlearn) = (work.device, &work.spec.unlearn);
    let mut copy = original.file.trainable(device)?;
    copy.set_batch_norm(unlearn.batch_norm)?;
    // How it weighs is no matter here.
    let loss = Loss::new(unlearn, EditMethod::default(), work.spec.generator.output.shape(), device)?;
    let z = latents.batch(Stream::Probe, 0, batch, device)?;
    let targets = original.generator.to_unit(&original.generator.forward(&z)?)?;
    let images = copy.to_unit(&copy.forward(&z)?)?;
    let places = Tensor::f_arange(batch as i64, (Kind::Int64, device))?;
    let weights = Tensor::f_ones([batch as i64], (Kind::Float, device))?;
    let loss = loss.sum(&images, &targets, &places, &weights)?;
    let file = &work.spec.generator.uri;
    if !loss.requires_grad() {
        return Err(untrainable(file, "its output does not depend on its parameters"));
    }
    loss.f_mul_scalar(1.0 / unlearn.global_batch as f64)?.f_backward()?;
    let (used, unused): (Vec<_>, Vec<_>) =
        copy.parameters().iter().partition(|(_, weight)| weight.grad().defined());
    if used.is_empty() {
        return Err(untrainable(file, "no parameter gets a gradient"));
    }
    for (_, weight) in used {
        let gradient = weight.grad();
        if !bool::try_from(gradient.f_isfinite()?.f_all()?)? {
            let what = format!("{file}: a gradient of the first training step is NaN or infinite");
            return Err(lethe_models::Error::NotFinite { what }.into());
        }
    }
    Ok(unused.into_iter().map(|(name, _)| name.clone()).collect())
}

fn untrainable(file: &str, reason: &str) -> Error {
    let hint = "export the module without torch.no_grad, detach or torch.jit.freeze in its forward";
    Error::refused(ErrorCode::BadModel, format!("{file}: cannot be trained: {reason}"), hint)
}
