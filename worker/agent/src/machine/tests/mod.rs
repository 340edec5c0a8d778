//! One behaviour per test: events in, the exact effects out.
//!
//! Here is the bench they are written on.

mod draining;
mod executors;
mod presence;
mod session;
mod yielding;

use std::time::{Duration, Instant};

use lethe_domain::{
    Assignment, Attempt, Epoch, ErrorCode, Failure, Inputs, JobId, JobSpec, LeaseId, Phase, Progress,
    SampleRange, ShardIndex, SlotIndex, SlotReport, Task, TaskOutput,
};
use lethe_proto::LeaseOutcome;
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};
use lethe_proto::session::{WorkerCommand, WorkerEvent};

use super::witness::Witness;
use super::{Effect, Event, Introduction, Machine, Now};
use crate::config::Patience;
use crate::death::Death;
use crate::status::Activity;

struct Bench {
    machine: Machine,
    witness: Witness,
    at: Instant,
}

const HEARTBEAT: Duration = Duration::from_secs(1);

impl Bench {
    /// Nothing has happened yet.
    fn new(slots: usize) -> Self {
        let at = Instant::now();
        let patience = Patience { drain: Duration::from_secs(30), ..Patience::default() };
        let machine = Machine::new(at, &vec!["cpu".to_owned(); slots], patience);
        Self { machine, witness: Witness::new(slots), at }
    }

    /// Joined under epoch 5, every executor ready.
    fn joined(slots: usize) -> Self {
        let mut bench = Self::new(slots);
        bench.step(Event::Tick);
        for slot in 0..slots {
            bench.ready(slot as u32);
        }
        bench.join(5);
        bench
    }

    /// Without heartbeats, which `heartbeats_tell_...` is about, and without changes of slots (`presence`).
    fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = self.step_in_full(event);
        let told = |event: &WorkerEvent| {
            matches!(event, WorkerEvent::Heartbeat(_) | WorkerEvent::SlotChanged { .. })
        };
        effects.retain(|effect| !matches!(effect, Effect::Send(event) if told(event)));
        effects
    }

    fn step_in_full(&mut self, event: Event) -> Vec<Effect> {
        self.witness.event(&event);
        let effects = self.machine.step(Now { at: self.at, unix_ms: 77 }, event);
        self.witness.effects(&self.machine, &effects);
        effects
    }

    fn later(&mut self, time: Duration) -> Vec<Effect> {
        self.at += time;
        self.step(Event::Tick)
    }

    fn ready(&mut self, slot: u32) -> Vec<Effect> {
        self.step(ready(slot, 0.5))
    }

    fn introduce(&mut self) -> Introduction {
        let introduction = self.machine.introduce();
        self.witness.introduction(&introduction);
        introduction
    }

    fn join(&mut self, epoch: u64) -> Vec<Effect> {
        self.introduce();
        self.step(Event::Joined { epoch: Epoch(epoch), heartbeat: HEARTBEAT })
    }

    fn start(&mut self, epoch: u64, slot: u32, shard: u32) -> Vec<Effect> {
        let assignment = Box::new(assignment(shard));
        self.step(Event::Command(WorkerCommand::Start {
            epoch: Epoch(epoch),
            slot: SlotIndex(slot),
            assignment,
        }))
    }

    fn stop(&mut self, slot: u32, shard: u32) -> Vec<Effect> {
        let command = WorkerCommand::Stop { epoch: Epoch(5), slot: SlotIndex(slot), lease: lease(shard) };
        self.step(Event::Command(command))
    }

    fn asked_to_yield(&mut self, epoch: u64, slot: u32, shard: u32, save: bool) -> Vec<Effect> {
        let (epoch, slot, lease) = (Epoch(epoch), SlotIndex(slot), lease(shard));
        self.step(Event::Command(WorkerCommand::Yield { epoch, slot, lease, save }))
    }

    fn acknowledge(&mut self, shard: u32) -> Vec<Effect> {
        self.step(Event::Command(WorkerCommand::Ack(lease(shard))))
    }

    fn ends(&mut self, slot: u32, shard: u32, outcome: Result<TaskOutput, Failure>) -> Vec<Effect> {
        let outcome = Box::new(LeaseOutcome { lease: lease(shard), outcome });
        self.step(Event::Executor(SlotIndex(slot), ExecutorEvent::Finished(outcome)))
    }

    fn dies(&mut self, slot: u32) -> Vec<Effect> {
        self.step(Event::Died(SlotIndex(slot), death()))
    }

    fn held(&self) -> Vec<(SlotIndex, LeaseId)> {
        self.machine.held().into_iter().map(|held| (held.slot, held.lease)).collect()
    }

    fn activity(&self, slot: usize) -> Activity {
        self.machine.status().slots[slot].activity
    }
}

