//! A store in memory: for tests, and for runs nobody wants to resume.
//!
//! Not here: anything durable.

use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
    sync::Arc,
};

use crate::{
    Change, Entry, Result, StateStore,
    local::{Batch, Loaded, Local, Rows},
};

/// A new, empty store that is gone with its last handle.
pub fn memory() -> Arc<dyn StateStore> {
    Arc::new(Local::new(MemoryRows::default()))
}

#[derive(Debug, Default)]
pub(crate) struct MemoryRows {
    entries: BTreeMap<String, Entry>,
    loaded: Loaded,
}

impl Rows for MemoryRows {
    const BLOCKING: bool = false;

    fn load(&mut self) -> Result<Loaded> {
        Ok(self.loaded.clone())
    }

    fn get(&self, key: &str) -> Result<Option<Entry>> {
        Ok(self.entries.get(key).cloned())
    }

    fn scan(&self, prefix: &str) -> Result<Vec<Entry>> {
        let from: btree_map::Range<'_, String, Entry> =
            self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        Ok(from.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry.clone()).collect())
    }

    fn apply(&mut self, batch: &Batch) -> Result<()> {
        for change in &batch.changes {
            match change {
                Change::Put(entry) => self.entries.insert(entry.key.clone(), entry.clone()),
                Change::Delete { key } => self.entries.remove(key),
            };
        }
        self.loaded.revision = batch.revision;
        if let Some((id, ttl)) = batch.granted {
            self.loaded.leases.push((id, ttl));
            self.loaded.last_lease = id.0;
        }
        if let Some(ended) = batch.ended {
            self.loaded.leases.retain(|(id, _)| *id != ended);
        }
        Ok(())
    }
}
