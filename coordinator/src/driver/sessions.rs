//! How each worker is reached that has joined: the channel of its newest session.
//!
//! Not here: whether a worker lives (the engine), the stream behind the channel (`rpc`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lethe_domain::WorkerId;
use lethe_proto::session::WorkerCommand;
use tokio::sync::mpsc;

use crate::clock::Clock;

/// Commands that may wait for a worker with this many slots: every slot may be told to stop and to start at once, and have
/// outcomes acknowledged. A worker that does not read them loses its session and must join again.
fn commands(slots: usize) -> usize {
    64 + 4 * slots
}

/// A session, told apart from others of the same worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionId {
    pub(crate) worker: WorkerId,
    serial: u64,
}

/// The open sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    clock: Clock,
    open: BTreeMap<WorkerId, SessionHandle>,
    opened: u64,
}

/// When a worker was last heard from, in one session. The session notes it as soon as something arrives, however long the
/// driver takes to get to it.
#[derive(Debug, Clone)]
pub(crate) struct LastHeard {
    clock: Clock,
    ms: Arc<AtomicU64>,
}

impl LastHeard {
    fn start(clock: Clock) -> Self {
        let ms = Arc::new(AtomicU64::new(clock.now().mono_ms));
        Self { clock, ms }
    }

    /// Something has arrived.
    pub(crate) fn note(&self) {
        self.ms.fetch_max(self.clock.now().mono_ms, Ordering::Relaxed);
    }

    /// The time, on the driver's clock.
    pub(crate) fn ms(&self) -> u64 {
        self.ms.load(Ordering::Relaxed)
    }
}

/// How a worker is reached in one session.
#[derive(Debug, Clone)]
pub(crate) struct SessionHandle {
    serial: u64,
    commands: mpsc::Sender<WorkerCommand>,
    replaced: Arc<AtomicBool>,
    heard: LastHeard,
}

/// A session that has begun.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) member: SessionId,
    pub(crate) commands: mpsc::Receiver<WorkerCommand>,
    /// Set when a newer session of the same worker ends this one.
    pub(crate) replaced: Arc<AtomicBool>,
    pub(crate) heard: LastHeard,
}

