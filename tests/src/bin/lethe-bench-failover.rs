//! How long nobody leads: three coordinators on a real etcd cluster of three, the leader is killed again and again, and a
//! client that knows them all tries to submit a job. Prints one JSON line.

#![allow(clippy::print_stdout, reason = "a benchmark's one line is its result")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use lethe_client::{Client, Options};
use lethe_domain::JobSpec;
use lethe_store::etcd_cluster::{Cluster, Security};
use lethe_tests::{free_addresses, no_op};
use serde_json::json;
use tokio::time::sleep;

/// Measures how long nobody leads after a leader is killed.
#[derive(Debug, Parser)]
struct Args {
    /// Kills
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// The coordinator program [default: beside this one]
    #[arg(long)]
    coordinator: Option<PathBuf>,
}

const COORDINATORS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&args))
}

/// A coordinator that ends with this.
struct Coordinator(Child);

impl Drop for Coordinator {
    fn drop(&mut self) {
        // Killed already, mostly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn measure(args: &Args) -> Result<()> {
    let Some(etcd) = Cluster::start(Security::Plain).await else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let own = std::env::current_exe()?;
    let program = match &args.coordinator {
        Some(program) => program.clone(),
        None => own.parent().context("a program lies in a folder")?.join("lethe-coordinator"),
    };
    let addresses = free_addresses(COORDINATORS);
    let start = |address: &str| -> Result<Coordinator> {
        let mut command = Command::new(&program);
        command.args([
            "--listen",
            address,
            "--http",
            "off",
            "--store",
            &etcd.uri("/failover"),
            "--log",
            "error",
        ]);
        command.arg("--data").arg(folder.path().join("data")).stdin(Stdio::null());
        Ok(Coordinator(command.spawn().context("the coordinator starts")?))
    };
    let mut coordinators: Vec<Coordinator> =
        addresses.iter().map(|address| start(address)).collect::<Result<_>>()?;
    let spec = JobSpec::from_value(no_op(folder.path()))?;
    accepted(&addresses, &spec).await?;
    let mut seconds = Vec::new();
    for _ in 0..args.kills {
        let (leader, _) = accepted(&addresses, &spec).await?;
        let place = addresses.iter().position(|address| leader.ends_with(address.as_str()));
        let place = place.with_context(|| format!("{leader} is none of {addresses:?}"))?;
        // Everybody has had the time to come up again and to see who leads.
        sleep(Duration::from_secs(2)).await;
        let killed = Instant::now();
        coordinators[place].0.kill()?;
        coordinators[place].0.wait()?;
        let (_, at) = accepted(&addresses, &spec).await?;
        seconds.push((at - killed).as_secs_f64());
        coordinators[place] = start(&addresses[place])?;
    }
    seconds.sort_by(f64::total_cmp);
    println!(
        "{}",
        json!({
            "benchmark": "failover",
            "failover_seconds_median": seconds[seconds.len() / 2],
            "failover_seconds_worst": seconds.last(),
            "failover_seconds": seconds,
            "compared": "seconds from kill -9 of the leader of 3 coordinators on a 3-member etcd to the next accepted submission of a client that knows all three; the leader's lease is 3 s",
        })
    );
    Ok(())
}

/// Submits a job, however long it takes; who took it, and when.
async fn accepted(addresses: &[String], spec: &JobSpec) -> Result<(String, Instant)> {
    let begun = Instant::now();
    let options = Options { call_timeout: Duration::from_secs(1), ..Options::default() };
    loop {
        let tried = async {
            let client = Client::connect(addresses, options.clone()).await?;
            client.submit(spec, None).await?;
            Ok::<_, lethe_client::Error>(client.address().to_owned())
        };
        match tried.await {
            Ok(address) => return Ok((address, Instant::now())),
            Err(error) if begun.elapsed() > DEADLINE => bail!("nobody takes a job: {error}"),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}
