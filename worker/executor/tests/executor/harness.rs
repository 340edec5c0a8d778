//! An executor process and the agent's end of its socket.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use lethe_domain::{Assignment, Failure, LeaseId, Progress, TaskOutput};
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};
use lethe_proto::frame::{read_frame, write_frame};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// No task of these tests takes longer on a busy machine with two cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// A running executor; killed when this goes out of scope.
pub(crate) struct Executor {
    process: Child,
    socket: Option<UnixStream>,
    events: Receiver<ExecutorEvent>,
    /// Progress seen so far.
    pub(crate) progress: Vec<Progress>,
    folder: TempDir,
}

impl Executor {
    /// Starts one with a thread, and waits until it is ready.
    pub(crate) fn start() -> Self {
        Self::with(&["--threads", "1"])
    }

    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self::spawn(arguments).ready()
    }

    /// One started by a shell after a command, such as a limit.
    pub(crate) fn behind(command: &str) -> Self {
        let script = format!("{command} && exec {} --threads 1", env!("CARGO_BIN_EXE_lethe-executor"));
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]);
        Self::launch(shell).ready()
    }

    fn ready(mut self) -> Self {
        match self.event() {
            ExecutorEvent::Ready { device, torch, canary } => {
                lethe_domain::canary::check(&canary).unwrap();
                assert_eq!(device, "cpu");
                assert!(torch.starts_with("2."), "{torch}");
            }
            other => panic!("expected Ready first, found {other:?}"),
        }
        self
    }

    /// Starts one and waits for nothing.
    pub(crate) fn spawn(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lethe-executor"));
        command.args(arguments);
        Self::launch(command)
    }

    fn launch(mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let process = command.stdin(OwnedFd::from(theirs)).stderr(log).spawn().expect("the executor starts");
        // The command holds the other end too: the end of file must be the executor's doing.
        drop(command);
        let (sender, events) = sync_channel(1 << 12);
        let mut reading = ours.try_clone().unwrap();
        thread::spawn(move || {
            while let Ok(Some(event)) = read_frame::<ExecutorEvent>(&mut reading) {
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self { process, socket: Some(ours), events, progress: Vec::new(), folder }
    }

    /// A file of the process's own folder in /proc.
    pub(crate) fn proc(&self, file: &str) -> String {
        let bytes = fs::read(format!("/proc/{}/{file}", self.process.id())).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything it said on standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn send(&mut self, command: ExecutorCommand) {
        let socket = self.socket.as_mut().expect("not hung up");
        write_frame(socket, command).expect("the executor listens");
    }

    /// Sends bytes that are no frame.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.as_mut().expect("not hung up").write_all(bytes).unwrap();
    }

    pub(crate) fn begin(&mut self, assignment: &Assignment) {
        self.send(ExecutorCommand::Start(Box::new(assignment.clone())));
    }

    pub(crate) fn stop(&mut self, lease: &LeaseId) {
        self.send(ExecutorCommand::Stop(lease.clone()));
    }

    /// Asks for the end of the gang at a step boundary.
    pub(crate) fn ask_to_yield(&mut self, lease: &LeaseId, save: bool) {
        self.send(ExecutorCommand::Yield { lease: lease.clone(), save });
    }

    /// SIGSTOP: the process says nothing more, and keeps its connections.
    pub(crate) fn freeze(&self) {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGSTOP).unwrap();
    }

    /// The next event.
    pub(crate) fn event(&mut self) -> ExecutorEvent {
        match self.events.recv_timeout(DEADLINE) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => panic!("no event in time; the log:\n{}", self.log()),
            Err(RecvTimeoutError::Disconnected) => panic!("the executor is gone; the log:\n{}", self.log()),
        }
    }

    /// The next event that is not progress, which is kept.
    pub(crate) fn news(&mut self) -> ExecutorEvent {
        loop {
            match self.event() {
                ExecutorEvent::Progress(progress) => self.progress.push(progress),
                other => return other,
            }
        }
    }

    /// Waits for progress of at least `done` units.
    pub(crate) fn wait_for_progress(&mut self, done: u64) {
        loop {
            match self.event() {
                ExecutorEvent::Progress(progress) => {
                    let far = progress.done >= done;
                    self.progress.push(progress);
                    if far {
                        return;
                    }
                }
                other => panic!("expected progress, found {other:?}; the log:\n{}", self.log()),
            }
        }
    }

    /// Waits until this lease ends.
    pub(crate) fn end(&mut self, lease: &LeaseId) -> Result<TaskOutput, Failure> {
        match self.news() {
            ExecutorEvent::Finished(finished) => {
                assert_eq!(finished.lease, *lease);
                finished.outcome
            }
            other => panic!("expected an outcome, found {other:?}"),
        }
    }

    /// Waits for the place where a gang meets.
    pub(crate) fn store_open(&mut self, lease: &LeaseId) -> String {
        match self.news() {
            ExecutorEvent::StoreOpen { lease: of, address } => {
                assert_eq!(of, *lease);
                address
            }
            other => panic!("expected the store's address, found {other:?}; the log:\n{}", self.log()),
        }
    }

    pub(crate) fn try_run(&mut self, assignment: &Assignment) -> Result<TaskOutput, Failure> {
        self.begin(assignment);
        self.end(&assignment.lease)
    }

    pub(crate) fn run(&mut self, assignment: &Assignment) -> TaskOutput {
        self.try_run(assignment)
            .unwrap_or_else(|failure| panic!("{failure} ({}); the log:\n{}", failure.hint, self.log()))
    }

    /// Closes the agent's end.
    pub(crate) fn hang_up(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.shutdown(std::net::Shutdown::Both).unwrap();
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// Waits until the process is gone, and says how long it took. Its end of the socket closing is the event.
    pub(crate) fn wait_for_end(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        loop {
            match self.events.recv_timeout(DEADLINE.saturating_sub(begun.elapsed())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; the log:\n{}", self.log()),
            }
        }
        // Our own reading thread ends at a shutdown too, so the process itself is waited for.
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < DEADLINE, "it does not end; the log:\n{}", self.log());
            thread::yield_now();
        };
        (status, begun.elapsed())
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
