//! A store with a long history, and a coordinator that takes it over from one that was killed.
//!
//! The history is an honest one: jobs that the coordinator drove through all their phases, and jobs in the middle of their
//! sampling. Beside it, on demand, keys as they were left behind before jobs that end took their shards with them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use lethe_client::Client;
use lethe_domain::{JobId, JobSpec, JobState, Phase};
use lethe_store::etcd_cluster::Cluster;
use lethe_store::{StateStore, Txn, limits};
use lethe_tests::made_up::{self, Tally};
use lethe_tests::no_op;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::coordinator::Coordinator;
use crate::load::{reached, submit};

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    /// Jobs that have ended
    #[arg(long, default_value_t = 10_000)]
    finished: usize,
    /// Sample shards of each of them
    #[arg(long, default_value_t = 90)]
    shards: u64,
    /// Shards that are done of jobs that have not ended
    #[arg(long, default_value_t = 100_000)]
    live: u64,
    /// Jobs that these belong to
    #[arg(long, default_value_t = 10)]
    live_jobs: usize,
    /// Shards of finished jobs that are there all the same
    #[arg(long, default_value_t = 0)]
    stale: u64,
}

const SHARD: u64 = 1_000;
/// Jobs submitted before the ones before have ended.
const WAVE: usize = 1_000;
const WORKERS: u32 = 16;
const SLOTS: u32 = 16;
/// Shards that the leases of all slots can hold together.
const IN_FLIGHT: u64 = WORKERS as u64 * SLOTS as u64 * 32;

pub(crate) async fn measure(program: &Path, etcd: &Cluster, sizes: &Sizes) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let uri = etcd.uri("/scale");
    let mut first = Coordinator::start(program, &uri, folder.path())?;
    let client = first.client().await?;
    reached("a coordinator leads", async || Ok(first.leads().await)).await?;
    let begun = Instant::now();
    finish(&client, &first.grpc, folder.path(), sizes).await?;
    let building = begun.elapsed().as_secs_f64();
    let store = lethe_store::connect(&uri).await?;
    let after_jobs = Content::of(&*store).await?;
    let live = run_live(&client, &first.grpc, folder.path(), sizes).await?;
    let before = Content::of(&*store).await?;
    ensure!(before.shards >= live, "{live} shards are done, the store holds {}", before.shards);
    if sizes.stale > 0 {
        leave(&*store, sizes.stale).await?;
    }
    let second = Coordinator::start(program, &uri, folder.path())?;
    second.client().await?;
    let killed = Instant::now();
    first.kill()?;
    while !store.list("leader").await?.entries.is_empty() && !second.leads().await {
        sleep(Duration::from_millis(2)).await;
    }
    let free = killed.elapsed();
    while !second.leads().await {
        ensure!(killed.elapsed() < Duration::from_secs(120), "nobody leads");
        sleep(Duration::from_millis(2)).await;
    }
    let leads = killed.elapsed();
    let client = second.client().await?;
    let page = client.list(1, None).await?;
    let (memory, peak) = second.memory()?;
    ensure!(!page.jobs.is_empty(), "the jobs are there");
    println!(
        "{}",
        json!({
            "benchmark": "takeover",
            "finished_jobs": sizes.finished,
            "shards_they_had": sizes.finished as u64 * (sizes.shards + evaluate_shards(sizes)),
            "live_shards": before.shards, "stale_shards": sizes.stale,
            "seconds_from_kill_to_leading": leads.as_secs_f64(),
            "seconds_from_free_to_leading": (leads - free).as_secs_f64(),
            "resident_mb": memory, "peak_mb": peak,
            "keys": before.keys, "bytes": before.bytes,
            "bytes_after_finished_jobs": after_jobs.bytes,
            "bytes_of_their_records": after_jobs.record_bytes,
            "times_their_records": after_jobs.bytes as f64 / after_jobs.record_bytes as f64,
            "history_built_in_seconds": building,
        })
    );
    Ok(())
}

fn evaluate_shards(sizes: &Sizes) -> u64 {
    (sizes.shards / 9).max(1)
}

/// What the store holds.
struct Content {
    keys: usize,
    shards: u64,
    bytes: usize,
    record_bytes: usize,
}

