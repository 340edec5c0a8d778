//! Fine-tune: train the copy as one rank of a gang.
//!
//! Step t uses latents [tB, (t+1)B) of the training stream, cut into parts that do not depend on the number of ranks; each
//! rank takes some of them. So a gang of another size, formed after a loss, goes on from the last checkpoint with the
//! same bits.
//!
//! One file each: meeting the other ranks (`gang`), the step itself (`trainer`), where to go on from (`resume`), saving beside the
//! training (`saver`), the losses so far (`curve`).

mod curve;
mod gang;
mod resume;
mod saver;
pub(crate) mod trainer;

use std::time::{SystemTime, UNIX_EPOCH};

use lethe_artifacts::Header;
use lethe_domain::spec::Selection;
use lethe_domain::{ArtifactRef, FineTuneOutput, GangRole, JobSpec, Rank};
use lethe_models::Labeller;
use tch::Device;

use crate::error::{Error, Result};
use crate::storage::local_file;
use crate::verdict;
use crate::work::Work;

use curve::Curve;
use gang::Meeting;
use saver::{Saver, Snapshot};
use trainer::Trainer;

/// Losses are summed over the ranks this many steps at a time: asking for each would make every rank wait for every other
/// once more per step.
const WINDOW: usize = 8;

/// What to do when a training batch does not fit.
pub(super) const SMALLER: &str = "lower unlearn.global_batch, or raise unlearn.micro_batches: a rank holds one part of the batch at a time";

/// Gives something on rank 0, nothing on the others.
///
/// # Errors
/// `GANG_ABORTED` when a peer is lost, `NOT_FINITE` when training diverges; those of models and storage.
pub(super) fn run(
    work: &mut Work<'_>,
    target: &ArtifactRef,
    role: &GangRole,
) -> Result<Option<FineTuneOutput>> {
    // Rank 0 says where to meet before it loads anything: the others load at the same time.
    let meeting = Meeting::open(work, role)?;
    let target = work.target(target)?;
    let original = work.original()?;
    let labeller = guide(&work.spec, work.device)?;
    let group = meeting.join(work)?;
    let mut trainer = Trainer::new(&work.spec, &target, original, labeller, group)?;
    let mut curve = resume::resume(work, &mut trainer)?;
    let mut saver = (role.rank == Rank(0)).then(|| Saver::start(work)).transpose()?;

    work.speaker.begin();
    let before = curve.len();
    let unlearn = &work.spec.unlearn;
    let part = format!(
        "a part of the training batch (unlearn.global_batch {} over unlearn.micro_batches {})",
        unlearn.global_batch,
        unlearn.parts()
    );
    if let Err(error) = train(work, role, &mut trainer, &mut curve, saver.as_mut()) {
        // What was handed over is worth the wait: the next generation goes on from it. Unless there will be none.
        if let Some(saver) = saver.as_mut().filter(|_| !error.is_stop())
            && let Err(beside) = saver.settle()
        {
            tracing::warn!("saving failed too: {beside}");
        }
        return Err(error.too_large(&part, SMALLER));
    }
    let trained = (curve.len() - before) as f64 * work.spec.unlearn.global_batch as f64;
    let speed = trained / work.speaker.seconds().max(1e-9);
    // Nobody leaves while another still waits for the last sum.
    trainer.group().barrier()?;
    match saver {
        Some(saver) => publish(work, role, &trainer, &curve, saver, speed).map(Some),
        None => Ok(None),
    }
}

/// The labeller that guides the edit, if the spec wants one: the editor keeps it, so it is not the one at hand between tasks.
pub(crate) fn guide(spec: &JobSpec, device: Device) -> Result<Option<Labeller>> {
    if spec.direction.selection == Selection::Projection {
        return Ok(None);
    }
    let judge = verdict::looking_labeller(spec);
    let judge = judge.ok_or_else(|| Error::internal("direction.selection: classifier without a model"))?;
    let labeller = verdict::as_labeller(&judge)?;
    let uri = match labeller {
        lethe_domain::spec::Labeller::Classifier(classifier) => &classifier.uri,
        lethe_domain::spec::Labeller::Scorer(scorer) => &scorer.uri,
        lethe_domain::spec::Labeller::Labels(labels) => &labels.uri,
    };
    Ok(Some(Labeller::open(labeller, &local_file(uri)?, device)?))
}

/// The loop. Every rank decides the same at the same step: all decisions follow from the step and from sums that have the same
/// bits everywhere.
fn train(
    work: &mut Work<'_>,
    role: &GangRole,
    trainer: &mut Trainer,
    curve: &mut Curve,
    mut saver: Option<&mut Saver>,
) -> Result<()> {
    let unlearn = work.spec.unlearn.clone();
    let every = work.spec.checkpoint.every;
    let first = curve.len();
    while curve.len() < unlearn.steps && !curve.has_levelled(unlearn.plateau) {
        work.stop.check()?;
        if let Some(saver) = &mut saver {
            saver.check()?;
        }
        trainer.step()?;
        let done = trainer.steps();
        let save = every > 0 && done.is_multiple_of(every);
        let judged = unlearn.plateau.is_some_and(|plateau| done.is_multiple_of(plateau.patience));
        if trainer.pending() == WINDOW || save || judged || done == unlearn.steps {
            curve.extend(trainer.losses()?, &unlearn)?;
        }
        let samples = (done - first) * unlearn.global_batch;
        work.speaker.progress(&work.lease, done, unlearn.steps, samples, curve.last());
        if let Some(saver) = saver.as_mut().filter(|_| save) {
            saver.offer(snapshot(role, trainer, curve)?);
        }
    }
    Ok(())
}

fn snapshot(role: &GangRole, trainer: &Trainer, curve: &Curve) -> Result<Snapshot> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let header = Header {
        step: curve.len(),
        generation: u64::from(role.generation.0),
        // The executor does not know the leader; the generation alone tells incarnations apart.
        epoch: 0,
        world_size: role.world,
        created_unix_ms: now.as_millis() as u64,
        metrics: curve.last().map(|loss| ("loss".to_owned(), loss)).into_iter().collect(),
    };
    let mut training = trainer.optimiser().snapshot()?;
    training.insert(resume::CURVE, &curve.to_tensor()?);
    Ok(Snapshot { header, generator: trainer.weights().snapshot()?, training })
}

/// Writes the weights and the curve, and waits until the last checkpoint is there.
fn publish(
    work: &mut Work<'_>,
    role: &GangRole,
    trainer: &Trainer,
    curve: &Curve,
    mut saver: Saver,
    samples_per_second: f64,
) -> Result<FineTuneOutput> {
    if !saver.has(curve.len()) {
        saver.insist(snapshot(role, trainer, curve)?);
    }
    let generation = role.generation;
    let weights = work.path(&format!("fine_tune/weights-g{generation}.safetensors"));
    let weights = work.storage.put(&weights, trainer.weights().to_bytes()?)?;
    let curve_path = work.path(&format!("fine_tune/curve-g{generation}.json"));
    let stored = work.storage.put(&curve_path, curve.to_json())?;
    let (loss_first, loss_last) = curve.ends();
    Ok(FineTuneOutput {
        weights,
        checkpoint: saver.finish()?,
        steps: curve.len(),
        world_size: role.world,
        samples_per_second,
        loss_first,
        loss_last,
        curve: stored,
    })
}
