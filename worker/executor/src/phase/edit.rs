//! Edit: label the latents of the training stream and edit those that show the feature, once; training passes over them many times.
//!
//! Stored are the edits, not the latents, which can be made again from their index. A shard is cut into the same batches whoever has
//! it, so it has the same bits, and another job's are as good (`reuse`). Not here: how an edit is found (crate `models`), what a step draws (there too).

use std::rc::Rc;

use bytes::Bytes;
use lethe_domain::spec::{Selection, Unlearn};
use lethe_domain::{ArtifactRef, EditOutput, EditSummary, ErrorCode, Inputs, JobSpec, SampleRange};
use lethe_models::{Editor, Guide, Labeller, Latents, Pool, PoolShard, Stream, Student, Target, Teacher};
use tch::Device;

use super::Shard;
use crate::error::{Error, Result};
use crate::models::{Models, Original};
use crate::work::Work;
use crate::{memory, reuse, verdict};

/// What to do when a batch does not fit.
const SMALLER: &str = "lower pool.batch, or run fewer slots on this machine";

/// # Errors
/// Those of the models and of storage.
pub(super) fn run(work: &mut Work<'_>, shard: Shard, target: &ArtifactRef) -> Result<EditOutput> {
    let path = work.shard_path(shard.index);
    let entry = reuse::entry(work, shard.range, target);
    if let Some(bytes) = entry.as_ref().and_then(|entry| entry.find(&work.storage)) {
        shard.step(work, 0)?;
        let pool = work.storage.put(&path, bytes)?;
        return Ok(EditOutput { samples: shard.range.count, pool, reused: true });
    }
    let vector = work.target(target)?;
    let original = work.original()?;
    let editor = editor(&work.spec, &vector, &work.inputs, work.models, work.device)?;
    if shard.is_first() {
        work.speaker.begin();
    }
    let (latents, batch) = (work.latents(), work.spec.pool.batch);
    let edits = PoolShard::new(shard.range.start, work.spec.stores_targets());
    let edits = edit(&original, &editor, &latents, edits, shard.range, batch, |done| shard.step(work, done));
    let edits = edits
        .map_err(|error| error.too_large(&format!("a batch of {batch} latents (pool.batch)"), SMALLER))?;
    let bytes = Bytes::from(edits.to_bytes(&latents)?);
    let pool = work.storage.put(&path, bytes.clone())?;
    if let Some(entry) = entry {
        entry.keep(&work.storage, &pool.sha256, bytes);
    }
    Ok(EditOutput { samples: shard.range.count, pool, reused: false })
}

/// The editor that the spec asks for, with the labeller that guides it if there is one.
///
/// # Errors
/// As [`Models::labeller`].
pub(crate) fn editor(
    spec: &JobSpec,
    target: &Target,
    inputs: &Inputs,
    models: &mut Models,
    device: Device,
) -> Result<Editor> {
    let guide = guide(spec, target.student.as_deref(), inputs, models, device)?;
    Ok(Editor::new(target, &spec.direction, spec.generator.prior, guide, device)?)
}

/// Who looks at images while they are edited, if the spec wants somebody to; a student where one was taught.
///
/// # Errors
/// As [`Models::guide`].
pub(crate) fn guide(
    spec: &JobSpec,
    student: Option<&Student>,
    inputs: &Inputs,
    models: &mut Models,
    device: Device,
) -> Result<Option<Guide>> {
    if spec.direction.selection == Selection::Projection {
        return Ok(None);
    }
    let judge = verdict::looking_labeller(spec);
    let judge = judge.ok_or_else(|| Error::internal("direction.selection: classifier without a model"))?;
    match student {
        Some(student) => {
            let labeller = models.labeller(&judge, inputs, device)?;
            Ok(Some(Guide { labeller, differentiable: Rc::new(Labeller::taught(student.on(device)?)) }))
        }
        None => models.guide(&judge, inputs, device).map(Some),
    }
}

/// Labels and edits a range of latents into `shard`. `step` is called before each batch with the latents done.
///
/// # Errors
/// Those of the models and of `step`.
pub(crate) fn edit(
    original: &Original,
    editor: &Editor,
    latents: &Latents,
    mut shard: PoolShard,
    range: SampleRange,
    batch: u64,
    mut step: impl FnMut(u64) -> Result<()>,
) -> Result<PoolShard> {
    for part in range.in_steps_of(batch) {
        step(part.start - range.start)?;
        let z = latents.batch(Stream::Train, part.start, part.count, original.generator.device())?;
        shard.add(&z, &editor.edit(&original.generator, &z)?, latents.deviation())?;
    }
    Ok(shard)
}

