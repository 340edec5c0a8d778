//! A seeded simulation: the real engine, simulated workers, a network that loses, duplicates and reorders, and crashes
//! of everything at any moment. After every step the invariants hold; at the end every job has succeeded with the very
//! outputs of an undisturbed run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

use std::collections::{BTreeMap, BTreeSet};

use lethe_domain::{
    ArtifactRef, Assignment, Cut, DirectionOutput, EditMethod, EditOutput, EditSummary, Epoch, ErrorCode,
    EvaluateOutput, Failure, FineTuneOutput, HeldLease, Inputs, JobId, JobSpec, JobState, JudgeSummary,
    LeaseId, Phase, Principal, ProbeOutput, Progress, PublishOutput, ReportOutput, SampleOutput, SampleRange,
    SearchOutput, ShardIndex, SlotIndex, SlotReport, Task, TaskOutput, Versions, WorkerId,
};
use lethe_engine::{Chore, Command, Config, Effect, Event, Introduction, JobRecord, Now, State, Write};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const STEPS: u64 = 40;

fn spec(name: &str, until: serde_json::Value, slots: (u32, u32)) -> JobSpec {
    JobSpec::from_value(serde_json::json!({
        "name": name,
        "generator": {"uri": "g.pt", "format": "torchscript", "latent": {"dimension": 4},
                      "output": {"range": [0, 1], "channels": 1, "size": 8}},
        "feature": {"name": "f", "scorer": {"uri": "s.pt", "positive": {"above": 1}}},
        "sample": {"shard_size": 10, "batch": 10, "until": until},
        "pool": {"latents": 45, "shard_size": 10, "batch": 10},
        // One job searches, the other does not.
        "unlearn": {"steps": STEPS, "global_batch": 16, "trials": if name == "b" { 5 } else { 0 }},
        "evaluate": {"samples": 75, "shard_size": 10, "batch": 10},
        "resources": {"slots": {"min": slots.0, "max": slots.1}},
    }))
    .unwrap()
}

fn artifact(content: String) -> ArtifactRef {
    ArtifactRef { path: "a".to_owned(), size: content.len() as u64, sha256: content }
}

/// What a task gives: a function of the task alone, so that any slot gives the same.
fn output(assignment: &Assignment) -> TaskOutput {
    let shas = |refs: &[ArtifactRef]| refs.iter().map(|r| r.sha256.as_str()).collect::<Vec<_>>().join(",");
    match &assignment.task {
        Task::Probe => TaskOutput::Probe(ProbeOutput {
            image_shape: vec![1, 8, 8],
            range: [0.0, 1.0],
            batch_seconds: 0.1,
            parameters: 1,
            warnings: vec![],
        }),
        Task::Sample { .. } => in_shards(assignment, |SampleRange { start, count }| {
            TaskOutput::Sample(SampleOutput {
                samples: count,
                positives: Some(start / 10 % 3),
                scores: artifact(format!("s{start}+{count}")),
            })
        }),
        Task::Standby { .. } => TaskOutput::FineTune(None),
        Task::Direction { scores } => TaskOutput::Direction(DirectionOutput {
            target: artifact(format!("t({})", shas(scores))),
            samples: scores.len() as u64 * 10,
            positives: 1,
            cut: Cut { sign: 1.0, threshold: 1.0 },
            select: 1.0,
            goal: 0.5,
            edit: EditMethod::Line,
            threshold: 0.5,
            edited_share: 0.1,
            heldout_auc: 0.9,
            costs: lethe_domain::spec::Costs::default(),
            warnings: Vec::new(),
        }),
        Task::FineTune { role, .. } if role.rank.0 > 0 => TaskOutput::FineTune(None),
        Task::Edit { target, .. } => in_shards(assignment, |SampleRange { start, count }| {
            let pool = artifact(format!("e({},{start}+{count})", target.sha256));
            TaskOutput::Edit(EditOutput { samples: count, pool, reused: false })
        }),
        Task::Search { round, before, .. } => in_shards(assignment, |SampleRange { start, count }| {
            let trial = artifact(format!("s({round:?},{start}+{count},{})", shas(before)));
            TaskOutput::Search(SearchOutput { round: *round, steps: count, trial })
        }),
        Task::FineTune { pool, search, .. } => TaskOutput::FineTune(Some(FineTuneOutput {
            weights: artifact(format!("w({};{})", shas(pool), shas(search))),
            checkpoint: "c".to_owned(),
            steps: STEPS,
            world_size: 0,
            samples_per_second: 1.0,
            lr: 0.001,
            drift: None,
            halved: 1,
            alpha: 3.0,
            labeller_term: 2.0,
            strength: Some(1.25),
            loss_first: 1.0,
            loss_last: 0.1,
            curve: artifact("curve".to_owned()),
            edits: EditSummary { tried: 400, unresolved: 0, median_step: 0.8, p99_step: 2.1 },
            search: None,
        })),
        Task::Evaluate { .. } => in_shards(assignment, |SampleRange { start, count }| {
            TaskOutput::Evaluate(EvaluateOutput {
                samples: count,
                before: Some(1),
                after: Some(0),
                moments: artifact(format!("m{start}+{count}")),
            })
        }),
        Task::Report { moments, .. } => TaskOutput::Report(ReportOutput {
            figures: Vec::new(),
            warnings: Vec::new(),
            judge: JudgeSummary {
                uri: shas(moments),
                sha256: String::new(),
                others: vec![],
                same_as_labeller: true,
            },
            advice: None,
        }),
        Task::Publish { .. } => TaskOutput::Publish(PublishOutput {
            generator: artifact("g".to_owned()),
            sidecar: artifact("j".to_owned()),
            before_after_png: artifact("p".to_owned()),
            versions: Versions::default(),
        }),
    }
}

