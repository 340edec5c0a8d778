//! Thousands of jobs that wait, a thousand workers that say every second that they live, pages and watches open: how much
//! the driver's thread works for it, and how long an answer takes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures::StreamExt;
use lethe_client::Client;
use lethe_domain::{JobId, JobSpec, WorkerState};
use lethe_tests::made_up::{self, Tally};
use lethe_tests::no_op;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::coordinator::{Coordinator, page};

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    /// Jobs that wait
    #[arg(long, default_value_t = 10_000)]
    jobs: usize,
    /// Workers of one slot
    #[arg(long, default_value_t = 1_000)]
    workers: u32,
    /// Pages that are open, each read anew every two seconds
    #[arg(long, default_value_t = 20)]
    pages: usize,
    /// Watches that are open
    #[arg(long, default_value_t = 20)]
    watchers: usize,
    /// Seconds that a lease takes
    #[arg(long, default_value_t = 10)]
    lease_seconds: u64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Pages that were shown, and that were not.
#[derive(Debug, Default)]
struct Shown {
    pages: AtomicU64,
    failures: AtomicU64,
}

/// Submissions at once.
const SUBMITTERS: usize = 32;
/// The driver's thread.
const DRIVER: &str = "lethe-driver";
const DEADLINE: Duration = Duration::from_secs(300);

pub(crate) async fn measure(program: &Path, sizes: &Sizes) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = format!("redb://{}", folder.path().join("state").display());
    let coordinator = Coordinator::start(program, &store, folder.path())?;
    let client = coordinator.client().await?;
    let tally = Arc::new(Tally::default());
    let mut fleet = JoinSet::new();
    let lease = Duration::from_secs(sizes.lease_seconds);
    for number in 0..sizes.workers {
        fleet.spawn(made_up::work(vec![coordinator.grpc.clone()], number, 1, lease, tally.clone()));
    }
    // One job keeps every slot busy; those that come after it wait.
    let shards = u64::from(sizes.workers) * 100;
    let mut spec = no_op(folder.path());
    spec["sample"] = json!({"shard_size": 1_000, "batch": 1_000, "until": {"total": shards * 1_000}});
    let busy = client.submit(&JobSpec::from_value(spec)?, None).await?.id;
    reached("every worker is at work", async || {
        let (status, _) = client.get(&busy).await?;
        Ok(status.slots == sizes.workers)
    })
    .await?;
    let spec = JobSpec::from_value(no_op(folder.path()))?;
    let begun = Instant::now();
    let ids = submit(&client, &spec, sizes.jobs).await?;
    let submitting = begun.elapsed().as_secs_f64();

    let mut readers = JoinSet::new();
    let mut reads = Vec::new();
    let shown = Arc::new(Shown::default());
    for _ in 0..sizes.pages {
        readers.spawn(open_page(coordinator.http.clone(), shown.clone()));
    }
    for id in
        ids.iter().step_by((ids.len() / sizes.watchers.max(1)).max(1)).take(sizes.watchers.saturating_sub(1))
    {
        readers.spawn(watch(client.clone(), id.clone()));
    }
    readers.spawn(watch(client.clone(), busy.clone()));
    let lost = tally.lost.load(Ordering::Relaxed);
    let (begun, before) = (Instant::now(), coordinator.cpu_seconds()?);
    let mut lists = Vec::new();
    let (mut beat, mut suspects, mut looks) = (interval(Duration::from_millis(20)), 0_usize, 0_usize);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while begun.elapsed() < Duration::from_secs(sizes.seconds) {
        beat.tick().await;
        let id = &ids[(reads.len() * 7_919) % ids.len()];
        let asked = Instant::now();
        client.get(id).await?;
        reads.push(asked.elapsed().as_secs_f64() * 1_000.0);
        if reads.len() % 25 == 0 {
            let asked = Instant::now();
            let page = client.list(1_000, None).await?;
            lists.push(asked.elapsed().as_secs_f64() * 1_000.0);
            // Those that wait, and the one that keeps everybody busy.
            anyhow::ensure!(page.jobs.len() == (sizes.jobs + 1).min(1_000), "a whole page");
            let workers = client.workers().await?;
            let late = |state| matches!(state, WorkerState::Suspect | WorkerState::Dead);
            suspects += workers.iter().filter(|worker| late(worker.state)).count();
            looks += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let after = coordinator.cpu_seconds()?;
    let spent = |name: &str| {
        let used = |found: &std::collections::BTreeMap<String, f64>| found.get(name).copied().unwrap_or(0.0);
        (used(&after) - used(&before)) / seconds
    };
    anyhow::ensure!(after.contains_key(DRIVER), "no thread {DRIVER} in {:?}", after.keys());
    let all: f64 = after.keys().map(|name| spent(name)).sum();
    readers.abort_all();
    let (memory, peak) = coordinator.memory()?;
    println!(
        "{}",
        json!({
            "benchmark": "load",
            "jobs_waiting": sizes.jobs, "workers": sizes.workers, "pages": sizes.pages, "watchers": sizes.watchers,
            "lease_seconds": sizes.lease_seconds, "seconds": seconds,
            "driver_thread_share_of_a_core": spent(DRIVER),
            "coordinator_share_of_a_core": all,
            "get_job_ms": percentiles(reads), "list_1000_jobs_ms": percentiles(lists),
            "suspect_or_dead_seen": suspects, "looks_at_workers": looks,
            "workers_lost": coordinator.metric("lethe_workers_lost_total").await?,
            "sessions_lost": tally.lost.load(Ordering::Relaxed) - lost,
            "pages_shown": shown.pages.load(Ordering::Relaxed), "pages_failed": shown.failures.load(Ordering::Relaxed),
            "shards_back": tally.shards.load(Ordering::Relaxed),
            "submissions_per_second": sizes.jobs as f64 / submitting,
            "resident_mb": memory, "peak_mb": peak,
        })
    );
    fleet.abort_all();
    Ok(())
}

/// Submits a job so many times.
pub(crate) async fn submit(client: &Client, spec: &JobSpec, count: usize) -> Result<Vec<JobId>> {
    let mut tasks = JoinSet::new();
    for place in 0..SUBMITTERS {
        let (client, spec) = (client.clone(), spec.clone());
        let share = count / SUBMITTERS + usize::from(place < count % SUBMITTERS);
        tasks.spawn(async move {
            let mut ids = Vec::with_capacity(share);
            for _ in 0..share {
                ids.push(client.submit(&spec, None).await?.id);
            }
            anyhow::Ok(ids)
        });
    }
    let mut ids = Vec::with_capacity(count);
    while let Some(done) = tasks.join_next().await {
        ids.extend(done??);
    }
    Ok(ids)
}

/// Looks until something holds.
pub(crate) async fn reached(what: &str, holds: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let looking = async {
        while !holds().await? {
            sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    timeout(DEADLINE, looking).await.with_context(|| format!("not within {DEADLINE:?}: {what}"))?
}

/// A page that somebody looks at.
async fn open_page(http: String, shown: Arc<Shown>) {
    let mut refresh = interval(Duration::from_secs(2));
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        refresh.tick().await;
        let count = if page(&http, "/").await.is_ok() { &shown.pages } else { &shown.failures };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

async fn watch(client: Client, id: JobId) {
    let mut states = client.watch(&id);
    while let Some(Ok(_)) = states.next().await {}
}

fn percentiles(mut values: Vec<f64>) -> serde_json::Value {
    values.sort_by(f64::total_cmp);
    let at =
        |share: f64| values.get(((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1)));
    json!({"p50": at(0.5), "p99": at(0.99), "most": values.last(), "count": values.len()})
}