/// The first latents alone as a pool, for measuring: nothing is stored, no targets either, so that a step is all of a step.
///
/// # Errors
/// Those of the models.
pub(crate) fn small_pool(
    spec: &JobSpec,
    original: &Original,
    editor: &Editor,
    count: u64,
) -> Result<Rc<Pool>> {
    let (latents, range) = (Latents::new(spec.sample.seed, &spec.generator), SampleRange { start: 0, count });
    let shard = PoolShard::new(range.start, false);
    let shard = edit(original, editor, &latents, shard, range, spec.pool.batch, |_| Ok(()))?;
    Ok(Rc::new(Pool::new(latents, vec![shard], spec.unlearn.near)?))
}

/// The pool of a job, which stays at hand: whoever replaces a lost rank needs no storage for it.
///
/// # Errors
/// `NO_EDITS` when every edit failed; those of storage; [`Error::Stopped`].
pub(super) fn pool(work: &mut Work<'_>, shards: &[ArtifactRef]) -> Result<Rc<Pool>> {
    let (storage, stop, latents) = (work.storage.clone(), work.stop.clone(), work.latents());
    let near = work.spec.unlearn.near;
    work.models.pool(shards, || {
        let bytes = shards.iter().map(|shard| shard.size).sum::<u64>();
        memory::require(2 * bytes, "the pool of edits", "lower pool.latents")?;
        let read = |shard: &ArtifactRef| {
            stop.check()?;
            Ok(PoolShard::from_bytes(&storage.get(shard)?, &shard.path, &latents)?)
        };
        let pool = Pool::new(latents.clone(), shards.iter().map(read).collect::<Result<_>>()?, near)?;
        check(pool.summary())?;
        Ok(pool)
    })
}

/// The labeller as part of the loss with this weight, where gradients pass through it.
///
/// # Errors
/// As [`Models::guide`]; those of storage.
pub(super) fn teacher(
    work: &mut Work<'_>,
    target: &ArtifactRef,
    unlearn: &Unlearn,
) -> Result<Option<Teacher>> {
    let target = work.target(target)?;
    teacher_of(work, &target, unlearn)
}

/// The same for a target at hand.
///
/// # Errors
/// As [`Models::guide`].
pub(super) fn teacher_of(work: &mut Work<'_>, target: &Target, unlearn: &Unlearn) -> Result<Option<Teacher>> {
    let weight = unlearn.labeller_term(target.method);
    if weight == 0.0 {
        return Ok(None);
    }
    let guide = guide(&work.spec, target.student.as_deref(), &work.inputs, work.models, work.device)?;
    Ok(guide.map(|guide| Teacher::new(target, guide.differentiable, weight)))
}

/// Whether any edit succeeded. One that moved nothing, of an image that did not show the feature, is no success.
fn check(EditSummary { tried, unresolved, p99_step, .. }: EditSummary) -> Result<()> {
    if (unresolved < tried && p99_step > 0.0) || tried == 0 {
        return Ok(());
    }
    Err(Error::refused(
        ErrorCode::NoEdits,
        format!("none of {tried} edits found an image without the feature: there is nothing to teach"),
        "lower direction.margin, raise sample.until or use direction.method: logistic for a better direction; a labeller that \
         calls every image along the direction positive cannot guide an edit",
    ))
}

#[cfg(test)]
mod tests {
    use lethe_domain::Failure;

    use super::*;

    #[test]
    fn only_when_every_edit_fails_the_job_does() {
        let of =
            |tried, unresolved| EditSummary { tried, unresolved, p99_step: 1.0, ..EditSummary::default() };
        for edits in [of(0, 0), of(501, 500)] {
            check(edits).unwrap();
        }
        let failure = Failure::from(check(of(1, 1)).unwrap_err());
        assert_eq!(failure.code, ErrorCode::NoEdits, "{failure}");
        assert!(check(EditSummary { p99_step: 0.0, ..of(55, 45) }).is_err(), "ten stayed where they were");
    }
}
