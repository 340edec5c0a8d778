//! The driver over a store that fails on command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use lethe_artifacts::ArtifactStore;
use lethe_domain::{
    HeldLease, Inputs, JobState, LeaseId, Phase, ProbeOutput, ShardIndex, SlotIndex, SlotReport, TaskOutput,
    WorkerId,
};
use lethe_proto::{LeaseOutcome, PROTOCOL};
use lethe_store::{Entry, Error, LeaseId as StoreLease, Listing, Revision, StateStore, Txn, Watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::election::{Election, Leader};
use crate::metrics::Metrics;
use crate::records::Records;
use crate::upkeep::Upkeep;

const DEADLINE: Duration = Duration::from_secs(30);

/// A store that answers nothing while it is down, and takes its time to commit when told to.
#[derive(Debug)]
struct Flaky {
    store: Arc<dyn StateStore>,
    /// Whether other coordinators may have it open too.
    shared: bool,
    down: AtomicBool,
    commit_ms: AtomicU64,
    lists: AtomicU64,
}

impl Flaky {
    fn check(&self) -> lethe_store::Result<()> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::Io { file: "state".into(), source: std::io::Error::other("unplugged") });
        }
        Ok(())
    }
}

impl StateStore for Flaky {
    fn is_exclusive(&self) -> bool {
        !self.shared
    }
    fn get(&self, key: &str) -> BoxFuture<'_, lethe_store::Result<Option<Entry>>> {
        let answer = self.check().map(|()| self.store.get(key));
        async { answer?.await }.boxed()
    }
    fn list(&self, prefix: &str) -> BoxFuture<'_, lethe_store::Result<Listing>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        let answer = self.check().map(|()| self.store.list(prefix));
        async { answer?.await }.boxed()
    }
    fn commit(&self, txn: Txn) -> BoxFuture<'_, lethe_store::Result<Revision>> {
        let answer = self.check().map(|()| self.store.commit(txn));
        let pause = Duration::from_millis(self.commit_ms.load(Ordering::SeqCst));
        async move {
            tokio::time::sleep(pause).await;
            answer?.await
        }
        .boxed()
    }
    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.store.watch(prefix, after)
    }
    fn compact(&self, through: Revision) -> BoxFuture<'_, lethe_store::Result<()>> {
        self.store.compact(through)
    }
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, lethe_store::Result<StoreLease>> {
        self.store.grant(ttl)
    }
    fn keep_alive(&self, lease: StoreLease) -> BoxFuture<'_, lethe_store::Result<Duration>> {
        self.store.keep_alive(lease)
    }
    fn revoke(&self, lease: StoreLease) -> BoxFuture<'_, lethe_store::Result<()>> {
        self.store.revoke(lease)
    }
}

struct Bench {
    store: Arc<Flaky>,
    driver: DriverHandle,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn status(&self, job: &JobId) -> Result<JobStatus, Refusal> {
        self.driver.job(job).await.map(|job| job.status)
    }

    async fn new() -> Self {
        Self::over(lethe_store::memory(), "a", false).await
    }

    /// A coordinator of this name, alone or beside others.
    async fn over(store: Arc<dyn StateStore>, name: &str, shared: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Flaky {
            store,
            shared,
            down: AtomicBool::new(false),
            commit_ms: AtomicU64::new(0),
            lists: AtomicU64::new(0),
        });
        let metrics = Arc::new(Metrics::new().unwrap());
        let artifacts = ArtifactStore::open(folder.path().to_str().unwrap()).await.unwrap();
        let records = Records::new(store.clone(), metrics.clone());
        let me = Leader { address: format!("{name}:1"), id: name.to_owned(), started_unix_ms: 1 };
        let election = Election::new(store.clone(), metrics.clone(), me, Duration::from_secs(3));
        let config = lethe_engine::Config::default();
        let upkeep = Upkeep::new(artifacts, crate::KEEP_EDITS);
        let restored =
            Driver::start(config, "file:///root".to_owned(), (election, records), metrics.clone(), upkeep)
                .await;
        let (driver, handle) = restored.unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(driver.run(stop.clone()));
        Self { store, driver: handle, metrics, stop, _folder: folder }
    }

    fn down(&self, down: bool) {
        self.store.down.store(down, Ordering::SeqCst);
    }

    async fn join(&self, held: Vec<HeldLease>) -> Membership {
        self.driver
            .join(Registration {
                worker: WorkerId::new("w").unwrap(),
                hostname: "h".to_owned(),
                version: "0".to_owned(),
                protocol: PROTOCOL,
                devices: vec!["cpu".to_owned()],
                held,
                reports: vec![(SlotIndex(0), report())],
                chaos: None,
                incarnation: String::new(),
            })
            .await
            .unwrap()
    }

    async fn ready(&self) {
        let mut readiness = self.driver.readiness();
        let wait = readiness.wait_for(|readiness| *readiness == Readiness::Ready);
        timeout(DEADLINE, wait).await.expect("in time").unwrap();
    }
}

