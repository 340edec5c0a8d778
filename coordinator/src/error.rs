//! Why a coordinator cannot start, or cannot go on.

use std::net::SocketAddr;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a coordinator cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state store refuses, or cannot be reached.
    #[error(transparent)]
    Store(#[from] lethe_store::Error),
    /// The artifact store cannot be used.
    #[error(transparent)]
    Artifacts(#[from] lethe_artifacts::Error),
    /// Something in the store is not what this version wrote.
    #[error("the state store holds something unreadable under {key}: {reason}")]
    Record {
        /// The key.
        key: String,
        /// What was found.
        reason: String,
    },
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; choose another port, or end the process that listens there"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A relative folder, and no working folder to begin from.
    #[error("cannot tell where --data is: {0}; name an absolute folder")]
    Data(std::io::Error),
    /// gRPC reflection refuses its descriptors, which are built in.
    #[error("the built-in service descriptors are damaged: {reason}; build the program again")]
    Descriptors {
        /// What was found.
        reason: String,
    },
    /// The metrics recorder refuses its settings, which are built in.
    #[error("the built-in metrics are wrong: {reason}; build the program again")]
    Metrics {
        /// What was found.
        reason: String,
    },
    /// The time for which this coordinator may lead is over, and could not be renewed.
    #[error(
        "the leadership could not be renewed in time: the state store did not answer, or somebody else leads"
    )]
    TermOver,
    /// A store that others share, and no address at which they could reach this coordinator.
    #[error(
        "cannot tell where others reach this coordinator, which listens on {listen}: name it with --advertise HOST:PORT"
    )]
    Advertise {
        /// Where it listens.
        listen: SocketAddr,
    },
    /// An address that is none.
    #[error("--advertise {address:?} is no address: write HOST:PORT")]
    Address {
        /// As given.
        address: String,
    },
    /// An owner with two quotas.
    #[error("--quota names the owner {owner:?} twice, with {} and {} slots: give each owner one", found[0], found[1])]
    Quota {
        /// The owner.
        owner: String,
        /// Both numbers of slots.
        found: [u32; 2],
    },
    /// A part that must run as long as the coordinator ended by itself.
    #[error("the coordinator's {part} ended: {reason}; start it again, its state is kept")]
    Ended {
        /// Which part.
        part: &'static str,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// Whether the same may succeed later without anything being changed.
    pub fn retryable(&self) -> bool {
        match self {
            Error::Store(error) => error.retryable(),
            Error::Artifacts(error) => error.retryable(),
            Error::TermOver => true,
            Error::Record { .. }
            | Error::Listen { .. }
            | Error::Data(_)
            | Error::Descriptors { .. }
            | Error::Metrics { .. }
            | Error::Advertise { .. }
            | Error::Address { .. }
            | Error::Quota { .. }
            | Error::Ended { .. } => false,
        }
    }

    /// Whether somebody else wrote first.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Error::Store(lethe_store::Error::Conflict { .. }))
    }

    /// Whether the settings are at fault and not the machine.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Error::Store(lethe_store::Error::InvalidUri { .. })
                | Error::Artifacts(lethe_artifacts::Error::InvalidUri { .. })
                | Error::Advertise { .. }
                | Error::Address { .. }
                | Error::Quota { .. }
        )
    }
}
