//! Direction: locate the feature in latent space from the scores of all samples.
//!
//! Everything is folded in the order of the index, so the target vector is the same bit for bit whoever made the shards.

use lethe_domain::{ArtifactRef, DirectionOutput};

use super::sample::read_scores;
use crate::error::Result;
use crate::work::Work;
use crate::{memory, verdict};

/// # Errors
/// `NO_POSITIVES` and `NO_NEGATIVES`; those of storage.
pub(super) fn run(work: &mut Work<'_>, shards: &[ArtifactRef]) -> Result<DirectionOutput> {
    let scores = read_scores(work, shards)?;
    let cut = verdict::line(verdict::labeller(&work.spec)?).among(&scores)?;
    let latents = work.latents();
    let bytes = (scores.len() * latents.numel() * size_of::<f32>()) as u64;
    memory::require(bytes, &format!("the latents of {} samples", scores.len()), "lower sample.until")?;
    let located = lethe_models::locate(&latents, &scores, cut, &work.spec.direction)?;
    located.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    work.stop.check()?;

    let target = located.target;
    let name = format!("direction/target-a{}.safetensors", work.lease.attempt.0);
    let stored = work.storage.put(&work.path(&name), target.to_bytes()?)?;
    tracing::info!(
        positives = target.positives,
        samples = target.samples,
        edited_share = target.edited_share,
        heldout_auc = target.heldout_auc,
        "located the feature"
    );
    Ok(DirectionOutput {
        target: stored,
        samples: target.samples,
        positives: target.positives,
        cut,
        threshold: target.threshold,
        edited_share: target.edited_share,
        heldout_auc: target.heldout_auc,
        warnings: located.warnings,
    })
}
