//! The nouns of Lethe: ids, the job spec, phases, tasks and their outputs, failures, results.
//!
//! Not here: decisions (crate `engine`), IO, clocks, randomness, protobuf types, tensors.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod canary;
mod digest;
mod edits;
mod failure;
mod figure;
mod file_kind;
mod filter;
mod findings;
mod fleet;
mod ids;
mod inputs;
mod interval;
mod lease;
mod model;
pub mod numbers;
mod phase;
mod portions;
mod progress;
mod result;
pub mod result_files;
mod search;
mod sidecar;
pub mod spec;
mod task;
mod warning;

pub use digest::{sha256_bytes, sha256_text};
pub use edits::{EDITS_FOLDER, EditMethod, EditSummary};
pub use failure::{ErrorCode, Failure};
pub use figure::{Better, Figure, REMAINING_SHARE, Unit};
pub use file_kind::{Ends, FIRST_BYTES, FileKind, LAST_BYTES, ZipEntry, conversion, zip_entries};
pub use filter::JobFilter;
pub use fleet::{SlotReport, SlotState, WorkerOrder, WorkerState, WorkerStatus, counted_slots};
pub use ids::{
    Attempt, Epoch, Generation, IdError, JobId, LeaseId, Principal, Rank, ShardIndex, SlotIndex, SlotRef,
    WorkerId,
};
pub use inputs::{Input, InputRole, Inputs};
pub use interval::{Paired, mean_ci95, proportion_ci95};
pub use lease::{ArtifactRef, Assignment, GangRole, HeldLease, SampleRange};
pub use model::{
    Architecture, HiddenActivation, ModelKind, OutputActivation, Sidecar, SidecarLatent, SidecarOutput,
};
pub use phase::{Phase, Shape};
pub use portions::Portions;
pub use progress::{Explanation, JobState, JobStatus, PhaseState, PhaseStatus, Progress, Waiting};
pub use result::{
    ArtifactPaths, DirectionSummary, JobResult, JudgeSummary, JudgingModel, PoolSummary, RESULT_VERSION,
    TrainSummary, Versions,
};
pub use search::{Round, SearchSummary, Trial, Values};
pub use spec::{Draft, JobSpec, SpecError, SpecProblem};
pub use task::*;
pub use warning::{Warning, WarningCode};
