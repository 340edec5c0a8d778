//! Why a task or a job failed: a closed list of causes, each with what to do about it.
//!
//! Not here: how a cause is found (the executor and the drivers), pages about each (docs/errors).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The cause, from a closed list. Each has a page docs/errors/NAME.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The spec contradicts itself or names something that does not exist.
    InvalidSpec,
    /// A model cannot be loaded: truncated, damaged, pickled, without forward, wrong tensors.
    BadModel,
    /// A model loads, but its output is not what the spec says.
    SpecMismatch,
    /// A model gave NaN or infinity, or training diverged.
    NotFinite,
    /// No sample shows the feature, or too few do.
    NoPositives,
    /// Every sample shows the feature.
    NoNegatives,
    /// No edit found an image without the feature.
    NoEdits,
    /// Memory ran out.
    OutOfMemory,
    /// The disk is full.
    DiskFull,
    /// Storage cannot be read or written.
    Storage,
    /// An artifact does not have the digest that was recorded for it.
    Damaged,
    /// A file that the job reads is not the one it was accepted with.
    InputChanged,
    /// A rank got another training state than was sent to it.
    StateDiffers,
    /// Another rank of the gang failed first.
    GangAborted,
    /// The executor process died.
    ExecutorDied,
    /// The worker went away.
    WorkerLost,
    /// The gang ended at a step boundary because the coordinator asked it to: its members change.
    Yielded,
    /// The lease ran out: no progress within its deadline.
    LeaseExpired,
    /// Somebody cancelled it.
    Cancelled,
    /// A fault of Lethe itself.
    Internal,
}

impl ErrorCode {
    /// Every cause.
    pub const ALL: [ErrorCode; 20] = [
        ErrorCode::InvalidSpec,
        ErrorCode::BadModel,
        ErrorCode::SpecMismatch,
        ErrorCode::NotFinite,
        ErrorCode::NoPositives,
        ErrorCode::NoNegatives,
        ErrorCode::NoEdits,
        ErrorCode::OutOfMemory,
        ErrorCode::DiskFull,
        ErrorCode::Storage,
        ErrorCode::Damaged,
        ErrorCode::InputChanged,
        ErrorCode::StateDiffers,
        ErrorCode::GangAborted,
        ErrorCode::ExecutorDied,
        ErrorCode::WorkerLost,
        ErrorCode::Yielded,
        ErrorCode::LeaseExpired,
        ErrorCode::Cancelled,
        ErrorCode::Internal,
    ];

    /// The name used on the wire and in docs/errors.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::InvalidSpec => "INVALID_SPEC",
            ErrorCode::BadModel => "BAD_MODEL",
            ErrorCode::SpecMismatch => "SPEC_MISMATCH",
            ErrorCode::NotFinite => "NOT_FINITE",
            ErrorCode::NoPositives => "NO_POSITIVES",
            ErrorCode::NoNegatives => "NO_NEGATIVES",
            ErrorCode::NoEdits => "NO_EDITS",
            ErrorCode::OutOfMemory => "OUT_OF_MEMORY",
            ErrorCode::DiskFull => "DISK_FULL",
            ErrorCode::Storage => "STORAGE",
            ErrorCode::Damaged => "DAMAGED",
            ErrorCode::InputChanged => "INPUT_CHANGED",
            ErrorCode::StateDiffers => "STATE_DIFFERS",
            ErrorCode::GangAborted => "GANG_ABORTED",
            ErrorCode::ExecutorDied => "EXECUTOR_DIED",
            ErrorCode::WorkerLost => "WORKER_LOST",
            ErrorCode::Yielded => "YIELDED",
            ErrorCode::LeaseExpired => "LEASE_EXPIRED",
            ErrorCode::Cancelled => "CANCELLED",
            ErrorCode::Internal => "INTERNAL",
        }
    }

    /// The cause with this name.
    pub fn from_name(name: &str) -> Option<ErrorCode> {
        ErrorCode::ALL.into_iter().find(|code| code.name() == name)
    }

    /// Whether storage is at fault, which nobody's work can mend and which often passes by itself.
    pub fn is_storage(self) -> bool {
        matches!(self, ErrorCode::Storage | ErrorCode::DiskFull)
    }

    /// Whether the same work may succeed on another try.
    pub fn retryable(self) -> bool {
        match self {
            ErrorCode::GangAborted
            | ErrorCode::StateDiffers
            | ErrorCode::ExecutorDied
            | ErrorCode::WorkerLost
            | ErrorCode::Yielded
            | ErrorCode::LeaseExpired
            | ErrorCode::Storage
            | ErrorCode::DiskFull => true,
            ErrorCode::InvalidSpec
            | ErrorCode::BadModel
            | ErrorCode::SpecMismatch
            | ErrorCode::NotFinite
            | ErrorCode::NoPositives
            | ErrorCode::NoNegatives
            | ErrorCode::NoEdits
            | ErrorCode::OutOfMemory
            | ErrorCode::Damaged
            | ErrorCode::InputChanged
            | ErrorCode::Cancelled
            | ErrorCode::Internal => false,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failure as people read it: what happened to which object, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// The cause.
    pub code: ErrorCode,
    /// What happened, naming the object.
    pub message: String,
    /// What to do about it; empty when there is nothing to say.
    pub hint: String,
    /// When it happened, milliseconds since 1970 by the clock of the machine it happened on; 0 when unknown.
    pub at_unix_ms: u64,
}

impl Failure {
    /// A failure without a time; whoever reports it stamps it.
    pub fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into(), at_unix_ms: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_to_one_and_match_serde() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.name()), Some(code));
            assert_eq!(serde_json::to_value(code).unwrap(), serde_json::json!(code.name()));
        }
    }
}
