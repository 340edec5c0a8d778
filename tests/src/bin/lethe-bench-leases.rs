//! How many leases a second a coordinator grants and takes back: the real coordinator, over real gRPC, with workers whose
//! executors do nothing. Prints one JSON line.
//!
//! Not here: other systems on the same machine (tests/bench/fleet.py runs those beside it).

#![allow(clippy::print_stdout, reason = "a benchmark's one line is its result")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use lethe_client::{Client, Options};
use lethe_domain::{
    ArtifactRef, Assignment, JobId, JobSpec, Phase, ProbeOutput, SampleOutput, SlotIndex, SlotReport, Task,
    TaskOutput, WorkerId, canary,
};
use lethe_proto::session::{Registration, WorkerCommand, WorkerEvent};
use lethe_proto::{LeaseOutcome, PROTOCOL};
use lethe_tests::{free_addresses, no_op};
use serde_json::json;
use tokio::time::{interval, sleep, timeout};

/// Measures a coordinator's leases per second.
#[derive(Debug, Parser)]
struct Args {
    /// Slots of the fleet
    #[arg(long, default_value_t = 256)]
    slots: u32,
    /// Workers they are spread over
    #[arg(long, default_value_t = 8)]
    workers: u32,
    /// Shards of each job
    #[arg(long, default_value_t = 20_000)]
    shards: u64,
    /// Jobs
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// Shards in a lease at most
    #[arg(long, default_value_t = 1)]
    shards_per_lease: u32,
    /// The coordinator's processor
    #[arg(long, default_value_t = 0)]
    core: u32,
    /// State store; redb in a temporary folder if none is given
    #[arg(long)]
    store: Option<String>,
    /// The coordinator program
    #[arg(long)]
    coordinator: PathBuf,
}

const SHARD_SIZE: u64 = 1_000;
const DEADLINE: Duration = Duration::from_secs(540);

/// What the workers have seen so far.
#[derive(Debug, Default)]
struct Seen {
    leases: AtomicU64,
    shards: AtomicU64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: Args) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let coordinator = Coordinator::start(&args, folder.path())?;
    let client = coordinator.connect().await?;
    let seen = Arc::new(Seen::default());
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..args.workers {
        let slots = args.slots / args.workers + u32::from(worker < args.slots % args.workers);
        let (address, seen) = (coordinator.address.clone(), seen.clone());
        workers.spawn(async move {
            if let Err(error) = be_worker(&address, worker, slots, &seen).await {
                complain(&error);
            }
        });
    }
    while client.workers().await?.len() < args.workers as usize {
        sleep(Duration::from_millis(20)).await;
    }
    let spec = spec(folder.path(), args.shards)?;
    let cpu = coordinator.cpu_seconds()?;
    let begin = Instant::now();
    let mut jobs = Vec::new();
    for _ in 0..args.jobs {
        jobs.push(client.submit(&spec, None).await?.id);
    }
    let wanted = args.shards * u64::from(args.jobs);
    while seen.shards.load(Ordering::Relaxed) < wanted {
        if begin.elapsed() > DEADLINE {
            bail!("{} of {wanted} shards within {DEADLINE:?}", seen.shards.load(Ordering::Relaxed));
        }
        sleep(Duration::from_millis(10)).await;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let cpu = coordinator.cpu_seconds()? - cpu;
    let leases = seen.leases.load(Ordering::Relaxed);
    let memory = coordinator.peak_memory()?;
    sampled(&client, &jobs, args.shards).await?;
    workers.abort_all();
    println!(
        "{}",
        json!({
            "benchmark": "leases",
            "what": "the real lethe-coordinator, its threads on one core, over real gRPC with workers whose executors do nothing; every finished shard is in the state store before it is acknowledged",
            "store": args.store.as_deref().map_or("redb", |store| store.split(':').next().unwrap_or("redb")),
            "slots": args.slots,
            "jobs": args.jobs,
            "shards": wanted,
            "shards_per_lease": args.shards_per_lease,
            "seconds": seconds,
            "leases_per_second": leases as f64 / seconds,
            "shards_per_second": wanted as f64 / seconds,
            "coordinator_ms_per_lease": cpu * 1000.0 / leases as f64,
            "coordinator_peak_mb": memory / 1e6,
        })
    );
    Ok(())
}

