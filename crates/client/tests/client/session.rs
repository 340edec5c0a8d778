//! A worker's session.

use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt;
use lethe_client::{Client, Error, Options};
use lethe_domain::{Attempt, Epoch, LeaseId, Phase, ShardIndex, SlotIndex, WorkerId};
use lethe_proto::session::{Registered, Registration, WorkerCommand, WorkerEvent};
use lethe_proto::status::Refusal;
use lethe_proto::{PROTOCOL, v1};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::server::{Coordinator, Script, answer, nobody, open_stream, stream};
use crate::{id, options};

fn registration() -> Registration {
    Registration {
        worker: WorkerId::new("node-7").unwrap(),
        hostname: "node-7.example".to_owned(),
        version: "0.1.0".to_owned(),
        protocol: PROTOCOL,
        devices: vec!["cpu".to_owned()],
        held: vec![(SlotIndex(0), lease()).into()],
        reports: vec![],
        chaos: None,
        incarnation: String::new(),
    }
}

fn lease() -> LeaseId {
    LeaseId { job: id(), phase: Phase::Sample, shard: ShardIndex(3), attempt: Attempt(1) }
}

const REGISTERED: Registered = Registered { epoch: Epoch(4), heartbeat_ms: 500 };

fn registered() -> v1::SessionResponse {
    WorkerCommand::Registered(REGISTERED).into()
}

/// Answers the first event with `Registered` and each further one with an acknowledgement, and tells what it heard.
/// It serves one session; what it tells ends with it.
fn acknowledging(heard: mpsc::Sender<WorkerEvent>) -> Script {
    let heard = Mutex::new(Some(heard));
    let session = answer(move |events: Streaming<v1::SessionRequest>| {
        let heard = heard.lock().unwrap().take().unwrap();
        let respond = move |event: Result<v1::SessionRequest, Status>| {
            let heard = heard.clone();
            async move {
                let event = WorkerEvent::try_from(event?).unwrap();
                let command = match event {
                    WorkerEvent::Register(_) => WorkerCommand::Registered(REGISTERED),
                    _ => WorkerCommand::Ack(lease()),
                };
                heard.send(event).await.unwrap();
                Ok(command.into())
            }
        };
        Ok(events.then(respond).boxed())
    });
    Script { session, ..Script::default() }
}

async fn join(script: Script, options: Options) -> (Coordinator, Result<lethe_client::Session, Error>) {
    let server = Coordinator::start(script);
    let client = Client::connect(&[server.url()], options).await.unwrap();
    let session = client.join(registration()).await;
    (server, session)
}

#[tokio::test]
async fn a_worker_registers_then_both_sides_speak() {
    let (sender, mut heard) = mpsc::channel(8);
    let (_server, session) = join(acknowledging(sender), options()).await;
    let mut session = session.unwrap();
    assert_eq!(session.registered, REGISTERED);
    assert_eq!(heard.recv().await.unwrap(), WorkerEvent::Register(registration()));
    let events = [
        WorkerEvent::Heartbeat(Vec::new()),
        WorkerEvent::StoreOpen { lease: lease(), address: "10.0.0.7:4512".to_owned() },
    ];
    for event in events {
        session.events.send(event.clone()).await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), event);
        assert_eq!(session.commands.next().await.unwrap(), WorkerCommand::Ack(lease()));
    }
    // The coordinator sees the end of a worker that leaves.
    drop(session);
    assert!(heard.recv().await.is_none());
}

#[tokio::test]
async fn a_session_whose_coordinator_is_killed_ends_on_both_halves() {
    let (sender, _heard) = mpsc::channel(8);
    let (server, session) = join(acknowledging(sender), options()).await;
    let mut session = session.unwrap();
    server.kill().await;
    let error = session.commands.next().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    tokio::time::timeout(Duration::from_secs(20), session.events.closed()).await.unwrap();
    let error = session.events.send(WorkerEvent::Heartbeat(Vec::new())).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn the_next_coordinator_is_asked_when_one_does_not_lead() {
    let follower = Coordinator::start(Script {
        session: answer(|_| Err(Refusal::Unavailable { message: "another one leads".to_owned() }.into())),
        ..Script::default()
    });
    let (sender, _heard) = mpsc::channel(8);
    let leader = Coordinator::start(acknowledging(sender));
    let addresses = [follower.url(), nobody(), leader.url()];
    let client = Client::connect(&addresses, options()).await.unwrap();
    assert_eq!(client.join(registration()).await.unwrap().registered, REGISTERED);
    assert_eq!(client.address(), leader.url());
}

#[tokio::test]
async fn a_coordinator_that_does_not_take_the_worker_says_why() {
    let refusal =
        || Status::from(Refusal::Conflict { message: "worker node-7 speaks protocol 9".to_owned() });
    for session in [answer(move |_| Err(refusal())), answer(move |_| Ok(stream(vec![Err(refusal())])))] {
        let (_server, session) = join(Script { session, ..Script::default() }, options()).await;
        let error = session.unwrap_err();
        assert!(matches!(&error, Error::Conflict { message } if message.contains("protocol 9")), "{error}");
    }
}

#[tokio::test]
async fn an_answer_to_the_registration_that_is_none_is_refused() {
    let ack = || v1::SessionResponse::from(WorkerCommand::Ack(lease()));
    let session = answer(move |_| Ok(open_stream(vec![ack()])));
    let (_server, session) = join(Script { session, ..Script::default() }, options()).await;
    assert!(matches!(session, Err(Error::Misunderstood { .. })), "{session:?}");

    let session = answer(|_| Ok(open_stream(Vec::new())));
    let options = Options { call_timeout: Duration::from_millis(100), ..options() };
    let (_server, session) = join(Script { session, ..Script::default() }, options).await;
    assert!(matches!(session, Err(Error::Unreachable { .. })), "{session:?}");
}

#[tokio::test]
async fn a_command_nobody_understands_and_the_end_are_told_apart() {
    let session = answer(|_| Ok(stream(vec![Ok(registered()), Ok(v1::SessionResponse::default())])));
    let (_server, session) = join(Script { session, ..Script::default() }, options()).await;
    let mut commands = session.unwrap().commands;
    assert!(matches!(commands.next().await, Err(Error::Misunderstood { .. })));
    let error = commands.next().await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { reason, .. } if reason.contains("ended the session")),
        "{error}"
    );
}

#[tokio::test]
async fn a_coordinator_that_reads_nothing_makes_the_worker_wait_then_give_up() {
    // The stream of events is kept and never read.
    let session = answer(|events: Streaming<v1::SessionRequest>| {
        let kept = futures::stream::pending().map(move |item| {
            let _ = &events;
            item
        });
        Ok(futures::stream::iter([Ok(registered())]).chain(kept).boxed())
    });
    let options = Options { call_timeout: Duration::from_millis(500), ..options() };
    let (_server, session) = join(Script { session, ..Script::default() }, options).await;
    let session = session.unwrap();
    let address = "a".repeat(64 * 1024);
    let mut sent = 0;
    let error = loop {
        match session.events.send(WorkerEvent::StoreOpen { lease: lease(), address: address.clone() }).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 10_000, "nothing bounds what waits to be sent");
    };
    assert!(matches!(&error, Error::Unreachable { reason, .. } if reason.contains("take events")), "{error}");
}
