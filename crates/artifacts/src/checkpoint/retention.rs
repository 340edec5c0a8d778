//! Keeping the last few checkpoints and taking the rest away.
//!
//! Not here: which ones are worth keeping for their quality.

use std::num::NonZeroUsize;

use super::{Checkpoints, Fault, MANIFEST, layout};
use crate::Result;

/// What [`Checkpoints::retain`] took away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The folder within the store.
    pub path: String,
    /// Why, unless it was just old.
    pub fault: Option<Fault>,
}

impl Checkpoints {
    /// Keeps the newest `keep` checkpoints whose manifest is sound and whose files have the right sizes, and removes
    /// what is older. Faulty ones do not count as kept. An unfinished one is removed once a checkpoint is
    /// committed that its generation, or a later one, saved after it: nobody will finish it. A newer one may
    /// be in progress, and stays. Files are not read, so damage within one is left for
    /// [`latest_valid`](Checkpoints::latest_valid) to find.
    ///
    /// # Errors
    /// Those of the store. What is not removed now is removed next time.
    pub async fn retain(&self, keep: NonZeroUsize) -> Result<Vec<Removed>> {
        let mut kept = 0;
        let mut last_committed = None;
        let mut removed = Vec::new();
        let folders = layout::folders(&self.prefix, self.store.list(&self.prefix).await?);
        let mut inspected = Vec::with_capacity(folders.len());
        for (folder, objects) in folders {
            let fault = self.inspect(folder, &objects).await?.err();
            if fault.is_none() {
                last_committed = last_committed.max(Some((folder.generation, folder.step)));
            }
            inspected.push((folder, objects, fault));
        }
        for (folder, objects, fault) in inspected {
            let obsolete = match fault {
                None => {
                    kept += 1;
                    kept > keep.get()
                }
                Some(Fault::Unfinished) => last_committed > Some((folder.generation, folder.step)),
                Some(_) => kept >= keep.get(),
            };
            if obsolete {
                let path = format!("{}/{folder}", self.prefix);
                // The manifest first: a removal that is interrupted leaves an unfinished checkpoint, not a damaged one.
                self.store.delete(&format!("{path}/{MANIFEST}")).await?;
                for object in objects {
                    self.store.delete(&format!("{path}/{}", object.name)).await?;
                }
                removed.push(Removed { path, fault });
            }
        }
        Ok(removed)
    }
}
