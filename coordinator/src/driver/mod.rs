//! The task that owns the engine's state, and the handle by which everybody else reaches it.
//!
//! Not here: decisions (`lethe-engine`), the wire (`rpc`), what is written down (`records`).

mod following;
mod published;
mod recovery;
mod requests;
mod sessions;
mod snapshot;
mod task;
#[cfg(test)]
mod tests;
mod tidying;
mod view;

pub(crate) use sessions::{LastHeard, SessionId};
pub(crate) use task::Driver;
pub(crate) use view::{Place, View};

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lethe_domain::{Inputs, JobId, JobSpec, JobStatus, Principal, WorkerId, WorkerOrder, WorkerStatus};
use lethe_engine::{Event, JobRecord};
use lethe_proto::session::{Registered, Registration, WorkerCommand, WorkerEvent};
use lethe_proto::status::Refusal;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::records::Archive;
use published::{Published, Watchers};
use recovery::no_leader;

/// Requests that may wait for the driver. When it is full, whoever asks waits.
const REQUESTS: usize = 256;

/// Whether the coordinator can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It leads.
    Ready,
    /// Another one leads, at this address. What is written down can be read here too.
    Following(String),
    /// The store cannot be written, for this reason: nothing new is accepted until it can.
    StoreDown(String),
    /// It is about to end.
    Draining,
}

/// What a session begins with.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) member: SessionId,
    pub(crate) registered: Registered,
    pub(crate) commands: mpsc::Receiver<WorkerCommand>,
    /// Set when a newer session of the same worker ends this one.
    pub(crate) replaced: Arc<AtomicBool>,
    pub(crate) heard: LastHeard,
}

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// Something that is answered once everything of its turn is written down and published, or learns why that failed.
type Answer = Box<dyn FnOnce(Result<&View, &Refusal>) + Send>;

/// What can be asked of the driver.
enum Request {
    Submit {
        by: Principal,
        spec: Box<JobSpec>,
        /// None where its files were not looked at, since its request is known.
        inputs: Option<Inputs>,
        request_id: Option<String>,
        reply: Reply<JobStatus>,
    },
    Cancel {
        by: Principal,
        job: JobId,
        reason: String,
        reply: Reply<JobStatus>,
    },
    Delete {
        by: Principal,
        job: JobId,
        reply: Reply<()>,
    },
    /// The upkeep of a job's files is done.
    UpkeepDone {
        event: Event,
    },
    Join {
        registration: Registration,
        reply: Reply<Membership>,
    },
    Order {
        by: Principal,
        worker: WorkerId,
        order: WorkerOrder,
        reply: Reply<WorkerStatus>,
    },
    Worker {
        member: SessionId,
        event: WorkerEvent,
    },
    Leave {
        member: SessionId,
    },
    /// To read what another leader has written down.
    Read {
        reply: Reply<View>,
    },
}

/// The way to the driver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DriverHandle {
    requests: mpsc::Sender<Request>,
    readiness: watch::Receiver<Readiness>,
    published: watch::Receiver<Published>,
    watchers: Watchers,
    archive: Archive,
    clock: Clock,
}

/// A job with everything that is known of it.
#[derive(Debug)]
pub(crate) struct WholeJob {
    pub(crate) status: JobStatus,
    pub(crate) record: Arc<JobRecord>,
    /// Who would know better, when it is not us.
    pub(crate) leader: Option<String>,
}

impl DriverHandle {
    /// Accepts a checked spec, and what the files it names hold, unless its request is known; the same `request_id` and spec twice by the same principal is the same job.
    pub(crate) async fn submit(
        &self,
        by: Principal,
        spec: JobSpec,
        inputs: Option<Inputs>,
        request_id: Option<String>,
    ) -> Result<JobStatus, Refusal> {
        self.ask(|reply| Request::Submit { by, spec: Box::new(spec), inputs, request_id, reply }).await
    }

    /// Begins to end a job.
    pub(crate) async fn cancel(
        &self,
        by: Principal,
        job: JobId,
        reason: String,
    ) -> Result<JobStatus, Refusal> {
        self.ask(|reply| Request::Cancel { by, job, reason, reply }).await
    }

    /// Forgets a job that has ended.
    pub(crate) async fn delete(&self, by: Principal, job: JobId) -> Result<(), Refusal> {
        self.ask(|reply| Request::Delete { by, job, reply }).await
    }

    /// Wants something of a worker.
    pub(crate) async fn order(
        &self,
        by: Principal,
        worker: WorkerId,
        order: WorkerOrder,
    ) -> Result<WorkerStatus, Refusal> {
        self.ask(|reply| Request::Order { by, worker, order, reply }).await
    }

