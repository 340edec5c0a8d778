//! Rehearses everything that can go wrong at once: three etcd members, three coordinators, four workers and an S3 server, all
//! real processes, while every few seconds one of them is killed, frozen, cut off, or given a full disk or a failing store.
//! At the end every job must have succeeded with the very bits of an undisturbed run, and nothing may be left over.
//! Prints one JSON line.
//!
//! One file each: the processes (`cluster`), what is done to them (`faults`), the S3 proxy that fails on command (`proxy`),
//! what must hold at the end (`verdict`).

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a rehearsal tells what it does on stderr and what came of it on stdout"
)]

mod cluster;
mod faults;
mod proxy;
mod verdict;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use lethe_client::Client;
use lethe_domain::{JobId, JobSpec};
use lethe_testkit::skip;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use cluster::Cluster;
use faults::Faults;
use verdict::Essence;

/// Rehearses faults.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Seconds of faults
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What happens when follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder of the built binaries [default: this program's own]
    #[arg(long, env = "LETHE_BIN_DIR")]
    bin: Option<PathBuf>,
    /// Where to copy the logs of all processes when something does not hold
    #[arg(long)]
    logs: Option<PathBuf>,
    /// Already in namespaces of its own
    #[arg(long, hide = true)]
    inside: bool,
}

/// Jobs in flight.
const JOBS: usize = 3;
/// How long jobs may take after the last fault.
const RECOVERY: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.inside && namespaces_can_be_made() {
        // A network and mounts of its own: partitions and full disks hurt nobody else, and end with it.
        let error = Command::new("unshare")
            .args(["--net", "--mount", "--"])
            .arg(std::env::current_exe().unwrap_or_default())
            .args(std::env::args_os().skip(1))
            .arg("--inside")
            .exec();
        eprintln!("chaos: unshare does not start: {error}");
        return ExitCode::FAILURE;
    }
    if !args.inside {
        skip("partitions and full disks: namespaces cannot be made here (they need root)");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.context("the runtime starts").and_then(|runtime| runtime.block_on(rehearse(&args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether this process may have a network and mounts of its own.
fn namespaces_can_be_made() -> bool {
    let tried =
        Command::new("unshare").args(["--net", "--mount", "--", "ip", "link", "set", "lo", "up"]).output();
    tried.is_ok_and(|output| output.status.success())
}

async fn rehearse(args: &Args) -> Result<()> {
    let isolated = args.inside && cluster::isolate()?;
    let Some(mut cluster) = Cluster::start(args.bin.clone(), isolated).await? else { return Ok(()) };
    let done = under_faults(args, &mut cluster, isolated).await;
    if let (Err(_), Some(folder)) = (&done, &args.logs) {
        cluster.copy_logs(folder).await?;
        eprintln!("the logs are in {}", folder.display());
    }
    let line = done?;
    let pids = cluster.stop().await?;
    verdict::no_orphans(&pids)?;
    println!("{line}");
    Ok(())
}

/// What is to be said of a rehearsal in which everything held.
async fn under_faults(args: &Args, cluster: &mut Cluster, isolated: bool) -> Result<serde_json::Value> {
    let client = cluster.client().await?;
    let specs: Vec<JobSpec> = (0..2).map(|kind| cluster.spec(kind)).collect::<Result<_>>()?;

    let begun = Instant::now();
    let mut calm = Vec::new();
    for spec in &specs {
        let id = submit(&client, spec).await?;
        calm.push(finish(&client, &id, RECOVERY).await.context("the undisturbed run")?);
    }
    eprintln!("undisturbed: {} jobs in {:.1} s", calm.len(), begun.elapsed().as_secs_f64());

    let mut faults = Faults::new(ChaCha8Rng::seed_from_u64(args.seed), isolated);
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut running: Vec<(usize, JobId)> = Vec::new();
    let mut submitted = 0;
    let mut succeeded = 0;
    while Instant::now() < end {
        while running.len() < JOBS {
            let kind = submitted % specs.len();
            // Under faults a call may take its whole patience; the next round tries again.
            let Ok(id) = submit(&client, &specs[kind]).await else { break };
            submitted += 1;
            running.push((kind, id));
        }
        faults.strike(cluster).await?;
        let mut left = Vec::new();
        for (kind, id) in running {
            match client.get(&id).await {
                Ok((status, spec)) if status.state.is_final() => {
                    expect(&calm[kind], &verdict::essence(&client, &id).await?, &id)?;
                    make_room(&spec);
                    succeeded += 1;
                }
                _ => left.push((kind, id)),
            }
        }
        running = left;
    }
    faults.heal(cluster).await?;
    let healed = Instant::now();
    for (kind, id) in &running {
        let essence = finish(&client, id, RECOVERY).await.with_context(|| explain_hint(id))?;
        expect(&calm[*kind], &essence, id)?;
        succeeded += 1;
    }
    let recovery = healed.elapsed().as_secs_f64();
    verdict::nothing_left(&client, cluster).await?;
    if submitted != succeeded {
        bail!("{submitted} jobs were submitted, {succeeded} succeeded");
    }
    Ok(json!({
        "benchmark": "chaos",
        "what": "jobs on 3 etcd members, 3 coordinators, 4 workers and an S3 server under random faults; every job gave the bits of an undisturbed run",
        "seconds": args.seconds,
        "seed": args.seed,
        "isolated": isolated,
        "jobs_submitted": submitted,
        "jobs_succeeded": succeeded,
        "faults": faults.counts(),
        "seconds_to_finish_after_the_last_fault": recovery,
    }))
}

/// Submits a job that publishes into a folder of its own: nobody replaces another job's result.
async fn submit(client: &Client, spec: &JobSpec) -> Result<JobId> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut spec = spec.clone();
    if let Some(publish) = &mut spec.publish {
        publish.uri = format!("{}/{}", publish.uri, COUNT.fetch_add(1, Ordering::Relaxed));
    }
    Ok(client.submit(&spec, None).await?.id)
}

/// Takes away what a job published, for the disk is small. What cannot be removed is in nobody's way.
fn make_room(spec: &JobSpec) {
    if let Some(publish) = &spec.publish {
        let _ = std::fs::remove_dir_all(&publish.uri);
    }
}

/// Waits for a job's end, and gives what must not depend on faults.
async fn finish(client: &Client, id: &JobId, limit: Duration) -> Result<Essence> {
    use tokio_stream::StreamExt;
    let ended = async {
        loop {
            let mut states = client.watch(id);
            while let Some(Ok(status)) = states.next().await {
                if status.state.is_final() {
                    return;
                }
            }
        }
    };
    if tokio::time::timeout(limit, ended).await.is_err() {
        let why = client.explain(id).await?;
        bail!("job {id} is not over after {limit:?}: {why:?}");
    }
    verdict::essence(client, id).await
}

fn expect(calm: &Essence, found: &Essence, id: &JobId) -> Result<()> {
    if calm != found {
        bail!("job {id} differs from the undisturbed run: {found:?}, expected {calm:?}");
    }
    Ok(())
}

fn explain_hint(id: &JobId) -> String {
    format!("job {id} after the last fault")
}
