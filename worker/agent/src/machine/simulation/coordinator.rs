//! The coordinator: the real engine, its records, what it says to whom.

use lethe_domain::{Assignment, Epoch, HeldLease, Task, TaskOutput, WorkerId};
use lethe_engine::{Command, Config, Effect as Decision, Event as Occurrence, Now, State, Write};
use lethe_proto::session::WorkerCommand;
use rand::RngExt;
use serde_json::{Value, json};

use super::World;
use super::agents::STEPS;
use super::streams::Down;

pub(super) fn config() -> Config {
    Config {
        attempts: 1_000,
        generations_without_progress: 1_000,
        lease_ms: 20_000,
        backoff_max_ms: 2_000,
        ..Config::default()
    }
}

/// What a task gives.
pub(super) fn output(assignment: &Assignment) -> TaskOutput {
    let file = json!({"path": "a", "sha256": "0", "size": 1});
    let value = match &assignment.task {
        Task::Probe => json!({"Probe": {
            "image_shape": [1, 8, 8], "range": [0.0, 1.0], "batch_seconds": 0.1, "parameters": 1, "warnings": []
        }}),
        Task::Sample { .. } => in_shards(
            assignment,
            |count| json!({"Sample": {"samples": count, "positives": 1, "scores": file}}),
        ),
        Task::Direction { scores } => json!({"Direction": {
            "target": file, "samples": scores.len() * 10, "positives": scores.len(),
            "cut": {"sign": 1.0, "threshold": 1.0}, "threshold": 0.5, "edited_share": 0.1, "heldout_auc": 0.9, "warnings": []
        }}),
        Task::Edit { .. } => in_shards(assignment, |count| json!({"Edit": {"samples": count, "pool": file}})),
        Task::Search { round, .. } => {
            in_shards(assignment, |count| json!({"Search": {"round": round, "steps": count, "trial": file}}))
        }
        Task::FineTune { role, .. } if role.rank.0 > 0 => json!({"FineTune": null}),
        Task::FineTune { role, .. } => json!({"FineTune": {
            "weights": file, "checkpoint": "c", "steps": STEPS, "world_size": role.world,
            "samples_per_second": 1.0, "loss_first": 1.0, "loss_last": 0.1, "curve": file,
            "edits": {"tried": 4, "unresolved": 0, "median_step": 1.0, "p99_step": 2.0}
        }}),
        Task::Standby { .. } => json!({"FineTune": null}),
        Task::Evaluate { .. } => in_shards(
            assignment,
            |count| json!({"Evaluate": {"samples": count, "before": 1, "after": 0, "moments": file}}),
        ),
        Task::Report { .. } => json!({"Report": {
            "figures": [], "warnings": [], "judge": {"uri": "s.pt", "sha256": "", "same_as_labeller": true}
        }}),
        Task::Publish { .. } => json!({"Publish": {
            "generator": file, "sidecar": file, "before_after_png": file,
            "versions": {"lethe": "0", "torch": "0", "device": "cpu"}
        }}),
    };
    serde_json::from_value(value).unwrap()
}

/// An output per shard, or the only one.
fn in_shards(assignment: &Assignment, output: impl Fn(u64) -> Value) -> Value {
    let portions = assignment.task.phase().portions(&assignment.spec);
    let shards = assignment.task.range().into_iter().flat_map(|range| portions.cut(range));
    let mut outputs: Vec<Value> = shards.map(|(_, shard)| output(shard.count)).collect();
    if outputs.len() == 1 { outputs.remove(0) } else { json!({"Shards": outputs}) }
}

impl World {
    /// A turn with one event.
    pub(super) fn occurs(&mut self, event: Occurrence) {
        self.decide(event);
        self.decide(Occurrence::Plan);
    }

    fn decide(&mut self, event: Occurrence) {
        let now = Now { mono_ms: self.now, unix_ms: self.now };
        let decisions = self.state.step(now, event);
        self.state.check_invariants().unwrap_or_else(|violation| panic!("at {} ms: {violation}", self.now));
        for decision in decisions {
            match decision {
                Decision::Persist(Write::Job(record)) => match self.disk.get_mut(&record.id) {
                    Some(stored) => stored.0 = *record,
                    None => drop(self.disk.insert(record.id.clone(), (*record, Default::default()))),
                },
                Decision::Persist(Write::Shard { job, phase, shard, output }) => {
                    let again = self.disk.get_mut(&job).unwrap().1.insert((phase, shard), *output);
                    assert_eq!(again, None, "{job} {phase} shard {shard} counted twice");
                }
                Decision::Persist(Write::ForgetShards { job }) => self.disk.get_mut(&job).unwrap().1.clear(),
                Decision::Persist(Write::ForgetJob { .. } | Write::Erased { .. }) => {
                    unreachable!("nobody deletes a job here")
                }
                Decision::Persist(Write::ForgetWorker { worker }) => drop(self.marks.remove(&worker)),
                Decision::Persist(Write::Worker(record)) => {
                    self.marks.insert(record.id.clone(), *record);
                }
                Decision::Send { worker, command } => self.command(&worker, command),
                Decision::CloseSession { worker } => {
                    self.sessions.remove(&worker);
                    self.break_wire(&worker);
                }
                Decision::Refuse(_) | Decision::Notify { .. } | Decision::Metric(_) | Decision::Chore(_) => {}
            }
        }
    }

    fn command(&mut self, to: &WorkerId, command: Command) {
        let epoch = Epoch(self.epoch);
        let command = match command {
            Command::Start { slot, assignment } => WorkerCommand::Start { epoch, slot, assignment },
            Command::Stop { slot, lease } => WorkerCommand::Stop { epoch, slot, lease },
            Command::Yield { slot, lease, save } => WorkerCommand::Yield { epoch, slot, lease, save },
            Command::Ack { lease } => WorkerCommand::Ack(lease),
        };
        self.say_down(to, Down::Command(command));
    }

    /// A whim that the engine knows nothing of: one lease that this worker holds is to yield.
    pub(super) fn want_back(&mut self, from: &WorkerId) {
        let held = self.worker(from).machine.held();
        if held.is_empty() {
            return;
        }
        let HeldLease { slot, lease, .. } = held[self.rng.random_range(0..held.len())].clone();
        let past = u64::from(self.chance(0.2));
        let epoch = Epoch(self.epoch - past);
        let save = self.chance(0.5);
        self.say_down(from, Down::Command(WorkerCommand::Yield { epoch, slot, lease, save }));
    }

    pub(super) fn crash_coordinator(&mut self) {
        self.epoch += 1;
        let jobs = self.disk.values().map(|(record, shards)| {
            let shards = shards.iter().map(|((phase, shard), output)| (*phase, *shard, output.clone()));
            (record.clone(), shards.collect())
        });
        let now = Now { mono_ms: self.now, unix_ms: self.now };
        let (jobs, marks) = (jobs.collect::<Vec<_>>(), self.marks.values().cloned().collect::<Vec<_>>());
        self.state = State::restore(config(), Epoch(self.epoch), now, jobs, marks);
        self.sessions.clear();
        for id in self.workers.keys().cloned().collect::<Vec<_>>() {
            self.break_wire(&id);
        }
    }
}
