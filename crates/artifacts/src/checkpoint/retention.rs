//! Keeping some checkpoints and taking the rest away: the last few, the best few, and every n-th step.
//!
//! Not here: when this is done.

use std::{cmp::Ordering, collections::BTreeSet, num::NonZeroUsize};

use super::{Checkpoints, Fault, Header, MANIFEST, layout, layout::Folder};
use crate::Result;

/// Which checkpoints are kept: those that at least one of the rules wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many.
    pub last: NonZeroUsize,
    /// So many with the lowest `metric`; of equal ones, the newest.
    pub best: usize,
    /// A measurement of the header. A checkpoint without it, or with NaN, is never one of the best.
    pub metric: &'static str,
    /// Those of a step that is a multiple of this, each saved by the latest generation; 0 = none.
    pub every: u64,
}

impl Keep {
    /// The newest `last`, and nothing else.
    pub fn last(last: NonZeroUsize) -> Self {
        Self { last, best: 0, metric: "loss", every: 0 }
    }

    /// Those to keep of sound checkpoints, newest first.
    fn choose(self, sound: &[(Folder, Header)]) -> BTreeSet<Folder> {
        let folder = |(folder, _): &(Folder, Header)| *folder;
        let mut kept: BTreeSet<Folder> = sound.iter().take(self.last.get()).map(folder).collect();
        let measured = |(folder, header): &(Folder, Header)| {
            let value = *header.metrics.get(self.metric)?;
            (!value.is_nan()).then_some((value, *folder))
        };
        let mut measured: Vec<(f64, Folder)> = sound.iter().filter_map(measured).collect();
        // Stable, so the newest of equal ones stays first.
        measured.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal));
        kept.extend(measured.into_iter().take(self.best).map(|(_, folder)| folder));
        if self.every > 0 {
            let mut steps = BTreeSet::new();
            let due = |folder: &Folder| folder.step.is_multiple_of(self.every) && steps.insert(folder.step);
            kept.extend(sound.iter().map(folder).filter(due));
        }
        kept
    }
}

/// What [`Checkpoints::retain`] took away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The folder within the store.
    pub path: String,
    /// Why, unless it was just old.
    pub fault: Option<Fault>,
}

/// A checkpoint's folder, its objects, and what its manifest says.
struct Inspected {
    folder: Folder,
    objects: Vec<layout::Object>,
    outcome: std::result::Result<Header, Fault>,
}

impl Checkpoints {
    /// Keeps the checkpoints that `keep` wants of those whose manifest is sound and whose files have the right sizes, and
    /// removes the others. Faulty ones do not count as kept; they go when there are `keep.last` newer sound ones. An
    /// unfinished one is removed once a checkpoint is committed that its generation, or a later one, saved after it:
    /// nobody will finish it. A newer one may be in progress, and stays. Files are not read, so damage within one is left
    /// for [`latest_valid`](Checkpoints::latest_valid) to find.
    ///
    /// # Errors
    /// Those of the store. What is not removed now is removed next time.
    pub async fn retain(&self, keep: Keep) -> Result<Vec<Removed>> {
        let inspected = self.inspect_all().await?;
        let header = |one: &Inspected| Some((one.folder, one.outcome.as_ref().ok()?.clone()));
        let sound: Vec<(Folder, Header)> = inspected.iter().filter_map(header).collect();
        let last_committed = sound.iter().map(|(folder, _)| (folder.generation, folder.step)).max();
        let kept = keep.choose(&sound);
        let mut newer = 0;
        let mut removed = Vec::new();
        for one in inspected {
            let obsolete = match &one.outcome {
                Ok(_) => {
                    newer += 1;
                    !kept.contains(&one.folder)
                }
                Err(Fault::Unfinished) => last_committed > Some((one.folder.generation, one.folder.step)),
                Err(_) => newer >= keep.last.get(),
            };
            if obsolete {
                removed.push(self.remove(one).await?);
            }
        }
        Ok(removed)
    }

    /// Removes every unfinished checkpoint: for the end of a job, when nobody saves any more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sweep(&self) -> Result<Vec<Removed>> {
        let mut removed = Vec::new();
        for one in self.inspect_all().await? {
            if matches!(one.outcome, Err(Fault::Unfinished)) {
                removed.push(self.remove(one).await?);
            }
        }
        Ok(removed)
    }

    async fn inspect_all(&self) -> Result<Vec<Inspected>> {
        let mut all = Vec::new();
        for (folder, objects) in layout::folders(&self.prefix, self.store.list(&self.prefix).await?) {
            let outcome = self.inspect(folder, &objects).await?.map(|found| found.manifest.header);
            all.push(Inspected { folder, objects, outcome });
        }
        Ok(all)
    }

    async fn remove(&self, one: Inspected) -> Result<Removed> {
        let path = format!("{}/{}", self.prefix, one.folder);
        // The manifest first: a removal that is interrupted leaves an unfinished checkpoint, not a damaged one.
        self.store.delete(&format!("{path}/{MANIFEST}")).await?;
        for object in one.objects {
            self.store.delete(&format!("{path}/{}", object.name)).await?;
        }
        Ok(Removed { path, fault: one.outcome.err() })
    }
}
