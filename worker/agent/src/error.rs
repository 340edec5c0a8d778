//! Why an agent cannot start, or cannot go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an agent cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no executor program.
    #[error(
        "cannot find the program lethe-executor; tried {}: build it, or name it with --executor or LETHE_EXECUTOR",
        list(.tried)
    )]
    ExecutorMissing {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// What was named is not a program.
    #[error("{path} cannot be the executor: {reason}", path = .path.display())]
    ExecutorUnusable {
        /// As named.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The program is there and does not get as far as being ready.
    #[error("the executor of slot {slot} ({device}) does not start: {cause}\n{hint}")]
    ExecutorDoesNotStart {
        /// The slot.
        slot: u32,
        /// Its device.
        device: String,
        /// How it ended, and the last lines of its log.
        cause: String,
        /// What to do.
        hint: String,
    },
    /// A name that no worker can have.
    #[error(transparent)]
    Id(#[from] lethe_domain::IdError),
    /// Slots that cannot be made on this machine.
    #[error("devices '{found}': {reason}")]
    Devices {
        /// As asked for.
        found: String,
        /// What is wrong, and what is possible.
        reason: String,
    },
    /// The coordinator does not take this worker, or is not a coordinator.
    #[error("cannot join: {0}")]
    Refused(#[source] lethe_client::Error),
    /// The folder for logs cannot be used.
    #[error("cannot write logs to {path}: {source}; name another folder with --log-dir", path = .path.display())]
    Logs {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; choose another port, or end the process that listens there"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system gives no more threads.
    #[error("cannot start a thread: {0}; raise the limit on processes (ulimit -u, pids.max)")]
    Thread(#[source] io::Error),
}

impl Error {
    /// Whether the same may succeed later without anything being changed.
    pub fn retryable(&self) -> bool {
        match self {
            Error::Refused(error) => error.retryable(),
            Error::Thread(_) => true,
            Error::ExecutorMissing { .. }
            | Error::ExecutorUnusable { .. }
            | Error::ExecutorDoesNotStart { .. }
            | Error::Devices { .. }
            | Error::Id(_)
            | Error::Logs { .. }
            | Error::Listen { .. } => false,
        }
    }

    /// Whether the settings are at fault and not the machine.
    pub fn is_usage(&self) -> bool {
        match self {
            Error::ExecutorMissing { .. }
            | Error::ExecutorUnusable { .. }
            | Error::Devices { .. }
            | Error::Id(_) => true,
            Error::Refused(error) => matches!(error, lethe_client::Error::Address { .. }),
            Error::ExecutorDoesNotStart { .. }
            | Error::Logs { .. }
            | Error::Listen { .. }
            | Error::Thread(_) => false,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
