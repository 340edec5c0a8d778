//! One behaviour per test: events in, the exact effects out. And the witness that checks the promises after every step,
//! here and in the simulation.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lethe_domain::{
    Assignment, Attempt, Epoch, ErrorCode, Failure, JobId, JobSpec, LeaseId, Phase, Progress, ShardIndex,
    SlotIndex, Task, TaskOutput,
};
use lethe_proto::LeaseOutcome;
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};
use lethe_proto::session::{WorkerCommand, WorkerEvent};

use super::{Effect, Event, Machine, Now};
use crate::config::Patience;
use crate::death::Death;
use crate::status::Activity;

/// Sees every event and effect of a machine, and holds it to its promises.
#[derive(Debug, Default)]
pub(super) struct Witness {
    slots: Vec<Seen>,
    /// Said to be over, and not acknowledged.
    said: BTreeSet<LeaseId>,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    life: Life,
    told: Option<LeaseId>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Life {
    #[default]
    None,
    Starting,
    Ready,
    Killed,
}

impl Witness {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: vec![Seen::default(); slots], said: BTreeSet::new() }
    }

    fn slot(&mut self, at: SlotIndex) -> &mut Seen {
        &mut self.slots[at.0 as usize]
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Executor(at, ExecutorEvent::Ready { .. }) if self.slot(*at).life == Life::Starting => {
                self.slot(*at).life = Life::Ready;
            }
            Event::Executor(at, ExecutorEvent::Finished(outcome)) => {
                self.slot(*at).told.take_if(|told| *told == outcome.lease);
            }
            Event::Died(at, _) => *self.slot(*at) = Seen::default(),
            Event::Command(WorkerCommand::Ack(lease)) => drop(self.said.remove(lease)),
            _ => {}
        }
    }

    pub(super) fn effects(&mut self, machine: &Machine, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Start(at) => {
                    assert_eq!(self.slot(*at).life, Life::None, "slot {at} has an executor");
                    self.slot(*at).life = Life::Starting;
                }
                Effect::Tell(at, command) => {
                    assert_eq!(
                        self.slot(*at).life,
                        Life::Ready,
                        "A2: {command:?} to an executor that is not ready"
                    );
                    if let ExecutorCommand::Start(assignment) = command {
                        let told = self.slot(*at).told.replace(assignment.lease.clone());
                        assert_eq!(told, None, "A1: slot {at} is busy");
                    }
                }
                Effect::Kill(at) => {
                    let life = self.slot(*at).life;
                    assert!(matches!(life, Life::Starting | Life::Ready), "A2: kills what is {life:?}");
                    self.slot(*at).life = Life::Killed;
                }
                Effect::Send(WorkerEvent::Finished { outcome, .. }) => {
                    let busy = self.slots.iter().any(|slot| slot.told.as_ref() == Some(&outcome.lease));
                    assert!(!busy, "A4: {} is still at work", outcome.lease);
                    self.said.insert(outcome.lease.clone());
                }
                _ => {}
            }
        }
        let held = machine.held();
        let leases: BTreeSet<&LeaseId> = held.iter().map(|(_, lease)| lease).collect();
        assert_eq!(leases.len(), held.len(), "A1: held twice: {held:?}");
        assert!(self.said.iter().all(|lease| leases.contains(lease)), "A3: {:?} of {held:?}", self.said);
    }
}

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
        let machine = Machine::new(at, &vec!["cpu".to_owned(); slots], Patience::default());
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

    /// Without heartbeats, which `heartbeats_tell_...` is about.
    fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = self.step_with_heartbeats(event);
        effects.retain(|effect| !matches!(effect, Effect::Send(WorkerEvent::Heartbeat(_))));
        effects
    }

    fn step_with_heartbeats(&mut self, event: Event) -> Vec<Effect> {
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
        let ready = ExecutorEvent::Ready { device: "cpu".to_owned(), torch: "2".to_owned() };
        self.step(Event::Executor(SlotIndex(slot), ready))
    }

    fn join(&mut self, epoch: u64) -> Vec<Effect> {
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

    fn ends(&mut self, slot: u32, shard: u32, outcome: Result<TaskOutput, Failure>) -> Vec<Effect> {
        let outcome = Box::new(LeaseOutcome { lease: lease(shard), outcome });
        self.step(Event::Executor(SlotIndex(slot), ExecutorEvent::Finished(outcome)))
    }

    fn dies(&mut self, slot: u32) -> Vec<Effect> {
        self.step(Event::Died(SlotIndex(slot), death()))
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
        "evaluate": {"samples": 75},
        "resources": {"slots": {"min": 1, "max": 3}},
    }))
    .unwrap()
}

