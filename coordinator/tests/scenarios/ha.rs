//! Three coordinators as processes on a real etcd cluster: killed, stopped, told to end, cut off from their store.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lethe_client::{Client, Options};
use lethe_domain::{JobId, JobState, Phase};
use lethe_proto::PROTOCOL;
use lethe_proto::status::Refusal;
use lethe_proto::v1;
use lethe_proto::v1::fleet_service_client::FleetServiceClient;
use lethe_proto::v1::job_service_client::JobServiceClient;
use lethe_store::etcd_cluster::{Cluster, Security, User};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::sleep;

use crate::crash::free_address;
use crate::fake::{FREELY, FakeWorker};
use crate::sessions::registration;
use crate::world::{DEADLINE, World, channel, eventually, fetch, succeeded, url};

/// P6: another leads within this time.
const FAIL_OVER: Duration = Duration::from_secs(5);

/// A `lethe-coordinator`, killed when dropped.
struct Process {
    child: Child,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Whether it says that it leads; none while it says nothing.
    async fn leads(&self) -> Option<bool> {
        let metrics = fetch(self.http, "/metrics").await?;
        Some(metrics.text().lines().any(|line| line == "lethe_leader 1"))
    }

    async fn client(&self) -> Client {
        let options = Options { patience: DEADLINE, ..Options::default() };
        Client::connect(&[url(self.grpc)], options).await.unwrap()
    }

