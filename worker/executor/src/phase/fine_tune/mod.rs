//! Fine-tune: train the copy as one rank of a gang.
//!
//! Step t draws its batch from the pool of edited latents, by its number alone, cut into parts that do not depend on the number of
//! ranks; each rank takes some of them. So a gang of another size, formed after a loss, goes on with the same bits: from what the survivors
//! have in memory, or else from the last checkpoint.
//!
//! One file each: meeting the other ranks (`gang`, `deadline`), the step itself (`trainer`), what is kept when a gang ends (`resident`), where to go
//! on from (`resume`), saving beside the training (`saving`, `saver`, `buffers`), the losses so far (`curve`), how strong the copy is to be
//! (`strength`). Not here: the edits (`edit`).

mod buffers;
mod curve;
mod deadline;
mod gang;
mod resident;
mod resume;
mod saver;
mod saving;
pub(crate) mod stall;
mod strength;
pub(crate) mod trainer;

use lethe_domain::{ArtifactRef, ErrorCode, Failure, FineTuneOutput, GangRole, Rank};
use lethe_models::Pool;

use super::{edit, search};
use crate::error::{Error, Result};
use crate::work::Work;

use curve::Curve;
pub(crate) use gang::GangSettings;
use gang::Meeting;
pub(crate) use resident::ResidentState;
use saving::Saving;
use trainer::Trainer;

/// Losses are looked at this many steps at a time: looking at each would make a GPU wait for this process at every step.
pub(super) const WINDOW: usize = 8;

/// What to do when a training batch does not fit.
pub(super) const SMALLER: &str = "lower unlearn.global_batch, or raise unlearn.micro_batches: a rank holds one part of the batch at a time";

/// Gives something on rank 0, nothing on the others. When it fails and the state is sound, that is kept for the next generation.
///
/// # Errors
/// `GANG_ABORTED` when a peer is lost, `YIELDED` when the gang was asked to, `NOT_FINITE` when training diverges, `NO_EDITS` when every
/// edit failed; those of models and
/// storage.
pub(super) fn run(
    work: &mut Work<'_>,
    target: &ArtifactRef,
    pool: &[ArtifactRef],
    search: &[ArtifactRef],
    role: &GangRole,
) -> Result<Option<FineTuneOutput>> {
    // Rank 0 says where to meet before it loads anything: the others load at the same time.
    let meeting = Meeting::open(work, role)?;
    let original = work.original()?;
    let edited = edit::pool(work, pool)?;
    let search = search::found(work, search)?;
    let spec = search.as_ref().map_or_else(|| work.spec.clone(), |search| search.values.set_in(&work.spec));
    let teacher = edit::teacher(work, target, &spec.unlearn)?;
    let group = meeting.join(work)?;
    let found = work.target(target)?;
    let mut trainer = Trainer::new(&spec, &found, edited.clone(), original, teacher, group)?;
    // Until all have it, every survivor keeps its own.
    let mut curve = resume::resume(work, &mut trainer, (target, pool), role.floor)?;
    *work.resident = None;
    let trained = train_and_publish(work, role, &mut trainer, &mut curve, (target, &edited));
    let trained = trained.map(|output| output.map(|output| FineTuneOutput { search, ..output }));
    trained.map_err(|error| keep(work, (target, pool), trainer, curve, error))
}

fn train_and_publish(
    work: &mut Work<'_>,
    role: &GangRole,
    trainer: &mut Trainer,
    curve: &mut Curve,
    learnt: (&ArtifactRef, &Pool),
) -> Result<Option<FineTuneOutput>> {
    // On an error it finishes what it has on its own: the next generation does not wait for storage.
    let mut saving = (role.rank == Rank(0)).then(|| Saving::start(work, role, trainer)).transpose()?;
    work.speaker.begin();
    let before = curve.len();
    train(work, trainer, curve, saving.as_mut())?;
    let trained = (curve.len() - before) as f64 * work.spec.unlearn.global_batch as f64;
    let speed = trained / work.speaker.seconds().max(1e-9);
    // Nobody leaves while another still waits for the last sum.
    trainer.group().barrier()?;
    saving.map(|saving| publish(work, role, trainer, curve, learnt, saving, speed)).transpose()
}

