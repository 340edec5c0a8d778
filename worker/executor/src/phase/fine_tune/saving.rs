//! What rank 0 saves: a copy of everything that training goes on from.
//!
//! Not here: writing it (`saver`), when (`mod.rs`).

use std::time::{SystemTime, UNIX_EPOCH};

use lethe_artifacts::Header;
use lethe_domain::GangRole;

use super::buffers::Buffers;
use super::curve::Curve;
use super::resume::CURVE;
use super::saver::{Saver, Snapshot};
use super::trainer::Trainer;
use crate::error::Result;
use crate::work::Work;

/// Rank 0's way of saving.
#[derive(Debug)]
pub(super) struct Saving {
    pub(super) saver: Saver,
    role: GangRole,
    generator: Buffers,
    training: Buffers,
}

impl Saving {
    /// # Errors
    /// As [`Saver::start`]; lack of memory.
    pub(super) fn start(work: &Work<'_>, role: &GangRole, trainer: &Trainer) -> Result<Self> {
        let (generator, training) = <(Buffers, Buffers)>::default();
        generator.prepare(&trainer.weights())?;
        training.prepare(&trainer.optimiser())?;
        Ok(Self { saver: Saver::start(work)?, role: role.clone(), generator, training })
    }

    /// A copy of where training stands; the curve must be complete.
    ///
    /// # Errors
    /// Lack of memory.
    pub(super) fn snapshot(&self, trainer: &Trainer, curve: &Curve) -> Result<Snapshot> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = Header {
            step: curve.len(),
            generation: u64::from(self.role.generation.0),
            // The executor does not know the leader; the generation alone tells incarnations apart.
            epoch: 0,
            world_size: self.role.world,
            created_unix_ms: now.as_millis() as u64,
            metrics: curve.last().map(|loss| ("loss".to_owned(), loss)).into_iter().collect(),
        };
        let mut training = trainer.optimiser();
        training.insert(CURVE, &curve.to_tensor()?);
        let (generator, training) =
            (self.generator.copy(&trainer.weights())?, self.training.copy(&training)?);
        Ok(Snapshot { header, generator, training })
    }
}
