//! A worker that speaks the real session protocol and makes its outputs up: a function of the task alone, with real files
//! where somebody will fetch them. It finishes a lease when it is given a permit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lethe_artifacts::ArtifactStore;
use lethe_client::{Client, Options};
use lethe_domain::{
    ArtifactRef, Assignment, Better, Cut, DirectionOutput, EditMethod, EditOutput, EditSummary, ErrorCode,
    EvaluateOutput, Failure, Figure, FineTuneOutput, HeldLease, JudgeSummary, LeaseId, ProbeOutput, Progress,
    PublishOutput, REMAINING_SHARE, ReportOutput, SampleOutput, SampleRange, SearchOutput, SlotIndex, Task,
    TaskOutput, Unit, Versions, Warning, WarningCode, WorkerId,
};
use lethe_proto::session::{Registration, WorkerCommand, WorkerEvent};
use lethe_proto::{LeaseOutcome, PROTOCOL};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

use crate::sessions::report;

/// Training steps of every made-up job.
pub(crate) const STEPS: u64 = 40;

/// A fake worker that runs until it is dropped.
pub(crate) struct FakeWorker {
    /// Every lease that was started, in order.
    pub(crate) started: watch::Receiver<Vec<LeaseId>>,
    /// One permit finishes one lease.
    pub(crate) permits: Arc<Semaphore>,
    task: JoinHandle<()>,
    leave: Arc<tokio::sync::Notify>,
}

/// More permits than any test needs.
pub(crate) const FREELY: usize = 1_000_000;

impl FakeWorker {
    pub(crate) fn start(address: &str, id: &str, slots: u32, permits: usize) -> Self {
        let (started, receiver) = watch::channel(Vec::new());
        let permits = Arc::new(Semaphore::new(permits));
        let leave = Arc::new(tokio::sync::Notify::new());
        let (done, finished) = mpsc::channel(64);
        let member = Member {
            address: address.to_owned(),
            id: WorkerId::new(id).unwrap(),
            slots,
            started,
            permits: permits.clone(),
            done,
            running: BTreeMap::new(),
            outbox: BTreeMap::new(),
            progress: 0,
        };
        let task = tokio::spawn(member.run(finished, leave.clone()));
        Self { started: receiver, permits, task, leave }
    }

    /// Waits until this many leases were started in all.
    pub(crate) async fn started(&mut self, count: usize) -> Vec<LeaseId> {
        let wait = self.started.wait_for(|started| started.len() >= count);
        tokio::time::timeout(super::world::DEADLINE, wait).await.expect("leases").unwrap().clone()
    }

