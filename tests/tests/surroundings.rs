//! What surrounds the programs: a log that nobody reads, variables that are there and empty, few file descriptors. Real
//! processes; none of this stops work.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lethe_tests::{Running, bin, free_addresses, thick_vae, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const DEADLINE: Duration = Duration::from_secs(120);

/// Where everything that is written is refused: a full disk.
fn full_disk() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A process whose stderr is something else than a pipe of the harness. Killed when dropped.
struct Process(Child);

impl Process {
    fn start(command: &mut Command, stderr: impl Into<Stdio>) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap())
    }

    fn terminate(&self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).unwrap();
    }

    fn ended(mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it goes on after {within:?}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(name: &str, arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(bin(name));
    command.args(arguments).current_dir(folder).env_remove("RUST_LOG");
    command
}

fn serve(address: &str, http: &str, folder: &Path) -> Command {
    command("lethe", &["serve", "--listen", address, "--http", http, "--data", "state"], folder)
}

fn worker(coordinator: &str, folder: &Path) -> Command {
    let url = format!("http://{coordinator}");
    command("lethe-worker", &["--coordinator", &url, "--devices", "cpu", "--threads", "1"], folder)
}

/// What `lethe` says, asked at this coordinator; none when it failed.
fn lethe(coordinator: &str, arguments: &[&str], folder: &Path) -> Option<String> {
    let url = format!("http://{coordinator}");
    let all = [arguments, &["--coordinator", &url]].concat();
    let ended = Running::start("lethe", &all, folder).finish();
    (ended.code() == 0).then_some(ended.stdout)
}

fn joined(coordinator: &str, folder: &Path) -> bool {
    lethe(coordinator, &["worker", "list"], folder).is_some_and(|table| table.contains(" ready "))
}

fn small(folder: &Path) {
    thick_vae(folder, |spec| spec["unlearn"]["steps"] = 4.into());
}

/// A pipe whose reader has gone.
fn nobody() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_run_goes_on_when_nobody_reads_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path());
    for (out, stderr) in [("closed", nobody()), ("full", full_disk().into())] {
        let run =
            Process::start(&mut command("lethe", &["run", "job.json", "--out", out], folder.path()), stderr);
        assert_eq!(run.ended(DEADLINE).code(), Some(0), "{out}");
        assert!(folder.path().join(out).join("result.json").exists(), "{out}");
    }
}

#[test]
fn a_log_that_cannot_be_written_stops_neither_coordinator_nor_worker_and_both_can_be_told_to_end() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path());
    for log in [|| full_disk().into(), nobody as fn() -> Stdio] {
        let address = &free_addresses(1)[0];
        let coordinator =
            Process::start(serve(address, "off", folder.path()).env("RUST_LOG", "debug"), log());
        let mut alone = worker("127.0.0.1:1", folder.path());
        let alone = Process::start(alone.env("RUST_LOG", "debug"), log());
        let worker = Process::start(worker(address, folder.path()).env("RUST_LOG", "debug"), log());
        wait_until("a worker has joined", DEADLINE, || joined(address, folder.path()));
        assert!(lethe(address, &["job", "submit", "job.json", "--wait"], folder.path()).is_some());
        for process in [alone, worker, coordinator] {
            process.terminate();
            assert_eq!(process.ended(DEADLINE / 3).code(), Some(0));
        }
        std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    }
}

#[test]
fn a_coordinator_whose_log_nobody_reads_answers_and_counts_what_it_could_not_say() {
    let folder = tempfile::tempdir().unwrap();
    let (addresses, (mut log, unread)) = (free_addresses(2), std::io::pipe().unwrap());
    let _coordinator =
        Process::start(serve(&addresses[0], &addresses[1], folder.path()).env("RUST_LOG", "trace"), unread);
    let lost = || {
        let metrics = get(&addresses[1], "/metrics").unwrap_or_default();
        let line = metrics.lines().find_map(|line| line.strip_prefix("lethe_log_lines_lost_total "));
        line.is_some_and(|count| count.parse::<u64>().unwrap() > 0)
    };
    // What it says about its connections fills pipe and queue.
    wait_until("lines are lost", DEADLINE, || {
        let _ = TcpStream::connect(&addresses[0]).and_then(|mut peer| peer.write_all(&[b'x'; 1000]));
        lethe(&addresses[0], &["job", "list"], folder.path());
        lost()
    });
    assert!(lethe(&addresses[0], &["job", "list"], folder.path()).is_some());
    assert!(get(&addresses[1], "/livez").unwrap().starts_with("HTTP/1.1 200"));
    let lines = BufReader::new(&mut log).lines().map_while(Result::ok);
    assert!(lines.take(1_000_000).any(|line| line.contains("lines of this log were lost")));
}

fn get(address: &str, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect(address).ok()?;
    connection.set_read_timeout(Some(DEADLINE)).ok()?;
    write!(connection, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Every command of a program, with the help of each.
fn helps(program: &str, path: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let output = Command::new(bin(program)).args(path).arg("--help").env_clear().output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let commands =
        help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap());
    for line in commands.lines() {
        // Deeper lines go on with the description of the one before.
        let name = line
            .strip_prefix("  ")
            .filter(|line| !line.starts_with(' '))
            .and_then(|line| line.split(' ').next());
        if let Some(name) = name.filter(|name| *name != "help") {
            helps(program, &[path, &[name.to_owned()]].concat(), found);
        }
    }
    found.push((path.to_vec(), help));
}

/// The variables that a help names: `[env: NAME=]`.
fn variables(help: &str) -> BTreeSet<String> {
    // Wherever the lines were broken.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let named = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    named.map(str::to_owned).collect()
}

/// A command that ends by itself: program, subcommand, arguments, and its exit code and words when nothing is wrong with
/// its settings.
type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str], i32, &'a str);