fn assignment(shard: u32) -> Assignment {
    Assignment { lease: lease(shard), spec: spec(), artifacts: "file:///a".to_owned(), task: Task::Probe }
}

fn death() -> Death {
    Death { how: "signal 9".to_owned(), log: vec!["last words".to_owned()], hint: "see the log".to_owned() }
}

fn told(slot: u32, shard: u32) -> Effect {
    Effect::Tell(SlotIndex(slot), ExecutorCommand::Start(Box::new(assignment(shard))))
}

fn told_to_stop(slot: u32, shard: u32) -> Effect {
    Effect::Tell(SlotIndex(slot), ExecutorCommand::Stop(lease(shard)))
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

#[test]
fn executors_start_at_once_and_the_worker_joins_when_all_are_ready() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.step(Event::Tick), [Effect::Start(SLOT), Effect::Start(SlotIndex(1))]);
    assert_eq!(bench.ready(0), []);
    assert_eq!(bench.ready(1), [Effect::Join]);
    assert_eq!(bench.join(1), []);
    assert!(bench.machine.status().joined);
}

#[test]
fn a_lease_goes_to_its_executor_and_its_outcome_back_until_it_is_acknowledged() {
    let mut bench = Bench::joined(1);
    assert_eq!(bench.start(5, 0, 1), [told(0, 1)]);
    assert_eq!(bench.activity(0), Activity::Busy);
    assert_eq!(bench.ends(0, 1, DONE), [finished(0, 1, DONE)]);
    assert_eq!(bench.activity(0), Activity::Idle);
    assert_eq!(bench.later(Duration::from_secs(4)), []);
    assert_eq!(bench.later(Duration::from_secs(1)), [finished(0, 1, DONE)], "not acknowledged for 5 s");
    assert_eq!(bench.step(Event::Command(WorkerCommand::Ack(lease(1)))), []);
    assert_eq!(bench.later(Duration::from_secs(60)), []);
    assert_eq!(bench.machine.held(), []);
}

#[test]
fn a_repeated_start_is_not_worked_on_twice() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    assert_eq!(bench.start(5, 0, 1), [], "at work");
    bench.ends(0, 1, DONE);
    assert_eq!(bench.start(5, 0, 1), [finished(0, 1, DONE)], "done: said again");
}

#[test]
fn outcomes_survive_any_number_of_sessions() {
    let mut bench = Bench::joined(2);
    bench.start(5, 0, 1);
    bench.start(5, 1, 2);
    bench.step(Event::Parted);
    assert_eq!(bench.ends(0, 1, DONE), [], "nobody to tell");
    assert_eq!(bench.machine.held(), [(SlotIndex(1), lease(2)), (SLOT, lease(1))]);
    assert_eq!(bench.join(6), [finished(0, 1, DONE)]);
    bench.step(Event::Parted);
    assert_eq!(bench.join(6), [finished(0, 1, DONE)]);
    bench.step(Event::Command(WorkerCommand::Ack(lease(1))));
    bench.step(Event::Parted);
    assert_eq!(bench.join(6), []);
    assert_eq!(bench.machine.held(), [(SlotIndex(1), lease(2))], "the other one is still at work");
}

#[test]
fn heartbeats_tell_what_busy_slots_have_done() {
    let mut bench = Bench::joined(2);
    bench.start(5, 1, 2);
    let progress = Progress { lease: lease(2), done: 3, total: 9, samples_per_second: 1.5, loss: None };
    bench.step(Event::Executor(SlotIndex(1), ExecutorEvent::Progress(progress.clone())));
    let stale = Progress { lease: lease(7), ..progress.clone() };
    bench.step(Event::Executor(SLOT, ExecutorEvent::Progress(stale)));
    assert_eq!(bench.machine.next_deadline(), Some(bench.at + HEARTBEAT));
    bench.at += HEARTBEAT;
    let heartbeat = Effect::Send(WorkerEvent::Heartbeat(vec![(SlotIndex(1), progress)]));
    assert_eq!(bench.step_with_heartbeats(Event::Tick), [heartbeat]);
    assert_eq!(bench.step_with_heartbeats(Event::Tick), [], "once per interval");
    bench.step(Event::Parted);
    assert_eq!(bench.machine.next_deadline(), None, "nobody to tell");
}

#[test]
fn a_lease_that_does_not_stop_is_killed_and_only_then_over() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    assert_eq!(bench.stop(0, 1), [told_to_stop(0, 1)]);
    assert_eq!(bench.stop(0, 1), [], "told already");
    assert_eq!(bench.later(Duration::from_millis(4_999)), []);
    assert_eq!(bench.later(Duration::from_millis(1)), [Effect::Kill(SLOT)]);
    assert_eq!(bench.later(Duration::from_secs(9)), [], "killed once; not over before it is dead");
    let effects = bench.dies(0);
    let failure = failure(&effects);
    assert_eq!((failure.code, failure.at_unix_ms), (ErrorCode::Cancelled, 77));
    assert!(failure.message.contains("did not end within 5.0 s and was killed"), "{}", failure.message);
    assert!(effects.contains(&Effect::Start(SLOT)), "the next executor starts at once: {effects:?}");
    assert_eq!(bench.machine.status().counts.did_not_stop, 1);
}