/// An output per shard of the task, or the only one.
fn in_shards(assignment: &Assignment, output: impl Fn(SampleRange) -> TaskOutput) -> TaskOutput {
    let portions = assignment.task.phase().portions(&assignment.spec);
    let shards = assignment.task.range().into_iter().flat_map(|range| portions.cut(range));
    let mut outputs: Vec<TaskOutput> = shards.map(|(_, range)| output(range)).collect();
    if outputs.len() == 1 { outputs.remove(0) } else { TaskOutput::Shards(outputs) }
}

/// A slot of a simulated worker.
#[derive(Default)]
struct SimSlot {
    work: Option<Running>,
    /// Finished, not yet acknowledged.
    outbox: BTreeMap<LeaseId, Result<TaskOutput, Failure>>,
}

struct Running {
    assignment: Assignment,
    done_at: u64,
    step: u64,
    doomed: bool,
}

struct SimWorker {
    slots: Vec<SimSlot>,
    /// Joined; otherwise it tries at this time.
    joined: bool,
    join_at: u64,
    resend_at: u64,
}

enum Message {
    ToWorker(WorkerId, Command),
    ToCoordinator(Event),
}

/// How unkind the world is.
#[derive(Clone, Copy)]
struct Weather {
    lose: f64,
    duplicate: f64,
    executor_dies: f64,
    worker_dies: f64,
    coordinator_dies: f64,
}

const CALM: Weather =
    Weather { lose: 0.0, duplicate: 0.0, executor_dies: 0.0, worker_dies: 0.0, coordinator_dies: 0.0 };
const STORM: Weather = Weather {
    lose: 0.01,
    duplicate: 0.05,
    executor_dies: 0.002,
    worker_dies: 0.0005,
    coordinator_dies: 0.0005,
};

/// Finished shards, as they are written down.
type Shards = BTreeMap<(Phase, ShardIndex), TaskOutput>;