fn report() -> SlotReport {
    SlotReport { torch: "0".to_owned(), canary: lethe_domain::canary::EXPECTED.to_vec() }
}

fn nobody() -> lethe_domain::Principal {
    lethe_domain::Principal::default()
}

fn spec() -> JobSpec {
    JobSpec::from_value(serde_json::json!({
        "name": "j",
        "generator": {"uri": "/g.pt", "format": "torchscript", "latent": {"dimension": 4},
                      "output": {"range": [0, 1], "channels": 1, "size": 8}},
        "feature": {"name": "f", "scorer": {"uri": "/s.pt", "positive": {"above": 1}}},
    }))
    .unwrap()
}

fn probed(lease: LeaseId) -> WorkerEvent {
    let output = ProbeOutput {
        image_shape: vec![1, 8, 8],
        range: [0.0, 1.0],
        batch_seconds: 0.1,
        parameters: 1,
        warnings: vec![],
    };
    let outcome = LeaseOutcome { lease, outcome: Ok(TaskOutput::Probe(output)) };
    WorkerEvent::Finished { slot: SlotIndex(0), outcome: Box::new(outcome) }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_never_seen_and_everybody_joins_again() {
    let bench = Bench::new().await;
    let job = bench.driver.submit(nobody(), spec(), Some(Inputs::default()), None).await.unwrap();
    let mut member = bench.join(vec![]).await;
    let Some(WorkerCommand::Start { epoch, assignment, .. }) = member.commands.recv().await else {
        panic!("expected the probe")
    };
    assert_eq!(assignment.artifacts, "file:///root");
    let lease = assignment.lease;

    bench.down(true);
    bench.driver.room().await.unwrap().tell(&member.member, probed(lease.clone()));
    assert_eq!(member.commands.recv().await, None, "no acknowledgement: the session ends");
    let refused = bench
        .driver
        .submit(nobody(), spec(), Some(Inputs::default()), Some("r".to_owned()))
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, Refusal::Unavailable { message } if message.contains("unplugged")),
        "{refused}"
    );
    assert!(
        matches!(&*bench.driver.readiness().borrow(), Readiness::StoreDown(why) if why.contains("unplugged"))
    );
    // An hour later still, and without having given up.
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(matches!(bench.status(&job.id).await, Err(Refusal::Unavailable { .. })));

    bench.down(false);
    bench.ready().await;
    let status = bench.status(&job.id).await.unwrap();
    assert_eq!(status.phases[0].phase, Phase::Probe);
    assert_eq!(status.state, JobState::Running, "the outcome that was not written down did not happen");
    assert!(status.version > job.version);
    let jobs = bench.driver.view().await.unwrap().job_count();
    assert_eq!(jobs, 1, "nor did the submission that was refused");

    // The worker comes back with its outcome, says it again, and the job goes on.
    let mut again = bench.join(vec![(SlotIndex(0), lease.clone()).into()]).await;
    assert!(again.registered.epoch > epoch, "another leader");
    bench.driver.room().await.unwrap().tell(&member.member, probed(lease.clone()));
    bench.driver.room().await.unwrap().tell(&again.member, probed(lease.clone()));
    assert_eq!(again.commands.recv().await, Some(WorkerCommand::Ack(lease)));
    let Some(WorkerCommand::Start { assignment, .. }) = again.commands.recv().await else {
        panic!("expected a shard")
    };
    assert_eq!((assignment.lease.phase, assignment.lease.shard), (Phase::Sample, ShardIndex(0)));
}

#[tokio::test(start_paused = true)]
async fn the_driver_sleeps_until_something_is_due() {
    let bench = Bench::new().await;
    let job = bench.driver.submit(nobody(), spec(), Some(Inputs::default()), None).await.unwrap();
    let mut member = bench.join(vec![]).await;
    assert!(matches!(member.commands.recv().await, Some(WorkerCommand::Start { .. })));
    assert_eq!(bench.status(&job.id).await.unwrap().slots, 1);
    // Nobody asks anything: the silent worker is buried when its time is over, and the watcher hears of it.
    let mut changed = bench.driver.watch(&job.id).unwrap();
    let begin = tokio::time::Instant::now();
    changed.changed().await.unwrap();
    let after = begin.elapsed();
    assert!(after >= Duration::from_secs(5) && after < Duration::from_millis(5100), "{after:?}");
    let status = bench.status(&job.id).await.unwrap();
    assert_eq!((status.slots, status.retried[0].code), (0, lethe_domain::ErrorCode::WorkerLost));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_takes_six_seconds_buries_nobody() {
    let bench = Bench::new().await;
    let job = bench.driver.submit(nobody(), spec(), Some(Inputs::default()), None).await.unwrap();
    let mut member = bench.join(vec![]).await;
    assert!(matches!(member.commands.recv().await, Some(WorkerCommand::Start { .. })));
    bench.store.commit_ms.store(6_000, Ordering::SeqCst);
    let heartbeats = async {
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(990)).await;
            // What the session does when something arrives, though the driver takes nothing.
            member.heard.note();
        }
    };
    let (slow, ()) =
        tokio::join!(bench.driver.submit(nobody(), spec(), Some(Inputs::default()), None), heartbeats);
    slow.unwrap();
    // Whatever the driver makes of these seconds it makes of them at its next turn.
    bench.store.commit_ms.store(0, Ordering::SeqCst);
    let status = bench.status(&job.id).await.unwrap();
    assert_eq!((status.slots, status.retried), (1, vec![]));
    assert!(bench.metrics.render().contains("lethe_workers_lost_total 0"));
    // From then on silence counts again.
    let mut changed = bench.driver.watch(&job.id).unwrap();
    changed.changed().await.unwrap();
    assert!(bench.metrics.render().contains("lethe_workers_lost_total 1"));
}

