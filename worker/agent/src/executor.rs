//! One executor process, from its start to its death: frames in and out, its log, its end.
//!
//! A slot has one after another; each is attended by its own task, which ends by reporting the death. So nothing of one
//! incarnation is ever heard after its death. Not here: what to tell it and when to kill it (`machine`).

use std::io;
use std::os::unix::net::UnixStream as Socket;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use lethe_domain::SlotIndex;
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};
use lethe_proto::frame::AgentCodec;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::Child;
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::{FramedRead, FramedWrite};
use tokio_util::sync::CancellationToken;

use crate::agent::Input;
use crate::death::Death;
use crate::log;
use crate::machine::Event;
use crate::spawner::{Launch, Spawner, Started};

/// Commands that may wait for an executor to read them.
const COMMANDS: usize = 8;
/// An executor that closed its socket is of no use: it has this long to say why by its exit status.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the driver holds of a running executor.
#[derive(Debug)]
pub(crate) struct Handle {
    commands: mpsc::Sender<ExecutorCommand>,
    signals: mpsc::Sender<Signal>,
    kill: CancellationToken,
}

/// What attends one executor. [`Attendant::attend`] is its whole life.
#[derive(Debug)]
pub(crate) struct Attendant {
    slot: SlotIndex,
    device: String,
    log: Option<PathBuf>,
    commands: mpsc::Receiver<ExecutorCommand>,
    signals: mpsc::Receiver<Signal>,
    kill: CancellationToken,
    inbox: mpsc::Sender<Input>,
}

impl Handle {
    /// A handle, and the attendant that belongs to it.
    pub(crate) fn new(
        slot: SlotIndex,
        device: String,
        log: Option<PathBuf>,
        inbox: mpsc::Sender<Input>,
    ) -> (Self, Attendant) {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (signal_sender, signals) = mpsc::channel(COMMANDS);
        let kill = CancellationToken::new();
        let attendant = Attendant { slot, device, log, commands, signals, kill: kill.clone(), inbox };
        (Self { commands: sender, signals: signal_sender, kill }, attendant)
    }

    /// Tells it something. One that does not read what it is told is killed.
    pub(crate) fn tell(&self, command: ExecutorCommand) {
        if self.commands.try_send(command).is_err() {
            self.kill();
        }
    }

    /// Sends it a signal. More of them than it can be sent at once are lost.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = self.signals.try_send(signal);
    }

    /// kill -9.
    pub(crate) fn kill(&self) {
        self.kill.cancel();
    }
}

impl Attendant {
    /// Starts the process, passes on what it says, and reports its death once it has been waited for.
    pub(crate) async fn attend(self, spawner: Spawner, launch: Launch) {
        let (slot, inbox) = (self.slot, self.inbox.clone());
        let death = match spawner.start(launch).await {
            Ok(Started { mut child, socket, stderr }) => match self.live(&mut child, socket, stderr).await {
                Ok(death) => death,
                Err(error) => {
                    // Whatever went wrong: the slot is free only when the process is gone.
                    let _ = child.kill().await;
                    Death::before_birth(&error)
                }
            },
            Err(error) => Death::before_birth(&error),
        };
        // Without a driver nobody wants to know.
        let _ = inbox.send(Input::Event(Event::Died(slot, death))).await;
    }

    async fn live(mut self, child: &mut Child, socket: Socket, stderr: io::PipeReader) -> io::Result<Death> {
        let number = child.id().ok_or_else(|| io::Error::other("it has ended already"))?;
        let pid = Pid::from_raw(number.cast_signed());
        tracing::debug!(slot = %self.slot, device = self.device, %pid, "started an executor");
        let headline = format!("== executor of slot {} ({}) started, process {pid}", self.slot, self.device);
        let last_lines = log::capture(self.slot.0, headline, stderr, self.log.clone())?;
        socket.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(socket)?.into_split();
        let mut events = FramedRead::new(read, AgentCodec::default());
        let mut writer = pin!(write_commands(write, self.commands));
        let mut silence = pin!(sleep(Duration::MAX));
        let (mut writing, mut listening, mut killed, mut complaint) = (true, true, false, None);
        let status = loop {
            select! {
                status = child.wait() => break status?,
                () = self.kill.cancelled(), if !killed => {
                    killed = true;
                    child.start_kill()?;
                }
                // The process has not been waited for, so its id is still its own.
                Some(signal) = self.signals.recv() => {
                    let _ = signal::kill(pid, signal);
                }
                () = &mut writer, if writing => writing = false,
                event = events.next(), if listening => match event {
                    Some(Ok(event)) => report(&self.inbox, self.slot, event).await,
                    Some(Err(error)) => {
                        listening = false;
                        complaint = Some(format!("for what it said: {error}"));
                        self.kill.cancel();
                    }
                    None => {
                        listening = false;
                        silence.as_mut().reset(Instant::now() + LAST_WORDS);
                    }
                },
                () = &mut silence, if !self.kill.is_cancelled() => {
                    complaint = Some("because it closed its socket and did not end".to_owned());
                    self.kill.cancel();
                }
            }
        };
        // What it wrote just before it ended is still in the socket.
        while listening && let Ok(Some(Ok(event))) = timeout(LAST_WORDS, events.next()).await {
            report(&self.inbox, self.slot, event).await;
        }
        let lines = timeout(LAST_WORDS, last_lines).await.ok().and_then(Result::ok).unwrap_or_default();
        let place = self.log.map_or_else(|| "the worker's log".to_owned(), |path| path.display().to_string());
        let mut death = Death::of(status, lines, &place);
        if let Some(complaint) = complaint {
            death.how = format!("it was killed {complaint}");
        }
        Ok(death)
    }
}

/// Ends when there are no more commands, or the executor does not take them any more.
async fn write_commands(write: OwnedWriteHalf, mut commands: mpsc::Receiver<ExecutorCommand>) {
    let mut frames = FramedWrite::new(write, AgentCodec::default());
    while let Some(command) = commands.recv().await {
        if frames.send(command).await.is_err() {
            return;
        }
    }
}

async fn report(inbox: &mpsc::Sender<Input>, slot: SlotIndex, event: ExecutorEvent) {
    if let ExecutorEvent::Ready { device, torch, .. } = &event {
        tracing::info!(%slot, device, torch, "an executor is ready");
    }
    // Without a driver nobody wants to know.
    let _ = inbox.send(Input::Event(Event::Executor(slot, event))).await;
}
