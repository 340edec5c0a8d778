//! What can go wrong, with the place it went wrong at.
//!
//! Not here: recovery. After any error but `Invalid` the generation is over; a caller that wants to go on forms the
//! next one.

use std::fmt;
use std::time::Duration;

/// A seat in a gang: which rank of how many, in which generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// 0-based, below `world`.
    pub rank: usize,
    /// How many ranks there are.
    pub world: usize,
    /// The gang's incarnation; never reused.
    pub generation: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}, generation {}", self.rank, self.world, self.generation)
    }
}

/// An error of this crate. `operation` is the function that failed, `detail` is libtorch's own sentence.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A collective got no answer in time: a peer hangs, or its machine went away without closing connections.
    #[error("{operation} at {place}: no answer within {timeout:?}: form the next generation ({detail})")]
    Timeout {
        /// The function that waited.
        operation: &'static str,
        /// Who waited.
        place: Place,
        /// The group's setting.
        timeout: Duration,
        /// libtorch's sentence.
        detail: String,
    },
    /// A connection to a peer broke: its process ended, or it gave this generation up.
    #[error("{operation} at {place}: lost a peer: form the next generation ({detail})")]
    PeerLost {
        /// The function that was interrupted.
        operation: &'static str,
        /// Who noticed.
        place: Place,
        /// libtorch's sentence.
        detail: String,
    },
    /// [`Abort::abort`](crate::Abort::abort) was called in this process.
    #[error("{operation} at {place}: aborted by this process")]
    Aborted {
        /// The function that was interrupted, or called afterwards.
        operation: &'static str,
        /// Who was interrupted.
        place: Place,
    },
    /// Some ranks did not come to the store in time.
    #[error(
        "join at {place}: ranks {missing:?} did not come within {timeout:?}: are they running, and given the same store?"
    )]
    Absent {
        /// Who waited.
        place: Place,
        /// Who was missing.
        missing: Vec<usize>,
        /// The group's setting.
        timeout: Duration,
    },
    /// Two processes claim one seat, or a generation is used twice.
    #[error("join at {place}: this rank has joined already: a generation is never reused, take the next one")]
    Taken {
        /// The seat.
        place: Place,
    },
    /// The store does not answer.
    #[error(
        "store {address}: {operation} failed (timeout {timeout:?}): is the process that serves it alive and reachable? ({detail})"
    )]
    Store {
        /// `host:port`.
        address: String,
        /// What was asked of it.
        operation: &'static str,
        /// The store's setting.
        timeout: Duration,
        /// libtorch's sentence.
        detail: String,
    },
    /// libtorch refused the arguments, or failed on its own.
    #[error("{operation} at {place}: {detail}")]
    Torch {
        /// The function that failed.
        operation: &'static str,
        /// Who called it.
        place: Place,
        /// libtorch's sentence.
        detail: String,
    },
    /// The CUDA side cannot be loaded on this machine.
    #[error(
        "cannot load {library}: this machine or this installation has no CUDA side; use device cpu, or install torch with its CUDA wheels and set LETHE_NCCL_LIB if liblethe_nccl.so was moved ({detail})"
    )]
    NcclMissing {
        /// The file that would not load.
        library: String,
        /// The loader's sentence.
        detail: String,
    },
    /// The caller's arguments cannot be right. Nothing was sent, and the group goes on.
    #[error("{operation}: {reason}")]
    Invalid {
        /// The function that was called.
        operation: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

impl Error {
    /// Whether a new generation may succeed where this one failed: the cause was a peer or the network, not what
    /// this process asked for.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::PeerLost { .. } | Self::Absent { .. } | Self::Store { .. } => true,
            Self::Aborted { .. }
            | Self::Taken { .. }
            | Self::Torch { .. }
            | Self::NcclMissing { .. }
            | Self::Invalid { .. } => false,
        }
    }
}
