//! A coordinator that ends in the middle of a job, and the next one that goes on.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use lethe_client::{Client, Options};
use lethe_coordinator::Coordinator;
use lethe_domain::{JobState, LeaseId, Phase, PhaseState};
use lethe_proto::PROTOCOL;
use lethe_proto::session::WorkerCommand;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpListener;
use tokio::time::{Duration, sleep, timeout};

use crate::fake::{FREELY, FakeWorker};
use crate::sessions::registration;
use crate::world::{DEADLINE, World, any_port, client, succeeded, until, url};

fn shards(started: &[LeaseId]) -> Vec<u32> {
    let mut shards: Vec<u32> =
        started.iter().filter(|lease| lease.phase == Phase::Sample).map(|lease| lease.shard.0).collect();
    shards.sort_unstable();
    shards
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_started_again_grants_nothing_that_is_done_or_at_work() {
    let world = World::new();
    let coordinator = world.start().await;
    let address = coordinator.grpc_address();
    let client = client(address).await;
    let job = client.submit(&world.job(), None).await.unwrap();
    // A probe and seven shards; then two more are at work.
    let mut worker = FakeWorker::start(&url(address), "one", 2, 8);
    worker.started(10).await;
    let sampled = |done| {
        move |status: &lethe_domain::JobStatus| {
            let sample = &status.phases[Phase::Sample as usize];
            sample.state == PhaseState::Running && sample.shards_done == done
        }
    };
    let before = until(&client, &job.id, sampled(7)).await;
    let watch = tokio::spawn({
        let (client, id) = (client.clone(), job.id.clone());
        async move { succeeded(&client, &id).await }
    });
    coordinator.shutdown().await;

    let coordinator = Coordinator::start(world.config(address)).await.unwrap();
    let after = until(&client, &job.id, |status| status.slots == 2).await;
    assert!(sampled(7)(&after), "{after:?}");
    assert!(after.version > before.version, "versions rise over a restart");
    worker.permits.add_permits(FREELY);
    let status = succeeded(&client, &job.id).await;
    // A watch that began before the restart sees the end as well.
    assert_eq!(timeout(DEADLINE, watch).await.unwrap().unwrap().version, status.version);
    let once: Vec<u32> = (0..40).collect();
    assert_eq!(shards(&worker.started.borrow()), once, "every shard was granted once");
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_was_being_cancelled_is_cancelled_after_a_restart() {
    let world = World::new();
    let coordinator = world.start().await;
    let address = coordinator.grpc_address();
    let client = client(address).await;
    let job = client.submit(&world.job(), None).await.unwrap();
    // Holds the probe, does not answer, and does not come back.
    let mut session = client.join(registration(PROTOCOL, 1)).await.unwrap();
    assert!(matches!(session.commands.next().await.unwrap(), WorkerCommand::Start { .. }));
    assert_eq!(client.cancel(&job.id, "").await.unwrap().state, JobState::Cancelling);
    coordinator.shutdown().await;
    let mut config = world.config(address);
    config.engine.dead_after_ms = 500;
    let begin = Instant::now();
    let coordinator = Coordinator::start(config).await.unwrap();
    let status = until(&client, &job.id, |status| status.state.is_final()).await;
    assert_eq!(status.state, JobState::Cancelled);
    assert!(
        begin.elapsed() >= Duration::from_millis(500),
        "a worker had the time to say that it holds a slot"
    );
    coordinator.shutdown().await;
}

/// A `lethe-coordinator` of its own, killed when dropped.
struct Process(Child);

impl Process {
    fn start(world: &World, address: SocketAddr) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_lethe-coordinator"))
            .args(["--listen", &address.to_string(), "--http", "off"])
            .arg(format!("--store=redb://{}", world.text("state")))
            .arg(format!("--artifacts=file://{}", world.text("artifacts")))
            // So that leases can be counted.
            .args(["--shards-per-lease", "1"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: no goodbye of any kind.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_was_stopped_for_six_seconds_buries_nobody() {
    let world = World::new();
    let address = free_address().await;
    let process = Process::start(&world, address);
    let client = connected(address).await;
    let job = client.submit(&world.job(), None).await.unwrap();
    let mut worker = FakeWorker::start(&url(address), "one", 2, 8);
    worker.started(10).await;
    process.signal(Signal::SIGSTOP);
    // Longer than a worker may be silent: its heartbeats wait in the socket.
    sleep(Duration::from_secs(6)).await;
    process.signal(Signal::SIGCONT);
    worker.permits.add_permits(FREELY);
    let status = succeeded(&client, &job.id).await;
    assert_eq!(status.retried, vec![], "nobody was given up");
    assert_eq!(shards(&worker.started.borrow()), (0..40).collect::<Vec<_>>(), "every shard was granted once");
}

/// An address nobody listens on.
pub(crate) async fn free_address() -> SocketAddr {
    TcpListener::bind(any_port()).await.unwrap().local_addr().unwrap()
}

/// A client of a process that may still be starting.
async fn connected(address: SocketAddr) -> Client {
    let connect = async {
        loop {
            match Client::connect(&[url(address)], Options::default()).await {
                Ok(client) => return client,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(DEADLINE, connect).await.expect("the coordinator serves")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_killed_again_and_again_loses_and_repeats_nothing() {
    let world = World::new();
    let address = free_address().await;
    let mut process = Process::start(&world, address);
    let client = connected(address).await;
    let job = client.submit(&world.job(), Some("once")).await.unwrap();
    let mut worker = FakeWorker::start(&url(address), "one", 2, 0);
    for kill in 0..4 {
        let before = worker.started(2 * kill + 1).await.len();
        worker.permits.add_permits(3);
        worker.started(before + 2).await;
        drop(process);
        process = Process::start(&world, address);
    }
    worker.permits.add_permits(FREELY);
    let status = succeeded(&client, &job.id).await;
    assert_eq!(status.result.unwrap().direction.unwrap().samples, 2000);
    let started = shards(&worker.started.borrow());
    let distinct: BTreeSet<u32> = started.iter().copied().collect();
    assert_eq!(distinct.len(), 40);
    assert_eq!(started.len(), 40, "what the worker held was not granted again: {started:?}");
    assert_eq!(client.submit(&world.job(), Some("once")).await.unwrap().id, job.id);
    drop(process);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_coordinator_stays_small() {
    let world = World::new();
    let address = free_address().await;
    let process = Process::start(&world, address);
    let client = connected(address).await;
    client.submit(&world.job(), None).await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert!(kilobytes < 40_000, "{kilobytes} kB resident");
}

#[test]
fn settings_are_checked_without_starting_anything() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_lethe-coordinator"))
            .args(arguments)
            .env_clear()
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&["--check-config"]).0, 0);
    let (code, said) = run(&["--check-config", "--store", "etcd://here"]);
    assert!(code == 2 && said.contains("allowed: memory://, redb:///absolute/folder"), "{said}");
    let (code, said) = run(&["--check-config", "--artifacts", "gs://bucket/x"]);
    assert!(code == 2 && said.contains("unknown scheme"), "{said}");
    let (code, said) = run(&["--check-config", "--http", "nowhere"]);
    assert!(code == 2 && said.contains("expected an address"), "{said}");
    assert!(!PathBuf::from("/var/lib/lethe").exists(), "nothing is made");
}
