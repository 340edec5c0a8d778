//! Which leases are alive, until when, and which keys hang on them.
//!
//! Not here: a clock. `now` is an argument, so the paused clock of a test is the clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::{Change, Error, LeaseId, Result};

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<String>,
}

/// The living leases of one store.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    deadlines: BTreeSet<(Instant, LeaseId)>,
    /// The reverse of `Lease::keys`.
    holders: BTreeMap<String, LeaseId>,
}

impl Leases {
    pub(crate) fn grant(&mut self, id: LeaseId, ttl: Duration, now: Instant) {
        let deadline = now + ttl;
        self.leases.insert(id, Lease { ttl, deadline, keys: BTreeSet::new() });
        self.deadlines.insert((deadline, id));
    }

    pub(crate) fn keep_alive(&mut self, id: LeaseId, now: Instant) -> Result<Duration> {
        let lease = self.leases.get_mut(&id).ok_or(Error::LeaseNotFound { lease: id })?;
        self.deadlines.remove(&(lease.deadline, id));
        lease.deadline = now + lease.ttl;
        self.deadlines.insert((lease.deadline, id));
        Ok(lease.ttl)
    }

    pub(crate) fn check(&self, id: LeaseId) -> Result<()> {
        self.leases.get(&id).map(|_| ()).ok_or(Error::LeaseNotFound { lease: id })
    }

    /// The keys that vanish when the lease ends, in order.
    pub(crate) fn keys(&self, id: LeaseId) -> Result<Vec<String>> {
        let lease = self.leases.get(&id).ok_or(Error::LeaseNotFound { lease: id })?;
        Ok(lease.keys.iter().cloned().collect())
    }

    pub(crate) fn end(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            self.deadlines.remove(&(lease.deadline, id));
            lease.keys.iter().for_each(|key| {
                self.holders.remove(key);
            });
        }
    }

    /// Follows a change of a key: it hangs on the lease it was last put with, and on no other.
    pub(crate) fn follow(&mut self, change: &Change) {
        if let Some(holder) = self.holders.remove(change.key())
            && let Some(lease) = self.leases.get_mut(&holder)
        {
            lease.keys.remove(change.key());
        }
        if let Change::Put(entry) = change
            && let Some(id) = entry.lease
            && let Some(lease) = self.leases.get_mut(&id)
        {
            lease.keys.insert(entry.key.clone());
            self.holders.insert(entry.key.clone(), id);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The lease that is due first, if its time has come.
    pub(crate) fn due(&self, now: Instant) -> Option<LeaseId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }
}