/// Keeps the state of the last whole step in memory, if it is sound, and says what ended the gang.
fn keep(
    work: &mut Work<'_>,
    (target, pool): (&ArtifactRef, &[ArtifactRef]),
    mut trainer: Trainer,
    mut curve: Curve,
    error: Error,
) -> Error {
    let unlearn = &work.spec.unlearn;
    let part = format!(
        "a part of the training batch (unlearn.global_batch {} over unlearn.micro_batches {})",
        unlearn.global_batch,
        unlearn.parts()
    );
    let mut failure = Failure::from(error.too_large(&part, SMALLER));
    if failure.code == ErrorCode::GangAborted {
        failure.message = format!("step {}: {}", trainer.steps() + 1, failure.message);
    }
    if !(failure.code.retryable() || failure.code == ErrorCode::Cancelled) {
        return failure.into();
    }
    if let Err(diverged) = trainer.given().and_then(|losses| curve.extend(losses, trainer.lr())) {
        // A loss that is no number is the better reason for a peer's leaving, but not for a stop.
        return if failure.code == ErrorCode::GangAborted { diverged } else { failure.into() };
    }
    match trainer.into_state() {
        Ok(Some((generator, optimiser))) => {
            tracing::info!("keeping step {} in memory", curve.len());
            let (job, spec) = (work.lease.job.clone(), work.spec.clone());
            let (target, pool) = (target.clone(), pool.to_vec());
            *work.resident = Some(ResidentState { job, spec, target, pool, curve, generator, optimiser });
        }
        Ok(None) => {}
        Err(error) => tracing::warn!("nothing is kept in memory: {error}"),
    }
    failure.into()
}

/// The loop. Every rank decides the same at the same step: all decisions follow from the step and from sums that have the same
/// bits everywhere.
fn train(
    work: &mut Work<'_>,
    trainer: &mut Trainer,
    curve: &mut Curve,
    mut saving: Option<&mut Saving>,
) -> Result<()> {
    let unlearn = work.spec.unlearn.clone();
    let every = work.spec.checkpoint.every;
    let first = curve.len();
    let mut wishes = trainer.agree(work.yielding.wishes())?;
    while curve.len() < unlearn.steps && !curve.has_levelled(unlearn.plateau) {
        work.stop.check()?;
        work.pace.keep(&work.stop)?;
        if wishes.yields {
            curve.extend(trainer.given()?, trainer.lr())?;
            return yield_here(trainer, curve, saving.filter(|_| wishes.save));
        }
        if let Some(saving) = &mut saving {
            saving.saver.check();
        }
        wishes = trainer.step(work.yielding.wishes())?;
        let done = trainer.steps();
        let save = every > 0 && done.is_multiple_of(every);
        let judged = unlearn.plateau.is_some_and(|plateau| done.is_multiple_of(plateau.patience));
        if trainer.pending() == WINDOW || save || judged || done == unlearn.steps {
            curve.extend(trainer.given()?, trainer.lr())?;
        }
        let samples = (done - first) * unlearn.global_batch;
        work.speaker.progress(&work.lease, done, unlearn.steps, samples, curve.last());
        if let Some(saving) = saving.as_mut().filter(|saving| save && saving.saver.has_room(done)) {
            saving.saver.offer(saving.snapshot(trainer, curve)?);
        }
    }
    Ok(())
}

/// The end of a gang that was asked to end; all ranks are here at the same step.
fn yield_here(trainer: &Trainer, curve: &Curve, saving: Option<&mut Saving>) -> Result<()> {
    if let Err(error) = trainer.group().barrier() {
        // The step is done and everybody knows it; a rank that left early changes nothing.
        tracing::warn!("{error}");
    }
    if let Some(saving) = saving {
        if !saving.saver.has(curve.len()) {
            saving.saver.insist(saving.snapshot(trainer, curve)?);
        }
        saving.saver.settle()?;
    }
    let message = format!("{}: yielded after step {}", trainer.group().place(), curve.len());
    Err(Error::refused(ErrorCode::Yielded, message, ""))
}

/// Finds how strong the copy is to be, writes its weights and the curve, and waits until the last checkpoint is there.
fn publish(
    work: &mut Work<'_>,
    role: &GangRole,
    trainer: &Trainer,
    curve: &Curve,
    (target, pool): (&ArtifactRef, &Pool),
    mut saving: Saving,
    samples_per_second: f64,
) -> Result<FineTuneOutput> {
    if !saving.saver.has(curve.len()) {
        saving.saver.insist(saving.snapshot(trainer, curve)?);
    }
    let generation = role.generation;
    let weights = work.path(&format!("fine_tune/weights-g{generation}.safetensors"));
    let method = work.target(target)?.method;
    let strength = strength::find(work, trainer, target, pool)?;
    let weights = work.storage.put(&weights, trainer.published(strength)?.to_bytes()?)?;
    let curve_path = work.path(&format!("fine_tune/curve-g{generation}.json"));
    let stored = work.storage.put(&curve_path, curve.to_json())?;
    let (loss_first, loss_last) = curve.ends();
    let edits = pool.summary();
    tracing::info!(
        tried = edits.tried,
        unresolved = edits.unresolved,
        median_step = edits.median_step,
        p99_step = edits.p99_step,
        "edits of the pool"
    );
    let (drift, halved) = trainer.drift()?;
    edits.warning().iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(FineTuneOutput {
        weights,
        checkpoint: saving.saver.finish()?,
        steps: curve.len(),
        world_size: role.world,
        samples_per_second,
        lr: trainer.lr(),
        drift,
        halved,
        alpha: trainer.unlearn().alpha(method),
        labeller_term: trainer.unlearn().labeller_term(method),
        strength: Some(strength),
        loss_first,
        loss_last,
        curve: stored,
        edits,
        search: None,
    })
}