    /// Begins a worker's session.
    pub(crate) async fn join(&self, registration: Registration) -> Result<Membership, Refusal> {
        self.ask(|reply| Request::Join { registration, reply }).await
    }

    /// Waits for room for something that a worker says.
    pub(crate) async fn room(&self) -> Result<Room<'_>, Refusal> {
        self.requests.reserve().await.map(Room).map_err(|_| going_away())
    }

    /// A worker takes its leave.
    pub(crate) async fn leave(&self, member: SessionId) -> Result<(), Refusal> {
        self.send(Request::Leave { member }).await
    }

    /// A signal for each change of a job.
    pub(crate) fn watch(&self, job: &JobId) -> Result<watch::Receiver<()>, Refusal> {
        // First the signal, then the look: who stops leading in between ends it.
        let changes = self.watchers.subscribe(job.clone());
        let known = self.live_view()?.status(job).is_some();
        if known { Ok(changes) } else { Err(no_such_job(job)) }
    }

    /// What is written down; when another one leads, as it was a moment ago.
    pub(crate) async fn view(&self) -> Result<View, Refusal> {
        if matches!(*self.published.borrow(), Published::Following(_)) {
            return self.ask(|reply| Request::Read { reply }).await;
        }
        self.live_view()
    }

    /// What is written down and what is at work, which only the leader knows.
    pub(crate) fn live_view(&self) -> Result<View, Refusal> {
        match self.published.borrow().clone() {
            Published::Leading(_, term) if term.is_over() => Err(no_leader()),
            Published::Leading(snapshot, _) => Ok(View::new(snapshot, self.clock.now())),
            Published::Following(leader) => Err(elsewhere(&leader)),
            Published::Nothing(refusal) => Err(refusal),
        }
    }

    /// A job with everything that is known of it; of one that is over, that is read where it is written down.
    pub(crate) async fn job(&self, id: &JobId) -> Result<WholeJob, Refusal> {
        let view = self.view().await?;
        let missing = || no_such_job(id);
        let status = view.status(id).ok_or_else(missing)?;
        let (status, record) = match view.record(id) {
            Some(record) => (status, record),
            None => {
                let record = self.archive.record(id).await.map_err(|error| unreadable(&error))?;
                // It may have been deleted a moment ago.
                let record = record.ok_or_else(missing)?;
                (JobStatus { version: status.version, ..record.over() }, Arc::new(record))
            }
        };
        Ok(WholeJob { status, record, leader: view.leader().map(str::to_owned) })
    }

    /// Refuses what only a leader does, before any work is put into it.
    pub(crate) fn refuse_unless_leading(&self) -> Result<(), Refusal> {
        match &*self.readiness.borrow() {
            Readiness::Following(leader) => Err(elsewhere(leader)),
            Readiness::Ready | Readiness::StoreDown(_) | Readiness::Draining => Ok(()),
        }
    }

    pub(crate) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.clone()
    }

    /// Whether the driver's task runs.
    pub(crate) fn is_alive(&self) -> bool {
        !self.requests.is_closed()
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(going_away()))
    }

    async fn send(&self, request: Request) -> Result<(), Refusal> {
        self.requests.send(request).await.map_err(|_| going_away())
    }
}

/// Room for one more request.
pub(crate) struct Room<'a>(mpsc::Permit<'a, Request>);

impl Room<'_> {
    /// Something a worker says in its session. Lost when the session is no longer the worker's newest.
    pub(crate) fn tell(self, member: &SessionId, event: WorkerEvent) {
        self.0.send(Request::Worker { member: member.clone(), event });
    }
}

pub(crate) fn no_such_job(id: &JobId) -> Refusal {
    Refusal::NotFound { kind: "job".to_owned(), id: id.to_string() }
}

fn unreadable(error: &crate::Error) -> Refusal {
    Refusal::Unavailable { message: format!("what is written down cannot be read: {error}") }
}

pub(crate) fn no_such_worker(id: &WorkerId) -> Refusal {
    Refusal::NotFound { kind: "worker".to_owned(), id: id.to_string() }
}

pub(crate) fn going_away() -> Refusal {
    Refusal::Unavailable { message: "the coordinator is shutting down: try again when it is back".to_owned() }
}

/// Why a coordinator that does not lead refuses: whoever asks goes there.
pub(crate) fn elsewhere(leader: &str) -> Refusal {
    Refusal::NotLeader { leader: Some(leader.to_owned()) }
}
