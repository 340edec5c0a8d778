//! Where training goes on: from the memory of the survivor that got furthest, or from the newest whole checkpoint.
//!
//! Every rank says which step it has in memory. Rank 0 looks into storage only when that is nothing, or too old; the others never
//! do, so all agree even where a checkpoint appears while somebody looks. Then the one that has the state gives it to all, and
//! every rank compares the digest of what it got.

use lethe_collective::Place;
use lethe_domain::{ArtifactRef, ErrorCode, sha256_text};
use lethe_models::Tensors;
use tch::{Device, Tensor};

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

/// The rank that gives its state to all, and the steps that it has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    root: usize,
    steps: u64,
}

/// Sets the trainer to where training goes on, on every rank, and gives the losses up to there. A collective. `floor` is the furthest
/// step known of the job: memory that lacks more than one step to it is stale.
///
/// # Errors
/// Those of storage, of the gang, and of a checkpoint of another model; `STATE_DIFFERS` when this rank got something else than was sent.
pub(super) fn resume(
    work: &Work<'_>,
    trainer: &mut Trainer,
    (target, pool): (&ArtifactRef, &[ArtifactRef]),
    floor: u64,
) -> Result<Curve> {
    let rank = trainer.group().rank();
    let kept = work.resident.as_ref().filter(|kept| kept.fits(&work.lease.job, &work.spec, target, pool));
    let memory = furthest(&remembered(work, trainer, kept.map(|kept| kept.steps()))?);
    let found = if rank == 0 { look(work, memory, floor)? } else { None };
    let source = match &found {
        Some(found) => Source { root: 0, steps: found.curve.len() },
        None => memory.unwrap_or(Source { root: 0, steps: 0 }),
    };
    let source = told_by_rank_0(work, trainer, source)?;
    let own = match (&found, kept) {
        (Some(found), _) => {
            trainer.restore(&found.generator, &found.training)?;
            tracing::info!("going on from checkpoint {}, step {}", found.path, source.steps);
            found.curve.clone()
        }
        (None, Some(kept)) if rank == source.root && source.steps > 0 => {
            trainer.restore(&kept.generator, &kept.optimiser)?;
            kept.curve.clone()
        }
        _ => Curve::default(),
    };
    if found.is_none() && memory == Some(source) {
        tracing::info!("going on from rank {}'s memory, step {}", source.root, source.steps);
    }
    trainer.share(source.root, source.steps)?;
    let curve = share_curve(work, trainer, own, source)?;
    compare(work, trainer, &curve, source.root)?;
    Ok(curve)
}

/// The steps that each rank has in memory.
fn remembered(work: &Work<'_>, trainer: &Trainer, own: Option<u64>) -> Result<Vec<Option<u64>>> {
    let mut told = vec![0_i64; trainer.group().world()];
    // One more than the steps; 0 is nothing.
    told[trainer.group().rank()] = own.map_or(0, |steps| steps as i64 + 1);
    let mut told = Tensor::f_from_slice(&told)?.f_to_device(work.device)?;
    trainer.group().all_reduce_sum(&mut told)?;
    let told = Vec::<i64>::try_from(told.f_to_device(Device::Cpu)?)?;
    Ok(told.into_iter().map(|steps| u64::try_from(steps - 1).ok()).collect())
}

/// The rank that got furthest, the lowest of several.
fn furthest(steps: &[Option<u64>]) -> Option<Source> {
    let each = steps.iter().enumerate().filter_map(|(root, steps)| Some(Source { root, steps: (*steps)? }));
    each.reduce(|best, other| if other.steps > best.steps { other } else { best })
}

/// Whether the state in memory may lack steps that are in storage. One step is no reason to look: that much a rank may be ahead of
/// another when it is lost.
fn is_stale(memory: Option<Source>, floor: u64) -> bool {
    memory.is_none_or(|memory| memory.steps + 1 < floor)
}

