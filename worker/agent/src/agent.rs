//! The driver: it takes what happens, lets the machine decide, and does what the machine wants done.
//!
//! One task owns the machine. It never waits for a coordinator or an executor: those have tasks of their own, which talk
//! to it through one bounded inbox. Not here: decisions (`machine`).

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fs, mem};

use lethe_domain::SlotIndex;
use lethe_proto::session::Registered;
use tokio::select;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::chaos::Trouble;
use crate::death::Death;
use crate::executor::Handle;
use crate::link::{Link, Outgoing, heartbeat};
use crate::machine::{Effect, Event, Introduction, Machine, Now};
use crate::spawner::{Launch, Spawner};
use crate::{AgentConfig, Chaos, Error, Result, Status, log};

/// Events that may wait for the driver.
const INBOX: usize = 256;
/// For the link to end the session when everything else has ended.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the other tasks say to the driver.
#[derive(Debug)]
pub(crate) enum Input {
    /// For the machine.
    Event(Event),
    /// The link is about to join: what is there to say?
    Joining(oneshot::Sender<Introduction>),
    /// It has joined, and takes events here until they are closed.
    Joined(Registered, Outgoing),
    /// It was refused at the first try.
    Refused(lethe_client::Error),
}

/// A worker's agent.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    status: watch::Sender<Status>,
}

impl Agent {
    /// An agent that has not begun.
    ///
    /// # Errors
    /// [`Error::Logs`] when the folder for logs cannot be made.
    pub fn new(config: AgentConfig) -> Result<Self> {
        if let Some(folder) = &config.logs {
            fs::create_dir_all(folder).map_err(|source| Error::Logs { path: folder.clone(), source })?;
        }
        Ok(Self { config, status: watch::Sender::new(Status::default()) })
    }

    /// The agent as it stands, from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Is a worker until `shutdown` is ready; then takes no more work, lets what runs end or be taken back for as long as
    /// `Patience::drain`, stops what still runs, ends every executor, and leaves.
    ///
    /// Executors start at once; a coordinator is looked for when all of them are ready, and again whenever it is lost,
    /// for ever: work goes on meanwhile. When this future ends, or is dropped, no executor is left.
    ///
    /// # Errors
    /// [`Error::ExecutorDoesNotStart`] when a slot never had a working executor; [`Error::Refused`] when the first
    /// coordinator that answers does not take this worker, or an address is none.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let mut driver = Driver::new(self)?;
        let outcome = driver.drive(shutdown).await;
        driver.say_goodbye().await;
        outcome
    }
}

struct Driver {
    config: AgentConfig,
    machine: Machine,
    status: watch::Sender<Status>,
    /// The receiver of what the tasks say, and the sender that each of them gets.
    inbox: mpsc::Receiver<Input>,
    sender: mpsc::Sender<Input>,
    spawner: Spawner,
    /// A handle per slot, while there is an executor.
    executors: Vec<Option<Handle>>,
    /// The open session. Closing it has the link begin another, unless the agent leaves.
    outgoing: Option<Outgoing>,
    leaving: CancellationToken,
    /// Makes faults on purpose.
    trouble: Option<Trouble>,
    /// The link and the executors' attendants. Dropping it ends them, and each kills its executor.
    tasks: JoinSet<()>,
    /// Why the agent leaves without having been asked to.
    failure: Option<Error>,
    ended: bool,
}

impl Driver {
    fn new(agent: Agent) -> Result<Self> {
        let Agent { config, status } = agent;
        let (sender, inbox) = mpsc::channel(INBOX);
        Ok(Self {
            machine: Machine::new(Instant::now(), &config.devices, config.patience.clone()),
            status,
            inbox,
            sender,
            spawner: Spawner::new()?,
            executors: config.devices.iter().map(|_| None).collect(),
            outgoing: None,
            leaving: CancellationToken::new(),
            trouble: config.chaos.clone().map(|chaos| Trouble::new(chaos, &config.id, Instant::now())),
            tasks: JoinSet::new(),
            failure: None,
            ended: false,
            config,
        })
    }