struct World {
    rng: ChaCha8Rng,
    weather: Weather,
    config: Config,
    now: u64,
    epoch: u64,
    state: State,
    disk: BTreeMap<JobId, (JobRecord, Shards)>,
    /// Names of forgotten jobs, as they are written down.
    forgotten: BTreeSet<JobId>,
    /// What jobs have in artifact storage.
    files: BTreeSet<(JobId, File)>,
    /// What is done there for jobs that have ended, and when.
    chores: Vec<(u64, Chore)>,
    workers: BTreeMap<WorkerId, SimWorker>,
    wire: Vec<(u64, Message)>,
    /// Progress of each gang generation, shared by its ranks.
    gangs: BTreeMap<(JobId, u32), GangSim>,
    checkpoint: BTreeMap<JobId, u64>,
    /// Gang generations seen to start, to show that none is reused.
    generations: BTreeSet<(JobId, u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum File {
    /// What a shard gave.
    Shard,
    /// What was published.
    Result,
}

#[derive(Default)]
struct GangSim {
    broken: bool,
    yielding: bool,
    step: u64,
    started: u32,
}

fn config() -> Config {
    Config {
        attempts: 1000,
        generations_without_progress: 1000,
        lease_ms: 20_000,
        backoff_max_ms: 2_000,
        ..Config::default()
    }
}

impl World {
    fn new(seed: u64, weather: Weather, slots: &[usize]) -> Self {
        Self::with(config(), seed, weather, slots)
    }

    fn with(config: Config, seed: u64, weather: Weather, slots: &[usize]) -> Self {
        let workers = slots.iter().enumerate().map(|(index, count)| {
            let slots = (0..*count).map(|_| SimSlot::default()).collect();
            let worker = SimWorker { slots, joined: false, join_at: 10, resend_at: 0 };
            (WorkerId::new(format!("w{index}")).unwrap(), worker)
        });
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            weather,
            now: 0,
            epoch: 1,
            state: State::new(config.clone(), Epoch(1)),
            config,
            disk: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            files: BTreeSet::new(),
            chores: Vec::new(),
            workers: workers.collect(),
            wire: Vec::new(),
            gangs: BTreeMap::new(),
            checkpoint: BTreeMap::new(),
            generations: BTreeSet::new(),
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability)
    }

    fn clock(&self) -> Now {
        Now { mono_ms: self.now, unix_ms: 1_000_000 + self.now }
    }

    /// A turn with one event.
    fn step(&mut self, event: Event) {
        self.step_only(event);
        self.step_only(Event::Plan);
    }

    fn step_only(&mut self, event: Event) {
        let effects = self.state.step(self.clock(), event);
        self.state.check_invariants().unwrap_or_else(|violation| panic!("at {} ms: {violation}", self.now));
        let mut acted = false;
        for effect in effects {
            match effect {
                Effect::Persist(write) => {
                    assert!(!acted, "persist after act");
                    self.write(write);
                }
                Effect::Send { worker, command } => {
                    acted = true;
                    self.send(Message::ToWorker(worker, command));
                }
                Effect::CloseSession { worker } => {
                    acted = true;
                    let worker = self.workers.get_mut(&worker).unwrap();
                    worker.joined = false;
                    worker.join_at = self.now + 500;
                }
                Effect::Chore(chore) => {
                    acted = true;
                    self.begin_chore(chore);
                }
                Effect::Refuse(_) | Effect::Notify { .. } | Effect::Metric(_) => acted = true,
            }
        }
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Job(record) => {
                let slot = self
                    .disk
                    .entry(record.id.clone())
                    .or_insert_with(|| ((*record).clone(), BTreeMap::new()));
                slot.0 = *record;
            }
            Write::Worker(_) | Write::ForgetWorker { .. } => {}
            Write::ForgetShards { job } => self.disk.get_mut(&job).unwrap().1.clear(),
            Write::ForgetJob { job } => {
                let (_, shards) = self.disk.remove(&job).unwrap();
                assert!(shards.is_empty(), "{job} is forgotten, its shards are not");
                assert!(self.forgotten.insert(job));
            }
            Write::Erased { job } => assert!(self.forgotten.remove(&job)),
            Write::Shard { job, phase, shard, output } => {
                let shards = &mut self.disk.get_mut(&job).unwrap().1;
                assert!(
                    shards.insert((phase, shard), *output).is_none(),
                    "{job} {phase} shard {shard} counted twice"
                );
            }
        }
    }

    fn begin_chore(&mut self, chore: Chore) {
        let at = self.now + self.rng.random_range(1..3_000);
        self.chores.push((at, chore));
    }

