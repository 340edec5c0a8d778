//! The port: what a store can do, in words that etcd, redb and a map in memory can all keep.
//!
//! Not here: any implementation, and any knowledge of jobs or workers.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};

use crate::{Result, Txn};

/// The number of a commit: each commit that changes something gets the next one, across all keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A time to live shared by the keys attached to it. (Not a shard's lease: that is the engine's word.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One key and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A UTF-8 path such as `jobs/7/spec`.
    pub key: String,
    /// The value, opaque to the store.
    pub value: Bytes,
    /// The commit that last wrote the key. Compare with it to write only what you have read.
    pub version: Revision,
    /// The commit that created the key. It survives overwrites and changes when the key is deleted and put again,
    /// so the created revision of a leader's key is that leader's epoch.
    pub created: Revision,
    /// The lease the key vanishes with, if any.
    pub lease: Option<LeaseId>,
}

/// Every entry under a prefix, as one consistent picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The store's revision at that moment: watch from here to miss nothing.
    pub revision: Revision,
    /// The entries, ordered by key.
    pub entries: Vec<Entry>,
}

/// What happened to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key now has this value.
    Put(Entry),
    /// The key is gone: deleted, or its lease ended.
    Delete {
        /// The key.
        key: String,
    },
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Change::Put(entry) => &entry.key,
            Change::Delete { key } => key,
        }
    }
}

/// All that one commit changed under the watched prefix, never split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The commit: resume after it.
    pub revision: Revision,
    /// The changes, in the order in which the transaction wrote them.
    pub changes: Vec<Change>,
}

/// Changes as they happen, in order, without gaps. After an error the stream ends.
pub type Watch = BoxStream<'static, Result<Changes>>;

/// A linearizable, ordered map of small values.
///
/// An error other than a refusal ([`Error::is_refusal`](crate::Error::is_refusal)) leaves open whether a commit
/// happened: drop what you believe and read again. Dropping a future does not take a commit back.
pub trait StateStore: fmt::Debug + Send + Sync {
    /// Whether nobody but this process can have the store open: whatever another process has left there (a leader's
    /// key, a lease) is history. Of a shared store it may be somebody else's who is alive.
    fn is_exclusive(&self) -> bool;

    /// The entry of `key`, if it exists.
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>>>;

    /// Every entry whose key starts with `prefix`. It is text, not a folder: end it with `/` to mean one
    /// (`jobs/1` also finds `jobs/10`). An empty prefix finds everything.
    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Listing>>;

    /// Checks all preconditions and applies all writes as one commit, durable on return. Answers the commit's
    /// revision, or the current one when nothing changed (no writes, or only deletes of absent keys).
    ///
    /// # Errors
    /// [`Error::Conflict`](crate::Error::Conflict) names the first precondition that does not hold;
    /// [`Error::LeaseNotFound`](crate::Error::LeaseNotFound), [`Error::InvalidKey`](crate::Error::InvalidKey) and
    /// [`Error::InvalidTxn`](crate::Error::InvalidTxn) refuse the rest. Nothing is applied then.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Revision>>;

    /// The commits after revision `after` that touch keys starting with `prefix`. Take `after` from a listing or
    /// from the last [`Changes`] seen: no commit is missed or repeated.
    ///
    /// # Errors
    /// The stream answers [`Error::Compacted`](crate::Error::Compacted) when the store no longer knows what
    /// happened since `after`, or never reached it (another store, or one set back): list again and watch from there.
    fn watch(&self, prefix: &str, after: Revision) -> Watch;

    /// Forgets the history up to and including `through`: watches that still need it answer
    /// [`Error::Compacted`](crate::Error::Compacted). The entries stay.
    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<()>>;

    /// A new lease that ends `ttl` (rounded up to whole seconds, at most a day) from now unless kept alive. A store that is opened again gives every lease its
    /// whole time to live once more.
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>>;

    /// Gives a lease its whole time to live once more and answers it.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`](crate::Error::LeaseNotFound) when it has ended: its keys are gone.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration>>;

    /// Ends a lease now; its keys vanish in one commit.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`](crate::Error::LeaseNotFound) when it has already ended.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>>;
}
