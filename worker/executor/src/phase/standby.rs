//! Standby: load what a rank needs, and wait, so that a lost rank can be replaced without loading anything.

use std::time::Duration;

use lethe_domain::{ArtifactRef, TaskOutput};

use super::edit;
use crate::error::Result;
use crate::work::Work;

/// Between two signs of life, which renew the lease.
const BEAT: Duration = Duration::from_secs(1);

/// Waits until it is stopped. The seconds waited are its progress.
///
/// # Errors
/// Those of the models and of storage; [`crate::error::Error::Stopped`], which is how it ends.
pub(super) fn run(work: &mut Work<'_>, target: &ArtifactRef, pool: &[ArtifactRef]) -> Result<TaskOutput> {
    work.target(target)?;
    work.original()?;
    edit::pool(work, pool)?;
    edit::teacher(work, target, &work.spec.unlearn.clone())?;
    work.speaker.begin();
    loop {
        let seconds = work.speaker.seconds() as u64;
        work.speaker.progress(&work.lease, seconds, seconds, 0, None);
        work.stop.wait(BEAT)?;
    }
}
