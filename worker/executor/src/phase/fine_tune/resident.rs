//! What a rank keeps in memory when its gang ends: everything the next generation needs to go on from there.
//!
//! Always the state of a completed step, bit for bit. Not here: who of the survivors the next generation goes on from (`resume`).

use lethe_domain::{ArtifactRef, JobId, JobSpec, LeaseId, Phase, Task};
use lethe_models::Tensors;

use super::curve::Curve;

/// The training of one job after its last completed step.
#[derive(Debug)]
pub(crate) struct ResidentState {
    pub(super) job: JobId,
    pub(super) spec: JobSpec,
    pub(super) target: ArtifactRef,
    pub(super) pool: Vec<ArtifactRef>,
    pub(super) curve: Curve,
    pub(super) generator: Tensors,
    pub(super) optimiser: Tensors,
}

impl ResidentState {
    /// Steps done.
    pub(super) fn steps(&self) -> u64 {
        self.curve.len()
    }

    /// Whether it is of this very training.
    pub(super) fn fits(
        &self,
        job: &JobId,
        spec: &JobSpec,
        target: &ArtifactRef,
        pool: &[ArtifactRef],
    ) -> bool {
        self.job == *job && self.spec == *spec && self.target == *target && self.pool == pool
    }

    /// Whether somebody may still go on from it once this task begins: not when another job trains here, nor when its own job is
    /// past training.
    pub(crate) fn survives(&self, lease: &LeaseId, task: &Task) -> bool {
        match task {
            Task::FineTune { .. } => lease.job == self.job,
            _ => lease.job != self.job || lease.phase == Phase::FineTune,
        }
    }
}
