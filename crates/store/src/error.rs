//! What can go wrong with a store, each with the object and the remedy.
//!
//! Not here: retries. Callers ask [`Error::retryable`] and decide.

use std::{io, path::PathBuf};

use crate::{Expectation, LeaseId, Revision};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a state store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A precondition does not hold; nothing was written.
    #[error("key {key}: expected {expected}, found {}; read it again before writing", describe_found(.found))]
    Conflict {
        /// The key of the precondition.
        key: String,
        /// What was asked.
        expected: Expectation,
        /// The version (or created revision, if that was asked) the key has; `None` if there is no such key.
        found: Option<Revision>,
    },
    /// The store no longer knows, or never knew, what happened after this revision.
    #[error(
        "the changes after revision {after} are not kept (only those after {oldest}, up to {newest}): list again and watch from there"
    )]
    Compacted {
        /// The revision the watch asked to resume after.
        after: Revision,
        /// The oldest revision a watch can resume after.
        oldest: Revision,
        /// The store's revision.
        newest: Revision,
    },
    /// The lease ended or never existed; its keys are gone.
    #[error("lease {lease} has ended: grant a new one and write its keys again")]
    LeaseNotFound {
        /// The lease.
        lease: LeaseId,
    },
    /// The key is not a path that every store can hold.
    #[error("invalid key {key:?}: {reason}")]
    InvalidKey {
        /// The key, cut to 80 characters.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The transaction is not one that every store can apply.
    #[error("invalid transaction: {reason}")]
    InvalidTxn {
        /// What is wrong with it.
        reason: String,
    },
    /// The URI names no store.
    #[error(
        "invalid store {uri:?}: {reason}; allowed: memory://, redb:///absolute/folder, etcd://host:2379,host:2379?prefix=/lethe"
    )]
    InvalidUri {
        /// The URI as given.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process, or another handle of this one, has the folder open.
    #[error("another lethe run uses {}{}: wait for it to end, stop it, or choose another folder", folder.display(), describe_owner(.owner))]
    InUse {
        /// The store's folder.
        folder: PathBuf,
        /// The process id of the owner, where known.
        owner: Option<u32>,
    },
    /// The folder cannot be created or written.
    #[error("cannot write to {}: {source}; choose a folder this user can write to", folder.display())]
    Unwritable {
        /// The store's folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No room left for the store's file.
    #[error("the disk of {} is full (or a quota is used up): free some space and go on", file.display())]
    DiskFull {
        /// The file that could not be written.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("the state file {} is damaged ({detail}): put back a copy, or move it away to start with an empty state", file.display())]
    Corrupted {
        /// The file.
        file: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file was written by a newer version.
    #[error("the state file {} has format {found}, this version reads up to {supported}: use a newer lethe", file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format understood.
        supported: u64,
    },
    /// Any other failure of the file.
    #[error("state file {}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The servers of a shared store do not answer, or not in time.
    #[error(
        "cannot reach etcd at {endpoints}: {reason}; see whether a majority of its members runs and can be reached"
    )]
    Unreachable {
        /// The members that were asked.
        endpoints: String,
        /// What the last one said, or did not.
        reason: String,
    },
    /// The servers of a shared store refuse this user, or one side does not trust the other.
    #[error(
        "etcd at {endpoints} refuses {user}: {reason}; check the user, its password or certificate, and that its role grants read and write on the prefix {prefix}"
    )]
    Denied {
        /// The members.
        endpoints: String,
        /// Who asked.
        user: String,
        /// The prefix of every key.
        prefix: String,
        /// What was said.
        reason: String,
    },
    /// A shared store's quota is used up.
    #[error(
        "etcd at {endpoints} has no space left: compact and defragment it, then disarm its alarm (etcdctl alarm disarm)"
    )]
    SpaceExceeded {
        /// The members.
        endpoints: String,
    },
    /// A certificate or key that the environment names cannot be read.
    #[error("cannot read {}, which {variable} names: {source}", file.display())]
    Credentials {
        /// The variable.
        variable: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The operation did not come to its end: the runtime is shutting down, or it panicked.
    #[error("the state store was interrupted: {reason}")]
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
            | Error::Io { .. }
            | Error::InUse { .. }
            | Error::Unreachable { .. }
            | Error::SpaceExceeded { .. } => true,
            Error::Conflict { .. }
            | Error::Compacted { .. }
            | Error::LeaseNotFound { .. }
            | Error::InvalidKey { .. }
            | Error::InvalidTxn { .. }
            | Error::InvalidUri { .. }
            | Error::Unwritable { .. }
            | Error::Corrupted { .. }
            | Error::NewerFormat { .. }
            | Error::Denied { .. }
            | Error::Credentials { .. }
            | Error::Interrupted { .. } => false,
        }
    }

    /// Whether the store understood the call and declined it: nothing was written, and the store is well.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Error::Conflict { .. }
                | Error::Compacted { .. }
                | Error::LeaseNotFound { .. }
                | Error::InvalidKey { .. }
                | Error::InvalidTxn { .. }
                | Error::InvalidUri { .. }
        )
    }

    /// Whether a full disk or a used-up quota is the cause.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Error::DiskFull { .. } | Error::SpaceExceeded { .. })
    }
}

fn describe_found(revision: &Option<Revision>) -> String {
    revision.as_ref().map_or_else(|| "no such key".to_owned(), |revision| format!("revision {revision}"))
}

fn describe_owner(process: &Option<u32>) -> String {
    process.map(|id| format!(" (process {id})")).unwrap_or_default()
}