    fn do_chores(&mut self) {
        let now = self.now;
        let due: Vec<Chore> =
            self.chores.extract_if(.., |(at, _)| *at <= now).map(|(_, chore)| chore).collect();
        for chore in due {
            let event = match chore {
                Chore::TidyUp { job } => {
                    self.files.remove(&(job.clone(), File::Shard));
                    Event::TidiedUp { job }
                }
                Chore::Erase { job } => {
                    self.files.retain(|(of, _)| *of != job);
                    Event::Erased { job }
                }
            };
            self.step(event);
        }
    }

    /// A lost message breaks the session: the worker joins again.
    fn send(&mut self, message: Message) {
        let worker = match &message {
            Message::ToWorker(worker, _) => worker.clone(),
            Message::ToCoordinator(event) => match event {
                Event::WorkerJoined { worker, .. }
                | Event::Heartbeat { worker, .. }
                | Event::LeaseFinished { worker, .. } => worker.clone(),
                _ => WorkerId::new("none").unwrap(),
            },
        };
        if self.chance(self.weather.lose) {
            let later = self.now + self.rng.random_range(100..6_000);
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.joined = false;
                worker.join_at = later;
            }
            return;
        }
        let mut at = self.now + self.rng.random_range(1..60);
        if let Message::ToWorker(to, _) = &message {
            // A session is one stream: a worker hears its commands in order, however the rest of the world is reordered.
            let earlier =
                self.wire.iter().filter(|(_, other)| matches!(other, Message::ToWorker(id, _) if id == to));
            at = earlier.map(|(at, _)| *at).fold(at, u64::max);
        }
        if let Message::ToCoordinator(event) = &message
            && self.chance(self.weather.duplicate)
        {
            let again = self.now + self.rng.random_range(1..3_000);
            self.wire.push((again, Message::ToCoordinator(event.clone())));
        }
        self.wire.push((at, message));
    }

    fn deliver(&mut self) {
        let now = self.now;
        let due: Vec<Message> =
            self.wire.extract_if(.., |(at, _)| *at <= now).map(|(_, message)| message).collect();
        for message in due {
            match message {
                Message::ToWorker(worker, command) => self.on_command(&worker, command),
                Message::ToCoordinator(event) => self.step(event),
            }
        }
    }

    fn on_command(&mut self, id: &WorkerId, command: Command) {
        let now = self.now;
        let (duration, doomed) =
            (self.rng.random_range(50..1_500), self.chance(self.weather.executor_dies * 20.0));
        let worker = self.workers.get_mut(id).unwrap();
        match command {
            Command::Start { slot, assignment } => {
                let place = &mut worker.slots[slot.0 as usize];
                let known = place.outbox.contains_key(&assignment.lease)
                    || place.work.as_ref().is_some_and(|work| work.assignment.lease == assignment.lease);
                if known {
                    return;
                }
                assert!(place.work.is_none(), "{id}/{slot} is busy and is given {}", assignment.lease);
                let job = assignment.lease.job.clone();
                match assignment.task {
                    Task::Sample { .. } | Task::Edit { .. } | Task::Search { .. } | Task::Evaluate { .. } => {
                        self.files.insert((job, File::Shard));
                    }
                    Task::Publish { .. } => {
                        self.files.insert((job, File::Result));
                    }
                    _ => {}
                }
                if let Task::FineTune { role, .. } = &assignment.task {
                    let key = (assignment.lease.job.clone(), role.generation.0, role.rank.0);
                    assert!(self.generations.insert(key), "generation {} reused", role.generation);
                    let gang =
                        self.gangs.entry((assignment.lease.job.clone(), role.generation.0)).or_default();
                    gang.step =
                        gang.step.max(self.checkpoint.get(&assignment.lease.job).copied().unwrap_or(0));
                    gang.started += 1;
                    if role.rank.0 == 0 {
                        let event =
                            Event::StoreOpen { lease: assignment.lease.clone(), address: "a:1".to_owned() };
                        self.wire.push((now + 20, Message::ToCoordinator(event)));
                    }
                }
                place.work =
                    Some(Running { assignment: *assignment, done_at: now + duration, step: 0, doomed });
            }
            Command::Yield { slot, lease, .. } => {
                let place = &mut worker.slots[slot.0 as usize];
                if place.work.as_ref().is_some_and(|work| work.assignment.lease == lease) {
                    if let Some(gang) = self.gangs.get_mut(&(lease.job.clone(), lease.attempt.0)) {
                        gang.yielding = true;
                    }
                } else {
                    let yielded = Failure::new(ErrorCode::Yielded, "yielded", "");
                    place.outbox.entry(lease).or_insert(Err(yielded));
                    worker.resend_at = now;
                }
            }
            Command::Stop { slot, lease } => {
                let place = &mut worker.slots[slot.0 as usize];
                if place.work.as_ref().is_some_and(|work| work.assignment.lease == lease) {
                    break_gang(&mut self.gangs, &lease);
                    place.work = None;
                }
                let stopped = Failure::new(ErrorCode::Cancelled, "stopped", "");
                place.outbox.entry(lease).or_insert(Err(stopped));
                worker.resend_at = now;
            }
            Command::Ack { lease } => {
                worker.slots.iter_mut().for_each(|slot| drop(slot.outbox.remove(&lease)));
            }
        }
    }

    fn work(&mut self) {
        let ids: Vec<WorkerId> = self.workers.keys().cloned().collect();
        for id in ids {
            let (worker_dies, executor_dies) =
                (self.chance(self.weather.worker_dies), self.chance(self.weather.executor_dies));
            let victim = self.rng.random_range(0..8);
            let now = self.now;
            let worker = self.workers.get_mut(&id).unwrap();
            for (index, slot) in worker.slots.iter_mut().enumerate() {
                if worker_dies {
                    if let Some(work) = slot.work.take() {
                        break_gang(&mut self.gangs, &work.assignment.lease);
                    }
                    slot.outbox.clear();
                    continue;
                }
                let Some(work) = &mut slot.work else { continue };
                let lease = work.assignment.lease.clone();
                let died = (executor_dies && index == victim) || (work.doomed && now >= work.done_at);
                let outcome = if died {
                    Some(Err(Failure {
                        at_unix_ms: now,
                        ..Failure::new(ErrorCode::ExecutorDied, "signal 9", "")
                    }))
                } else {
                    progress(work, now, &mut self.gangs, &mut self.checkpoint)
                };
                if let Some(outcome) = outcome {
                    if outcome.is_err() {
                        break_gang(&mut self.gangs, &lease);
                    }
                    slot.outbox.insert(lease, outcome);
                    slot.work = None;
                    worker.resend_at = now;
                }
            }
            if worker_dies {
                worker.joined = false;
                worker.join_at = now + self.rng.random_range(500..8_000);
                continue;
            }
            self.talk(&id);
        }
    }

    fn talk(&mut self, id: &WorkerId) {
        let now = self.now;
        let worker = self.workers.get_mut(id).unwrap();
        let mut events = Vec::new();
        let held = |worker: &SimWorker| {
            let slots = worker.slots.iter().enumerate();
            let leases = |slot: &SimSlot| {
                let work = slot.work.iter().map(|work| &work.assignment);
                let work = work.map(|assignment| (assignment.lease.clone(), assignment.shards()));
                let shards =
                    |outcome: &Result<TaskOutput, Failure>| outcome.as_ref().map_or(1, TaskOutput::shards);
                let over = slot.outbox.iter().map(|(lease, outcome)| (lease.clone(), shards(outcome)));
                work.chain(over).collect::<Vec<_>>()
            };
            slots
                .flat_map(|(index, slot)| {
                    let slot_index = SlotIndex(index as u32);
                    let held = move |(lease, shards)| HeldLease { slot: slot_index, lease, shards };
                    leases(slot).into_iter().map(held)
                })
                .collect()
        };
        if !worker.joined {
            if now < worker.join_at {
                return;
            }
            worker.joined = true;
            worker.resend_at = now + 100;
            let devices = worker.slots.iter().map(|_| "cpu".to_owned()).collect();
            // A join is the first message of a fresh, ordered stream: nothing that was on the wire before arrives after it.
            self.wire.retain(|(_, message)| match message {
                Message::ToWorker(to, _) => to != id,
                Message::ToCoordinator(
                    Event::Heartbeat { worker, .. } | Event::WorkerJoined { worker, .. },
                ) => worker != id,
                Message::ToCoordinator(_) => true,
            });
            let report = |slot: u32| {
                let canary = lethe_domain::canary::EXPECTED.to_vec();
                (SlotIndex(slot), SlotReport { torch: "2.11.0".to_owned(), canary })
            };
            let introduction = Introduction {
                hostname: "h".to_owned(),
                version: "1".to_owned(),
                devices,
                held: held(worker),
                reports: (0..worker.slots.len() as u32).map(report).collect(),
                incarnation: String::new(),
            };
            let event = Event::WorkerJoined {
                worker: id.clone(),
                introduction: Box::new(introduction),
                session_open: false,
            };
            return self.step(event);
        }
        if now.is_multiple_of(1_000) {
            let progress = worker.slots.iter().enumerate().filter_map(|(index, slot)| {
                let work = slot.work.as_ref()?;
                let lease = work.assignment.lease.clone();
                Some((
                    SlotIndex(index as u32),
                    Progress { lease, done: work.step, total: STEPS, samples_per_second: 1.0, loss: None },
                ))
            });
            events.push(Event::Heartbeat { worker: id.clone(), heard_ms: now, progress: progress.collect() });
        }
        if worker.resend_at <= now {
            worker.resend_at = now + 2_000;
            for (index, slot) in worker.slots.iter().enumerate() {
                events.extend(slot.outbox.iter().map(|(lease, outcome)| Event::LeaseFinished {
                    worker: id.clone(),
                    slot: SlotIndex(index as u32),
                    lease: lease.clone(),
                    outcome: outcome.clone().map(Box::new),
                }));
            }
        }
        events.into_iter().for_each(|event| self.send(Message::ToCoordinator(event)));
    }

    fn crash_coordinator(&mut self) {
        self.epoch += 1;
        let jobs = self.disk.values().map(|(record, shards)| {
            let shards =
                shards.iter().map(|((phase, shard), output)| (*phase, *shard, output.clone())).collect();
            // Through JSON, as a real store keeps it.
            (serde_json::from_value(serde_json::to_value(record).unwrap()).unwrap(), shards)
        });
        let jobs = jobs.collect::<Vec<_>>();
        self.state = State::restore(self.config.clone(), Epoch(self.epoch), self.clock(), jobs, []);
        // What was being done for jobs that had ended is half done at most.
        self.chores.clear();
        let undone = self.state.left_undone(self.forgotten.clone());
        undone.into_iter().for_each(|chore| self.begin_chore(chore));
        self.wire
            .retain(|(_, message)| matches!(message, Message::ToCoordinator(Event::LeaseFinished { .. })));
        for worker in self.workers.values_mut() {
            worker.joined = false;
            worker.join_at = self.now + self.rng.random_range(50..2_000);
        }
    }

    fn run(&mut self, limit_ms: u64) {
        while self.now < limit_ms {
            self.now += 10;
            if self.chance(self.weather.coordinator_dies) {
                self.crash_coordinator();
            }
            self.live();
            let over = |id: &JobId| self.state.job_state(id).unwrap().is_final();
            if self.state.job_ids().iter().all(over)
                && self.workers.values().all(|w| w.slots.iter().all(|s| s.work.is_none()))
            {
                return;
            }
        }
        panic!(
            "not over after {limit_ms} ms: {:?}",
            self.state.job_ids().iter().map(|id| self.state.status(id, self.clock())).collect::<Vec<_>>()
        );
    }

    /// Until nothing is to be done any more for jobs that have ended.
    fn quiet(&mut self) {
        let limit = self.now + 120_000;
        let settled = |world: &Self| {
            let mut records = world.state.job_ids().iter().filter_map(|id| world.state.record(id));
            let tidy = |record: &JobRecord| record.tidy && !record.unwanted;
            records.all(tidy) && world.wire.is_empty() && world.forgotten.is_empty()
        };
        while !settled(self) || !self.chores.is_empty() {
            assert!(self.now < limit, "{:?} {:?}", self.chores, self.forgotten);
            self.now += 10;
            self.live();
        }
    }

    /// What happens in 10 ms without anybody's doing.
    fn live(&mut self) {
        self.deliver();
        self.work();
        self.do_chores();
        if self.state.next_deadline().is_some_and(|at| at <= self.now) {
            self.step(Event::Tick);
        }
    }

    fn submit(&mut self, job: &str, spec: JobSpec) {
        self.step(Event::Submit {
            by: Principal::default(),
            job: JobId::new(job).unwrap(),
            spec: Box::new(spec),
            inputs: Inputs::default(),
            request_id: None,
        });
    }

    /// What must not depend on the weather.
    fn essence(&self) -> Vec<(JobId, JobState, String, String)> {
        let of = |id: &JobId| {
            // Of jobs that are over the state keeps no more than a summary.
            let (record, _) = &self.disk[id];
            let target = record.outputs.direction().map(|d| d.target.sha256.clone()).unwrap_or_default();
            let report = record.outputs.report().map(|r| r.judge.uri.clone()).unwrap_or_default();
            (id.clone(), record.state, target, report)
        };
        self.state.job_ids().iter().map(of).collect()
    }
}