    /// A client that goes nowhere else.
    async fn raw(&self) -> JobServiceClient<tonic::transport::Channel> {
        JobServiceClient::new(channel(self.grpc).await)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Fleet {
    world: World,
    processes: Vec<Process>,
    etcd: Cluster,
}

impl Fleet {
    async fn start() -> Option<Self> {
        let etcd = Cluster::start(Security::Tls).await?;
        let mut fleet = Self { world: World::new(), processes: Vec::new(), etcd };
        for number in 0..3 {
            let process = fleet.launch(number).await;
            fleet.processes.push(process);
        }
        for process in &fleet.processes {
            eventually("every coordinator is ready", async || {
                fetch(process.http, "/readyz").await.is_some_and(|answer| answer.status == 200)
            })
            .await;
        }
        Some(fleet)
    }

    async fn launch(&self, number: usize) -> Process {
        let (grpc, http) = (free_address().await, free_address().await);
        let log = File::create(self.world.path(&format!("{number}.log"))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_lethe-coordinator"))
            .args(["--listen", &grpc.to_string(), "--http", &http.to_string()])
            .arg(format!("--store={}", self.etcd.uri("/lethe")))
            .arg(format!("--artifacts=file://{}", self.world.text("artifacts")))
            .envs(self.etcd.environment(User::Lethe))
            // So that leases can be counted.
            .args(["--shards-per-lease", "1"])
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Process { child, grpc, http }
    }

    /// The place of the one that leads, alone.
    async fn leader(&self) -> usize {
        let mut found = None;
        eventually("one coordinator leads", async || {
            let mut leaders = Vec::new();
            for (place, process) in self.processes.iter().enumerate() {
                if process.leads().await == Some(true) {
                    leaders.push(place);
                }
            }
            found = leaders.first().copied();
            leaders.len() == 1
        })
        .await;
        found.unwrap()
    }

    fn another(&self, than: usize) -> &Process {
        &self.processes[(than + 1) % self.processes.len()]
    }
}

fn leader_in(status: &tonic::Status) -> Option<String> {
    match Refusal::from_status(status) {
        Some(Refusal::NotLeader { leader }) => leader,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_answers_what_is_written_and_names_the_leader() {
    let Some(mut fleet) = Fleet::start().await else { return };
    let leader = fleet.leader().await;
    let address = fleet.processes[leader].grpc.to_string();
    let follower = fleet.another(leader);
    // The client and the worker know a follower alone.
    let client = follower.client().await;
    let job = client.submit(&fleet.world.job(), None).await.unwrap();
    assert_eq!(client.address(), url(fleet.processes[leader].grpc));
    let mut worker = FakeWorker::start(&url(follower.grpc), "one", 2, 5);
    worker.started(6).await;

    let mut raw = follower.raw().await;
    let mut raw_fleet = FleetServiceClient::new(channel(follower.grpc).await);
    let found = raw
        .get_job(v1::GetJobRequest { job_id: job.id.to_string() })
        .await
        .unwrap()
        .into_inner()
        .job
        .unwrap();
    assert_eq!((found.id.as_str(), found.waiting), (job.id.as_str(), None));
    // Our client then asks who knows better.
    let fresh = follower.client().await;
    let (status, _) = fresh.get(&job.id).await.unwrap();
    assert_eq!((status.slots, fresh.address()), (2, url(fleet.processes[leader].grpc)));
    assert_eq!(raw.list_jobs(v1::ListJobsRequest::default()).await.unwrap().into_inner().jobs.len(), 1);
    let cancel = v1::CancelJobRequest { job_id: job.id.to_string(), reason: String::new() };
    let source = Some(v1::submit_job_request::Source::Spec(fleet.world.job().into()));
    let submit = v1::SubmitJobRequest { source, request_id: "x".to_owned(), validate_only: false };
    for refused in [
        raw.cancel_job(cancel).await.map(drop).unwrap_err(),
        raw.submit_job(submit).await.map(drop).unwrap_err(),
        raw_fleet.list_workers(v1::ListWorkersRequest {}).await.map(drop).unwrap_err(),
        raw.watch_job(v1::WatchJobRequest { job_id: job.id.to_string() }).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(leader_in(&refused).as_deref(), Some(address.as_str()));
    }
    let ready = fetch(follower.http, "/readyz").await.unwrap();
    assert_eq!(
        (ready.status, ready.text()),
        (200, format!("ok: the coordinator at {address} leads\n").as_str())
    );
    let page = fetch(follower.http, "/").await.unwrap();
    assert!(page.text().contains(job.id.as_str()) && page.text().contains("stands by"), "{}", page.text());
    assert!(!fetch(follower.http, "/metrics").await.unwrap().text().contains("lethe_workers{"));

    // Who may not use the store does not start.
    let refused = Command::new(env!("CARGO_BIN_EXE_lethe-coordinator"))
        .args(["--listen", "127.0.0.1:0", "--http", "off", "--store", &fleet.etcd.uri("/lethe")])
        .arg(format!("--artifacts=file://{}", fleet.world.text("artifacts")))
        .envs(fleet.etcd.environment(User::Stranger))
        .output()
        .unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("permission denied") && said.contains("its role grants read and write"), "{said}");

    // Told to end, it gives the leadership back: nobody waits until it has expired.
    let begun = Instant::now();
    fleet.processes[leader].signal(Signal::SIGTERM);
    let other = fleet.another(leader).client().await;
    other.submit(&fleet.world.job(), None).await.unwrap();
    eprintln!("another leads {:.2} s after SIGTERM", begun.elapsed().as_secs_f64());
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    assert!(fleet.processes[leader].child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_is_replaced_and_nothing_is_lost_or_repeated() {
    let Some(mut fleet) = Fleet::start().await else { return };
    let leader = fleet.leader().await;
    let survivor = fleet.another(leader).grpc;
    let client = fleet.another(leader).client().await;
    let job = client.submit(&fleet.world.job(), Some("once")).await.unwrap();
    let mut worker = FakeWorker::start(&url(survivor), "one", 2, 9);
    worker.started(10).await;

    let begun = Instant::now();
    fleet.processes[leader].child.kill().unwrap();
    let after = client.submit(&fleet.world.job(), Some("twice")).await.unwrap();
    let took = begun.elapsed();
    eprintln!("another leads {:.2} s after kill -9", took.as_secs_f64());
    assert!(took < FAIL_OVER, "{took:?}");
    assert_ne!(after.id, job.id);

    worker.permits.add_permits(FREELY);
    succeeded(&client, &job.id).await;
    let of_job = |lease: &&lethe_domain::LeaseId| lease.job == job.id && lease.phase == Phase::Sample;
    let mut shards: Vec<u32> =
        worker.started.borrow().iter().filter(of_job).map(|lease| lease.shard.0).collect();
    shards.sort_unstable();
    assert_eq!(shards, (0..40).collect::<Vec<_>>(), "what the worker held was not granted again");
    assert_eq!(client.submit(&fleet.world.job(), Some("once")).await.unwrap().id, job.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_past_its_time_writes_nothing_and_follows() {
    let Some(fleet) = Fleet::start().await else { return };
    let old = fleet.leader().await;
    let client = fleet.processes[old].client().await;
    let job = client.submit(&fleet.world.job(), None).await.unwrap();
    // A member of the old leader that holds the probe.
    let mut session = client.join(registration(PROTOCOL, 1)).await.unwrap();
    session.commands.next().await.unwrap();
    let mut to_the_old = fleet.processes[old].raw().await;

    fleet.processes[old].signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let elsewhere = fleet.another(old).client().await;
    let mut new = None;
    eventually("another leads", async || {
        for (place, process) in fleet.processes.iter().enumerate() {
            if place != old && process.leads().await == Some(true) {
                new = Some(place);
            }
        }
        new.is_some()
    })
    .await;
    eprintln!("another leads {:.2} s after SIGSTOP", begun.elapsed().as_secs_f64());
    assert!(begun.elapsed() < FAIL_OVER, "{:?}", begun.elapsed());
    let new = &fleet.processes[new.unwrap()];
    // Waits in the socket of the one that is stopped, and is the first thing it sees.
    let cancel = v1::CancelJobRequest { job_id: job.id.to_string(), reason: String::new() };
    let late = tokio::spawn(async move { to_the_old.cancel_job(cancel).await.map(drop) });
    let told = elsewhere.submit(&fleet.world.job(), None).await.unwrap();
    fleet.processes[old].signal(Signal::SIGCONT);
    let refused = late.await.unwrap().unwrap_err();
    assert!(
        matches!(
            Refusal::from_status(&refused),
            Some(Refusal::NotLeader { .. } | Refusal::Unavailable { .. })
        ),
        "{refused}"
    );

    // Its session ends, and the worker joins the new leader, whose epoch is higher.
    while session.commands.next().await.is_ok() {}
    let again = elsewhere.join(registration(PROTOCOL, 1)).await.unwrap();
    assert!(again.registered.epoch > session.registered.epoch);
    eventually("the old leader follows the new one", async || {
        let ready = fetch(fleet.processes[old].http, "/readyz").await;
        ready.is_some_and(|ready| ready.status == 200 && ready.text().contains(&new.grpc.to_string()))
    })
    .await;
    let (status, _) = elsewhere.get(&job.id).await.unwrap();
    assert!(!matches!(status.state, JobState::Cancelling | JobState::Cancelled), "{status:?}");
    let jobs: Vec<JobId> = fleet.processes[old]
        .client()
        .await
        .list(0, None)
        .await
        .unwrap()
        .jobs
        .into_iter()
        .map(|job| job.id)
        .collect();
    assert_eq!(jobs.len(), 2);
    assert!(jobs.contains(&told.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_gone_for_a_while_and_nobody_exits() {
    const OUTAGE: Duration = Duration::from_secs(12);
    let Some(mut fleet) = Fleet::start().await else { return };
    let leader = fleet.leader().await;
    let client = fleet.processes[leader].client().await;
    let job = client.submit(&fleet.world.job(), None).await.unwrap();
    let mut worker = FakeWorker::start(&url(fleet.another(leader).grpc), "one", 2, 3);
    worker.started(4).await;

    let begun = Instant::now();
    (0..fleet.etcd.size()).for_each(|member| fleet.etcd.pause(member));
    for process in &fleet.processes {
        eventually("nobody is ready", async || {
            fetch(process.http, "/readyz").await.is_some_and(|answer| answer.status == 503)
        })
        .await;
    }
    eprintln!("nobody is ready {:.2} s after etcd stopped", begun.elapsed().as_secs_f64());
    eventually("no leader grants any more", async || fleet.processes[leader].leads().await == Some(false))
        .await;
    let granted = worker.started.borrow().len();
    let mut raw = fleet.processes[leader].raw().await;
    let refused =
        raw.cancel_job(v1::CancelJobRequest { job_id: job.id.to_string(), reason: String::new() }).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unavailable);
    // The work that goes on may end: its outcome is kept until somebody takes it.
    worker.permits.add_permits(2);
    sleep(OUTAGE.saturating_sub(begun.elapsed())).await;
    assert_eq!(worker.started.borrow().len(), granted, "nothing new is granted");
    assert!(fleet.processes.iter_mut().all(Process::is_running), "nobody exits");
    assert_eq!(fetch(fleet.processes[leader].http, "/livez").await.unwrap().status, 200);

    let back = Instant::now();
    (0..fleet.etcd.size()).for_each(|member| fleet.etcd.resume(member));
    worker.started(granted + 1).await;
    eprintln!("work is granted again {:.2} s after etcd went on", back.elapsed().as_secs_f64());
    worker.permits.add_permits(FREELY);
    succeeded(&client, &job.id).await;
    fleet.leader().await;
    assert!(fleet.processes.iter_mut().all(Process::is_running));
}
