//! The worker's membership: one session after another, for ever, with pauses between tries.
//!
//! A task of its own, so that a slow coordinator never holds up an executor. Not here: what is said (`machine`), how a
//! session is made (crate `client`).

use std::time::Duration;

use lethe_client::{Backoff, Client, CommandReceiver, EventSender, Options, Session};
use lethe_proto::PROTOCOL;
use lethe_proto::session::{Registered, Registration, WorkerEvent};
use tokio::select;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::AgentConfig;
use crate::agent::Input;
use crate::machine::{Event, Introduction};

/// Events that may wait for a slow coordinator. One that lets more pile up loses the session.
const EVENTS: usize = 256;
/// The first pause between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest: shorter than the time after which a silent worker is declared dead.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// For a coordinator to answer a registration: one that hangs must not keep the worker from the next one. Twice as long in
/// each further round, for those that are only slow.
const JOINING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// For the coordinator to end a session that this side has ended.
const GOODBYE: Duration = Duration::from_secs(1);

/// An agent's link to its coordinators.
pub(crate) struct Link {
    coordinators: Vec<String>,
    introduction: Registration,
    inbox: mpsc::Sender<Input>,
    /// Set before the last session is ended: the worker leaves.
    leaving: CancellationToken,
}

/// The driver has ended: there is nobody to link.
struct Gone;

/// A session that this side gave up. It stays open until the next one has taken its place: to a coordinator, a worker that
/// closes its session has left, and what it works on is granted again.
type Abandoned = (EventSender, CommandReceiver);

/// How a session ended.
enum End {
    /// It broke, or was closed.
    Over,
    /// This side gave it up.
    GivenUp(Box<Abandoned>),
}

impl Link {
    pub(crate) fn new(config: &AgentConfig, inbox: mpsc::Sender<Input>, leaving: CancellationToken) -> Self {
        let introduction = Registration {
            worker: config.id.clone(),
            hostname: config.hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            devices: config.devices.clone(),
            held: Vec::new(),
            reports: Vec::new(),
            chaos: config.chaos.as_ref().map(ToString::to_string),
            incarnation: uuid::Uuid::new_v4().simple().to_string(),
        };
        Self { coordinators: config.coordinators.clone(), introduction, inbox, leaving }
    }

    /// Keeps a session open until the driver ends, or until the very first join is refused for good.
    pub(crate) async fn keep(self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut client = None;
        let mut deadline = JOINING.0;
        let mut joined_before = false;
        let mut said = String::new();
        let mut abandoned: Option<Abandoned> = None;
        loop {
            match self.join(&mut client, deadline).await {
                Ok(Ok(session)) => {
                    joined_before = true;
                    deadline = JOINING.0;
                    said.clear();
                    drop(abandoned.take());
                    let begun = Instant::now();
                    match self.converse(session).await {
                        Ok(End::Over) => {}
                        Ok(End::GivenUp(halves)) => abandoned = Some(*halves),
                        Err(Gone) => return,
                    }
                    if begun.elapsed() > LONGEST_PAUSE {
                        backoff.reset();
                    }
                }
                // Later on the work that is going on outlasts whatever the coordinator goes through.
                Ok(Err(error)) if !joined_before && !error.retryable() => {
                    let _ = self.inbox.send(Input::Refused(error)).await;
                    return;
                }
                Ok(Err(error)) => {
                    deadline = (deadline * 2).min(JOINING.1);
                    // Once per cause: an absent coordinator does not fill the log.
                    let text = error.to_string();
                    // Times in it differ from try to try.
                    let cause = text.replace(|c: char| c.is_ascii_digit(), "");
                    if cause != said {
                        tracing::warn!("cannot join, trying again: {text}");
                        said = cause;
                    }
                }
                Err(Gone) => return,
            }
            sleep(backoff.pause()).await;
        }
    }

    /// One try.
    async fn join(
        &self,
        client: &mut Option<Client>,
        deadline: Duration,
    ) -> Result<Result<Session, lethe_client::Error>, Gone> {
        let connected = match client {
            Some(client) => client,
            None => match Client::connect(&self.coordinators, options()).await {
                Ok(connected) => client.insert(connected),
                Err(error) => return Ok(Err(error)),
            },
        };
        // Asked through the inbox: the answer comes after every command of the session before has been taken.
        let (answer, introduction) = oneshot::channel();
        self.inbox.send(Input::Joining(answer)).await.map_err(|_| Gone)?;
        let Introduction { held, reports } = introduction.await.map_err(|_| Gone)?;
        let registration = Registration { held, reports, ..self.introduction.clone() };
        Ok(connected.join_within(deadline, registration).await)
    }

    /// Carries events and commands until the session is over, or given up.
    async fn converse(&self, session: Session) -> Result<End, Gone> {
        let Session { registered, events, mut commands } = session;
        tracing::info!(worker = %self.introduction.worker, epoch = %registered.epoch, "joined");
        let (sender, mut outgoing) = mpsc::channel(EVENTS);
        self.inbox.send(Input::Joined(registered, sender)).await.map_err(|_| Gone)?;
        let over = loop {
            select! {
                command = commands.next() => match command {
                    Ok(command) => self.tell(Event::Command(command)).await?,
                    Err(error) => break error,
                },
                event = outgoing.recv() => match event {
                    Some(event) => if let Err(error) = events.send(event).await {
                        break error;
                    },
                    None if self.leaving.is_cancelled() => {
                        // What was sent before is still delivered; then the coordinator ends its half.
                        drop(events);
                        let end = async { while commands.next().await.is_ok() {} };
                        let _ = timeout(GOODBYE, end).await;
                        return self.tell(Event::Parted).await.map(|()| End::Over);
                    }
                    None => {
                        return self.tell(Event::Parted).await.map(|()| End::GivenUp(Box::new((events, commands))));
                    }
                },
            }
        };
        self.tell(Event::Parted).await?;
        tracing::warn!("the session is over: {over}");
        Ok(End::Over)
    }

    async fn tell(&self, event: Event) -> Result<(), Gone> {
        self.inbox.send(Input::Event(event)).await.map_err(|_| Gone)
    }
}

fn options() -> Options {
    Options { connect_timeout: JOINING.1, call_timeout: JOINING.1, ..Options::default() }
}

/// Where the events of a session go.
pub(crate) type Outgoing = mpsc::Sender<WorkerEvent>;

/// How often the coordinator wants to hear from the worker.
pub(crate) fn heartbeat(registered: Registered) -> Duration {
    Duration::from_millis(u64::from(registered.heartbeat_ms.max(10)))
}