impl Content {
    async fn of(store: &dyn StateStore) -> Result<Self> {
        let entries = store.list("").await?.entries;
        let size = |entry: &lethe_store::Entry| entry.key.len() + entry.value.len();
        let records = entries.iter().filter(|entry| !entry.key.starts_with("shards/"));
        Ok(Self {
            keys: entries.len(),
            shards: entries.iter().filter(|entry| entry.key.starts_with("shards/")).count() as u64,
            bytes: entries.iter().map(size).sum(),
            record_bytes: records.map(size).sum(),
        })
    }
}

fn spec(folder: &Path, shards: u64, evaluate: u64) -> Result<JobSpec> {
    let mut spec = no_op(folder);
    spec["sample"] = json!({"shard_size": SHARD, "batch": SHARD, "until": {"total": shards * SHARD}});
    spec["evaluate"] = json!({"shard_size": SHARD, "batch": SHARD, "samples": evaluate * SHARD});
    spec["resources"] = json!({"slots": {"min": 1, "max": 1}});
    Ok(JobSpec::from_value(spec)?)
}

fn fleet(grpc: &str) -> JoinSet<()> {
    let tally = Arc::new(Tally::default());
    let workers = (0..WORKERS)
        .map(|number| made_up::work(vec![grpc.to_owned()], number, SLOTS, Duration::ZERO, tally.clone()));
    workers.collect()
}

/// Drives jobs through all their phases.
async fn finish(client: &Client, grpc: &str, folder: &Path, sizes: &Sizes) -> Result<()> {
    let mut fleet = fleet(grpc);
    let spec = spec(folder, sizes.shards, evaluate_shards(sizes))?;
    let mut left = sizes.finished;
    while left > 0 {
        let wave = left.min(WAVE);
        let ids = submit(client, &spec, wave).await?;
        left -= wave;
        for id in &ids {
            reached("a job ends", async || {
                let (status, _) = client.get(id).await?;
                ensure!(
                    !matches!(status.state, JobState::Failed | JobState::Cancelled),
                    "job {id}: {:?}",
                    status.failure
                );
                Ok(status.state == JobState::Succeeded)
            })
            .await?;
        }
    }
    fleet.shutdown().await;
    Ok(())
}

/// Leaves jobs in the middle of their sampling, each more urgent than the one before. Gives the shards that are done.
async fn run_live(client: &Client, grpc: &str, folder: &Path, sizes: &Sizes) -> Result<u64> {
    let each = sizes.live.div_ceil(sizes.live_jobs as u64);
    let mut done = 0;
    for place in 0..sizes.live_jobs {
        // What comes back before one looks again must not end the sampling.
        let mut spec = spec(folder, 2 * each + IN_FLIGHT, 1)?;
        spec.queue.priority = i32::try_from(place)?;
        let job = client.submit(&spec, None).await?.id;
        let mut fleet = fleet(grpc);
        reached("the live shards are done", async || Ok(sampled(client, &job).await? >= each)).await?;
        fleet.shutdown().await;
        done += sampled(client, &job).await?;
    }
    Ok(done)
}

/// Sample shards of a job that are done.
async fn sampled(client: &Client, job: &JobId) -> Result<u64> {
    let (status, _) = client.get(job).await?;
    let sampling = status.phases.iter().find(|phase| phase.phase == Phase::Sample);
    Ok(sampling.map_or(0, |phase| phase.shards_done.into()))
}

/// Puts shards of finished jobs back.
async fn leave(store: &dyn StateStore, count: u64) -> Result<()> {
    let listing = store.list("jobs/").await?;
    let first = listing.entries.first().and_then(|entry| entry.key.strip_prefix("jobs/"));
    let job = first.context("a job")?;
    let output = json!({"Sample": {"samples": SHARD, "positives": 100, "scores": {
        "path": format!("jobs/{job}/sample/shard-00000-a1.safetensors"), "sha256": "0123456789abcdef".repeat(4), "size": 8_000
    }}});
    let value = serde_json::to_vec(&json!({"version": 2, "output": output}))?;
    let mut index = 0;
    while index < count {
        let end = count.min(index + limits::TXN_OPERATIONS as u64);
        let txn = (index..end)
            .fold(Txn::new(), |txn, index| txn.put(format!("shards/{job}/sample/{index}"), value.clone()));
        store.commit(txn).await?;
        index = end;
    }
    Ok(())
}
