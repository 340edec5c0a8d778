//! Saving beside the training: a thread of its own writes copies, and training waits no longer than it takes to copy.
//!
//! When storage is slower than the steps between checkpoints, or fails, checkpoints are left out, not training: the state is in
//! memory, and the next checkpoint comes. Not here: what a checkpoint is (crate `artifacts`).

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::thread::{self, JoinHandle};

use super::buffers::PooledTensors;
use super::resume::{GENERATOR, TRAINING};
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::work::Work;
use lethe_artifacts::{Checkpoints, Header, Keep, NewFile};
use lethe_domain::spec;

/// A copy of everything that training goes on from.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) header: Header,
    pub(super) generator: PooledTensors,
    /// The optimiser's state, and the losses so far.
    pub(super) training: PooledTensors,
}

/// The thread that saves. Let go of without [`Saver::settle`], it finishes what it has on its own.
#[derive(Debug)]
pub(super) struct Saver {
    /// Dropped to end the thread.
    snapshots: Option<SyncSender<Snapshot>>,
    saved: Receiver<Result<(u64, String)>>,
    thread: Option<JoinHandle<()>>,
    /// The last checkpoint that is there: step and path.
    last: Option<(u64, String)>,
    /// Why the last snapshot was not saved.
    failed: Option<Error>,
    /// The step of the last snapshot that was handed over.
    handed: Option<u64>,
    /// Snapshots handed over that are not known to be saved.
    waiting: usize,
    storage: Storage,
    checkpoints: Checkpoints,
}

/// One waits while one is written.
const ROOM: usize = 2;

impl Saver {
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(work: &Work<'_>) -> Result<Self> {
        Self::to(work.storage.clone(), work.lease.job.as_str(), work.spec.checkpoint)
    }

    /// One for the checkpoints of `job`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn to(storage: Storage, job: &str, wanted: spec::Checkpoint) -> Result<Self> {
        let checkpoints = storage.checkpoints(job);
        let thread_has = (storage.clone(), checkpoints.clone());
        let last = NonZeroUsize::new(wanted.keep as usize).unwrap_or(NonZeroUsize::MIN);
        let keep = Keep { best: wanted.best as usize, every: wanted.keep_every, ..Keep::last(last) };
        let (snapshots, waiting) = sync_channel::<Snapshot>(ROOM - 1);
        // Never more than the snapshots handed over.
        let (done, saved) = channel();
        let thread = thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || {
                let (storage, checkpoints) = thread_has;
                for snapshot in waiting {
                    // Nobody may wait for it any more: it is saved all the same.
                    let _ = done.send(save(&storage, &checkpoints, keep, snapshot));
                }
            })
            .map_err(|source| Error::System { what: "a thread cannot be started", source })?;
        let (snapshots, thread) = (Some(snapshots), Some(thread));
        let saver = Self {
            snapshots,
            saved,
            thread,
            last: None,
            failed: None,
            handed: None,
            waiting: 0,
            storage,
            checkpoints,
        };
        Ok(saver)
    }

    /// Whether this step was handed over.
    pub(super) fn has(&self, step: u64) -> bool {
        self.handed == Some(step)
    }

    /// Whether a snapshot of this step could be handed over: it need not be made otherwise.
    pub(super) fn has_room(&self, step: u64) -> bool {
        if self.waiting < ROOM {
            return true;
        }
        tracing::warn!(step, "no checkpoint: storage is slower than checkpoint.every; raise it");
        false
    }

    /// Hands a snapshot over if there is room.
    pub(super) fn offer(&mut self, snapshot: Snapshot) {
        let step = snapshot.header.step;
        let Some(sender) = &self.snapshots else { return };
        match sender.try_send(snapshot) {
            Ok(()) => {
                self.handed = Some(step);
                self.waiting += 1;
            }
            Err(TrySendError::Full(_)) => {
                tracing::warn!(step, "no checkpoint: storage is slower than checkpoint.every; raise it");
            }
            // The thread panicked: `settle` tells.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Hands a snapshot over, waiting for room.
    pub(super) fn insist(&mut self, snapshot: Snapshot) {
        let step = snapshot.header.step;
        if self.snapshots.as_ref().is_some_and(|sender| sender.send(snapshot).is_ok()) {
            self.handed = Some(step);
            self.waiting += 1;
        }
    }

    /// Takes note of what was saved meanwhile, and tells what could not be.
    pub(super) fn check(&mut self) {
        while let Ok(saved) = self.saved.try_recv() {
            self.waiting = self.waiting.saturating_sub(1);
            match saved {
                Ok(last) => {
                    self.last = Some(last);
                    self.failed = None;
                }
                Err(error) => {
                    tracing::warn!("a checkpoint could not be saved, training goes on: {error}");
                    self.failed = Some(error);
                }
            }
        }
    }

    /// Waits for everything that was handed over.
    ///
    /// # Errors
    /// Those of storage, when the last of it could not be saved.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.snapshots = None;
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| Error::internal("the thread that saves checkpoints panicked"))?;
        }
        self.check();
        self.failed.take().map_or(Ok(()), Err)
    }

    /// As [`Saver::settle`], and gives the path of the last checkpoint. Training is over: what nobody finished goes.
    ///
    /// # Errors
    /// Those of storage.
    pub(super) fn finish(mut self) -> Result<String> {
        self.settle()?;
        match self.storage.wait(self.checkpoints.sweep()) {
            Ok(removed) => removed.iter().for_each(|removed| tracing::info!("removed {}", removed.path)),
            Err(error) => tracing::warn!("unfinished checkpoints may be left: {error}"),
        }
        let last = self.last.take().ok_or_else(|| Error::internal("no checkpoint was written"))?;
        Ok(last.1)
    }
}

fn save(
    storage: &Storage,
    checkpoints: &Checkpoints,
    keep: Keep,
    snapshot: Snapshot,
) -> Result<(u64, String)> {
    let Snapshot { header, generator, training } = snapshot;
    let step = header.step;
    let files =
        vec![NewFile::new(GENERATOR, generator.to_bytes()?), NewFile::new(TRAINING, training.to_bytes()?)];
    drop((generator, training));
    let checkpoint = storage.wait(checkpoints.save(header, files))?;
    for removed in storage.wait(checkpoints.retain(keep))? {
        if let Some(fault) = removed.fault {
            tracing::warn!("removed checkpoint {}: {fault}", removed.path);
        }
    }
    Ok((step, checkpoint.path))
}