    /// Closes the session in good order and ends.
    pub(crate) async fn leave(mut self) {
        self.leave.notify_one();
        (&mut self.task).await.unwrap();
    }
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Running {
    assignment: Assignment,
    work: JoinHandle<()>,
}

struct Member {
    address: String,
    id: WorkerId,
    slots: u32,
    started: watch::Sender<Vec<LeaseId>>,
    permits: Arc<Semaphore>,
    done: mpsc::Sender<(SlotIndex, LeaseOutcome)>,
    running: BTreeMap<SlotIndex, Running>,
    /// Finished, not yet acknowledged.
    outbox: BTreeMap<LeaseId, (SlotIndex, LeaseOutcome)>,
    progress: u64,
}

/// Why a session is over.
#[derive(PartialEq)]
enum Over {
    Lost,
    Left,
}

impl Member {
    async fn run(
        mut self,
        mut finished: mpsc::Receiver<(SlotIndex, LeaseOutcome)>,
        leave: Arc<tokio::sync::Notify>,
    ) {
        while self.session(&mut finished, &leave).await != Ok(Over::Left) {
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn registration(&self) -> Registration {
        let running = self.running.iter().map(|(slot, running)| {
            let Assignment { lease, .. } = &running.assignment;
            HeldLease { slot: *slot, lease: lease.clone(), shards: running.assignment.shards() }
        });
        let finished = self.outbox.values().map(|(slot, outcome)| {
            let shards = outcome.outcome.as_ref().map_or(1, TaskOutput::shards);
            HeldLease { slot: *slot, lease: outcome.lease.clone(), shards }
        });
        Registration {
            worker: self.id.clone(),
            hostname: format!("{}.lan", self.id),
            version: "0.0.0-fake".to_owned(),
            protocol: PROTOCOL,
            devices: (0..self.slots).map(|_| "cpu".to_owned()).collect(),
            held: running.chain(finished).collect(),
            reports: (0..self.slots).map(|slot| (SlotIndex(slot), report())).collect(),
            chaos: None,
            incarnation: String::new(),
        }
    }

    async fn session(
        &mut self,
        finished: &mut mpsc::Receiver<(SlotIndex, LeaseOutcome)>,
        leave: &tokio::sync::Notify,
    ) -> Result<Over, ()> {
        let client = Client::connect(&[&self.address], Options::default()).await.map_err(drop)?;
        let mut session = client.join(self.registration()).await.map_err(drop)?;
        for (slot, outcome) in self.outbox.values() {
            let event = WorkerEvent::Finished { slot: *slot, outcome: Box::new(outcome.clone()) };
            session.events.send(event).await.map_err(drop)?;
        }
        let mut heartbeat = interval(Duration::from_millis(session.registered.heartbeat_ms.into()));
        loop {
            tokio::select! {
                command = session.commands.next() => match command {
                    Ok(command) => if let Some(event) = self.obey(command) {
                        session.events.send(event).await.map_err(drop)?;
                    },
                    Err(_) => return Ok(Over::Lost),
                },
                done = finished.recv() => {
                    let (slot, outcome) = done.unwrap();
                    let mine = self.running.get(&slot).is_some_and(|r| r.assignment.lease == outcome.lease);
                    if mine {
                        self.running.remove(&slot);
                        session.events.send(self.finish(slot, outcome)).await.map_err(drop)?;
                    }
                }
                _ = heartbeat.tick() => {
                    let beat = WorkerEvent::Heartbeat(self.all_progress());
                    session.events.send(beat).await.map_err(drop)?;
                }
                () = leave.notified() => {
                    drop(session.events);
                    while session.commands.next().await.is_ok() {}
                    return Ok(Over::Left);
                }
            }
        }
    }

    fn all_progress(&mut self) -> Vec<(SlotIndex, Progress)> {
        self.progress = (self.progress + 1).min(STEPS - 1);
        let done = self.progress;
        let of = |(slot, running): (&SlotIndex, &Running)| {
            let lease = running.assignment.lease.clone();
            let loss = matches!(running.assignment.task, Task::FineTune { .. }).then(|| 1.0 / done as f64);
            (*slot, Progress { lease, done, total: STEPS, samples_per_second: 640.0, loss })
        };
        self.running.iter().map(of).collect()
    }

    fn finish(&mut self, slot: SlotIndex, outcome: LeaseOutcome) -> WorkerEvent {
        self.outbox.insert(outcome.lease.clone(), (slot, outcome.clone()));
        WorkerEvent::Finished { slot, outcome: Box::new(outcome) }
    }

    /// Does what the coordinator says; gives what there is to say at once.
    fn obey(&mut self, command: WorkerCommand) -> Option<WorkerEvent> {
        match command {
            WorkerCommand::Registered(_) => None,
            WorkerCommand::Start { slot, assignment, .. } => {
                let lease = assignment.lease.clone();
                assert!(!self.running.contains_key(&slot), "{lease} on a busy slot");
                self.started.send_modify(|started| started.push(lease.clone()));
                let opens = matches!(&assignment.task, Task::FineTune { role, .. } if role.rank.0 == 0);
                let work =
                    tokio::spawn(work(slot, (*assignment).clone(), self.permits.clone(), self.done.clone()));
                self.running.insert(slot, Running { assignment: *assignment, work });
                opens.then(|| WorkerEvent::StoreOpen { lease, address: "127.0.0.1:1".to_owned() })
            }
            WorkerCommand::Stop { slot, lease, .. } => {
                let running = self.running.remove(&slot).filter(|r| r.assignment.lease == lease)?;
                running.work.abort();
                let failure = Failure::new(ErrorCode::Cancelled, "told to stop", "");
                Some(self.finish(slot, LeaseOutcome { lease, outcome: Err(failure) }))
            }
            WorkerCommand::Yield { slot, lease, .. } => {
                let running = self.running.remove(&slot).filter(|r| r.assignment.lease == lease)?;
                running.work.abort();
                let failure = Failure::new(ErrorCode::Yielded, "told to yield", "");
                Some(self.finish(slot, LeaseOutcome { lease, outcome: Err(failure) }))
            }
            WorkerCommand::Ack(lease) => {
                self.outbox.remove(&lease);
                None
            }
        }
    }
}

async fn work(
    slot: SlotIndex,
    assignment: Assignment,
    permits: Arc<Semaphore>,
    done: mpsc::Sender<(SlotIndex, LeaseOutcome)>,
) {
    permits.acquire().await.unwrap().forget();
    let output = output(&assignment).await;
    let outcome = LeaseOutcome { lease: assignment.lease, outcome: Ok(output) };
    let _ = done.send((slot, outcome)).await;
}

/// The published generator: larger than a piece of a download, and not a multiple of one.
pub(crate) fn generator() -> Vec<u8> {
    (0..200_003_u32).map(|i| (i % 251) as u8).collect()
}

/// A grey picture.
pub(crate) fn picture() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 8, 4);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&[128; 32]).unwrap();
    bytes
}

async fn put(assignment: &Assignment, name: &str, bytes: Vec<u8>) -> ArtifactRef {
    let store = ArtifactStore::open(&assignment.artifacts).await.unwrap();
    let put = store.put(&format!("jobs/{}/{name}", assignment.lease.job), bytes).await.unwrap();
    ArtifactRef { path: put.path, sha256: put.sha256.to_string(), size: put.size }
}

