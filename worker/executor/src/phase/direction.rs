//! Direction: locate the feature in latent space from the scores of all samples.
//!
//! Everything is folded in the order of the index, so the target vector is the same bit for bit whoever made the shards.

use lethe_domain::spec::{Direction, EditChoice, Labeller};
use lethe_domain::{ArtifactRef, DirectionOutput, EditMethod};
use lethe_models::{Stream, Target};

use super::edit;
use super::sample::read_scores;
use crate::error::Result;
use crate::work::Work;
use crate::{memory, verdict};

/// # Errors
/// `NO_POSITIVES` and `NO_NEGATIVES`; those of storage.
pub(super) fn run(work: &mut Work<'_>, shards: &[ArtifactRef]) -> Result<DirectionOutput> {
    let scores = read_scores(work, shards)?;
    let labeller = verdict::labeller(&work.spec)?;
    let cut = verdict::line(labeller).among(&scores)?;
    // What a scorer measures is what it measures; a classifier can be unsure.
    let recall = work.spec.direction.recall && matches!(labeller, Labeller::Classifier(_));
    let direction = Direction { recall, ..work.spec.direction.clone() };
    let latents = work.latents();
    let bytes = (scores.len() * latents.numel() * size_of::<f32>()) as u64;
    memory::require(bytes, &format!("the latents of {} samples", scores.len()), "lower sample.until")?;
    let located = lethe_models::locate(&latents, &scores, cut, &direction)?;
    located.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    work.stop.check()?;

    let mut target = located.target;
    if target.method != EditMethod::Projection && leads(work, &target, &scores)? {
        target.method = EditMethod::Gradient;
    }
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
        warnings: located.warnings,
    })
}

/// Latents on which the two ways are tried.
const TRIED: usize = 64;

/// Whether edits follow the gradient: as the spec says, or as a step on those latents that show the feature most says.
fn leads(work: &mut Work<'_>, target: &Target, scores: &[f64]) -> Result<bool> {
    match work.spec.direction.edit {
        EditChoice::Line => return Ok(false),
        EditChoice::Gradient => return Ok(true),
        EditChoice::Auto => {}
    }
    let Some(guide) = edit::guide(&work.spec, &work.inputs, work.models, work.device)? else {
        return Ok(false);
    };
    let original = work.original()?;
    let mut most: Vec<u64> = (0..scores.len() as u64).collect();
    let score = |index: &u64| target.cut.sign * scores[*index as usize];
    most.sort_by(|one, other| score(other).total_cmp(&score(one)));
    most.truncate(TRIED);
    let z = work.latents().gather(Stream::Sample, &most, work.device)?;
    let prior = work.spec.generator.prior;
    let leads = lethe_models::gradient_leads(target, &original.generator, &guide, prior, &z)?;
    if !leads {
        tracing::info!("the labeller's gradient leads no further than the direction: edits go along that");
    }
    Ok(leads)
}
