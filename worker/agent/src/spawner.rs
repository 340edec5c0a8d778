//! Starting executors, from one thread that lives as long as the agent.
//!
//! `PR_SET_PDEATHSIG` has the kernel kill a child when *the thread that forked it* ends, not when its process does. So a
//! child forked from a pool of threads dies with any of them. Here all are forked from one thread that ends only with the
//! agent: kill -9 of the agent ends that thread, and the kernel ends the executors. (They also see the end of their stdin.)

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::{Error, Result};

/// How much likelier than the agent the kernel's out-of-memory killer finds an executor, of 1000.
const OOM_SCORE: &str = "500";

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

/// A process that runs. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) child: Child,
    /// The agent's end of the socket pair whose other end is the child's stdin.
    pub(crate) socket: UnixStream,
    pub(crate) stderr: io::PipeReader,
}

/// The thread. It ends when every clone of this is gone, and its children with it.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    requests: mpsc::Sender<Request>,
}

struct Request {
    launch: Launch,
    answer: oneshot::Sender<io::Result<Started>>,
}

impl Spawner {
    /// Starts the thread. Must be called within a tokio runtime, which will wait for the children.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub(crate) fn new() -> Result<Self> {
        let (requests, mut receiver) = mpsc::channel::<Request>(16);
        let runtime = Handle::current();
        let serve = move || {
            while let Some(Request { launch, answer }) = receiver.blocking_recv() {
                let _inside = runtime.enter();
                // Nobody waits for it any more: the process ends with what is dropped here.
                let _ = answer.send(spawn(&launch));
            }
        };
        thread::Builder::new().name("spawner".to_owned()).spawn(serve).map_err(Error::Thread)?;
        Ok(Self { requests })
    }

    /// Starts a process.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn start(&self, launch: Launch) -> io::Result<Started> {
        let (answer, started) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts executors is gone");
        self.requests.send(Request { launch, answer }).await.map_err(|_| gone())?;
        started.await.map_err(|_| gone())?
    }
}

fn spawn(launch: &Launch) -> io::Result<Started> {
    // All of these are closed on exec: no executor holds another one's socket open.
    let (socket, theirs) = UnixStream::pair()?;
    let (stderr, stderr_writer) = io::pipe()?;
    let agent = getpid();
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        // Not closed but thrown away: whatever opens a file next would get descriptor 1, and prints would end up in it.
        .stdout(Stdio::null())
        .stderr(stderr_writer)
        // Ctrl-C on a terminal goes to the foreground group: it is for the agent, which ends its executors in order.
        .process_group(0)
        .kill_on_drop(true);
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed: it makes two system
    // calls and touches no lock and no heap (an error from errno does not allocate).
    unsafe {
        command.pre_exec(move || die_with(agent));
    }
    let child = command.spawn()?;
    if let Some(pid) = child.id() {
        // When memory runs out an executor is to go, not the agent. Where this is not allowed, the kernel chooses.
        let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE);
    }
    Ok(Started { child, socket, stderr })
}

/// Has the kernel kill this process when the agent ends.
fn die_with(agent: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // It may have ended before the line above.
    if getppid() == agent { Ok(()) } else { Err(io::Error::from_raw_os_error(nix::libc::ESRCH)) }
}