fn named(name: String) -> ArtifactRef {
    ArtifactRef { path: name.clone(), sha256: name, size: 1 }
}

async fn output(assignment: &Assignment) -> TaskOutput {
    let spec = &assignment.spec;
    match &assignment.task {
        Task::Probe => TaskOutput::Probe(ProbeOutput {
            image_shape: vec![1, 28, 28],
            range: [0.0, 1.0],
            batch_seconds: 0.2,
            parameters: 1000,
            warnings: vec![],
        }),
        Task::Sample { .. } => in_shards(assignment, |SampleRange { start, count }| {
            let scores = named(format!("scores-{start}"));
            TaskOutput::Sample(SampleOutput { samples: count, positives: Some(count / 10), scores })
        }),
        Task::Standby { .. } => std::future::pending().await,
        Task::Direction { scores } => TaskOutput::Direction(DirectionOutput {
            target: named(format!("target-of-{}", scores.len())),
            samples: scores.len() as u64 * spec.sample.shard_size,
            positives: scores.len() as u64 * spec.sample.shard_size / 10,
            cut: Cut { sign: 1.0, threshold: 3.5 },
            select: 1.0,
            goal: 0.5,
            edit: EditMethod::Line,
            threshold: 0.7,
            edited_share: 0.17,
            heldout_auc: 0.97,
            costs: lethe_domain::spec::Costs::default(),
            warnings: Vec::new(),
        }),
        Task::Edit { .. } => in_shards(assignment, |SampleRange { start, count }| {
            TaskOutput::Edit(EditOutput {
                samples: count,
                pool: named(format!("pool-{start}")),
                reused: spec.pool.reuse,
            })
        }),
        Task::Search { round, .. } => in_shards(assignment, |SampleRange { start, count }| {
            let trial = named(format!("trial-{start}"));
            TaskOutput::Search(SearchOutput { round: *round, steps: count, trial })
        }),
        Task::FineTune { role, .. } if role.rank.0 > 0 => TaskOutput::FineTune(None),
        Task::FineTune { role, .. } => {
            let curve: Vec<(u64, f64)> = (1..=STEPS).map(|step| (step, 1.0 / step as f64)).collect();
            let curve = put(assignment, "train/curve.json", serde_json::to_vec(&curve).unwrap()).await;
            TaskOutput::FineTune(Some(FineTuneOutput {
                weights: named("weights".to_owned()),
                checkpoint: format!("jobs/{}/checkpoints/40", assignment.lease.job),
                steps: STEPS,
                world_size: role.world,
                samples_per_second: 1280.0,
                lr: 0.001,
                drift: None,
                halved: 1,
                alpha: 3.0,
                labeller_term: 2.0,
                strength: Some(1.25),
                loss_first: 1.0,
                loss_last: 0.025,
                curve,
                edits: EditSummary { tried: 400, unresolved: 0, median_step: 0.8, p99_step: 2.1 },
                search: None,
            }))
        }
        Task::Evaluate { .. } => in_shards(assignment, |SampleRange { start, count }| {
            TaskOutput::Evaluate(EvaluateOutput {
                samples: count,
                before: Some(count / 10),
                after: Some(0),
                moments: named(format!("moments-{start}")),
            })
        }),
        Task::Report { .. } => TaskOutput::Report(figures()),
        Task::Publish { .. } => TaskOutput::Publish(PublishOutput {
            generator: put(assignment, "result/generator.pt", generator()).await,
            sidecar: put(assignment, "result/generator.pt.json", b"{}".to_vec()).await,
            before_after_png: put(assignment, "result/before_after.png", picture()).await,
            versions: Versions { lethe: "0".to_owned(), torch: "0".to_owned(), device: "cpu".to_owned() },
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

fn figures() -> ReportOutput {
    let figure = |group: &str, name: &str, before, after, unit| Figure {
        name: name.to_owned(),
        group: group.to_owned(),
        before,
        after: Some(after),
        unit,
        ci95_before: None,
        ci95_after: Some([after * 0.9, after * 1.1]),
        better: Better::Lower,
        samples: 10_000,
        definition: format!("The {name} of {group}"),
    };
    let (group, remaining) = REMAINING_SHARE;
    ReportOutput {
        figures: vec![
            figure(group, "share", Some(0.1), 0.004, Unit::Share),
            figure(group, remaining, None, 0.04, Unit::Share),
            figure("fidelity", "distance", Some(3.1), 3.4, Unit::Distance),
        ],
        warnings: vec![Warning::new(
            WarningCode::JudgeIsLabeller,
            "the judge is the labeller",
            "name another",
        )],
        judge: JudgeSummary {
            uri: "/m/s.pt".to_owned(),
            sha256: "ab".repeat(32),
            others: vec![],
            same_as_labeller: true,
        },
        advice: Some("raise unlearn.steps".to_owned()),
    }
}
