//! Workers that speak the real session protocol and do nothing: every lease comes back after a while, with made-up figures.
//!
//! Not here: what is measured with them (the benchmarks of the coordinator).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use lethe_client::{Client, Options};
use lethe_domain::{
    Assignment, ErrorCode, Failure, HeldLease, LeaseId, Progress, SampleRange, SlotIndex, SlotReport, Task,
    TaskOutput, WorkerId, canary,
};
use lethe_proto::session::{Registration, WorkerCommand, WorkerEvent};
use lethe_proto::{LeaseOutcome, PROTOCOL};
use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep, sleep_until};

/// What a fleet has done.
#[derive(Debug, Default)]
pub struct Tally {
    /// Sample shards that came back.
    pub shards: AtomicU64,
    /// Sessions that ended and were opened again.
    pub lost: AtomicU64,
}

/// Works until it is aborted; a lease takes so long. A session that ends is opened again.
pub async fn work(addresses: Vec<String>, number: u32, slots: u32, lease: Duration, tally: Arc<Tally>) {
    let mut worker =
        Worker { number, slots, lease, tally, running: BTreeMap::new(), outbox: BTreeMap::new() };
    loop {
        // Why it ended is the coordinator's business; that it did is counted.
        let _ = worker.session(&addresses).await;
        worker.tally.lost.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(100)).await;
    }
}

struct Worker {
    number: u32,
    slots: u32,
    lease: Duration,
    tally: Arc<Tally>,
    /// What each slot works on; with none, for ever.
    running: BTreeMap<SlotIndex, (Assignment, Option<Instant>)>,
    /// Finished, not yet acknowledged.
    outbox: BTreeMap<LeaseId, (SlotIndex, LeaseOutcome)>,
}

impl Worker {
    fn registration(&self) -> Result<Registration> {
        let report = SlotReport { torch: "none".to_owned(), canary: canary::EXPECTED.to_vec() };
        let running = self.running.iter().map(|(slot, (work, _))| HeldLease {
            slot: *slot,
            lease: work.lease.clone(),
            shards: work.shards(),
        });
        let finished = self.outbox.values().map(|(slot, outcome)| HeldLease {
            slot: *slot,
            lease: outcome.lease.clone(),
            shards: outcome.outcome.as_ref().map_or(1, TaskOutput::shards),
        });
        Ok(Registration {
            worker: WorkerId::new(format!("w{}", self.number))?,
            hostname: "bench".to_owned(),
            version: "bench".to_owned(),
            protocol: PROTOCOL,
            devices: vec!["cpu".to_owned(); self.slots as usize],
            held: running.chain(finished).collect(),
            reports: (0..self.slots).map(|slot| (SlotIndex(slot), report.clone())).collect(),
            chaos: None,
            incarnation: format!("{}", self.number),
        })
    }

    async fn session(&mut self, addresses: &[String]) -> Result<()> {
        let client = Client::connect(addresses, Options::default()).await?;
        let mut session = client.join(self.registration()?).await?;
        for (slot, outcome) in self.outbox.values() {
            let outcome = Box::new(outcome.clone());
            session.events.send(WorkerEvent::Finished { slot: *slot, outcome }).await?;
        }
        let mut heartbeat = interval(Duration::from_millis(session.registered.heartbeat_ms.into()));
        loop {
            let due = self.running.values().filter_map(|(_, at)| *at).min();
            let done = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = session.commands.next() => {
                    if let Some(event) = self.obey(command?) {
                        session.events.send(event).await?;
                    }
                }
                () = done => for event in self.finish()? {
                    session.events.send(event).await?;
                },
                _ = heartbeat.tick() => session.events.send(WorkerEvent::Heartbeat(self.progress())).await?,
            }
        }
    }

    fn obey(&mut self, command: WorkerCommand) -> Option<WorkerEvent> {
        match command {
            WorkerCommand::Registered(_) => None,
            WorkerCommand::Start { slot, assignment, .. } => {
                let lease = assignment.lease.clone();
                let opens = matches!(&assignment.task, Task::FineTune { role, .. } if role.rank.0 == 0);
                let waits = matches!(assignment.task, Task::Standby { .. });
                let at = (!waits).then(|| Instant::now() + self.lease);
                self.running.insert(slot, (*assignment, at));
                opens.then(|| WorkerEvent::StoreOpen { lease, address: "127.0.0.1:1".to_owned() })
            }
            WorkerCommand::Stop { slot, lease, .. } | WorkerCommand::Yield { slot, lease, .. } => {
                self.running.remove(&slot).filter(|(work, _)| work.lease == lease)?;
                let failure = Failure::new(ErrorCode::Cancelled, "told to stop", "");
                Some(self.said(slot, LeaseOutcome { lease, outcome: Err(failure) }))
            }
            WorkerCommand::Ack(lease) => {
                self.outbox.remove(&lease);
                None
            }
        }
    }

    fn said(&mut self, slot: SlotIndex, outcome: LeaseOutcome) -> WorkerEvent {
        self.outbox.insert(outcome.lease.clone(), (slot, outcome.clone()));
        WorkerEvent::Finished { slot, outcome: Box::new(outcome) }
    }

    /// What is done by now.
    fn finish(&mut self) -> Result<Vec<WorkerEvent>> {
        let now = Instant::now();
        let due = self.running.extract_if(.., |_, (_, at)| at.is_some_and(|at| at <= now));
        let done: Vec<(SlotIndex, (Assignment, _))> = due.collect();
        let mut events = Vec::new();
        for (slot, (work, _)) in done {
            let output = output(&work)?;
            if matches!(work.task, Task::Sample { .. }) {
                self.tally.shards.fetch_add(output.shards().into(), Ordering::Relaxed);
            }
            events.push(self.said(slot, LeaseOutcome { lease: work.lease, outcome: Ok(output) }));
        }
        Ok(events)
    }

    fn progress(&self) -> Vec<(SlotIndex, Progress)> {
        let now = Instant::now();
        let of = |(slot, (work, at)): (&SlotIndex, &(Assignment, Option<Instant>))| {
            let left = at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
            let done = self.lease.saturating_sub(left).as_millis() as u64;
            let progress = Progress {
                lease: work.lease.clone(),
                done,
                total: self.lease.as_millis() as u64,
                samples_per_second: 100.0,
                loss: None,
            };
            (*slot, progress)
        };
        self.running.iter().map(of).collect()
    }
}

