//! The phases of a job: one table says of each what it is called, how its work is cut, what it works on, and which jobs
//! have it.
//!
//! Not here: when a phase ends (crate `engine`), its numeric work (worker/executor).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{JobSpec, Portions, Round};

/// A step of a job. Jobs go through them in this order, less those that a job does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Load every model on a slot and look at one batch: a bad job fails here.
    Probe,
    /// Generate samples and label them.
    Sample,
    /// Locate the feature in latent space.
    Direction,
    /// Edit the latents that training passes over, once.
    Edit,
    /// Try settings of training, each for a short while.
    SearchFirst,
    /// Try the better half for longer.
    SearchSecond,
    /// Try the better half of these for longer still.
    SearchLast,
    /// Train the copy, data-parallel.
    FineTune,
    /// Measure the original and the copy on the same latents.
    Evaluate,
    /// Fold the measurements into figures.
    Report,
    /// Write the unlearned generator where people fetch it.
    Publish,
}

/// How a phase's work is cut, and with it where its outputs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One lease. Its output stands in the job's record.
    Single,
    /// Many leases over a range of sample indices. Each shard's output is kept by itself until the job ends.
    Sharded,
    /// A gang of slots that work in step. The output of rank 0 stands in the job's record.
    Gang,
}

/// What is known of a phase. Adding one begins with its row.
struct Row {
    phase: Phase,
    name: &'static str,
    shape: Shape,
    /// Earlier phases whose outputs it works on, where the job has them.
    reads: &'static [Phase],
    /// The group of the job spec that holds its settings.
    group: &'static str,
    /// How a job's samples are cut.
    portions: fn(&JobSpec) -> Portions,
    /// Whether a job has it.
    wanted: fn(&JobSpec) -> bool,
}

const TABLE: [Row; 11] = [
    Row {
        phase: Phase::Probe,
        name: "probe",
        shape: Shape::Single,
        reads: &[],
        group: "sample",
        portions: whole,
        wanted: always,
    },
    Row {
        phase: Phase::Sample,
        name: "sample",
        shape: Shape::Sharded,
        reads: &[Phase::Probe],
        group: "sample",
        portions: JobSpec::sample_portions,
        wanted: always,
    },
    Row {
        phase: Phase::Direction,
        name: "direction",
        shape: Shape::Single,
        reads: &[Phase::Sample],
        group: "direction",
        portions: whole,
        wanted: always,
    },
    Row {
        phase: Phase::Edit,
        name: "edit",
        shape: Shape::Sharded,
        reads: &[Phase::Direction],
        group: "pool",
        portions: JobSpec::pool_portions,
        wanted: always,
    },
    Row {
        phase: Phase::SearchFirst,
        name: "search_1",
        shape: Shape::Sharded,
        reads: &[Phase::Direction, Phase::Edit],
        group: "unlearn",
        portions: |spec| Round::First.portions(spec),
        wanted: JobSpec::searches,
    },
    Row {
        phase: Phase::SearchSecond,
        name: "search_2",
        shape: Shape::Sharded,
        reads: &[Phase::Direction, Phase::Edit, Phase::SearchFirst],
        group: "unlearn",
        portions: |spec| Round::Second.portions(spec),
        wanted: JobSpec::searches,
    },
    Row {
        phase: Phase::SearchLast,
        name: "search_3",
        shape: Shape::Sharded,
        reads: &[Phase::Direction, Phase::Edit, Phase::SearchFirst, Phase::SearchSecond],
        group: "unlearn",
        portions: |spec| Round::Last.portions(spec),
        wanted: JobSpec::searches,
    },
    Row {
        phase: Phase::FineTune,
        name: "fine_tune",
        shape: Shape::Gang,
        reads: &[Phase::Direction, Phase::Edit, Phase::SearchFirst, Phase::SearchSecond, Phase::SearchLast],
        group: "unlearn",
        portions: whole,
        wanted: always,
    },
    Row {
        phase: Phase::Evaluate,
        name: "evaluate",
        shape: Shape::Sharded,
        reads: &[Phase::Direction, Phase::FineTune],
        group: "evaluate",
        portions: JobSpec::evaluate_portions,
        wanted: always,
    },
    Row {
        phase: Phase::Report,
        name: "report",
        shape: Shape::Single,
        reads: &[Phase::Direction, Phase::Evaluate],
        group: "evaluate",
        portions: whole,
        wanted: always,
    },
    Row {
        phase: Phase::Publish,
        name: "publish",
        shape: Shape::Single,
        reads: &[Phase::Direction, Phase::FineTune, Phase::Report],
        group: "publish",
        portions: whole,
        wanted: always,
    },
];

/// The work of a phase that is not cut.
fn whole(_: &JobSpec) -> Portions {
    Portions::WHOLE
}

fn always(_: &JobSpec) -> bool {
    true
}

/// Every phase has its row, at its place: checked when this is compiled.
const _: () = {
    assert!(Phase::Publish as usize + 1 == TABLE.len(), "publish is last, and every phase has a row");
    let mut at = 0;
    while at < TABLE.len() {
        assert!(TABLE[at].phase as usize == at, "rows are in the order of the phases");
        at += 1;
    }
};

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Phase; TABLE.len()] = {
        let mut all = [Phase::Probe; TABLE.len()];
        let mut at = 0;
        while at < TABLE.len() {
            all[at] = TABLE[at].phase;
            at += 1;
        }
        all
    };

    fn row(self) -> &'static Row {
        const ROWS: &[Row] = &TABLE;
        &ROWS[self as usize]
    }

    /// The phases of a job, in order.
    pub fn of(spec: &JobSpec) -> impl Iterator<Item = Phase> {
        Phase::ALL.into_iter().filter(|phase| phase.is_in(spec))
    }

    /// Whether a job has this phase.
    pub fn is_in(self, spec: &JobSpec) -> bool {
        (self.row().wanted)(spec)
    }

    /// The job's phase after this one; none after the last.
    pub fn next(self, spec: &JobSpec) -> Option<Phase> {
        Phase::of(spec).find(|phase| *phase > self)
    }

    /// How the work is cut.
    pub fn shape(self) -> Shape {
        self.row().shape
    }

    /// Earlier phases of the job whose outputs this one works on.
    pub fn reads(self, spec: &JobSpec) -> impl Iterator<Item = Phase> {
        self.row().reads.iter().copied().filter(|phase| phase.is_in(spec))
    }

    /// The samples of a job's phase and how they are cut into shards; one shard unless it is [`Shape::Sharded`].
    pub fn portions(self, spec: &JobSpec) -> Portions {
        (self.row().portions)(spec)
    }

    /// The group of the job spec that says how its work is done and cut.
    pub fn group(self) -> &'static str {
        self.row().group
    }

    /// The name used on the wire, in metrics, in files and on screens.
    pub fn name(self) -> &'static str {
        self.row().name
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_reads_only_what_came_before_it() {
        for row in &TABLE {
            assert!(row.reads.iter().all(|read| *read < row.phase), "{}", row.name);
        }
    }
}
