//! Saving beside the training: a thread of its own writes copies, and training waits no longer than it takes to copy.
//!
//! When storage is slower than the steps between checkpoints, checkpoints are left out, not training. Not here: what a
//! checkpoint is (crate `artifacts`).

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::thread::{self, JoinHandle};

use lethe_artifacts::{Checkpoints, Header, NewFile};
use lethe_models::Tensors;

use super::resume::{GENERATOR, TRAINING};
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::work::Work;

/// A copy of everything that training goes on from.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) header: Header,
    pub(super) generator: Tensors,
    /// The optimiser's state, and the losses so far.
    pub(super) training: Tensors,
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
    /// The step of the last snapshot that was handed over.
    handed: Option<u64>,
}

impl Saver {
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(work: &Work<'_>) -> Result<Self> {
        let checkpoints = work.storage.checkpoints(work.lease.job.as_str());
        let storage = work.storage.clone();
        let keep = NonZeroUsize::new(work.spec.checkpoint.keep as usize).unwrap_or(NonZeroUsize::MIN);
        // One waits while one is written.
        let (snapshots, waiting) = sync_channel::<Snapshot>(1);
        // Never more than the snapshots handed over.
        let (done, saved) = channel();
        let thread = thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || {
                for snapshot in waiting {
                    let result = save(&storage, &checkpoints, keep, snapshot);
                    let failed = result.is_err();
                    if done.send(result).is_err() || failed {
                        return;
                    }
                }
            })
            .map_err(|source| Error::System { what: "a thread cannot be started", source })?;
        Ok(Self { snapshots: Some(snapshots), saved, thread: Some(thread), last: None, handed: None })
    }

    /// Whether this step was handed over.
    pub(super) fn has(&self, step: u64) -> bool {
        self.handed == Some(step)
    }

    /// Hands a snapshot over if there is room.
    pub(super) fn offer(&mut self, snapshot: Snapshot) {
        let step = snapshot.header.step;
        let Some(sender) = &self.snapshots else { return };
        match sender.try_send(snapshot) {
            Ok(()) => self.handed = Some(step),
            Err(TrySendError::Full(_)) => {
                tracing::warn!(step, "no checkpoint: storage is slower than checkpoint.every; raise it");
            }
            // The thread ended because saving failed: `check` tells.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Hands a snapshot over, waiting for room.
    pub(super) fn insist(&mut self, snapshot: Snapshot) {
        let step = snapshot.header.step;
        if self.snapshots.as_ref().is_some_and(|sender| sender.send(snapshot).is_ok()) {
            self.handed = Some(step);
        }
    }

    /// Whether saving still works.
    ///
    /// # Errors
    /// Those of storage.
    pub(super) fn check(&mut self) -> Result<()> {
        loop {
            match self.saved.try_recv() {
                Ok(saved) => self.last = Some(saved?),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Waits for everything that was handed over.
    ///
    /// # Errors
    /// Those of storage.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.snapshots = None;
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| Error::internal("the thread that saves checkpoints panicked"))?;
        }
        self.check()
    }

    /// As [`Saver::settle`], and gives the path of the last checkpoint.
    ///
    /// # Errors
    /// Those of storage.
    pub(super) fn finish(mut self) -> Result<String> {
        self.settle()?;
        let last = self.last.take().ok_or_else(|| Error::internal("no checkpoint was written"))?;
        Ok(last.1)
    }
}

fn save(
    storage: &Storage,
    checkpoints: &Checkpoints,
    keep: NonZeroUsize,
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
