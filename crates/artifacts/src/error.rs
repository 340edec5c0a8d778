//! What can go wrong with artifacts, each with the object and the remedy.
//!
//! Not here: retries. Callers ask [`Error::retryable`] and decide.

use std::{
    error::Error as StdError,
    fmt,
    io::{self, ErrorKind},
};

use crate::{
    Digest,
    answer::{Answer, INSTANCE_METADATA},
};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the artifact store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URI names no place for artifacts.
    #[error(
        "invalid location {uri:?}: {reason}; allowed: a relative or absolute path, file:///absolute/path, s3://bucket/key"
    )]
    InvalidUri {
        /// The URI as given.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The path within the store is not one that every store can hold.
    #[error("invalid artifact path {path:?}: {reason}")]
    InvalidPath {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such object or file.
    #[error("{object} does not exist")]
    NotFound {
        /// Where it should be.
        object: String,
    },
    /// It exists and may not be replaced.
    #[error("{object} already exists and is not replaced")]
    AlreadyExists {
        /// Where it is.
        object: String,
    },
    /// The place is somebody else's.
    #[error("{object} is {by}, and is not replaced: choose another folder, or move away what is there")]
    Taken {
        /// What is in the way.
        object: String,
        /// Whose it is.
        by: String,
    },
    /// It is not what was put there.
    #[error(
        "{object} is damaged: expected {expected_size} bytes with SHA-256 {expected}, found {found_size} with {found}; put it there again"
    )]
    Damaged {
        /// Where it is.
        object: String,
        /// The digest it should have.
        expected: Digest,
        /// The size it should have, in bytes.
        expected_size: u64,
        /// The digest it has.
        found: Digest,
        /// The size it has, in bytes.
        found_size: u64,
    },
    /// No room left.
    #[error("the disk of {object} is full (or a quota is used up): free some space and go on")]
    DiskFull {
        /// What could not be written.
        object: String,
        /// What the system said.
        source: io::Error,
    },
    /// This user may not read or write there.
    #[error("no access to {object}: {source}; choose a place this user can read and write")]
    NoAccess {
        /// What could not be read or written.
        object: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file system cannot create a file only if it is absent, which checkpoints rest on.
    #[error(
        "{object} cannot create a file only if it is absent ({reason}): choose a file system with hard links, or a store with conditional writes"
    )]
    NoCreateOnly {
        /// The store.
        object: String,
        /// What was found.
        reason: String,
    },
    /// Any other failure of a local file.
    #[error("{object}: {source}")]
    Local {
        /// The file.
        object: String,
        /// What the system said.
        source: io::Error,
    },
    /// The bucket is not there.
    #[error("{object}: there is no such bucket: make it, or correct the location or AWS_ENDPOINT_URL")]
    NoBucket {
        /// What was asked for.
        object: String,
    },
    /// The store beyond this machine does not let this user in, or not there.
    #[error(
        "{object}: access denied ({reason}): check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and what that user may do with the bucket"
    )]
    Denied {
        /// What was asked for.
        object: String,
        /// What the store said.
        reason: String,
    },
    /// The environment has no credentials, and this machine has no role that would give some.
    #[error(
        "{object}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a web identity or container role) where this program runs"
    )]
    NoCredentials {
        /// What was asked for.
        object: String,
    },
    /// The store beyond this machine gives no answer.
    #[error(
        "{object}: no answer from {endpoint} ({reason}): check AWS_ENDPOINT_URL, AWS_REGION and the network"
    )]
    Unreachable {
        /// What was asked for.
        object: String,
        /// Who was asked: scheme and host.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// The store beyond this machine refuses for another reason.
    #[error("{object}: {reason}")]
    Refused {
        /// What was asked for.
        object: String,
        /// What the store said, and what to do where that is known.
        reason: String,
        /// Whether it may do it later.
        passing: bool,
    },
    /// The folder of cached models has no room for one more.
    #[error(
        "{object} needs {size} bytes, and the cache {folder} may hold {bound}, {busy} of them in use now: raise LETHE_CACHE_BYTES"
    )]
    CacheFull {
        /// The model.
        object: String,
        /// Its size in bytes.
        size: u64,
        /// The cache.
        folder: String,
        /// What it may hold, in bytes.
        bound: u64,
        /// What cannot be removed now, in bytes.
        busy: u64,
    },
    /// A variable of the environment that cannot be understood.
    #[error("{name}: {reason}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// Any other failure of the store.
    #[error("{object}: {source}")]
    Store {
        /// The object.
        object: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// The operation did not come to its end: the runtime is shutting down, or it panicked.
    #[error("an artifact operation was interrupted: {reason}")]
    Interrupted {
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anything else being changed in this process.
    pub fn retryable(&self) -> bool {
        match self {
            Error::DiskFull { .. }
            | Error::Local { .. }
            | Error::Store { .. }
            | Error::Unreachable { .. }
            | Error::CacheFull { .. } => true,
            Error::Refused { passing, .. } => *passing,
            Error::InvalidUri { .. }
            | Error::InvalidPath { .. }
            | Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Taken { .. }
            | Error::Damaged { .. }
            | Error::NoAccess { .. }
            | Error::NoCreateOnly { .. }
            | Error::NoBucket { .. }
            | Error::Denied { .. }
            | Error::NoCredentials { .. }
            | Error::Variable { .. }
            | Error::Interrupted { .. } => false,
        }
    }

    /// Whether a full disk or a used-up quota is the cause.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Error::DiskFull { .. })
    }

    /// A local file's error, by cause.
    pub(crate) fn from_io(object: impl fmt::Display, source: io::Error) -> Self {
        let object = object.to_string();
        match source.kind() {
            ErrorKind::NotFound => Error::NotFound { object },
            ErrorKind::AlreadyExists => Error::AlreadyExists { object },
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::DiskFull { object, source },
            kind if denies_access(kind) => Error::NoAccess { object, source },
            _ => Error::Local { object, source },
        }
    }

    /// A store's error, by cause. The cause of a file store's error lies some layers down.
    pub(crate) fn from_store(object: impl fmt::Display, error: object_store::Error) -> Self {
        let object = object.to_string();
        if let Some(answer) = Answer::of(&error) {
            return Self::from_answer(object, answer);
        }
        match error {
            object_store::Error::NotFound { .. } => return Error::NotFound { object },
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
                return Error::AlreadyExists { object };
            }
            object_store::Error::JoinError { source } => return interrupted(source),
            _ => {}
        }
        match system_error(&error).map(|source| (source.kind(), source.raw_os_error())) {
            Some((ErrorKind::StorageFull | ErrorKind::QuotaExceeded, code)) => {
                Error::DiskFull { object, source: again(code, &error) }
            }
            Some((kind, code)) if denies_access(kind) => {
                Error::NoAccess { object, source: again(code, &error) }
            }
            _ => Error::Store { object, source: error },
        }
    }
}