fn lease(shard: u32) -> LeaseId {
    LeaseId {
        job: JobId::new("j").unwrap(),
        phase: Phase::FineTune,
        shard: ShardIndex(shard),
        attempt: Attempt(1),
    }
}

pub(super) fn spec() -> JobSpec {
    JobSpec::from_value(serde_json::json!({
        "name": "j",
        "generator": {"uri": "g.pt", "format": "torchscript", "latent": {"dimension": 4},
                      "output": {"range": [0, 1], "channels": 1, "size": 8}},
        "feature": {"name": "f", "scorer": {"uri": "s.pt", "positive": {"above": 1}}},
        "sample": {"shard_size": 10, "batch": 10, "until": {"total": 95}},
        "unlearn": {"steps": 40, "global_batch": 16},
        "evaluate": {"samples": 75, "shard_size": 10, "batch": 10},
        "resources": {"slots": {"min": 1, "max": 3}},
    }))
    .unwrap()
}

fn assignment(shard: u32) -> Assignment {
    Assignment {
        lease: lease(shard),
        spec: spec(),
        inputs: Inputs::default(),
        artifacts: "file:///a".to_owned(),
        task: Task::Probe,
    }
}

fn death() -> Death {
    Death { how: "signal 9".to_owned(), log: vec!["last words".to_owned()], hint: "see the log".to_owned() }
}

/// An executor is ready; its canary gave this.
fn ready(slot: u32, canary: f32) -> Event {
    let (device, torch) = ("cpu".to_owned(), "2".to_owned());
    Event::Executor(SlotIndex(slot), ExecutorEvent::Ready { device, torch, canary: vec![canary] })
}

fn report(canary: f32) -> SlotReport {
    SlotReport { torch: "2".to_owned(), canary: vec![canary] }
}

fn told(slot: u32, shard: u32) -> Effect {
    Effect::Tell(SlotIndex(slot), ExecutorCommand::Start(Box::new(assignment(shard))))
}

fn told_to_stop(slot: u32, shard: u32) -> Effect {
    Effect::Tell(SlotIndex(slot), ExecutorCommand::Stop(lease(shard)))
}

fn told_to_yield(slot: u32, shard: u32, save: bool) -> Effect {
    Effect::Tell(SlotIndex(slot), ExecutorCommand::Yield { lease: lease(shard), save })
}

fn finished(slot: u32, shard: u32, outcome: Result<TaskOutput, Failure>) -> Effect {
    let outcome = Box::new(LeaseOutcome { lease: lease(shard), outcome });
    Effect::Send(WorkerEvent::Finished { slot: SlotIndex(slot), outcome })
}

const DONE: Result<TaskOutput, Failure> = Ok(TaskOutput::FineTune(None));

/// The failure in the one `Finished` among the effects.
fn failure(effects: &[Effect]) -> Failure {
    let failures: Vec<&Failure> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(WorkerEvent::Finished { outcome, .. }) => outcome.outcome.as_ref().err(),
            _ => None,
        })
        .collect();
    assert_eq!(failures.len(), 1, "{effects:?}");
    failures[0].clone()
}

const SLOT: SlotIndex = SlotIndex(0);