/// The newest checkpoint, when the ranks' memory is not good enough and it is better.
fn look(work: &Work<'_>, memory: Option<Source>, floor: u64) -> Result<Option<Found>> {
    if !is_stale(memory, floor) {
        return Ok(None);
    }
    match (newest(work), memory) {
        (Ok(found), memory) => Ok(found.filter(|found| memory.is_none_or(|m| found.curve.len() > m.steps))),
        (Err(error), Some(memory)) => {
            tracing::warn!("going on from memory, step {} of {floor}: {error}", memory.steps);
            Ok(None)
        }
        (Err(error), None) => Err(error),
    }
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

fn told_by_rank_0(work: &Work<'_>, trainer: &Trainer, own: Source) -> Result<Source> {
    let told = Tensor::f_from_slice(&[own.root as i64, own.steps as i64])?.f_to_device(work.device)?;
    let mut told = [told];
    trainer.group().broadcast(&mut told, 0)?;
    let [told] = told;
    let told = Vec::<i64>::try_from(told.f_to_device(Device::Cpu)?)?;
    match told.as_slice() {
        [root, steps] if *root >= 0 && *steps >= 0 => {
            Ok(Source { root: *root as usize, steps: *steps as u64 })
        }
        other => Err(Error::internal(format!("rank 0 sent {other:?} as the place to go on from"))),
    }
}

fn share_curve(work: &Work<'_>, trainer: &Trainer, own: Curve, source: Source) -> Result<Curve> {
    if source.steps == 0 {
        return Ok(own);
    }
    let is_root = trainer.group().rank() == source.root;
    let losses = if is_root { own.to_tensor()? } else { Curve::blank(source.steps)? };
    let mut losses = [losses.f_to_device(work.device)?];
    trainer.group().broadcast(&mut losses, source.root)?;
    Curve::from_tensor(&losses[0])
}

/// Whether this rank has what the root sent, bit for bit.
fn compare(work: &Work<'_>, trainer: &Trainer, curve: &Curve, root: usize) -> Result<()> {
    let own = digest(trainer, curve)?;
    let mut sent = [Tensor::f_from_slice(&own)?.f_to_device(work.device)?];
    trainer.group().broadcast(&mut sent, root)?;
    let sent = Vec::<u8>::try_from(sent[0].f_to_device(Device::Cpu)?)?;
    agree(trainer.group().place(), root, &own, &sent)
}

/// SHA-256 over weights, optimiser and losses.
fn digest(trainer: &Trainer, curve: &Curve) -> Result<[u8; 32]> {
    let mut all = Tensors::new("training state");
    all.nest("generator", trainer.weights());
    all.nest("optimiser", trainer.optimiser());
    all.insert(CURVE, &curve.to_tensor()?);
    Ok(all.digest()?)
}

fn agree(place: Place, root: usize, own: &[u8], sent: &[u8]) -> Result<()> {
    if own == sent {
        return Ok(());
    }
    Err(Error::refused(
        ErrorCode::StateDiffers,
        format!(
            "{place}: got a state with SHA-256 {}, but rank {root} sent {}: it was changed on its way or in memory",
            sha256_text(own),
            sha256_text(sent)
        ),
        format!("look at the memory and the network of this rank's machine and of rank {root}'s"),
    ))
}

#[cfg(test)]
mod tests {
    use lethe_domain::Failure;

    use super::*;

    #[test]
    fn the_survivor_that_got_furthest_gives_its_state() {
        let of = |steps: &[Option<u64>]| furthest(steps).map(|source| (source.root, source.steps));
        assert_eq!(of(&[None, None]), None);
        assert_eq!(of(&[None, Some(0)]), Some((1, 0)), "a step that is none is something");
        assert_eq!(of(&[Some(56), None, Some(57), Some(57)]), Some((2, 57)), "the lowest rank of several");
    }

    #[test]
    fn memory_is_stale_when_it_lacks_more_than_a_step() {
        let at = |steps| Some(Source { root: 1, steps });
        assert!(is_stale(None, 0));
        assert!(!is_stale(at(57), 57));
        assert!(!is_stale(at(57), 58), "the one that was lost may have been a step ahead");
        assert!(is_stale(at(57), 59));
        assert!(!is_stale(at(57), 0));
    }

    #[test]
    fn a_state_that_differs_by_a_bit_names_both_ranks() {
        let place = Place { rank: 2, world: 3, generation: 7 };
        let sent = [0_u8; 32];
        agree(place, 1, &sent, &sent).unwrap();
        let mut own = sent;
        own[31] = 1;
        let failure = Failure::from(agree(place, 1, &own, &sent).unwrap_err());
        assert_eq!(failure.code, ErrorCode::StateDiffers);
        assert!(failure.message.contains("rank 2 of 3, generation 7"), "{failure}");
        assert!(failure.message.contains("rank 1 sent 00"), "{failure}");
    }
}
