//! A worker's session: one stream in each direction for as long as the worker is a member.
//!
//! Not here: registering again after a loss, heartbeats, slots (the agent).

use std::time::Duration;

use lethe_proto::session::{Registered, Registration, WorkerCommand, WorkerEvent};
use lethe_proto::v1::worker_service_client::WorkerServiceClient;
use lethe_proto::{MAX_MESSAGE_BYTES, v1};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::connection::{Coordinator, in_time};
use crate::{Client, Error};

/// Events that may wait to be sent. A slow coordinator makes the sender wait.
const EVENTS: usize = 64;

/// A session that has begun. It ends when either half fails or is dropped.
#[derive(Debug)]
pub struct Session {
    /// What the coordinator answered.
    pub registered: Registered,
    /// To the coordinator.
    pub events: EventSender,
    /// From the coordinator.
    pub commands: CommandReceiver,
}

/// The half that goes to the coordinator.
#[derive(Debug, Clone)]
pub struct EventSender {
    address: String,
    patience: Duration,
    sender: mpsc::Sender<v1::SessionRequest>,
}

/// The half that comes from the coordinator.
#[derive(Debug)]
pub struct CommandReceiver {
    address: String,
    stream: Streaming<v1::SessionResponse>,
}

impl Client {
    /// Begins a session: registers and waits for the answer. One try at every coordinator in turn.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the coordinator does not take this worker; [`Error::Unreachable`] and
    /// [`Error::Unavailable`] when another try is worth while.
    pub async fn join(&self, registration: Registration) -> Result<Session, Error> {
        self.join_within(self.options().call_timeout, registration).await
    }

    /// As [`Client::join`], with this long for each coordinator to answer.
    ///
    /// # Errors
    /// As [`Client::join`].
    pub async fn join_within(
        &self,
        deadline: Duration,
        registration: Registration,
    ) -> Result<Session, Error> {
        let patience = self.options().call_timeout;
        self.attempt(|coordinator| begin(coordinator, registration.clone(), deadline, patience)).await
    }
}

async fn begin(
    coordinator: Coordinator,
    registration: Registration,
    deadline: Duration,
    patience: Duration,
) -> Result<Session, Error> {
    let Coordinator { address, channel } = coordinator;
    let (sender, receiver) = mpsc::channel(EVENTS);
    let events = EventSender { address: address.clone(), patience, sender };
    events.send(WorkerEvent::Register(registration)).await?;
    let mut client = WorkerServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let stream =
        in_time(&address, deadline, client.session(ReceiverStream::new(receiver))).await?.into_inner();
    let mut commands = CommandReceiver { address: address.clone(), stream };
    match timeout(deadline, commands.next()).await {
        Ok(Ok(WorkerCommand::Registered(registered))) => Ok(Session { registered, events, commands }),
        Ok(Ok(other)) => Err(Error::Misunderstood {
            address,
            reason: format!("expected the answer to the registration, found {other:?}"),
        }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::unreachable(&address, "no answer to the registration in time")),
    }
}

impl EventSender {
    /// Sends an event; waits while the coordinator is slow, as long as for a call at most.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: the session is over. Whether earlier events arrived is not known.
    pub async fn send(&self, event: WorkerEvent) -> Result<(), Error> {
        match timeout(self.patience, self.sender.send(event.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::unreachable(&self.address, "the session is over")),
            Err(_) => Err(Error::unreachable(&self.address, "it does not take events any more")),
        }
    }

    /// Waits until the session is over, as seen from this half.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

impl CommandReceiver {
    /// The next command. Nothing is lost when the wait for it is given up.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the session is over; or why the coordinator ended it.
    pub async fn next(&mut self) -> Result<WorkerCommand, Error> {
        match self.stream.message().await {
            Ok(Some(response)) => {
                response.try_into().map_err(|error| Error::misunderstood(&self.address, error))
            }
            Ok(None) => Err(Error::unreachable(&self.address, "it ended the session")),
            Err(status) => Err(Error::of_status(&self.address, &status)),
        }
    }
}