/// What nothing gives, in the form in which the state store keeps it.
fn output(work: &Assignment) -> Result<TaskOutput> {
    let size = work.spec.sample.shard_size;
    let file = |name: String| {
        let path = format!("jobs/{}/{name}", work.lease.job);
        json!({"path": path, "sha256": "0123456789abcdef".repeat(4), "size": 8 * size})
    };
    let value = match &work.task {
        Task::Probe => json!({"Probe": {
            "image_shape": [1, 8, 8], "range": [0.0, 1.0], "batch_seconds": 0.001, "parameters": 1000,
            "warnings": []
        }}),
        Task::Sample { range } => in_shards(work, *range, |index, count| {
            let scores = file(format!("sample/shard-{index:05}-a1.safetensors"));
            json!({"Sample": {"samples": count, "positives": count / 10, "scores": scores}})
        }),
        Task::Direction { scores } => json!({"Direction": {
            "target": file("direction/target.safetensors".to_owned()),
            "samples": scores.len() as u64 * size, "positives": scores.len(),
            "cut": {"sign": 1.0, "threshold": 1.0}, "threshold": 0.5, "edited_share": 0.1, "heldout_auc": 0.9,
            "warnings": []
        }}),
        Task::Edit { range, .. } => in_shards(work, *range, |index, count| {
            let pool = file(format!("edit/shard-{index:05}-a1.safetensors"));
            json!({"Edit": {"samples": count, "pool": pool}})
        }),
        Task::Search { round, range, .. } => in_shards(work, *range, |index, count| {
            let trial = file(format!("{}/shard-{index:05}-a1.json", round.phase()));
            json!({"Search": {"round": round, "steps": count, "trial": trial}})
        }),
        Task::FineTune { role, .. } if role.rank.0 > 0 => json!({"FineTune": null}),
        Task::Standby { .. } => json!({"FineTune": null}),
        Task::FineTune { role, .. } => json!({"FineTune": {
            "weights": file("train/weights.safetensors".to_owned()),
            "checkpoint": format!("jobs/{}/checkpoints/40", work.lease.job),
            "steps": work.spec.unlearn.steps, "world_size": role.world, "samples_per_second": 100.0,
            "loss_first": 1.0, "loss_last": 0.1, "curve": file("train/curve.json".to_owned()),
            "edits": {"tried": 400, "unresolved": 0, "median_step": 0.8, "p99_step": 2.1}
        }}),
        Task::Evaluate { range, .. } => in_shards(work, *range, |index, count| {
            let moments = file(format!("evaluate/shard-{index:05}-a1.safetensors"));
            json!({"Evaluate": {"samples": count, "before": count / 10, "after": 0, "moments": moments}})
        }),
        Task::Report { .. } => json!({"Report": {
            "figures": [], "warnings": [], "judge": {"uri": "s.pt", "sha256": "", "same_as_labeller": true}
        }}),
        Task::Publish { .. } => json!({"Publish": {
            "generator": file("result/generator.pt".to_owned()),
            "sidecar": file("result/generator.pt.json".to_owned()),
            "before_after_png": file("result/before_after.png".to_owned()),
            "versions": {"lethe": "0", "torch": "0", "device": "cpu"}
        }}),
    };
    serde_json::from_value(value).with_context(|| format!("an output of {}", work.lease.phase))
}

/// An output per shard, by its index and its samples; or the only one.
fn in_shards(work: &Assignment, range: SampleRange, output: impl Fn(u32, u64) -> Value) -> Value {
    let portions = work.lease.phase.portions(&work.spec);
    let mut outputs: Vec<Value> =
        portions.cut(range).map(|(shard, samples)| output(shard.0, samples.count)).collect();
    if outputs.len() == 1 { outputs.remove(0) } else { json!({"Shards": outputs}) }
}