fn break_gang(gangs: &mut BTreeMap<(JobId, u32), GangSim>, lease: &LeaseId) {
    if lease.phase == Phase::FineTune
        && let Some(gang) = gangs.get_mut(&(lease.job.clone(), lease.attempt.0))
    {
        gang.broken = true;
    }
}

fn progress(
    work: &mut Running,
    now: u64,
    gangs: &mut BTreeMap<(JobId, u32), GangSim>,
    checkpoint: &mut BTreeMap<JobId, u64>,
) -> Option<Result<TaskOutput, Failure>> {
    if let Task::Standby { .. } = &work.assignment.task {
        work.step += 1;
        return None;
    }
    let Task::FineTune { role, .. } = &work.assignment.task else {
        work.step += 1;
        return (now >= work.done_at).then(|| Ok(output(&work.assignment)));
    };
    let job = &work.assignment.lease.job;
    let gang = gangs.get_mut(&(job.clone(), role.generation.0)).unwrap();
    if gang.broken {
        return Some(Err(Failure {
            at_unix_ms: now + 1,
            ..Failure::new(ErrorCode::GangAborted, "peer lost", "")
        }));
    }
    if gang.yielding && gang.started == role.world {
        return Some(Err(Failure { at_unix_ms: now, ..Failure::new(ErrorCode::Yielded, "yielded", "") }));
    }
    if role.rank.0 == 0 && gang.started == role.world && now.is_multiple_of(50) && gang.step < STEPS {
        gang.step += 1;
        if gang.step.is_multiple_of(10) {
            let saved = checkpoint.entry(job.clone()).or_default();
            *saved = gang.step.max(*saved);
        }
    }
    work.step = gang.step;
    (gang.step == STEPS).then(|| Ok(output(&work.assignment)))
}

