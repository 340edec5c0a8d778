//! A coordinator's end of the wire, on a runtime of its own, so that it can be killed with its connections. What a
//! coordinator says is said by the test.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures::stream::StreamExt;
use lethe_domain::{Assignment, Epoch, LeaseId, Progress, SlotIndex, SlotReport};
use lethe_proto::LeaseOutcome;
use lethe_proto::session::{Registered, Registration, WorkerCommand, WorkerEvent};
use lethe_proto::v1;
use lethe_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::soon;

/// A coordinator.
pub(crate) struct Coordinator {
    address: SocketAddr,
    runtime: Option<Runtime>,
    joining: mpsc::Receiver<Member>,
}

/// A worker in one session.
pub(crate) struct Member {
    pub(crate) registration: Registration,
    events: mpsc::Receiver<WorkerEvent>,
    end: mpsc::Receiver<End>,
    commands: mpsc::Sender<Result<v1::SessionResponse, Status>>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The worker closed it.
    Left,
    /// The connection broke.
    Lost,
}

impl Coordinator {
    /// Serves on a free port.
    pub(crate) fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into())
    }

    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, bound) = std::sync::mpsc::channel();
        let (members, joining) = mpsc::channel(16);
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            Server::builder()
                .add_service(WorkerServiceServer::new(Service { members }))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        let address = bound.recv_timeout(crate::DEADLINE).unwrap();
        Self { address, runtime: Some(runtime), joining }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next worker that asks to join.
    pub(crate) async fn knock(&mut self) -> Member {
        soon("a worker to join", self.joining.recv()).await.unwrap()
    }

    /// The next worker that asks to join, taken in under this epoch.
    pub(crate) async fn member(&mut self, epoch: u64) -> Member {
        let member = self.knock().await;
        member.register(epoch).await;
        member
    }

    /// Whether nobody has asked to join since the last one.
    pub(crate) fn is_lonely(&mut self) -> bool {
        self.joining.try_recv().is_err()
    }

    /// Ends it and every connection it has, without a word to anybody; gives its address, free again.
    pub(crate) async fn kill(mut self) -> SocketAddr {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(20))).await.unwrap();
        self.address
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Member {
    pub(crate) async fn register(&self, epoch: u64) {
        self.say(WorkerCommand::Registered(Registered { epoch: Epoch(epoch), heartbeat_ms: 50 })).await;
    }

    pub(crate) async fn refuse(&self, status: Status) {
        self.commands.send(Err(status)).await.unwrap();
    }

    pub(crate) async fn start(&self, epoch: u64, slot: u32, assignment: Assignment) {
        let assignment = Box::new(assignment);
        self.say(WorkerCommand::Start { epoch: Epoch(epoch), slot: SlotIndex(slot), assignment }).await;
    }

    pub(crate) async fn stop(&self, epoch: u64, slot: u32, lease: LeaseId) {
        self.say(WorkerCommand::Stop { epoch: Epoch(epoch), slot: SlotIndex(slot), lease }).await;
    }

    pub(crate) async fn ask_to_yield(&self, epoch: u64, slot: u32, lease: LeaseId, save: bool) {
        self.say(WorkerCommand::Yield { epoch: Epoch(epoch), slot: SlotIndex(slot), lease, save }).await;
    }

    pub(crate) async fn acknowledge(&self, lease: LeaseId) {
        self.say(WorkerCommand::Ack(lease)).await;
    }

    async fn say(&self, command: WorkerCommand) {
        self.commands.send(Ok(command.into())).await.unwrap();
    }

    /// The next event that is no heartbeat and no change of a slot; none at the end of the session.
    async fn event(&mut self) -> Option<WorkerEvent> {
        let event = async {
            loop {
                match self.events.recv().await {
                    Some(WorkerEvent::Heartbeat(_) | WorkerEvent::SlotChanged { .. }) => {}
                    event => return event,
                }
            }
        };
        soon("an event", event).await
    }

    /// The next heartbeat with progress.
    pub(crate) async fn progress(&mut self) -> Vec<(SlotIndex, Progress)> {
        let progress = async {
            loop {
                match self.events.recv().await.unwrap() {
                    WorkerEvent::Heartbeat(progress) if !progress.is_empty() => return progress,
                    _ => {}
                }
            }
        };
        soon("a heartbeat with progress", progress).await
    }

    /// The next change of a slot; any other event before it is wrong.
    pub(crate) async fn changed(&mut self) -> (SlotIndex, Option<SlotReport>) {
        let change = async {
            loop {
                match self.events.recv().await.unwrap() {
                    WorkerEvent::SlotChanged { slot, report } => return (slot, report),
                    WorkerEvent::Heartbeat(_) => {}
                    other => panic!("expected a change of a slot, found {other:?}"),
                }
            }
        };
        soon("a change of a slot", change).await
    }

    /// The worker says that it is about to leave.
    pub(crate) async fn draining(&mut self) {
        assert_eq!(self.event().await, Some(WorkerEvent::Draining));
    }

    /// A lease has begun: the process id of its executor.
    pub(crate) async fn begun(&mut self) -> String {
        match self.event().await.unwrap() {
            WorkerEvent::StoreOpen { address, .. } => address,
            other => panic!("expected the begin of a lease, found {other:?}"),
        }
    }

    /// A lease is over. Says nothing about it to the worker.
    pub(crate) async fn finished(&mut self) -> (SlotIndex, LeaseOutcome) {
        match self.event().await.unwrap() {
            WorkerEvent::Finished { slot, outcome } => (slot, *outcome),
            other => panic!("expected an outcome, found {other:?}"),
        }
    }

    /// The session is over, and nothing more was said before.
    pub(crate) async fn ended(&mut self) -> End {
        assert_eq!(self.event().await, None);
        soon("the end of the session", self.end.recv()).await.unwrap()
    }

    /// Whether the session is still open.
    pub(crate) fn is_open(&mut self) -> bool {
        self.end.try_recv().is_err()
    }
}

struct Service {
    members: mpsc::Sender<Member>,
}

#[tonic::async_trait]
impl WorkerService for Service {
    type SessionStream = Pin<Box<dyn futures::Stream<Item = Result<v1::SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.unwrap();
        let WorkerEvent::Register(registration) = WorkerEvent::try_from(first).unwrap() else {
            return Err(Status::invalid_argument("the first event must be the registration"));
        };
        let (commands, outgoing) = mpsc::channel(16);
        let (event, events) = mpsc::channel(4096);
        let (over, end) = mpsc::channel(1);
        let (close, closed) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let how = loop {
                match stream.message().await {
                    // A test that does not listen any more does not mind.
                    Ok(Some(wire)) => drop(event.send(WorkerEvent::try_from(wire).unwrap()).await),
                    Ok(None) => break End::Left,
                    Err(_) => break End::Lost,
                }
            };
            let _ = over.send(how).await;
            drop(close);
        });
        self.members.send(Member { registration, events, end, commands }).await.unwrap();
        Ok(Response::new(ReceiverStream::new(outgoing).take_until(closed).boxed()))
    }
}
