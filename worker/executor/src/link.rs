//! The link to the agent: frames over the socket that is standard input.
//!
//! A thread of its own reads, so that a stop is heard while a collective blocks, and the agent's end ends this process
//! whatever it is doing. Not here: the work.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use lethe_collective::Abort;
use lethe_domain::{Assignment, Failure, LeaseId};
use lethe_proto::LeaseOutcome;
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};
use lethe_proto::frame::{read_frame, write_frame};

use crate::error::{Error, Result};

/// For what was said last to be written, before a lease or the process ends.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(100);

/// Whether a lease's work should end, and the means to end a collective it waits in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    stopped: Arc<(Mutex<bool>, Condvar)>,
    abort: Abort,
}

impl Stop {
    /// # Errors
    /// [`Error::Stopped`] once the lease was taken back.
    pub(crate) fn check(&self) -> Result<()> {
        self.wait(Duration::ZERO)
    }

    /// Waits this long, or until the lease is taken back.
    ///
    /// # Errors
    /// [`Error::Stopped`], at once.
    pub(crate) fn wait(&self, time: Duration) -> Result<()> {
        let (stopped, bell) = &*self.stopped;
        let stopped = stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let stopped = match time {
            Duration::ZERO => stopped,
            _ => {
                bell.wait_timeout_while(stopped, time, |stopped| !*stopped)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        if *stopped { Err(Error::Stopped) } else { Ok(()) }
    }

    /// What a group has to be joined with, for a stop to end its collectives.
    pub(crate) fn abort(&self) -> Abort {
        self.abort.clone()
    }

    fn request(&self) {
        let (stopped, bell) = &*self.stopped;
        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        bell.notify_all();
        let abort = self.abort.clone();
        // NCCL has been seen to hang in its own abort; this thread must go on to hear the agent's end.
        thread::spawn(move || abort.abort());
    }
}

/// What somebody wants at the next step boundary, besides that training goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// That the gang ends there.
    pub(crate) yields: bool,
    /// And that rank 0 writes a checkpoint first.
    pub(crate) save: bool,
}

/// Whether a lease's gang should yield, as said so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Yielding(Arc<AtomicU8>);

impl Yielding {
    const YIELD: u8 = 1;
    const SAVE: u8 = 2;

    pub(crate) fn wishes(&self) -> Wishes {
        let said = self.0.load(Ordering::Relaxed);
        Wishes { yields: said & Self::YIELD != 0, save: said & Self::SAVE != 0 }
    }

    fn request(&self, save: bool) {
        self.0.fetch_or(Self::YIELD | if save { Self::SAVE } else { 0 }, Ordering::Relaxed);
    }
}

/// A lease to work on, and what is said about it afterwards.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) assignment: Box<Assignment>,
    pub(crate) stop: Stop,
    pub(crate) yielding: Yielding,
}

/// The way to tell the agent something.
#[derive(Debug, Clone)]
pub(crate) struct Events(Arc<Mutex<UnixStream>>);

impl Events {
    /// Sends one event. Without an agent there is no reason to go on: the process ends.
    pub(crate) fn send(&self, event: ExecutorEvent) {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = write_frame(&mut *socket, event) {
            tracing::error!("cannot tell the agent: {error}");
            end(1);
        }
    }
}

/// Takes over standard input and starts listening. One order may wait while another is worked on.
///
/// # Errors
/// [`Error::NoAgent`] when standard input is not a socket with somebody at the other end.
pub(crate) fn connect() -> Result<(Events, Receiver<Order>)> {
    let descriptor = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| Error::System { what: "standard input cannot be used", source })?;
    let socket = UnixStream::from(descriptor);
    if socket.peer_addr().is_err() {
        return Err(Error::NoAgent);
    }
    let reading =
        socket.try_clone().map_err(|source| Error::System { what: "the socket cannot be used", source })?;
    let events = Events(Arc::new(Mutex::new(socket)));
    let (sender, orders) = sync_channel(1);
    let answers = events.clone();
    thread::Builder::new()
        .name("commands".to_owned())
        .spawn(move || listen(reading, &sender, &answers))
        .map_err(|source| Error::System { what: "a thread cannot be started", source })?;
    Ok((events, orders))
}

fn listen(mut socket: impl Read, orders: &SyncSender<Order>, answers: &Events) {
    // The lease at work and the one that waits; older ones are done.
    let mut accepted: VecDeque<(LeaseId, Stop, Yielding)> = VecDeque::new();
    loop {
        match read_frame(&mut socket) {
            Ok(Some(ExecutorCommand::Start(assignment))) => {
                let (lease, stop, yielding) =
                    (assignment.lease.clone(), Stop::default(), Yielding::default());
                match orders.try_send(Order { assignment, stop: stop.clone(), yielding: yielding.clone() }) {
                    Ok(()) => {
                        accepted.truncate(1);
                        accepted.push_front((lease, stop, yielding));
                    }
                    Err(TrySendError::Full(_)) => answers.send(busy(lease)),
                    Err(TrySendError::Disconnected(_)) => end(1),
                }
            }
            Ok(Some(ExecutorCommand::Stop(lease))) => {
                accepted.iter().filter(|known| known.0 == lease).for_each(|(_, stop, _)| stop.request());
            }
            Ok(Some(ExecutorCommand::Yield { lease, save })) => {
                accepted.iter().filter(|known| known.0 == lease).for_each(|(_, _, own)| own.request(save));
            }
            Ok(None) => end(0),
            Err(error) => {
                tracing::error!("cannot hear the agent: {error}");
                end(1);
            }
        }
    }
}

fn busy(lease: LeaseId) -> ExecutorEvent {
    let reason = "this slot works on one lease and has another waiting";
    let failure = Failure::from(Error::internal(reason));
    ExecutorEvent::Finished(Box::new(LeaseOutcome { lease, outcome: Err(failure) }))
}

/// Ends the process now, whatever its other threads do: exit handlers of libtorch would wait for them.
pub(crate) fn end(code: i32) -> ! {
    lethe_process::flush(LAST_WORDS);
    // SAFETY: _exit has no preconditions. What it leaves undone is not needed: artifacts are whole or absent at any moment.
    unsafe { libc::_exit(code) }
}
