//! `lethe-worker` as a process: signals, exit codes, probes, and that nothing outlives it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use lethe_proto::status::Refusal;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::Status;

use crate::DEADLINE;
use crate::coordinator::{Coordinator, End};
use crate::executor::{Program, all_gone, assignment, lease};

struct Worker {
    process: Child,
    log: Receiver<String>,
}

impl Worker {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_lethe-worker"))
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (sender, log) = sync_channel(1024);
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, log }
    }

    fn for_coordinator(coordinator: &Coordinator, program: &Program, more: &[&str]) -> Self {
        let (url, executor) = (coordinator.url(), program.path().display().to_string());
        let arguments = ["--coordinator", &url, "--devices", "cpu", "--executor", &executor];
        Self::start(&[&arguments, more].concat())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).unwrap();
    }

    /// The first line of its log with this text.
    fn says(&self, text: &str) -> String {
        loop {
            let line = self.log.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("never says {text}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Its exit code, and what it still had to say.
    fn ends(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        while let Ok(line) = self.log.recv_timeout(DEADLINE) {
            said += &line;
            said.push('\n');
        }
        (self.process.wait().unwrap().code(), said)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(connection, "GET {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn kill_nine_of_the_agent_ends_its_executors_within_two_seconds() {
    let program = Program::new();
    let ended = program.lifeline();
    let mut coordinator = Coordinator::start();
    let worker = Worker::for_coordinator(&coordinator, &program, &["--slots", "2"]);
    let mut member = coordinator.member(1).await;
    // One works and hears nothing; one is idle.
    member.start(1, 0, assignment("deaf", "")).await;
    member.begun().await;
    worker.signal(Signal::SIGKILL);
    ended.recv_timeout(Duration::from_secs(2)).unwrap();
}

#[tokio::test]
async fn a_signal_has_it_leave_in_good_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let program = Program::new();
        let ended = program.lifeline();
        let mut coordinator = Coordinator::start();
        let worker =
            Worker::for_coordinator(&coordinator, &program, &["--id", "node-7", "--drain-patience", "0s"]);
        let mut member = coordinator.member(1).await;
        assert_eq!(member.registration.worker.as_str(), "node-7");
        member.start(1, 0, assignment("hang", "")).await;
        member.begun().await;
        worker.signal(signal);
        assert_eq!(member.ended().await, End::Left);
        all_gone(ended).await;
        let (code, said) = worker.ends();
        assert_eq!(code, Some(0), "{said}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let program = Program::new();
    let ended = program.lifeline();
    let mut coordinator = Coordinator::start();
    let worker = Worker::for_coordinator(&coordinator, &program, &["--stop-patience", "1h"]);
    let mut member = coordinator.member(1).await;
    member.start(1, 0, assignment("deaf", "")).await;
    member.begun().await;
    worker.signal(Signal::SIGINT);
    worker.says("a second signal ends this at once");
    worker.signal(Signal::SIGINT);
    all_gone(ended).await;
    assert_eq!(worker.ends().0, Some(1));
}

#[tokio::test]
async fn a_signal_has_it_drain_which_its_probe_says() {
    let program = Program::new();
    let mut coordinator = Coordinator::start();
    let worker = Worker::for_coordinator(&coordinator, &program, &["--http", "127.0.0.1:0"]);
    let line = worker.says("/livez, /readyz and /metrics are at http://");
    let address = line.rsplit("http://").next().unwrap().to_owned();
    let mut member = coordinator.member(1).await;
    member.start(1, 0, assignment("hang", "")).await;
    member.begun().await;
    worker.signal(Signal::SIGTERM);
    member.draining().await;
    let answer = get(&address, "/readyz");
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.ends_with("draining: takes no more work\n"),
        "{answer}"
    );
    assert!(get(&address, "/livez").starts_with("HTTP/1.1 200"));
    assert!(get(&address, "/metrics").contains("\nlethe_worker_draining 1\n"));
    member.ask_to_yield(1, 0, lease("hang"), true).await;
    let (_, outcome) = member.finished().await;
    member.acknowledge(outcome.lease).await;
    assert_eq!(member.ended().await, End::Left);
    let (code, said) = worker.ends();
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn a_worker_that_makes_faults_says_so_and_may_be_refused_for_it() {
    let program = Program::new();
    let mut coordinator = Coordinator::start();
    let worker = Worker::for_coordinator(&coordinator, &program, &["--chaos", "kill=0.5"]);
    worker.says("this worker makes faults on purpose");
    let message = "this worker makes faults on purpose; allow it with --allow-chaos".to_owned();
    coordinator.knock().await.refuse(Refusal::Conflict { message }.into()).await;
    let (code, said) = worker.ends();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("--allow-chaos"), "{said}");
}

#[tokio::test]
async fn probes_and_metrics_tell_how_it_stands() {
    let program = Program::new();
    let mut coordinator = Coordinator::start();
    let worker = Worker::for_coordinator(&coordinator, &program, &["--http", "127.0.0.1:0"]);
    let line = worker.says("/livez, /readyz and /metrics are at http://");
    let address = line.rsplit("http://").next().unwrap().to_owned();
    assert!(get(&address, "/livez").starts_with("HTTP/1.1 200"));
    let member = coordinator.knock().await;
    let answer = get(&address, "/readyz");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not joined\n"), "{answer}");
    member.register(1).await;
    worker.says("joined");
    let metrics = get(&address, "/metrics");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("\nlethe_worker_slots{state=\"idle\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn exit_codes_tell_who_is_at_fault() {
    let program = Program::new();
    let executor = program.path().display().to_string();
    let nobody = "http://127.0.0.1:1";
    for (arguments, code, says) in [
        (vec!["--coordinator", nobody, "--executor", "/nowhere"], 2, "there is no such file"),
        (vec!["--coordinator", "https://x:1", "--executor", &executor, "--devices", "cpu"], 2, "https"),
        (vec!["--coordinator", nobody, "--devices", "gpu"], 2, "expected auto, cpu, cuda"),
        (vec!["--coordinator", nobody, "--id", "Not An Id"], 2, "is not valid"),
        (vec!["--coordinator", nobody, "--chaos", "kill=2"], 2, "kill=2: expected a probability"),
        (vec!["--executor", &executor], 2, "--coordinator <URL>"),
    ] {
        let (found, said) = Worker::start(&arguments).ends();
        assert_eq!(found, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    let mut coordinator = Coordinator::start();
    let broken = Program::script("exit 9");
    let (code, said) = Worker::for_coordinator(&coordinator, &broken, &[]).ends();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("exit status 9"), "{said}");
    let worker = Worker::for_coordinator(&coordinator, &program, &[]);
    coordinator.knock().await.refuse(Status::unimplemented("no")).await;
    assert_eq!(worker.ends().0, Some(3));
}
