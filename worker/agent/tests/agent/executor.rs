//! Executors whose behaviour is named by the job of the lease they get.
//!
//! The program is a script that becomes this test program, told to run [`process`]. It says that a lease has begun by
//! `StoreOpen`, with its process id as the address: an event to wait for, and somebody to kill.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::{env, thread};

use lethe_domain::{
    Assignment, Attempt, ErrorCode, Failure, Inputs, JobId, JobSpec, LeaseId, Phase, Progress, ShardIndex,
    Task, TaskOutput,
};
use lethe_proto::LeaseOutcome;
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};
use lethe_proto::frame::{read_frame, write_frame};
use nix::sys::signal::kill;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tempfile::TempDir;

/// What its canary gives.
pub(crate) const CANARY: [f32; 2] = [0.25, -0.5];

/// An executor program in a folder of its own.
pub(crate) struct Program {
    folder: TempDir,
}

impl Program {
    /// One that behaves.
    pub(crate) fn new() -> Self {
        let test = env::current_exe().unwrap();
        Self::script(&format!(
            "ARGUMENTS=\"$*\" exec {} executor::process --exact --ignored --nocapture",
            test.display()
        ))
    }

    /// Any shell script.
    pub(crate) fn script(body: &str) -> Self {
        let program = Self { folder: tempfile::tempdir().unwrap() };
        program.write(body);
        program
    }

    fn write(&self, body: &str) {
        fs::write(self.path(), format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("executor")
    }

    /// A pipe with a name in the folder.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        path
    }

    /// From now on every process started from this program holds a pipe open; the receiver hears when the last of them
    /// has ended.
    pub(crate) fn lifeline(&self) -> Receiver<()> {
        let path = self.fifo("lifeline");
        let script = fs::read_to_string(self.path()).unwrap();
        let body = script.lines().skip(1).collect::<Vec<_>>().join("\n");
        self.write(&format!("exec 9>{}\n{body}", path.display()));
        let (sender, ended) = sync_channel(1);
        thread::spawn(move || {
            let mut all_held = File::open(path).unwrap();
            let _ = all_held.read_to_end(&mut Vec::new());
            let _ = sender.send(());
        });
        ended
    }
}

/// Lets a lease named `wait` end.
pub(crate) async fn release(fifo: &Path) {
    let fifo = fifo.to_owned();
    // Blocks until the executor reads.
    let open = tokio::task::spawn_blocking(move || OpenOptions::new().write(true).open(fifo).unwrap());
    crate::soon("the executor to wait", open).await.unwrap();
}

/// Waits until every process that held the lifeline has ended.
pub(crate) async fn all_gone(lifeline: Receiver<()>) {
    let gone = tokio::task::spawn_blocking(move || lifeline.recv_timeout(crate::DEADLINE));
    gone.await.unwrap().expect("a process is still there");
}

/// Whether there is such a process, dead and not waited for included.
pub(crate) fn exists(pid: &str) -> bool {
    kill(Pid::from_raw(pid.parse().unwrap()), None).is_ok()
}

/// A lease of a job of this name.
pub(crate) fn lease(job: &str) -> LeaseId {
    LeaseId {
        job: JobId::new(job).unwrap(),
        phase: Phase::FineTune,
        shard: ShardIndex(0),
        attempt: Attempt(1),
    }
}

/// An assignment that behaves as it is named. What `wait` waits for is the pipe at `artifacts`.
pub(crate) fn assignment(job: &str, artifacts: &str) -> Assignment {
    let spec = JobSpec::parse(
        "{name: model, generator: {uri: /m/g.safetensors, format: safetensors, latent: {dimension: 20},
          output: {range: [0, 1], channels: 1, size: 28}},
          feature: {name: thick, scorer: {uri: /m/s.pt, positive: {top: 0.1}}}}",
    );
    Assignment {
        lease: lease(job),
        spec: spec.unwrap(),
        inputs: Inputs::default(),
        artifacts: artifacts.to_owned(),
        task: Task::Probe,
    }
}

/// The executor.
#[test]
#[ignore = "the process that the agent starts"]
fn process() {
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    say(&format!("started with {}", env::var("ARGUMENTS").unwrap()));
    let ready =
        ExecutorEvent::Ready { device: "cpu".to_owned(), torch: "none".to_owned(), canary: CANARY.to_vec() };
    write_frame(&mut socket, ready).unwrap();
    while let Some(command) = read_frame(&mut socket).unwrap() {
        match command {
            ExecutorCommand::Start(assignment) => behave(*assignment, &mut socket),
            ExecutorCommand::Stop(lease) => {
                let failure = Failure::new(ErrorCode::Cancelled, "as told", "");
                finish(&mut socket, lease, Err(failure));
            }
            ExecutorCommand::Yield { lease, save } => {
                let failure = Failure::new(ErrorCode::Yielded, format!("saved: {save}"), "");
                finish(&mut socket, lease, Err(failure));
            }
        }
    }
    std::process::exit(0);
}

fn behave(assignment: Assignment, socket: &mut UnixStream) {
    let Assignment { lease, artifacts, .. } = assignment;
    say(&format!("working on {lease}"));
    let progress =
        Progress { lease: lease.clone(), done: 3, total: 10, samples_per_second: 1.5, loss: Some(0.5) };
    write_frame(socket, ExecutorEvent::Progress(progress)).unwrap();
    let pid = std::process::id().to_string();
    write_frame(socket, ExecutorEvent::StoreOpen { lease: lease.clone(), address: pid }).unwrap();
    match lease.job.as_str() {
        "succeed" => finish(socket, lease, Ok(TaskOutput::FineTune(None))),
        // The loop above answers a stop, or the wish to yield.
        "hang" => {}
        // Hears nothing, not even the end of the agent.
        "deaf" => loop {
            thread::park();
        },
        "wait" => {
            File::open(artifacts).unwrap();
            finish(socket, lease, Ok(TaskOutput::FineTune(None)));
        }
        "crash" => {
            say("about to crash");
            std::process::abort();
        }
        // Its outcome and its end come at once.
        "finish-and-exit" => {
            finish(socket, lease, Ok(TaskOutput::FineTune(None)));
            std::process::exit(0);
        }
        "garble" => {
            socket.write_all(&u32::MAX.to_be_bytes()).unwrap();
            loop {
                thread::park();
            }
        }
        // Goes silent without ending.
        "hang-up" => {
            socket.shutdown(std::net::Shutdown::Both).unwrap();
            loop {
                thread::park();
            }
        }
        other => panic!("no behaviour is called {other}"),
    }
}

fn finish(socket: &mut UnixStream, lease: LeaseId, outcome: Result<TaskOutput, Failure>) {
    let outcome = Box::new(LeaseOutcome { lease, outcome });
    write_frame(socket, ExecutorEvent::Finished(outcome)).unwrap();
}

fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