#[test]
fn a_variable_that_is_there_and_empty_is_unset_for_every_command_of_every_program() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("not-a-job.yaml"), "{}").unwrap();
    let executor = bin("lethe-executor").display().to_string();
    let cases: [Case<'_>; 7] = [
        ("lethe", &["job", "list"], &[], 3, "cannot reach the coordinator at http://127.0.0.1:7400"),
        ("lethe", &["worker", "get"], &["nobody"], 3, "cannot reach the coordinator"),
        ("lethe", &["run"], &["not-a-job.yaml"], 2, "is not a valid job"),
        (
            "lethe",
            &["serve"],
            &["--listen", "192.0.2.1:1", "--http", "off"],
            1,
            "cannot listen on 192.0.2.1:1",
        ),
        ("lethe-coordinator", &[], &["--check-config"], 0, ""),
        (
            "lethe-worker",
            &[],
            &["--coordinator", "https://x:1", "--devices", "cpu", "--executor", &executor],
            2,
            "https is not supported",
        ),
        ("lethe-executor", &[], &[], 2, "socket"),
    ];
    let mut seen = BTreeSet::new();
    for (program, path, arguments, code, says) in cases {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        let mut all = Vec::new();
        helps(program, &path, &mut all);
        let variables = variables(&all.last().unwrap().1);
        let others = [
            "RUST_LOG",
            "LETHE_LOG",
            "AWS_ENDPOINT_URL",
            "LETHE_CACHE_BYTES",
            "http_proxy",
            "HOME",
            "TMPDIR",
        ];
        let empty = variables.iter().map(String::as_str).chain(others).map(|name| (name, ""));
        let mut command = Command::new(bin(program));
        let output =
            command.args(&path).args(arguments).env_clear().envs(empty).current_dir(folder.path()).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{program} {path:?}: {said}");
        assert!(said.contains(says), "{program} {path:?}: {said}");
        seen.extend(variables);
    }
    // No command has a variable that was not tried.
    for program in ["lethe", "lethe-coordinator", "lethe-worker", "lethe-executor"] {
        let mut all = Vec::new();
        helps(program, &[], &mut all);
        assert!(program != "lethe" || all.len() > 12, "{all:?}");
        for (path, help) in all {
            let more: Vec<String> = variables(&help).difference(&seen).cloned().collect();
            assert!(more.is_empty(), "{program} {path:?} reads {more:?}: try a command with them above");
        }
    }
    assert!(seen.len() > 25, "{seen:?}");
}

/// The soft and the hard limit on file descriptors of a process.
fn limits(pid: u32) -> (String, String) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    (fields[3].to_owned(), fields[4].to_owned())
}

/// The same command in a shell with these limits.
fn limited(command: &Command, soft: u32, hard: u32) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$@\"")).arg("sh");
    shell.arg(command.get_program()).args(command.get_args());
    shell.current_dir(command.get_current_dir().unwrap()).env("RUST_LOG", "info");
    shell
}

#[test]
fn every_program_takes_as_many_descriptors_as_it_may() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path());
    let address = &free_addresses(1)[0];
    let coordinator =
        Process::start(&mut limited(&serve(address, "off", folder.path()), 64, 1000), Stdio::null());
    let worker = Process::start(&mut limited(&worker(address, folder.path()), 64, 1000), Stdio::null());
    wait_until("a worker has joined", DEADLINE, || joined(address, folder.path()));
    let executors = lethe_tests::children(worker.0.id());
    assert_eq!(executors.len(), 1);
    for pid in [coordinator.0.id(), worker.0.id(), executors[0]] {
        assert_eq!(limits(pid), ("1000".to_owned(), "1000".to_owned()));
    }
}

#[test]
fn a_coordinator_out_of_descriptors_says_so_rests_and_goes_on_when_there_are_some() {
    let folder = tempfile::tempdir().unwrap();
    let address = &free_addresses(1)[0];
    let log = folder.path().join("log");
    let stderr = File::create(&log).unwrap();
    let coordinator = Process::start(&mut limited(&serve(address, "off", folder.path()), 40, 40), stderr);
    wait_until("it serves", DEADLINE, || TcpStream::connect(address).is_ok());
    let held: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    let said = || std::fs::read_to_string(&log).unwrap();
    wait_until("it says that it has none", DEADLINE, || said().contains("cannot take a connection"));
    let (begun, before) = (Instant::now(), coordinator.processor_time());
    wait_until("two seconds are over", DEADLINE, || begun.elapsed() > Duration::from_secs(2));
    let busy = coordinator.processor_time() - before;
    assert!(busy < Duration::from_millis(400), "{busy:?} of processor in two seconds");
    let lines = said().matches("cannot take a connection").count() as u64;
    assert!(lines <= 1 + begun.elapsed().as_secs() / 10, "{lines} lines: not one for every try");
    drop(held);
    assert!(lethe(address, &["job", "list"], folder.path()).is_some());
}