#[test]
fn a_lease_that_stops_is_over_when_its_executor_says_so() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.stop(0, 1);
    let stopped = Err(Failure { at_unix_ms: 5, ..Failure::new(ErrorCode::Cancelled, "stopped", "") });
    assert_eq!(bench.ends(0, 1, stopped.clone()), [finished(0, 1, stopped)]);
    bench.start(5, 0, 2);
    bench.stop(0, 2);
    assert_eq!(bench.ends(0, 2, DONE), [finished(0, 2, DONE)], "it was done just before");
    assert_eq!(bench.later(Duration::from_secs(4)), []);
}

#[test]
fn stopping_what_is_not_known_or_not_begun_is_answered_at_once() {
    let mut bench = Bench::joined(1);
    assert_eq!(failure(&bench.stop(0, 9)).code, ErrorCode::Cancelled);
    assert_eq!(failure(&bench.stop(700, 8)).code, ErrorCode::Cancelled, "of a slot that does not exist");
    bench.dies(0);
    assert_eq!(bench.start(5, 0, 1), [], "waits for the executor");
    assert_eq!(failure(&bench.stop(0, 1)).code, ErrorCode::Cancelled);
    assert_eq!(bench.ready(0), [], "and is forgotten");
    bench.start(5, 0, 2);
    bench.ends(0, 2, DONE);
    assert_eq!(bench.stop(0, 2), [finished(0, 2, DONE)], "it is over: the true outcome stands");
}

#[test]
fn an_executor_that_dies_at_work_fails_its_lease_and_is_started_again() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    let effects = bench.dies(0);
    let failure = failure(&effects);
    assert_eq!(failure.code, ErrorCode::ExecutorDied);
    assert_eq!(
        failure.message,
        "the executor of slot 0 (cpu) died while it worked on j/fine_tune/1#1: signal 9; its log ends:\n  last words"
    );
    assert_eq!(failure.hint, "see the log");
    assert!(effects.contains(&Effect::Start(SLOT)));
    assert_eq!(bench.start(5, 0, 2), [], "granted before the next one is up: it waits");
    assert_eq!(bench.ready(0), [told(0, 2)]);
}

#[test]
fn restarts_in_a_row_are_further_and_further_apart_until_a_lease_ends() {
    let mut bench = Bench::joined(1);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let begun = bench.at;
        let mut effects = bench.dies(0);
        while !effects.contains(&Effect::Start(SLOT)) {
            bench.step(Event::Parted); // Only the slot has deadlines then.
            let next = bench.machine.next_deadline().unwrap();
            effects = bench.later(next - bench.at);
        }
        pauses.push((bench.at - begun).as_millis());
        bench.ready(0);
    }
    assert_eq!(pauses, [0, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000]);
    bench.join(5);
    bench.start(5, 0, 1);
    bench.ends(0, 1, DONE);
    assert_eq!(bench.dies(0), [Effect::Start(SLOT)], "forgiven");
}

#[test]
fn a_first_executor_that_does_not_start_ends_the_agent() {
    let mut bench = Bench::new(2);
    bench.step(Event::Tick);
    bench.ready(1);
    assert_eq!(bench.dies(0), [Effect::Start(SLOT)]);
    bench.dies(0);
    assert_eq!(bench.later(Duration::from_millis(250)), [Effect::Start(SLOT)]);
    assert_eq!(bench.dies(0), [Effect::GiveUp(SLOT, death()), Effect::Kill(SlotIndex(1))]);
    assert_eq!(bench.dies(1), [Effect::End]);
}

#[test]
fn an_executor_that_is_never_ready_is_killed() {
    let mut bench = Bench::new(1);
    bench.step(Event::Tick);
    assert_eq!(bench.later(Duration::from_secs(59)), []);
    assert_eq!(bench.later(Duration::from_secs(1)), [Effect::Kill(SLOT)]);
    assert_eq!(bench.dies(0), [Effect::GiveUp(SLOT, death()), Effect::End]);

    let mut bench = Bench::joined(1);
    bench.dies(0);
    bench.start(5, 0, 1);
    assert!(bench.later(Duration::from_secs(60)).contains(&Effect::Kill(SLOT)));
    let effects = bench.dies(0);
    let failure = failure(&effects);
    assert!(failure.message.contains("did not start, and so did not work on"), "{}", failure.message);
    assert!(!effects.contains(&Effect::End), "it had worked once: the agent goes on");
}