/// Every shard was counted, once: the sample phase of each job is over and has seen them all.
async fn sampled(client: &Client, jobs: &[JobId], shards: u64) -> Result<()> {
    for job in jobs {
        let counted = timeout(Duration::from_secs(60), async {
            loop {
                let (status, _) = client.get(job).await?;
                let sample = status.phases.iter().find(|phase| phase.phase == Phase::Sample).cloned();
                let sample = sample.context("a job has a sample phase")?;
                if u64::from(sample.shards_done) == shards {
                    return Ok(());
                }
                if status.state.is_final() {
                    bail!("job {job} has {} with {} shards", status.state, sample.shards_done);
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        counted.await.context("the last shards are counted")??;
    }
    Ok(())
}

#[allow(clippy::print_stderr, reason = "a worker that fails must be seen")]
fn complain(error: &anyhow::Error) {
    eprintln!("a worker ended: {error:#}");
}

struct Coordinator {
    child: Child,
    address: String,
}

impl Coordinator {
    fn start(args: &Args, folder: &Path) -> Result<Self> {
        let address = free_addresses(1).remove(0);
        let mut command = Command::new("taskset");
        command.args(["-c", &args.core.to_string()]).arg(&args.coordinator);
        command.args(["--listen", &address, "--http", "off", "--log", "error"]);
        command.args(["--shards-per-lease", &args.shards_per_lease.to_string()]);
        command.arg("--data").arg(folder.join("data"));
        if let Some(store) = &args.store {
            command.args(["--store", store]);
        }
        let child = command.stdin(Stdio::null()).spawn().context("taskset and the coordinator start")?;
        Ok(Self { child, address })
    }

    async fn connect(&self) -> Result<Client> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match Client::connect(&[&self.address], Options::default()).await {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// User and system time so far.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
        let ticks =
            |place: usize| -> Result<f64> { Ok(fields.get(place).context("a field of stat")?.parse()?) };
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }

    /// The most memory it has had, in bytes.
    fn peak_memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        let kilobytes: f64 = line.split_whitespace().next().context("a number")?.parse()?;
        Ok(kilobytes * 1024.0)
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spec(folder: &Path, shards: u64) -> Result<JobSpec> {
    let mut spec = no_op(folder);
    spec["sample"] =
        json!({"shard_size": SHARD_SIZE, "batch": SHARD_SIZE, "until": {"total": shards * SHARD_SIZE}});
    Ok(JobSpec::from_value(spec)?)
}

/// A worker that answers every lease at once.
async fn be_worker(address: &str, number: u32, slots: u32, seen: &Seen) -> Result<()> {
    let client = Client::connect(&[address], Options::default()).await?;
    let report = SlotReport { torch: "none".to_owned(), canary: canary::EXPECTED.to_vec() };
    let mut session = client
        .join(Registration {
            worker: WorkerId::new(format!("w{number}"))?,
            hostname: "bench".to_owned(),
            version: "bench".to_owned(),
            protocol: PROTOCOL,
            devices: vec!["cpu".to_owned(); slots as usize],
            held: Vec::new(),
            reports: (0..slots).map(|slot| (SlotIndex(slot), report.clone())).collect(),
            chaos: None,
            incarnation: String::new(),
        })
        .await?;
    let mut heartbeat = interval(Duration::from_millis(session.registered.heartbeat_ms.into()));
    loop {
        tokio::select! {
            command = session.commands.next() => {
                let WorkerCommand::Start { slot, assignment, .. } = command? else { continue };
                let Some(output) = output(&assignment) else { continue };
                if assignment.task.phase() == Phase::Sample {
                    seen.leases.fetch_add(1, Ordering::Relaxed);
                    let shards = if let TaskOutput::Shards(shards) = &output { shards.len() } else { 1 };
                    seen.shards.fetch_add(shards as u64, Ordering::Relaxed);
                }
                let outcome = Box::new(LeaseOutcome { lease: assignment.lease.clone(), outcome: Ok(output) });
                session.events.send(WorkerEvent::Finished { slot, outcome }).await?;
            }
            _ = heartbeat.tick() => session.events.send(WorkerEvent::Heartbeat(Vec::new())).await?,
        }
    }
}

/// What nothing gives: a probe, and samples of which one in ten is positive. Later phases are not answered.
fn output(assignment: &Assignment) -> Option<TaskOutput> {
    let shard = |number: u64| {
        TaskOutput::Sample(SampleOutput {
            samples: SHARD_SIZE,
            positives: Some(SHARD_SIZE / 10),
            scores: ArtifactRef {
                path: format!("jobs/{}/sample/shard-{number:05}-a1.safetensors", assignment.lease.job),
                sha256: "0123456789abcdef".repeat(4),
                size: SHARD_SIZE * 8,
            },
        })
    };
    match &assignment.task {
        Task::Probe => Some(TaskOutput::Probe(ProbeOutput {
            image_shape: vec![1, 8, 8],
            range: [0.0, 1.0],
            batch_seconds: 0.0,
            parameters: 0,
            warnings: vec![],
        })),
        Task::Sample { range } => {
            let first = range.start / SHARD_SIZE;
            let mut shards: Vec<TaskOutput> = (first..first + range.count / SHARD_SIZE).map(shard).collect();
            Some(if shards.len() == 1 { shards.remove(0) } else { TaskOutput::Shards(shards) })
        }
        _ => None,
    }
}