fn two_jobs(seed: u64, weather: Weather, slots: &[usize]) -> World {
    let mut world = World::new(seed, weather, slots);
    world.submit("a", spec("a", serde_json::json!({"positives": 7}), (1, 3)));
    world.submit("b", spec("b", serde_json::json!({"total": 95}), (2, 2)));
    world.run(3_600_000);
    world
}

#[test]
fn any_number_of_slots_gives_the_same_outputs() {
    let one = two_jobs(1, CALM, &[2]).essence();
    assert!(one.iter().all(|(_, state, _, _)| *state == JobState::Succeeded), "{one:?}");
    // Positives per shard are 0, 1, 2, 0, 1, 2, ...: the seventh falls in shard 7, and no later shard counts.
    assert_eq!(one[0].2, "t(s0+10,s10+10,s20+10,s30+10,s40+10,s50+10,s60+10,s70+10)");
    for slots in [&[1, 1][..], &[3], &[2, 2, 2], &[8, 8]] {
        assert_eq!(two_jobs(2, CALM, slots).essence(), one, "{slots:?}");
    }
}

#[test]
fn no_storm_changes_the_outputs_and_no_shard_is_lost_or_counted_twice() {
    let calm = two_jobs(1, CALM, &[2]).essence();
    let seeds = std::env::var("LETHE_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| two_jobs(seed, STORM, &[2, 1, 2]).essence());
        let essence = outcome.unwrap_or_else(|_| panic!("seed {seed}: see above"));
        assert_eq!(essence, calm, "seed {seed}");
    }
}