#[test]
fn a_lease_granted_while_the_last_executor_is_still_dying_waits_for_the_next() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.stop(0, 1);
    bench.later(Duration::from_secs(5));
    assert_eq!(bench.ends(0, 1, DONE), [finished(0, 1, DONE)], "it made it just before the kill");
    assert_eq!(bench.start(5, 0, 2), []);
    assert_eq!(bench.dies(0), [Effect::Start(SLOT)]);
    assert_eq!(bench.ready(0), [told(0, 2)]);
}

#[test]
fn an_older_epoch_has_no_effect() {
    let mut bench = Bench::joined(1);
    assert_eq!(bench.start(4, 0, 1), []);
    bench.start(5, 0, 2);
    let stop = WorkerCommand::Stop { epoch: Epoch(4), slot: SLOT, lease: lease(2) };
    assert_eq!(bench.step(Event::Command(stop)), []);
    assert_eq!(bench.machine.held(), [(SLOT, lease(2))]);
    bench.step(Event::Parted);
    assert_eq!(bench.join(4), [Effect::Rejoin], "a leader of the past");
    assert_eq!(bench.start(6, 0, 3), [], "nothing it says is heard");
    bench.step(Event::Parted);
    assert_eq!(bench.join(6), []);
    assert_eq!(bench.start(5, 0, 3), [], "5 has become the past");
}

#[test]
fn a_contradiction_is_settled_by_another_session() {
    let mut bench = Bench::joined(2);
    bench.start(5, 0, 1);
    for (slot, shard) in [(0, 2), (1, 1), (9, 3)] {
        assert_eq!(bench.start(5, slot, shard), [Effect::Rejoin], "slot {slot} shard {shard}");
        assert_eq!(bench.start(5, 1, 4), [], "of the session that is over");
        bench.step(Event::Parted);
        bench.join(5);
    }
    assert_eq!(bench.machine.held(), [(SLOT, lease(1))]);
}

#[test]
fn the_store_of_a_gang_is_announced_in_every_session_while_the_lease_lasts() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.step(Event::Parted);
    let open = ExecutorEvent::StoreOpen { lease: lease(1), address: "h:1".to_owned() };
    assert_eq!(bench.step(Event::Executor(SLOT, open)), []);
    let announced = Effect::Send(WorkerEvent::StoreOpen { lease: lease(1), address: "h:1".to_owned() });
    assert_eq!(bench.join(5), std::slice::from_ref(&announced));
    bench.step(Event::Parted);
    assert_eq!(bench.join(5), [announced]);
    bench.ends(0, 1, DONE);
    bench.step(Event::Parted);
    assert_eq!(bench.join(5), [finished(0, 1, DONE)]);
}

#[test]
fn leaving_stops_what_works_kills_what_waits_and_delivers_what_is_done() {
    let mut bench = Bench::joined(4);
    bench.start(5, 0, 1);
    bench.start(5, 1, 2);
    bench.dies(3);
    bench.start(5, 3, 4);
    let begun =
        [told_to_stop(0, 1), told_to_stop(1, 2), Effect::Kill(SlotIndex(2)), Effect::Kill(SlotIndex(3))];
    assert_eq!(bench.step(Event::Leave), begun);
    assert_eq!(bench.step(Event::Leave), [], "once");
    assert_eq!(bench.start(5, 2, 3), [], "takes nothing new");
    assert_eq!(bench.ends(0, 1, DONE), [Effect::Kill(SLOT), finished(0, 1, DONE)], "done in time");
    bench.dies(0);
    bench.dies(2);
    bench.dies(3);
    assert_eq!(bench.later(Duration::from_secs(5)), [Effect::Kill(SlotIndex(1)), finished(0, 1, DONE)]);
    assert_eq!(bench.dies(1), [], "the lease is given back by leaving, not by a failure that counts");
    assert_eq!(bench.step(Event::Command(WorkerCommand::Ack(lease(1)))), [Effect::End]);
    assert_eq!(bench.later(Duration::from_secs(60)), []);
}

#[test]
fn leaving_does_not_wait_for_ever_for_an_acknowledgement() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.ends(0, 1, DONE);
    bench.step(Event::Leave);
    assert_eq!(bench.dies(0), []);
    assert_eq!(bench.later(Duration::from_millis(1_999)), []);
    assert_eq!(bench.later(Duration::from_millis(1)), [Effect::End]);

    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.ends(0, 1, DONE);
    bench.step(Event::Parted);
    bench.step(Event::Leave);
    assert_eq!(bench.dies(0), [Effect::End], "nobody to wait for");
}