#[tokio::test(start_paused = true)]
async fn reading_waits_for_no_write_and_sees_none_before_it_is_done() {
    let bench = Bench::new().await;
    let job = bench.driver.submit(nobody(), spec(), Some(Inputs::default()), None).await.unwrap();
    bench.store.commit_ms.store(6_000, Ordering::SeqCst);
    let submit = tokio::spawn({
        let driver = bench.driver.clone();
        async move { driver.submit(nobody(), spec(), Some(Inputs::default()), Some("late".to_owned())).await }
    });
    let cancel = bench.driver.cancel(nobody(), job.id.clone(), String::new());
    let mut cancel = std::pin::pin!(cancel);
    let begin = tokio::time::Instant::now();
    // Longer than the driver takes to get to both.
    assert!(timeout(Duration::from_secs(1), &mut cancel).await.is_err());
    let view = bench.driver.view().await.unwrap();
    assert_eq!((view.job_count(), view.knows_request(&(nobody(), "late".to_owned()))), (1, false));
    assert_eq!(bench.status(&job.id).await.unwrap().state, JobState::Queued);
    assert!(begin.elapsed() < Duration::from_secs(2), "nobody waited for the store");
    let late = submit.await.unwrap().unwrap();
    let cancelled = cancel.await.unwrap();
    // What was answered can be read.
    assert_eq!(bench.status(&late.id).await.unwrap().state, JobState::Queued);
    assert_eq!(bench.status(&job.id).await.unwrap().version, cancelled.version);
    assert_eq!(cancelled.state, JobState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_speaks_of_a_write_waits_for_it() {
    let bench = Bench::new().await;
    bench.down(true);
    let other = JobSpec { name: "other".to_owned(), ..spec() };
    // Both in one turn: the second would be refused because of the first, which never was.
    let (first, second) = tokio::join!(
        bench.driver.submit(nobody(), spec(), Some(Inputs::default()), Some("r".to_owned())),
        bench.driver.submit(nobody(), other, Some(Inputs::default()), Some("r".to_owned()))
    );
    for refused in [first.unwrap_err(), second.unwrap_err()] {
        assert!(
            matches!(&refused, Refusal::Unavailable { message } if message.contains("unplugged")),
            "{refused}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_reads_the_store_once_a_second_whoever_asks() {
    let store = lethe_store::memory();
    let leader = Bench::over(store.clone(), "a", true).await;
    let job = leader.driver.submit(nobody(), spec(), Some(Inputs::default()), None).await.unwrap();
    let follower = Bench::over(store, "b", true).await;
    assert!(matches!(follower.driver.watch(&job.id), Err(Refusal::NotLeader { .. })));
    // It may still stand for election.
    let first = async {
        while follower.driver.view().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, first).await.expect("in time");
    let lists = follower.store.lists.load(Ordering::SeqCst);
    for _ in 0..100 {
        let view = follower.driver.view().await.unwrap();
        assert_eq!((view.job_count(), view.leader()), (1, Some("a:1")));
        assert_eq!(view.status(&job.id).unwrap().waiting, None, "only the leader knows");
    }
    assert_eq!(follower.store.lists.load(Ordering::SeqCst), lists);
    leader.driver.submit(nobody(), spec(), Some(Inputs::default()), None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(follower.driver.view().await.unwrap().job_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_has_ended_says_so() {
    let bench = Bench::new().await;
    let job = bench.driver.submit(nobody(), spec(), Some(Inputs::default()), None).await.unwrap();
    let mut changed = bench.driver.watch(&job.id).unwrap();
    assert!(bench.driver.is_alive());
    bench.stop.cancel();
    assert!(changed.changed().await.is_err());
    assert!(matches!(bench.status(&job.id).await, Err(Refusal::Unavailable { .. })));
    let gone = async {
        while bench.driver.is_alive() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, gone).await.expect("in time");
    assert_eq!(*bench.driver.readiness().borrow(), Readiness::Draining);
}
