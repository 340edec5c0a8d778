//! Where training goes on: rank 0 looks for the newest whole checkpoint, and gives everybody what is in it.
//!
//! The others do not read storage, so ranks agree even where a checkpoint appears while they look.

use lethe_models::Tensors;
use tch::{Device, Kind, Tensor};

use super::curve::Curve;
use super::trainer::Trainer;
use crate::error::{Error, Result};
use crate::work::Work;

/// Files of a checkpoint.
pub(super) const GENERATOR: &str = "generator.safetensors";
pub(super) const TRAINING: &str = "training.safetensors";
/// The losses so far, beside the optimiser's tensors.
pub(super) const CURVE: &str = "curve";

/// A checkpoint's content.
struct Found {
    path: String,
    generator: Tensors,
    training: Tensors,
    curve: Curve,
}

/// Sets the trainer to where the last generation was saved, on every rank, and gives the losses up to there. A collective.
///
/// # Errors
/// Those of storage, of the gang, and of a checkpoint of another model.
pub(super) fn resume(work: &Work<'_>, trainer: &mut Trainer) -> Result<Curve> {
    let found = if trainer.group().rank() == 0 { newest(work)? } else { None };
    if let Some(found) = &found {
        trainer.restore(&found.generator, &found.training)?;
        tracing::info!(step = found.curve.len(), "going on from {}", found.path);
    }
    let own = found.map_or_else(Curve::default, |found| found.curve);
    let mut steps = [Tensor::f_from_slice(&[own.len() as i64])?.f_to_device(work.device)?];
    trainer.group().broadcast(&mut steps, 0)?;
    let steps = u64::try_from(steps[0].f_int64_value(&[0])?)
        .map_err(|_| Error::internal("rank 0 sent a negative number of steps"))?;
    trainer.share(steps)?;
    if steps == 0 {
        return Ok(own);
    }
    let losses = if own.len() == steps {
        own.to_tensor()?
    } else {
        Tensor::f_zeros([steps as i64], (Kind::Double, Device::Cpu))?
    };
    let mut losses = [losses.f_to_device(work.device)?];
    trainer.group().broadcast(&mut losses, 0)?;
    Curve::from_tensor(&losses[0])
}

fn newest(work: &Work<'_>) -> Result<Option<Found>> {
    let checkpoints = work.storage.checkpoints(work.lease.job.as_str());
    let latest = work.storage.wait(checkpoints.latest_valid())?;
    latest.skipped.iter().for_each(|skipped| tracing::warn!("{skipped}"));
    let Some(checkpoint) = latest.checkpoint else { return Ok(None) };
    let load = |name: &str| -> Result<Tensors> {
        let bytes = work.storage.wait(checkpoints.load(&checkpoint, name))?;
        Ok(Tensors::from_bytes(&bytes, &format!("{}/{name}", checkpoint.path))?)
    };
    let (generator, training) = (load(GENERATOR)?, load(TRAINING)?);
    let curve = Curve::from_tensor(training.get(CURVE)?)?;
    if curve.len() != checkpoint.manifest.header.step {
        let reason = format!("{}: holds {} losses", checkpoint.path, curve.len());
        return Err(Error::internal(reason));
    }
    Ok(Some(Found { path: checkpoint.path, generator, training, curve }))
}
