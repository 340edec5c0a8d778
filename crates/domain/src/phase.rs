//! The phases of a job, in order, and the shape of each one's work.
//!
//! Not here: when a phase ends (crate `engine`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A step of a job. Jobs go through them in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Load every model on a slot and look at one batch: a bad job fails here.
    Probe,
    /// Generate samples and label them.
    Sample,
    /// Locate the feature in latent space.
    Direction,
    /// Train the copy, data-parallel.
    FineTune,
    /// Measure the original and the copy on the same latents.
    Evaluate,
    /// Fold the measurements into figures.
    Report,
    /// Write the unlearned generator where people fetch it.
    Publish,
}

/// How a phase's work is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One lease.
    Single,
    /// Many leases over a range of sample indices.
    Sharded,
    /// A gang of slots that work in step.
    Gang,
}

impl Phase {
    /// Every phase, in the order of a job.
    pub const ALL: [Phase; 7] = [
        Phase::Probe,
        Phase::Sample,
        Phase::Direction,
        Phase::FineTune,
        Phase::Evaluate,
        Phase::Report,
        Phase::Publish,
    ];

    /// The phase after this one; none after the last.
    pub fn next(self) -> Option<Phase> {
        let place = Phase::ALL.iter().position(|phase| *phase == self)?;
        Phase::ALL.get(place + 1).copied()
    }

    /// How the work is cut.
    pub fn shape(self) -> Shape {
        match self {
            Phase::Sample | Phase::Evaluate => Shape::Sharded,
            Phase::FineTune => Shape::Gang,
            Phase::Probe | Phase::Direction | Phase::Report | Phase::Publish => Shape::Single,
        }
    }

    /// The name used on the wire, in metrics, in files and on screens.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Probe => "probe",
            Phase::Sample => "sample",
            Phase::Direction => "direction",
            Phase::FineTune => "fine_tune",
            Phase::Evaluate => "evaluate",
            Phase::Report => "report",
            Phase::Publish => "publish",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
