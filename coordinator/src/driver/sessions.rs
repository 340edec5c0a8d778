//! The way to each worker that has joined: the channel of its newest session.
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
pub(crate) struct Member {
    pub(crate) worker: WorkerId,
    serial: u64,
}

/// The open sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    clock: Clock,
    open: BTreeMap<WorkerId, Way>,
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

/// The way to a worker in one session.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    serial: u64,
    incarnation: String,
    /// Whether it came with leases: then it was a member under the leader before.
    held: bool,
    commands: mpsc::Sender<WorkerCommand>,
    replaced: Arc<AtomicBool>,
    heard: LastHeard,
}

/// A session that has begun.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) member: Member,
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
    pub(crate) fn open(&mut self, worker: WorkerId, incarnation: String, held: bool, slots: usize) -> Opened {
        let (sender, commands) = mpsc::channel(commands(slots));
        self.opened += 1;
        let serial = self.opened;
        let replaced = Arc::new(AtomicBool::new(false));
        let heard = LastHeard::start(self.clock.clone());
        let way = Way {
            serial,
            incarnation,
            held,
            commands: sender,
            replaced: replaced.clone(),
            heard: heard.clone(),
        };
        if let Some(earlier) = self.open.insert(worker.clone(), way) {
            earlier.replaced.store(true, Ordering::Relaxed);
        }
        Opened { member: Member { worker, serial }, commands, replaced, heard }
    }

    /// Whether another process has this name, and its session open. After a change of leader anybody may be first: the one
    /// that comes with leases is the one that had the name.
    pub(crate) fn is_taken(&self, worker: &WorkerId, incarnation: &str, held: bool) -> bool {
        self.open.get(worker).is_some_and(|way| {
            way.incarnation != incarnation && !way.commands.is_closed() && (way.held || !held)
        })
    }

    /// Whether this is its worker's newest session.
    pub(crate) fn is_current(&self, member: &Member) -> bool {
        self.open.get(&member.worker).is_some_and(|way| way.serial == member.serial)
    }

    /// A worker's newest session.
    pub(crate) fn member(&self, worker: &WorkerId) -> Option<Member> {
        self.open.get(worker).map(|way| Member { worker: worker.clone(), serial: way.serial })
    }

    /// When each worker with a session was last heard from.
    pub(crate) fn heard(&self) -> Vec<(WorkerId, u64)> {
        self.open.iter().map(|(worker, way)| (worker.clone(), way.heard.ms())).collect()
    }

    /// When a worker was last heard from in its newest session.
    pub(crate) fn last_heard(&self, worker: &WorkerId) -> Option<LastHeard> {
        self.open.get(worker).map(|way| way.heard.clone())
    }

    /// The way to a worker as it is now.
    pub(crate) fn way(&self, worker: &WorkerId) -> Option<Way> {
        self.open.get(worker).cloned()
    }

    /// Sends a command. When the session is over or stuck it is closed: the worker's next join says what it holds.
    pub(crate) fn send(&mut self, worker: &WorkerId, way: &Way, command: WorkerCommand) {
        if let Err(error) = way.commands.try_send(command) {
            tracing::debug!(%worker, %error, "a command was lost, the session is over");
            self.close(&Member { worker: worker.clone(), serial: way.serial });
        }
    }

    /// Ends a session, if it is still its worker's newest.
    pub(crate) fn close(&mut self, member: &Member) {
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
            sessions.open(worker.clone(), String::new(), false, 1);
        let old_way = sessions.way(&worker).unwrap();
        assert!(!replaced.load(Ordering::Relaxed));
        let Opened { member: new, commands: mut new_commands, .. } =
            sessions.open(worker.clone(), String::new(), false, 1);
        assert!(replaced.load(Ordering::Relaxed));
        assert!(!sessions.is_current(&old) && sessions.is_current(&new));
        drop(old_way);
        assert!(matches!(old_commands.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        sessions.close(&old);
        let way = sessions.way(&worker).unwrap();
        sessions.send(&worker, &way, command());
        assert_eq!(new_commands.try_recv().unwrap(), command());
    }

    #[tokio::test]
    async fn a_name_is_taken_as_long_as_the_session_of_another_process_is_open() {
        let worker = WorkerId::new("w").unwrap();
        let mut sessions = sessions();
        assert!(!sessions.is_taken(&worker, "a", false));
        let Opened { commands, .. } = sessions.open(worker.clone(), "a".to_owned(), false, 1);
        assert!(!sessions.is_taken(&worker, "a", false), "the same one may come again");
        assert!(sessions.is_taken(&worker, "b", false));
        assert!(!sessions.is_taken(&worker, "b", true), "b was there before, a was faster");
        drop(commands);
        assert!(!sessions.is_taken(&worker, "b", false), "its connection is lost");
        let Opened { commands: _commands, .. } = sessions.open(worker.clone(), "c".to_owned(), true, 1);
        assert!(sessions.is_taken(&worker, "b", true));
    }

    #[tokio::test]
    async fn a_command_decided_before_a_new_join_does_not_reach_the_new_session() {
        let worker = WorkerId::new("w").unwrap();
        let mut sessions = sessions();
        let Opened { commands: old_commands, .. } = sessions.open(worker.clone(), String::new(), false, 1);
        let old_way = sessions.way(&worker).unwrap();
        drop(old_commands);
        let Opened { member: new, commands: mut new_commands, .. } =
            sessions.open(worker.clone(), String::new(), false, 1);
        sessions.send(&worker, &old_way, command());
        assert!(new_commands.try_recv().is_err());
        assert!(sessions.is_current(&new), "the loss of an old command does not end the new session");
    }

    #[tokio::test]
    async fn a_worker_that_does_not_read_must_join_again() {
        let worker = WorkerId::new("w").unwrap();
        let mut sessions = sessions();
        let Opened { member, mut commands, .. } = sessions.open(worker.clone(), String::new(), false, 1);
        let way = sessions.way(&worker).unwrap();
        for _ in 0..=super::commands(1) {
            sessions.send(&worker, &way, command());
        }
        drop(way);
        assert!(!sessions.is_current(&member));
        for _ in 0..super::commands(1) {
            assert!(commands.try_recv().is_ok());
        }
        assert!(matches!(commands.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }
}
