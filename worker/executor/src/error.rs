//! What can go wrong with a task, and how it becomes the failure that people read.
//!
//! Not here: what to do about it (the engine retries or gives up).

use std::path::Path;

use lethe_domain::{ErrorCode, Failure};
use tch::TchError;

/// Shorthand for results of this program.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A fault of a model, of storage, of a peer, or of the job itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A model, or numbers.
    #[error(transparent)]
    Models(#[from] lethe_models::Error),
    /// Storage.
    #[error(transparent)]
    Artifacts(#[from] lethe_artifacts::Error),
    /// The gang, or a backward pass within it.
    #[error(transparent)]
    Gang(#[from] lethe_collective::Error),
    /// Whoever gave the lease took it back.
    #[error("stopped on request")]
    Stopped,
    /// Anything that is best said in full where it is found.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// Standard input is not a socket.
    #[error(
        "lethe-executor is one slot of a worker: an agent starts it with one end of a socket pair as standard input, \
         and nothing can be done with it by hand; try `lethe run JOB.yaml`, or `lethe-executor --help`"
    )]
    NoAgent,
    /// The device cannot be used.
    #[error("device {device}: {reason}")]
    Device {
        /// As given on the command line.
        device: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// A failure that is best said in full where it is found.
    pub(crate) fn refused(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Refused(Failure::new(code, message, hint))
    }

    /// A fault of Lethe itself.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Error::refused(ErrorCode::Internal, message, "")
    }

    /// The same, with the uri that people know in the place of the file that stands for it here.
    pub(crate) fn about(self, uri: &str, file: &Path) -> Self {
        let path = file.display().to_string();
        if uri.ends_with(&path) {
            return self;
        }
        let Failure { code, message, hint, at_unix_ms } = self.into();
        Error::Refused(Failure { code, message: message.replace(&path, uri), hint, at_unix_ms })
    }

    /// Lack of memory, said with what did not fit; any other error as it is.
    pub(crate) fn too_large(self, what: &str, hint: &str) -> Self {
        let lacking = match &self {
            Error::Models(error) => error.code() == ErrorCode::OutOfMemory,
            Error::Gang(lethe_collective::Error::Torch { detail, .. }) => {
                of_torch(detail).code() == ErrorCode::OutOfMemory
            }
            _ => false,
        };
        if lacking {
            let reason = Failure::from(self).message;
            let message = format!("{what} does not fit in memory: {reason}");
            return Error::refused(ErrorCode::OutOfMemory, message, hint);
        }
        self
    }
}

/// A message of libtorch, sorted into causes.
fn of_torch(message: &str) -> lethe_models::Error {
    TchError::Torch(message.to_owned()).into()
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        Error::Models(error.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Models(error) => error.into(),
            Error::Artifacts(error) => of_artifacts(&error, message),
            Error::Gang(error) => of_gang(error, message),
            Error::Stopped => Failure::new(ErrorCode::Cancelled, message, ""),
            Error::Refused(failure) => failure,
            Error::NoAgent | Error::Device { .. } | Error::System { .. } => {
                Failure::new(ErrorCode::Internal, message, "")
            }
        }
    }
}

fn of_artifacts(error: &lethe_artifacts::Error, message: String) -> Failure {
    use lethe_artifacts::Error as E;
    let (code, hint) = match error {
        E::InvalidUri { .. } | E::InvalidPath { .. } => (ErrorCode::InvalidSpec, ""),
        E::NotFound { .. } => (ErrorCode::Storage, "every worker must see the same artifact root"),
        E::Damaged { .. } => (ErrorCode::Damaged, "submit the job again: it makes the artifact anew"),
        E::DiskFull { .. } => (ErrorCode::DiskFull, "lower checkpoint.keep if checkpoints fill it"),
        E::NoAccess { .. } => (ErrorCode::Storage, "give the worker's user the right to write there"),
        E::CacheFull { .. } | E::Variable { .. } => (ErrorCode::Storage, "it is a setting of the worker"),
        E::NoBucket { .. } | E::Denied { .. } | E::NoCredentials { .. } | E::Unreachable { .. } => {
            (ErrorCode::Storage, "the worker's own environment counts, not that of who submits")
        }
        E::NoCreateOnly { .. } | E::Local { .. } | E::Store { .. } | E::Refused { .. } => {
            (ErrorCode::Storage, "")
        }
        // Waiting does not make it free.
        E::Taken { .. } => (
            ErrorCode::InvalidSpec,
            "name another publish.uri, or take away what is there, and submit the job again",
        ),
        E::AlreadyExists { .. } | E::Interrupted { .. } => (ErrorCode::Internal, ""),
    };
    Failure::new(code, message, hint)
}

fn of_gang(error: lethe_collective::Error, message: String) -> Failure {
    use lethe_collective::Error as E;
    const NEXT: &str =
        "the next generation forms by itself; if this repeats, look at the other ranks' failures";
    match error {
        E::Aborted { .. } => Error::Stopped.into(),
        // A backward pass fails here for the same reasons as a forward pass elsewhere, lack of memory among them.
        E::Torch { operation, place, detail } => {
            let cause = of_torch(&detail);
            Failure::new(cause.code(), format!("{operation} at {place}: {cause}"), cause.hint())
        }
        E::Taken { .. } | E::Invalid { .. } => Failure::new(ErrorCode::Internal, message, ""),
        E::NcclMissing { .. } => Failure::new(ErrorCode::Internal, message, "use resources.device: cpu"),
        E::Timeout { .. } | E::PeerLost { .. } | E::Absent { .. } | E::Store { .. } => {
            Failure::new(ErrorCode::GangAborted, message, NEXT)
        }
        // The enum grows without notice; what is not known is a fault of ours unless it says it may pass.
        other if other.retryable() => Failure::new(ErrorCode::GangAborted, message, NEXT),
        _ => Failure::new(ErrorCode::Internal, message, ""),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_lost_peer_names_generation_and_rank_and_may_be_tried_again() {
        let place = lethe_collective::Place { rank: 1, world: 3, generation: 7 };
        let lost = lethe_collective::Error::PeerLost { operation: "backward", place, detail: "reset".into() };
        let failure = Failure::from(Error::from(lost));
        assert_eq!(failure.code, ErrorCode::GangAborted);
        assert!(failure.message.contains("rank 1 of 3, generation 7"), "{failure}");
        assert!(failure.code.retryable());
        let timeout = Duration::from_secs(30);
        let silent = lethe_collective::Error::Timeout {
            operation: "all_reduce_sum",
            place,
            timeout,
            detail: String::new(),
        };
        assert_eq!(Failure::from(Error::from(silent)).code, ErrorCode::GangAborted);
    }

    #[test]
    fn lack_of_memory_in_a_backward_pass_is_lack_of_memory() {
        let place = lethe_collective::Place { rank: 0, world: 1, generation: 0 };
        let detail = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you \
                      tried to allocate 40000000000 bytes. Error code 12 (Cannot allocate memory)";
        let torch =
            lethe_collective::Error::Torch { operation: "backward", place, detail: detail.to_owned() };
        let failure = Failure::from(Error::from(torch).too_large("a batch of 7", "lower it"));
        assert_eq!((failure.code, failure.hint.as_str()), (ErrorCode::OutOfMemory, "lower it"));
        assert!(failure.message.starts_with("a batch of 7 does not fit in memory"), "{failure}");
    }
}
