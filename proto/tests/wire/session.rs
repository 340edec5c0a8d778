//! What workers, coordinators and executors say to each other.

use lethe_domain::{Epoch, HeldLease, SlotIndex, SlotReport, Task, WorkerId};
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};
use lethe_proto::session::{Registered, Registration, WorkerCommand, WorkerEvent};
use lethe_proto::{ConversionError, LeaseOutcome, PROTOCOL, v1};

use crate::{round_trip, samples};

fn outcome() -> Box<LeaseOutcome> {
    Box::new(LeaseOutcome { lease: samples::lease(), outcome: Err(samples::failure()) })
}

fn report() -> SlotReport {
    SlotReport { torch: "2.11.0".to_owned(), canary: vec![0.5, -1.25] }
}

pub(crate) fn executor_events() -> Vec<ExecutorEvent> {
    vec![
        ExecutorEvent::Ready {
            device: "cuda:0".to_owned(),
            torch: "2.11.0".to_owned(),
            canary: vec![0.5, -1.25],
        },
        ExecutorEvent::Progress(samples::progress()),
        ExecutorEvent::Finished(outcome()),
        ExecutorEvent::StoreOpen { lease: samples::lease(), address: "10.0.0.7:4512".to_owned() },
    ]
}

#[test]
fn every_event_of_a_worker_survives_the_wire() {
    let registration = Registration {
        worker: WorkerId::new("node-7").unwrap(),
        hostname: "node-7.example".to_owned(),
        version: "0.1.0".to_owned(),
        protocol: PROTOCOL,
        devices: vec!["cpu".to_owned(), "cuda:0".to_owned()],
        held: vec![
            (SlotIndex(1), samples::lease()).into(),
            HeldLease { slot: SlotIndex(0), lease: samples::lease(), shards: 7 },
        ],
        reports: vec![(SlotIndex(1), report())],
        chaos: Some("kill=0.1".to_owned()),
        incarnation: "c0ffee".to_owned(),
    };
    for event in [
        WorkerEvent::Register(registration),
        WorkerEvent::Heartbeat(Vec::new()),
        WorkerEvent::Heartbeat(vec![
            (SlotIndex(0), samples::progress()),
            (SlotIndex(2), samples::progress()),
        ]),
        WorkerEvent::Finished { slot: SlotIndex(1), outcome: outcome() },
        WorkerEvent::StoreOpen { lease: samples::lease(), address: "10.0.0.7:4512".to_owned() },
        WorkerEvent::SlotChanged { slot: SlotIndex(1), report: Some(report()) },
        WorkerEvent::SlotChanged { slot: SlotIndex(1), report: None },
        WorkerEvent::Draining,
    ] {
        assert_eq!(round_trip::<v1::SessionRequest, _>(event.clone()), Ok(event));
    }
}

#[test]
fn every_command_to_a_worker_survives_the_wire() {
    let (epoch, slot) = (Epoch(7), SlotIndex(1));
    for command in [
        WorkerCommand::Registered(Registered { epoch, heartbeat_ms: 500 }),
        WorkerCommand::Start { epoch, slot, assignment: Box::new(samples::assignment(Task::Probe)) },
        WorkerCommand::Stop { epoch, slot, lease: samples::lease() },
        WorkerCommand::Ack(samples::lease()),
        WorkerCommand::Yield { epoch, slot, lease: samples::lease(), save: true },
    ] {
        assert_eq!(round_trip::<v1::SessionResponse, _>(command.clone()), Ok(command));
    }
}

#[test]
fn what_agent_and_executor_say_survives_the_wire() {
    for command in [
        ExecutorCommand::Start(Box::new(samples::assignment(Task::Probe))),
        ExecutorCommand::Stop(samples::lease()),
        ExecutorCommand::Yield { lease: samples::lease(), save: true },
    ] {
        assert_eq!(round_trip::<v1::ExecutorCommand, _>(command.clone()), Ok(command));
    }
    for event in executor_events() {
        assert_eq!(round_trip::<v1::ExecutorEvent, _>(event.clone()), Ok(event));
    }
}

#[test]
fn an_empty_message_is_refused() {
    let missing = |field| Err(ConversionError::missing(field));
    assert_eq!(WorkerEvent::try_from(v1::SessionRequest::default()).map(drop), missing("event"));
    assert_eq!(WorkerCommand::try_from(v1::SessionResponse::default()).map(drop), missing("command"));
    assert_eq!(ExecutorEvent::try_from(v1::ExecutorEvent::default()).map(drop), missing("event"));
    assert_eq!(ExecutorCommand::try_from(v1::ExecutorCommand::default()).map(drop), missing("command"));
}

#[test]
fn what_makes_no_sense_is_named_by_its_path() {
    let event =
        |event| WorkerEvent::try_from(v1::SessionRequest { event: Some(event) }).unwrap_err().to_string();
    let held = v1::Register {
        worker_id: "node-7".to_owned(),
        held: vec![v1::HeldLease::default()],
        ..Default::default()
    };
    assert_eq!(event(v1::session_request::Event::Register(held)), "register.held[0].lease: missing");
    let lease: v1::LeaseId = samples::lease().into();
    let outcome = v1::LeaseOutcome { lease: Some(lease), outcome: None };
    let finished = v1::LeaseFinished { slot: 0, outcome: Some(outcome) };
    assert_eq!(event(v1::session_request::Event::Finished(finished)), "finished.outcome.outcome: missing");
}
