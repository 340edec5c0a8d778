//! Why a call did not give what was asked for.

use std::error::Error as _;

use lethe_domain::{Failure, SpecError};
use lethe_proto::ConversionError;
use lethe_proto::status::Refusal;
use tonic::{Code, Status};

/// Why a call did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address nobody can connect to.
    #[error("'{address}' is not a coordinator's address: {problem}")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody answers there, or not in time.
    #[error("cannot reach the coordinator at {address}: {reason}")]
    Unreachable {
        /// Every address tried.
        address: String,
        /// The first cause.
        reason: String,
    },
    /// A coordinator answers, but cannot do it now: it does not lead, or its store is gone.
    #[error("the coordinator cannot answer now: {message}")]
    Unavailable {
        /// Why not now.
        message: String,
    },
    /// A coordinator that does not lead says who does; none while nobody does. Calls follow by themselves: this is left
    /// when that leads nowhere.
    #[error("{}", describe_leader(.leader))]
    NotLeader {
        /// The leader's address.
        leader: Option<String>,
    },
    /// There is no such thing.
    #[error("there is no {kind} '{id}'")]
    NotFound {
        /// What was looked for: job, artifact.
        kind: String,
        /// Its name.
        id: String,
    },
    /// The job spec is wrong; with everything that was found.
    #[error(transparent)]
    Invalid(SpecError),
    /// The request contradicts how things stand.
    #[error("{message}")]
    Conflict {
        /// What contradicts what, and what to do.
        message: String,
    },
    /// It is not ours to ask.
    #[error("{message}")]
    Denied {
        /// Who may not do what for whom, and what to do.
        message: String,
    },
    /// Refused or failed, with a cause from the closed list.
    #[error(transparent)]
    Rejected(Failure),
    /// One side says something the other does not understand.
    #[error(
        "the coordinator at {address} and this program do not understand each other ({reason}): use the same version of both"
    )]
    Misunderstood {
        /// Where.
        address: String,
        /// What was not understood.
        reason: String,
    },
    /// A file did not arrive as it was sent.
    #[error("'{name}' arrived damaged: expected {expected}, found {found}; download it again")]
    Damaged {
        /// The file.
        name: String,
        /// Digest or size as recorded.
        expected: String,
        /// Digest or size of what arrived.
        found: String,
    },
    /// A file arrived and cannot be written.
    #[error("cannot write '{name}': {source}")]
    Write {
        /// The file.
        name: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the same call may succeed on another try.
    pub fn retryable(&self) -> bool {
        match self {
            Error::Unreachable { .. }
            | Error::Unavailable { .. }
            | Error::NotLeader { .. }
            | Error::Damaged { .. } => true,
            Error::Rejected(failure) => failure.code.retryable(),
            Error::Address { .. }
            | Error::NotFound { .. }
            | Error::Invalid(_)
            | Error::Conflict { .. }
            | Error::Denied { .. }
            | Error::Misunderstood { .. }
            | Error::Write { .. } => false,
        }
    }

    pub(crate) fn unreachable(address: &str, reason: impl Into<String>) -> Self {
        Error::Unreachable { address: address.to_owned(), reason: reason.into() }
    }

    pub(crate) fn misunderstood(address: &str, error: ConversionError) -> Self {
        Error::Misunderstood { address: address.to_owned(), reason: error.to_string() }
    }

    /// What a status from this address means. Without one of our refusals in it, it comes from the transport, or from
    /// something that is not a coordinator.
    pub(crate) fn of_status(address: &str, status: &Status) -> Self {
        match Refusal::from_status(status) {
            Some(Refusal::Spec(error)) => Error::Invalid(error),
            Some(Refusal::Malformed(error)) => Error::misunderstood(address, error),
            Some(Refusal::NotFound { kind, id }) => Error::NotFound { kind, id },
            Some(Refusal::Conflict { message }) => Error::Conflict { message },
            Some(Refusal::Denied { message }) => Error::Denied { message },
            Some(Refusal::NotLeader { leader }) => Error::NotLeader { leader },
            Some(Refusal::Unavailable { message }) => Error::Unavailable { message },
            Some(Refusal::Failure(failure)) => Error::Rejected(failure),
            None => match status.code() {
                Code::Cancelled | Code::DeadlineExceeded => Error::unreachable(address, "no answer in time"),
                Code::Unavailable => Error::unreachable(address, root_cause(status)),
                _ if status.source().is_some() => Error::unreachable(address, root_cause(status)),
                code => Error::Misunderstood {
                    address: address.to_owned(),
                    reason: format!("{code:?}: {}", status.message()),
                },
            },
        }
    }
}

fn describe_leader(leader: &Option<String>) -> String {
    match leader {
        Some(leader) => format!("the coordinators name {leader} as their leader, which does not lead"),
        None => "the coordinators have no leader at the moment".to_owned(),
    }
}

/// The innermost cause, in its own words.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => innermost.to_string(),
    }
}