impl Error {
    /// The same, with the proxy by way of which the store was asked: it may be at fault, or the one that answered.
    pub(crate) fn through(self, proxy: Option<&str>) -> Self {
        const REMEDY: &str = "name the store in no_proxy to reach it directly";
        let Some(proxy) = proxy else { return self };
        match self {
            Error::Unreachable { object, endpoint, reason } => {
                let endpoint = format!("{endpoint} through the proxy {proxy}");
                Error::Unreachable { object, endpoint, reason: format!("{reason}; {REMEDY}") }
            }
            Error::Denied { object, reason } => {
                Error::Denied { object, reason: format!("{reason}, perhaps by the proxy {proxy}; {REMEDY}") }
            }
            Error::Refused { object, reason, passing } => {
                let reason = format!("{reason}; asked through the proxy {proxy}; {REMEDY}");
                Error::Refused { object, reason, passing }
            }
            other => other,
        }
    }

    /// What a store beyond this machine answered.
    fn from_answer(object: String, answer: Answer) -> Self {
        let passing = answer.may_pass();
        match answer {
            Answer::Lost { endpoint, .. } if endpoint.contains(INSTANCE_METADATA) => {
                Error::NoCredentials { object }
            }
            Answer::Lost { endpoint, reason } => Error::Unreachable { object, endpoint, reason },
            Answer::Elsewhere => Error::Refused {
                object,
                reason: "the bucket is in another region: set AWS_REGION".to_owned(),
                passing,
            },
            Answer::Plain => Error::Refused {
                object,
                reason: "the endpoint is http://, so credentials and data would be open to all: use https://, or set \
                         AWS_ALLOW_HTTP=true"
                    .to_owned(),
                passing,
            },
            Answer::Refused { code, .. } if code == "NoSuchBucket" => Error::NoBucket { object },
            Answer::Refused { status, foreign: true, .. } if !passing => Error::Refused {
                object,
                reason: format!(
                    "answered with status {status}, and not as an S3 store does: check AWS_ENDPOINT_URL"
                ),
                passing,
            },
            Answer::Refused { status: 404, code, .. } if code.is_empty() || code == "NoSuchKey" => {
                Error::NotFound { object }
            }
            Answer::Refused { status: 412, .. } => Error::AlreadyExists { object },
            Answer::Refused { status: status @ (401 | 403), code, message, .. } => {
                Error::Denied { object, reason: said(status, &code, &message) }
            }
            Answer::Refused { status, code, message, .. } => {
                let remedy = match code.as_str() {
                    "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                        "; set AWS_REGION to the bucket's region"
                    }
                    _ => "",
                };
                Error::Refused { object, reason: said(status, &code, &message) + remedy, passing }
            }
        }
    }
}

fn said(status: u16, code: &str, message: &str) -> String {
    let mut text = format!("status {status}");
    for part in [code, message] {
        if !part.is_empty() {
            text.push_str(": ");
            text.push_str(part);
        }
    }
    text
}

fn denies_access(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
    )
}

/// The system's own error under a store's.
fn system_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut layer: Option<&'a (dyn StdError + 'static)> = Some(error);
    while let Some(current) = layer {
        if let Some(found) = current.downcast_ref::<io::Error>() {
            return Some(found);
        }
        layer = current.source();
    }
    None
}

/// The system's error once more, owned.
fn again(code: Option<i32>, error: &object_store::Error) -> io::Error {
    code.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

/// A task that did not come to its end.
#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn interrupted(error: tokio::task::JoinError) -> Error {
    Error::Interrupted { reason: error.to_string() }
}