impl Sessions {
    /// None yet. Arrivals are noted by this clock.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, open: BTreeMap::new(), opened: 0 }
    }

    /// Begins a session; an earlier one of the same worker is over.
    pub(crate) fn open(&mut self, worker: WorkerId, slots: usize) -> Opened {
        let (sender, commands) = mpsc::channel(commands(slots));
        self.opened += 1;
        let serial = self.opened;
        let replaced = Arc::new(AtomicBool::new(false));
        let heard = LastHeard::start(self.clock.clone());
        let handle =
            SessionHandle { serial, commands: sender, replaced: replaced.clone(), heard: heard.clone() };
        if let Some(earlier) = self.open.insert(worker.clone(), handle) {
            earlier.replaced.store(true, Ordering::Relaxed);
        }
        Opened { member: SessionId { worker, serial }, commands, replaced, heard }
    }

    /// Whether a worker's newest session is open still: its stream has not broken.
    pub(crate) fn is_open(&self, worker: &WorkerId) -> bool {
        self.open.get(worker).is_some_and(|handle| !handle.commands.is_closed())
    }

    /// Whether this is its worker's newest session.
    pub(crate) fn is_current(&self, member: &SessionId) -> bool {
        self.open.get(&member.worker).is_some_and(|handle| handle.serial == member.serial)
    }

    /// A worker's newest session.
    pub(crate) fn session(&self, worker: &WorkerId) -> Option<SessionId> {
        self.open.get(worker).map(|handle| SessionId { worker: worker.clone(), serial: handle.serial })
    }

    /// When each worker with a session was last heard from.
    pub(crate) fn heard(&self) -> Vec<(WorkerId, u64)> {
        self.open.iter().map(|(worker, handle)| (worker.clone(), handle.heard.ms())).collect()
    }

    /// When a worker was last heard from in its newest session.
    pub(crate) fn last_heard(&self, worker: &WorkerId) -> Option<LastHeard> {
        self.open.get(worker).map(|handle| handle.heard.clone())
    }

    /// How a worker is reached now.
    pub(crate) fn handle(&self, worker: &WorkerId) -> Option<SessionHandle> {
        self.open.get(worker).cloned()
    }

    /// Sends a command. When the session is over or stuck it is closed: the worker's next join says what it holds.
    pub(crate) fn send(&mut self, worker: &WorkerId, handle: &SessionHandle, command: WorkerCommand) {
        if let Err(error) = handle.commands.try_send(command) {
            tracing::debug!(%worker, %error, "a command was lost, the session is over");
            self.close(&SessionId { worker: worker.clone(), serial: handle.serial });
        }
    }

    /// Ends a session, if it is still its worker's newest.
    pub(crate) fn close(&mut self, member: &SessionId) {
        if self.is_current(member) {
            self.open.remove(&member.worker);
        }
    }

    /// Ends every session: every worker must join again.
    pub(crate) fn close_all(&mut self) {
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use lethe_domain::{Attempt, JobId, LeaseId, Phase, ShardIndex};

    use super::*;

    fn command() -> WorkerCommand {
        WorkerCommand::Ack(LeaseId {
            job: JobId::new("j").unwrap(),
            phase: Phase::Probe,
            shard: ShardIndex(0),
            attempt: Attempt(1),
        })
    }

    fn sessions() -> Sessions {
        Sessions::new(Clock::start(std::time::Duration::from_secs(1)).0)
    }

    #[tokio::test]
    async fn a_newer_session_ends_the_one_before_and_is_not_ended_by_it() {
        let worker = WorkerId::new("w").unwrap();
        let mut sessions = sessions();
        let Opened { member: old, commands: mut old_commands, replaced, .. } =
            sessions.open(worker.clone(), 1);
        let old_handle = sessions.handle(&worker).unwrap();
        assert!(!replaced.load(Ordering::Relaxed));
        let Opened { member: new, commands: mut new_commands, .. } = sessions.open(worker.clone(), 1);
        assert!(replaced.load(Ordering::Relaxed));
        assert!(!sessions.is_current(&old) && sessions.is_current(&new));
        drop(old_handle);
        assert!(matches!(old_commands.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        sessions.close(&old);
        let handle = sessions.handle(&worker).unwrap();
        sessions.send(&worker, &handle, command());
        assert_eq!(new_commands.try_recv().unwrap(), command());
    }

    #[tokio::test]
    async fn a_session_is_open_until_its_stream_breaks() {
        let worker = WorkerId::new("w").unwrap();
        let mut sessions = sessions();
        assert!(!sessions.is_open(&worker));
        let Opened { commands, .. } = sessions.open(worker.clone(), 1);
        assert!(sessions.is_open(&worker));
        drop(commands);
        assert!(!sessions.is_open(&worker));
    }

    #[tokio::test]
    async fn a_command_decided_before_a_new_join_does_not_reach_the_new_session() {
        let worker = WorkerId::new("w").unwrap();
        let mut sessions = sessions();
        let Opened { commands: old_commands, .. } = sessions.open(worker.clone(), 1);
        let old_handle = sessions.handle(&worker).unwrap();
        drop(old_commands);
        let Opened { member: new, commands: mut new_commands, .. } = sessions.open(worker.clone(), 1);
        sessions.send(&worker, &old_handle, command());
        assert!(new_commands.try_recv().is_err());
        assert!(sessions.is_current(&new), "the loss of an old command does not end the new session");
    }

    #[tokio::test]
    async fn a_worker_that_does_not_read_must_join_again() {
        let worker = WorkerId::new("w").unwrap();
        let mut sessions = sessions();
        let Opened { member, mut commands, .. } = sessions.open(worker.clone(), 1);
        let handle = sessions.handle(&worker).unwrap();
        for _ in 0..=super::commands(1) {
            sessions.send(&worker, &handle, command());
        }
        drop(handle);
        assert!(!sessions.is_current(&member));
        for _ in 0..super::commands(1) {
            assert!(commands.try_recv().is_ok());
        }
        assert!(matches!(commands.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }
}
