//! Workers coming, going, and coming again.

use lethe_client::Error;
use lethe_coordinator::Coordinator;
use lethe_domain::{JobSpec, SlotIndex, SlotReport, WorkerId};
use lethe_proto::PROTOCOL;
use lethe_proto::session::{Registration, WorkerCommand, WorkerEvent};
use lethe_proto::v1::SessionRequest;
use lethe_proto::v1::worker_service_client::WorkerServiceClient;
use serde_json::json;
use tokio::time::timeout;

use crate::fake::{FREELY, FakeWorker};
use crate::world::{DEADLINE, World, any_port, channel, client, eventually, succeeded, url};

/// What an executor that computes what it should says of itself.
pub(crate) fn report() -> SlotReport {
    SlotReport { torch: "0".to_owned(), canary: lethe_domain::canary::EXPECTED.to_vec() }
}

/// A worker made by hand.
pub(crate) fn registration(protocol: u32, devices: usize) -> Registration {
    Registration {
        worker: WorkerId::new("hand-made").unwrap(),
        hostname: "here".to_owned(),
        version: "0".to_owned(),
        protocol,
        devices: vec!["cpu".to_owned(); devices],
        held: vec![],
        reports: (0..devices as u32).map(|slot| (SlotIndex(slot), report())).collect(),
        chaos: None,
        incarnation: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_another_protocol_or_without_slots_are_refused() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let error = client.join(registration(PROTOCOL + 1, 1)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Conflict { message } if message.contains("upgrade the older")),
        "{error}"
    );
    let error = client.join(registration(PROTOCOL, 0)).await.unwrap_err();
    assert!(error.to_string().contains("register.devices: found 0"), "{error}");
    assert_eq!(client.workers().await.unwrap(), vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_leaves_gives_its_work_back_at_once() {
    let world = World::new();
    let mut config = world.config(any_port());
    // Nobody is taken for dead: only that it left frees its work.
    config.engine.dead_after_ms = 10 * DEADLINE.as_millis() as u64;
    let coordinator = Coordinator::start(config).await.unwrap();
    let client = client(coordinator.grpc_address()).await;
    let job = client.submit(&world.job(), None).await.unwrap();
    let address = url(coordinator.grpc_address());
    let mut first = FakeWorker::start(&address, "first", 1, 1);
    let held = first.started(2).await.pop().unwrap();
    first.leave().await;
    eventually("it is gone", async || client.workers().await.unwrap().is_empty()).await;
    let mut second = FakeWorker::start(&address, "second", 1, FREELY);
    let again = second.started(1).await.remove(0);
    assert_eq!((again.shard, again.attempt.0), (held.shard, held.attempt.0 + 1));
    succeeded(&client, &job.id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_session_of_a_worker_ends_the_old_one_and_keeps_its_work() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    client.submit(&world.job(), None).await.unwrap();
    let mut old = client.join(registration(PROTOCOL, 1)).await.unwrap();
    let WorkerCommand::Start { assignment, .. } = old.commands.next().await.unwrap() else {
        panic!("expected the probe")
    };
    assert!(assignment.artifacts.starts_with("file:///"), "{}", assignment.artifacts);
    let held = vec![(SlotIndex(0), assignment.lease.clone()).into()];
    let mut new = client.join(Registration { held, ..registration(PROTOCOL, 1) }).await.unwrap();
    let over = timeout(DEADLINE, old.commands.next()).await.expect("the old session ends");
    assert!(
        matches!(&over, Err(Error::Conflict { message }) if message.contains("another worker")),
        "{over:?}"
    );
    // The end of the old session does not take the worker away.
    drop(old);
    new.events.send(WorkerEvent::Heartbeat(vec![])).await.unwrap();
    let workers = client.workers().await.unwrap();
    assert_eq!(workers[0].slots[0].lease, Some(assignment.lease));
    // Nothing is granted twice.
    let nothing = timeout(std::time::Duration::from_millis(200), new.commands.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_belongs_to_one_process_until_its_session_is_over() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let named =
        |incarnation: &str| Registration { incarnation: incarnation.to_owned(), ..registration(PROTOCOL, 1) };
    let mut first = client.join(named("a")).await.unwrap();
    let error = client.join(named("b")).await.unwrap_err().to_string();
    assert!(error.contains("another process has joined as worker") && error.contains("--id"), "{error}");
    // The first one did not notice.
    first.events.send(WorkerEvent::Heartbeat(vec![])).await.unwrap();
    let nothing = timeout(std::time::Duration::from_millis(200), first.commands.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    drop(first);
    let deadline = std::time::Instant::now() + DEADLINE;
    while let Err(error) = client.join(named("b")).await {
        assert!(matches!(error, Error::Conflict { .. }) && std::time::Instant::now() < deadline, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_begins_with_who_is_there() {
    let world = World::new();
    let coordinator = world.start().await;
    let mut raw = WorkerServiceClient::new(channel(coordinator.grpc_address()).await);
    let beat = SessionRequest::from(WorkerEvent::Heartbeat(vec![]));
    let status = raw.session(tokio_stream::iter([beat])).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains("register: missing"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_many_slots_gets_them_all_filled_at_once() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let mut spec = world.spec();
    spec["sample"]["until"] = json!({"total": 50 * 700});
    let job = client.submit(&JobSpec::from_value(spec).unwrap(), None).await.unwrap();
    let mut worker = FakeWorker::start(&url(coordinator.grpc_address()), "large", 600, 1);
    assert_eq!(worker.started(601).await.len(), 601, "the probe, then a shard for every slot");
    worker.permits.add_permits(FREELY);
    succeeded(&client, &job.id).await;
    assert_eq!(worker.started.borrow().len(), 1 + 700 + 1 + 10 + 2 + 10 + 1 + 1, "in one session");
}