#[test]
fn a_cancelled_job_is_cancelled_only_when_its_slots_are_free() {
    for seed in 0..200 {
        let mut world = World::new(seed, STORM, &[2, 2]);
        world.submit("a", spec("a", serde_json::json!({"total": 500}), (2, 4)));
        let cancel_at = 500 + seed * 40;
        while world.now < cancel_at {
            world.now += 10;
            world.live();
        }
        let job = JobId::new("a").unwrap();
        if world.state.job_state(&job).unwrap().is_final() {
            continue;
        }
        world.step(Event::Cancel { by: Principal::default(), job: job.clone(), reason: "test".to_owned() });
        world.run(cancel_at + 120_000);
        assert_eq!(world.state.job_state(&job).unwrap(), JobState::Cancelled, "seed {seed}");
    }
}

#[test]
fn of_jobs_that_are_over_nothing_is_left_but_what_is_kept() {
    for seed in 0..300 {
        let config = Config { keep_jobs: Some(2), keep_ms: Some(600_000), ..config() };
        let mut world = World::with(config, seed, STORM, &[2, 2]);
        let mut submitted = Vec::new();
        for number in 0..5 {
            let name = format!("j{number}");
            world.submit(&name, spec(&name, serde_json::json!({"total": 40}), (1, 2)));
            submitted.push(JobId::new(name).unwrap());
        }
        // People cancel and delete whatever they like, whenever they like.
        for _ in 0..3_000 {
            world.now += 10;
            if world.chance(world.weather.coordinator_dies) {
                world.crash_coordinator();
            }
            world.live();
            let job = submitted[world.rng.random_range(0..submitted.len())].clone();
            if world.chance(0.0005) {
                world.step(Event::Cancel { by: Principal::default(), job, reason: String::new() });
            } else if world.chance(0.01) {
                let state = world.state.job_state(&job);
                world.step(Event::Delete { by: Principal::default(), job: job.clone() });
                let unwanted = world.state.record(&job).is_none_or(|record| record.unwanted);
                assert_eq!(unwanted, state.is_none_or(JobState::is_final), "seed {seed}: {job}");
            }
        }
        world.run(3_600_000);
        world.quiet();
        let kept: Vec<&JobId> = world.state.job_ids().iter().collect();
        assert!(kept.len() <= 2, "seed {seed}: {kept:?}");
        assert_eq!(world.disk.keys().collect::<BTreeSet<_>>(), kept.iter().copied().collect(), "seed {seed}");
        let succeeded = |id: &JobId| world.state.job_state(id) == Some(JobState::Succeeded);
        for (record, shards) in world.disk.values() {
            assert!(record.tidy && !record.unwanted && shards.is_empty(), "seed {seed}: {}", record.id);
        }
        let results: BTreeSet<&JobId> = world.files.iter().map(|(id, _)| id).collect();
        assert!(world.files.iter().all(|(_, file)| *file == File::Result), "seed {seed}: {:?}", world.files);
        // One that was cancelled while it published may have some too.
        assert!(results.iter().all(|id| kept.contains(id)), "seed {seed}: {results:?}");
        assert!(kept.iter().all(|id| !succeeded(id) || results.contains(id)), "seed {seed}: {results:?}");

        // In the end all of them are too old.
        world.now += 600_000;
        let limit = world.now + 120_000;
        while !world.disk.is_empty() || !world.forgotten.is_empty() {
            assert!(world.now < limit, "seed {seed}: {:?} {:?}", world.disk.keys(), world.forgotten);
            world.now += 10;
            world.live();
        }
        assert!(world.state.job_ids().is_empty() && world.files.is_empty(), "seed {seed}");
    }
}