    async fn drive(&mut self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let mut shutdown = pin!(shutdown);
        let mut asked = false;
        while !self.ended {
            let trouble = self.trouble.as_ref().map(Trouble::next_deadline);
            let deadline = self.machine.next_deadline().into_iter().chain(trouble).min();
            let time = async {
                match deadline {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            select! {
                // Time first: no flood of messages holds up a heartbeat.
                biased;
                () = &mut shutdown, if !asked => {
                    asked = true;
                    self.step(Event::Drain);
                }
                () = time => {
                    self.make_trouble();
                    self.step(Event::Tick);
                }
                input = self.inbox.recv() => if let Some(input) = input {
                    self.take(input);
                },
                // Attendants say themselves how it ended; this only forgets them.
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
            }
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                if let Event::Died(slot, _) = &event
                    && let Some(executor) = self.executors.get_mut(slot.0 as usize)
                {
                    *executor = None;
                    if let Some(trouble) = &mut self.trouble {
                        trouble.gone(*slot);
                    }
                }
                if matches!(event, Event::Parted) {
                    self.outgoing = None;
                }
                self.step(event);
            }
            Input::Joining(answer) => {
                // The link has ended when nobody waits for the answer.
                let _ = answer.send(self.machine.introduce());
            }
            Input::Joined(registered, outgoing) => {
                self.outgoing = Some(outgoing);
                self.step(Event::Joined { epoch: registered.epoch, heartbeat: heartbeat(registered) });
            }
            Input::Refused(error) => {
                self.failure.get_or_insert(Error::Refused(error));
                self.step(Event::Leave);
            }
        }
    }

    fn step(&mut self, event: Event) {
        for effect in self.machine.step(now(), event) {
            self.act(effect);
        }
        let faults = self.trouble.as_ref().map(|trouble| trouble.faults.clone()).unwrap_or_default();
        let status = Status { faults, ..self.machine.status() };
        self.status.send_if_modified(|seen| mem::replace(seen, status.clone()) != status);
    }

    fn make_trouble(&mut self) {
        let slots = self.machine.status().slots;
        if let Some(trouble) = &mut self.trouble {
            trouble.make(Instant::now(), &slots, &self.executors, &mut self.outgoing);
        }
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Join => {
                let link = Link::new(&self.config, self.sender.clone(), self.leaving.clone());
                self.tasks.spawn(link.keep());
            }
            Effect::Send(event) => {
                // A coordinator that lets this many pile up is as good as gone; the next session says it again.
                if self.outgoing.as_ref().is_some_and(|outgoing| outgoing.try_send(event).is_err()) {
                    self.outgoing = None;
                }
            }
            Effect::Rejoin => self.outgoing = None,
            Effect::Start(slot) => self.start(slot),
            Effect::Tell(slot, command) => {
                if let Some(executor) = self.executor(slot) {
                    executor.tell(command);
                }
            }
            Effect::Kill(slot) => {
                if let Some(executor) = self.executor(slot) {
                    executor.kill();
                }
            }
            Effect::GiveUp(slot, death) => {
                let error = self.does_not_start(slot, &death);
                self.failure.get_or_insert(error);
            }
            Effect::End => self.ended = true,
        }
    }

    fn start(&mut self, slot: SlotIndex) {
        let device = self.device(slot);
        let faults = self.config.chaos.as_ref().map(Chaos::of_executors).unwrap_or_default();
        let launch = Launch {
            program: self.config.executor.clone(),
            arguments: [
                "--slot",
                &slot.to_string(),
                "--device",
                &device,
                "--threads",
                &self.config.threads.to_string(),
            ]
            .into_iter()
            .chain(self.config.coordinators.iter().flat_map(|url| ["--coordinator", host_and_port(url)]))
            .chain(faults.iter().flat_map(|fault| ["--chaos", fault]))
            .map(Into::into)
            .collect(),
        };
        let log = self.config.logs.as_ref().map(|folder| log::path(folder, slot.0));
        let (handle, attendant) = Handle::new(slot, device, log, self.sender.clone());
        self.tasks.spawn(attendant.attend(self.spawner.clone(), launch));
        if let Some(place) = self.executors.get_mut(slot.0 as usize) {
            *place = Some(handle);
        }
    }

    fn executor(&self, slot: SlotIndex) -> Option<&Handle> {
        self.executors.get(slot.0 as usize).and_then(Option::as_ref)
    }

    fn device(&self, slot: SlotIndex) -> String {
        self.config.devices.get(slot.0 as usize).cloned().unwrap_or_default()
    }

    fn does_not_start(&self, slot: SlotIndex, death: &Death) -> Error {
        Error::ExecutorDoesNotStart {
            slot: slot.0,
            device: self.device(slot),
            cause: death.account(),
            hint: death.hint.clone(),
        }
    }

    /// Ends the session so that the coordinator hears that this worker has left, and not that it is lost.
    async fn say_goodbye(&mut self) {
        self.leaving.cancel();
        if self.outgoing.take().is_none() {
            return;
        }
        let parted = async {
            while let Some(input) = self.inbox.recv().await {
                if matches!(input, Input::Event(Event::Parted)) {
                    return;
                }
            }
        };
        let _ = timeout(GOODBYE, parted).await;
    }
}

/// `host:port` of a coordinator's address.
fn host_and_port(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/')
}

fn now() -> Now {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { at: Instant::now(), unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX) }
}
