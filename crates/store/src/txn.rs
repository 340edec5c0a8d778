//! Transactions: what must hold, and what is then written, all or nothing.
//!
//! Not here: how a store applies one.

use std::{collections::BTreeSet, fmt, time::Duration};

use bytes::Bytes;

use crate::{Entry, Error, LeaseId, Result, Revision};

/// What every store accepts. They are etcd's defaults with room to spare, so that a transaction that works on a
/// laptop works on a cluster; split a larger one, and put big things into an artifact.
pub mod limits {
    /// Bytes of a key.
    pub const KEY_BYTES: usize = 1024;
    /// Preconditions of a transaction, and also its writes.
    pub const TXN_OPERATIONS: usize = 128;
    /// Bytes of all keys and values a transaction writes.
    pub const TXN_BYTES: usize = 1 << 20;
    /// Seconds of the shortest lease; times to live are rounded up to whole seconds.
    pub const MIN_TTL_SECONDS: u64 = 1;
    /// Seconds of the longest lease.
    pub const MAX_TTL_SECONDS: u64 = 24 * 60 * 60;
}

/// The time to live a store really grants when asked for `ttl`.
pub(crate) fn lease_ttl(ttl: Duration) -> Duration {
    let whole = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    Duration::from_secs(whole.clamp(limits::MIN_TTL_SECONDS, limits::MAX_TTL_SECONDS))
}

/// What a precondition asks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// The key does not exist.
    Absent,
    /// The key exists.
    Exists,
    /// The key was last written by this commit.
    Version(Revision),
    /// The key exists since this commit: the same leader still holds it.
    Created(Revision),
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expectation::Absent => f.write_str("no such key"),
            Expectation::Exists => f.write_str("an existing key"),
            Expectation::Version(revision) => write!(f, "version {revision}"),
            Expectation::Created(revision) => write!(f, "a key created at revision {revision}"),
        }
    }
}

/// A key and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Precondition {
    /// The key.
    pub key: String,
    /// What must hold.
    pub expect: Expectation,
}

impl Precondition {
    /// Compares with what the store holds under the key.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it does not hold.
    pub fn check(&self, found: Option<&Entry>) -> Result<()> {
        let holds = match self.expect {
            Expectation::Absent => found.is_none(),
            Expectation::Exists => found.is_some(),
            Expectation::Version(revision) => found.is_some_and(|entry| entry.version == revision),
            Expectation::Created(revision) => found.is_some_and(|entry| entry.created == revision),
        };
        if holds {
            return Ok(());
        }
        Err(Error::Conflict {
            key: self.key.clone(),
            expected: self.expect,
            found: found.map(|entry| match self.expect {
                Expectation::Created(_) => entry.created,
                Expectation::Absent | Expectation::Exists | Expectation::Version(_) => entry.version,
            }),
        })
    }
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets the key; it belongs to `lease` from now on, or to none.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Bytes,
        /// The lease it vanishes with.
        lease: Option<LeaseId>,
    },
    /// Removes the key if it exists.
    Delete {
        /// The key.
        key: String,
    },
    /// Removes every key below `folder/`, however many there are.
    DeleteFolder {
        /// The folder: what the keys begin with, without the last '/'.
        folder: String,
    },
}

impl Write {
    /// The key written, or the folder.
    pub fn key(&self) -> &str {
        match self {
            Write::Put { key, .. } | Write::Delete { key } => key,
            Write::DeleteFolder { folder } => folder,
        }
    }
}

/// Preconditions and writes for [`StateStore::commit`](crate::StateStore::commit).
///
/// ```
/// # use lethe_store::{Expectation, Revision, Txn};
/// let epoch = Revision(7);
/// let txn = Txn::new().expect("leader", Expectation::Created(epoch)).put("jobs/1/state", "running").delete("jobs/1/hint");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold, all of it.
    pub preconditions: Vec<Precondition>,
    /// What is then written; each key at most once, and nothing in a folder that is removed.
    pub writes: Vec<Write>,
}

impl Txn {
    /// Nothing asked, nothing written.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a precondition.
    pub fn expect(mut self, key: impl Into<String>, expect: Expectation) -> Self {
        self.preconditions.push(Precondition { key: key.into(), expect });
        self
    }

    /// Adds a put without a lease.
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.writes.push(Write::Put { key: key.into(), value: value.into(), lease: None });
        self
    }

    /// Adds a put of a key that vanishes with `lease`.
    pub fn put_leased(mut self, key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.writes.push(Write::Put { key: key.into(), value: value.into(), lease: Some(lease) });
        self
    }

    /// Adds a delete.
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.writes.push(Write::Delete { key: key.into() });
        self
    }

    /// Adds the delete of all that is below `folder/`.
    pub fn delete_folder(mut self, folder: impl Into<String>) -> Self {
        self.writes.push(Write::DeleteFolder { folder: folder.into() });
        self
    }

    /// Refuses what some store could not keep. Every store calls it first.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] and [`Error::InvalidTxn`].
    pub fn validate(&self) -> Result<()> {
        for precondition in &self.preconditions {
            validate_key(&precondition.key)?;
        }
        let (mut keys, mut folders) = (BTreeSet::new(), BTreeSet::new());
        let mut bytes = 0;
        for write in &self.writes {
            validate_key(write.key())?;
            let seen = if let Write::DeleteFolder { .. } = write { &mut folders } else { &mut keys };
            if !seen.insert(write.key()) {
                return Err(Error::InvalidTxn { reason: format!("{:?} is written twice", write.key()) });
            }
            bytes += write.key().len();
            if let Write::Put { value, .. } = write {
                bytes += value.len();
            }
        }
        for folder in &folders {
            let inside = |key: &&&str| key.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
            if let Some(key) = keys.iter().chain(&folders).find(inside) {
                let reason = format!("{key:?} is written, and its folder {folder:?} is removed");
                return Err(Error::InvalidTxn { reason });
            }
        }
        if self.preconditions.len().max(self.writes.len()) > limits::TXN_OPERATIONS {
            return Err(Error::InvalidTxn {
                reason: format!(
                    "{} preconditions and {} writes, at most {} each are allowed: split it",
                    self.preconditions.len(),
                    self.writes.len(),
                    limits::TXN_OPERATIONS
                ),
            });
        }
        if bytes > limits::TXN_BYTES {
            return Err(Error::InvalidTxn {
                reason: format!(
                    "it writes {bytes} bytes, at most {} are allowed: split it, or keep the value as an artifact",
                    limits::TXN_BYTES
                ),
            });
        }
        Ok(())
    }
}

fn validate_key(key: &str) -> Result<()> {
    let reason = if key.is_empty() {
        "it is empty"
    } else if key.len() > limits::KEY_BYTES {
        "it is longer than 1024 bytes"
    } else if key.chars().any(char::is_control) {
        "it contains a control character"
    } else if key.split('/').any(str::is_empty) {
        "it has an empty part: no leading, trailing or double '/'"
    } else {
        return Ok(());
    };
    Err(Error::InvalidKey { key: key.chars().take(80).collect(), reason })
}
