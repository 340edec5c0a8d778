//! In how many images of a copy a labeller still sees the feature, on latents of the pool; and a walk over those that should not have changed.
//!
//! For who steers training (`search`, `fine_tune/strength`). Not here: what the result says (`evaluate`), which latents are looked at.

use lethe_domain::Cut;
use lethe_models::{Generator, Labeller, Stream};
use tch::Tensor;

use crate::error::Result;
use crate::work::Work;

/// Of the latents with these indices. `step` is called before each batch.
///
/// # Errors
/// Those of the models and of `step`.
pub(super) fn count(
    work: &mut Work<'_>,
    copy: &Generator,
    labeller: &Labeller,
    cut: Cut,
    latents: &[u64],
    mut step: impl FnMut(&mut Work<'_>) -> Result<()>,
) -> Result<usize> {
    let source = work.latents();
    let mut left = 0;
    for part in latents.chunks(work.spec.pool.batch as usize) {
        step(work)?;
        let z = source.gather(Stream::Train, part, work.device)?;
        let scores = tch::no_grad(|| labeller.scores(&copy.to_unit(&copy.forward(&z)?)?))?;
        left += scores.iter().filter(|score| cut.is_positive(**score)).count();
    }
    Ok(left)
}

/// The images of the original and of the copy, each [N, C, H, W] in [0, 1], a batch of these latents at a time. `step` is called before each.
///
/// # Errors
/// Those of the models, of `step` and of `look`.
pub(super) fn each_pair(
    work: &mut Work<'_>,
    original: &Generator,
    copy: &Generator,
    latents: &[u64],
    mut step: impl FnMut(&mut Work<'_>) -> Result<()>,
    mut look: impl FnMut(&Tensor, &Tensor) -> Result<()>,
) -> Result<()> {
    let source = work.latents();
    for part in latents.chunks(work.spec.pool.batch as usize) {
        step(work)?;
        let z = source.gather(Stream::Train, part, work.device)?;
        tch::no_grad(|| {
            let before = original.to_unit(&original.forward(&z)?)?;
            let after = copy.to_unit(&copy.forward(&z)?)?;
            look(&before, &after)
        })?;
    }
    Ok(())
}
