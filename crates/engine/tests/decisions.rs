//! One decision a test: events in, the exact effects out.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

use lethe_domain::{
    ArtifactRef, Cut, DirectionOutput, Epoch, ErrorCode, Failure, FineTuneOutput, JobId, JobSpec, JobState,
    LeaseId, Phase, ProbeOutput, Progress, SampleOutput, ShardIndex, SlotIndex, Task, TaskOutput, Waiting,
    WorkerId,
};
use lethe_engine::{Command, Config, Effect, Event, Now, State, Write};
use serde_json::{Value, json};

struct Bench {
    state: State,
    now: u64,
}

fn job() -> JobId {
    JobId::new("a").unwrap()
}

fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

fn spec(change: impl FnOnce(&mut Value)) -> Box<JobSpec> {
    let mut value = json!({
        "name": "a",
        "generator": {"uri": "g.pt", "format": "torchscript", "latent": {"dimension": 4},
                      "output": {"range": [0, 1], "channels": 1, "size": 8}},
        "feature": {"name": "smile", "scorer": {"uri": "s.pt", "positive": {"above": 1}}},
        "sample": {"shard_size": 10, "batch": 10, "until": {"total": 20}},
        "resources": {"slots": {"min": 2, "max": 2}},
    });
    change(&mut value);
    Box::new(JobSpec::from_value(value).unwrap())
}

fn artifact() -> ArtifactRef {
    ArtifactRef { path: "p".to_owned(), sha256: "s".to_owned(), size: 1 }
}

fn sample(positives: u64) -> TaskOutput {
    TaskOutput::Sample(SampleOutput { samples: 10, positives: Some(positives), scores: artifact() })
}

fn probe() -> TaskOutput {
    TaskOutput::Probe(ProbeOutput {
        image_shape: vec![1, 8, 8],
        range: [0.0, 1.0],
        batch_seconds: 0.1,
        parameters: 1,
    })
}

fn direction() -> TaskOutput {
    TaskOutput::Direction(DirectionOutput {
        target: artifact(),
        samples: 20,
        positives: 2,
        cut: Cut { sign: 1.0, threshold: 1.0 },
        threshold: 0.5,
        edited_share: 0.1,
        heldout_auc: 0.9,
        warnings: Vec::new(),
    })
}

impl Bench {
    fn new(config: Config) -> Self {
        Self { state: State::new(config, Epoch(1)), now: 0 }
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        let now = Now { mono_ms: self.now, unix_ms: 1_000 + self.now };
        let effects = self.state.step(now, event);
        self.state.check_invariants().unwrap();
        effects
    }

    fn submit(&mut self, change: impl FnOnce(&mut Value)) -> Vec<Effect> {
        self.step(Event::Submit { job: job(), spec: spec(change), request_id: None })
    }

    fn join(&mut self, name: &str, slots: usize) -> Vec<Effect> {
        self.step(Event::WorkerJoined {
            worker: worker(name),
            hostname: "h".to_owned(),
            version: "1".to_owned(),
            devices: vec!["cpu".to_owned(); slots],
            held: vec![],
        })
    }

    /// The lease on this slot.
    fn lease(&self, name: &str, slot: u32) -> Option<LeaseId> {
        let workers = self.state.workers(Now { mono_ms: self.now, unix_ms: 0 });
        workers.into_iter().find(|w| w.id == worker(name))?.slots.get(slot as usize)?.lease.clone()
    }

    fn finish(&mut self, name: &str, slot: u32, outcome: Result<TaskOutput, Failure>) -> Vec<Effect> {
        let lease = self.lease(name, slot).expect("the slot has a lease");
        self.finish_lease(name, slot, lease, outcome)
    }

    fn finish_lease(
        &mut self,
        name: &str,
        slot: u32,
        lease: LeaseId,
        outcome: Result<TaskOutput, Failure>,
    ) -> Vec<Effect> {
        self.step(Event::LeaseFinished {
            worker: worker(name),
            slot: SlotIndex(slot),
            lease,
            outcome: outcome.map(Box::new),
        })
    }

    fn state_of(&self) -> (JobState, Option<Failure>) {
        let record = self.state.record(&job()).unwrap();
        (record.state, record.failure.clone())
    }

    /// A job in its sample phase, one worker with two slots.
    fn sampling(change: impl FnOnce(&mut Value)) -> Self {
        let mut bench = Self::new(Config::default());
        bench.submit(change);
        bench.join("w", 2);
        bench.finish("w", 0, Ok(probe()));
        bench
    }

    /// A job whose gang of two has been formed on one worker.
    fn training(config: Config) -> Self {
        let mut bench = Self::new(config);
        bench.submit(|_| {});
        bench.join("w", 2);
        bench.finish("w", 0, Ok(probe()));
        bench.finish("w", 0, Ok(sample(1)));
        bench.finish("w", 1, Ok(sample(1)));
        bench.finish("w", 0, Ok(direction()));
        bench
    }
}

fn starts(effects: &[Effect]) -> Vec<(&WorkerId, u32, &Task)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { worker, command: Command::Start { slot, assignment } } => {
                Some((worker, slot.0, &assignment.task))
            }
            _ => None,
        })
        .collect()
}

fn stops(effects: &[Effect]) -> Vec<u32> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { command: Command::Stop { slot, .. }, .. } => Some(slot.0),
            _ => None,
        })
        .collect()
}

fn died(message: &str, at: u64) -> Failure {
    Failure { at_unix_ms: at, ..Failure::new(ErrorCode::ExecutorDied, message, "") }
}

#[test]
fn a_submitted_job_is_written_down_first_and_starts_with_a_probe() {
    let mut bench = Bench::new(Config::default());
    let effects = bench.submit(|_| {});
    assert!(matches!(&effects[0], Effect::Persist(Write::Job(record)) if record.state == JobState::Queued));
    assert_eq!(bench.state.waiting(&job()), Some(Waiting::NoWorkers));
    let effects = bench.join("w", 2);
    assert!(matches!(&effects[0], Effect::Persist(Write::Job(record)) if record.state == JobState::Running));
    assert_eq!(starts(&effects), [(&worker("w"), 0, &Task::Probe)]);
}

#[test]
fn the_same_request_is_the_same_job() {
    let mut bench = Bench::new(Config::default());
    let submit = |id: &str| Event::Submit {
        job: JobId::new(id).unwrap(),
        spec: spec(|_| {}),
        request_id: Some("r".to_owned()),
    };
    bench.step(submit("one"));
    assert_eq!(bench.step(submit("two")), []);
    assert_eq!(bench.state.job_of_request("r"), Some(&JobId::new("one").unwrap()));
}

#[test]
fn a_shard_is_written_down_before_its_worker_may_forget_it() {
    let mut bench = Bench::sampling(|_| {});
    let lease = bench.lease("w", 0).unwrap();
    let effects = bench.finish("w", 0, Ok(sample(1)));
    assert!(matches!(&effects[0], Effect::Persist(Write::Shard { shard: ShardIndex(0), .. })));
    assert!(effects[1..].contains(&Effect::Send { worker: worker("w"), command: Command::Ack { lease } }));
}

#[test]
fn a_second_result_for_a_shard_changes_nothing() {
    let mut bench = Bench::sampling(|_| {});
    let lease = bench.lease("w", 0).unwrap();
    bench.finish("w", 0, Ok(sample(1)));
    let effects = bench.finish_lease("w", 0, lease, Ok(sample(9)));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Persist(_))), "{effects:?}");
}

#[test]
fn a_lost_worker_costs_its_shard_no_try_and_another_takes_over_at_once() {
    let mut bench = Bench::sampling(|_| {});
    bench.now = 1_000;
    bench.join("v", 1);
    bench.now = 5_500;
    bench.step(Event::Heartbeat { worker: worker("v"), progress: vec![] });
    let effects = bench.step(Event::Tick);
    let started = starts(&effects);
    assert!(matches!(started[..], [(_, 0, Task::Sample { range })] if range.start == 0), "{started:?}");
}

#[test]
fn a_shard_that_keeps_failing_is_named() {
    let mut bench = Bench::sampling(|spec| spec["sample"]["until"] = json!({"total": 10}));
    for round in 0..5 {
        bench.now += 60_000;
        bench.step(Event::Heartbeat { worker: worker("w"), progress: vec![] });
        assert_eq!(bench.state_of().0, JobState::Running, "round {round}");
        bench.finish("w", 0, Err(died("killed by signal 9", 1)));
    }
    let (state, failure) = bench.state_of();
    assert_eq!(state, JobState::Failed);
    assert_eq!(failure.unwrap().message, "shard 0 of phase sample failed 5 times, last: killed by signal 9");
}

#[test]
fn a_failure_that_no_other_try_can_mend_ends_the_job_and_stops_the_rest() {
    let mut bench = Bench::sampling(|_| {});
    let effects = bench.finish("w", 0, Err(Failure::new(ErrorCode::BadModel, "g.pt: truncated", "")));
    assert_eq!(bench.state_of().0, JobState::Failed);
    assert_eq!(stops(&effects), [1]);
}

#[test]
fn a_lease_without_progress_is_taken_back_and_its_late_result_still_counts() {
    let mut bench = Bench::sampling(|spec| spec["sample"]["until"] = json!({"total": 10}));
    let lease = bench.lease("w", 0).unwrap();
    for _ in 0..41 {
        bench.now += 3_000;
        bench.step(Event::Heartbeat { worker: worker("w"), progress: vec![] });
    }
    assert_eq!(stops(&bench.step(Event::Tick)), [0]);
    bench.now += 1_000;
    let again = bench.step(Event::Tick);
    assert!(matches!(starts(&again)[..], [(_, 1, Task::Sample { .. })]), "{again:?}");
    let effects = bench.finish_lease("w", 0, lease, Ok(sample(1)));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Persist(Write::Shard { .. }))));
    assert_eq!(stops(&effects), [1], "the twin is of no more use");
}

#[test]
fn progress_keeps_a_lease_alive() {
    let mut bench = Bench::sampling(|_| {});
    let lease = bench.lease("w", 0).unwrap();
    let other = bench.lease("w", 1).unwrap();
    for done in 1..100 {
        bench.now += 3_000;
        let progress = |lease: &LeaseId| Progress {
            lease: lease.clone(),
            done,
            total: 10,
            samples_per_second: 1.0,
            loss: None,
        };
        let slots = vec![(SlotIndex(0), progress(&lease)), (SlotIndex(1), progress(&other))];
        bench.step(Event::Heartbeat { worker: worker("w"), progress: slots });
        assert_eq!(stops(&bench.step(Event::Tick)), [0u32; 0]);
    }
}

#[test]
fn a_feature_that_nobody_shows_or_everybody_shows_ends_the_job_with_what_to_do() {
    for (positives, code) in [(0, ErrorCode::NoPositives), (10, ErrorCode::NoNegatives)] {
        let mut bench = Bench::sampling(|_| {});
        bench.finish("w", 0, Ok(sample(positives)));
        bench.finish("w", 1, Ok(sample(positives)));
        let failure = bench.state_of().1.unwrap();
        assert_eq!(failure.code, code);
        assert!(failure.message.contains("'smile'") && !failure.hint.is_empty(), "{failure:?}");
    }
}

#[test]
fn sampling_stops_at_enough_positives_and_what_lies_beyond_does_not_count() {
    let mut bench = Bench::sampling(|spec| spec["sample"]["until"] = json!({"positives": 3}));
    let (first, second) = (bench.lease("w", 0).unwrap(), bench.lease("w", 1).unwrap());
    bench.finish_lease("w", 1, second, Ok(sample(5)));
    assert_eq!(bench.state.record(&job()).unwrap().phase, Phase::Sample, "shard 0 is still out");
    let effects = bench.finish_lease("w", 0, first, Ok(sample(3)));
    let record = bench.state.record(&job()).unwrap();
    assert_eq!((record.phase, record.outputs.sample_shards), (Phase::Direction, Some(1)));
    assert_eq!(stops(&effects), [1], "the open third shard is of no more use");
}

#[test]
fn rank_zero_starts_first_and_the_others_when_it_says_where() {
    let mut bench = Bench::training(Config::default());
    let lease = bench.lease("w", 0).unwrap();
    assert_eq!((lease.phase, lease.attempt.0), (Phase::FineTune, 1));
    let effects = bench.step(Event::StoreOpen { lease, address: "h:1".to_owned() });
    let started = starts(&effects);
    assert!(
        matches!(started[..], [(_, 1, Task::FineTune { role, .. })] if role.rank.0 == 1 && role.world == 2 && role.store.as_deref() == Some("h:1")),
        "{started:?}"
    );
}

#[test]
fn a_lost_rank_dissolves_the_gang_and_the_next_generation_forms_when_every_slot_is_free() {
    let mut bench = Bench::training(Config::default());
    let effects = bench.finish("w", 1, Err(died("signal 9", 50)));
    assert_eq!(stops(&effects), [0]);
    let effects = bench.finish(
        "w",
        0,
        Err(Failure { at_unix_ms: 40, ..Failure::new(ErrorCode::GangAborted, "peer lost", "") }),
    );
    assert_eq!(starts(&effects), [], "a pause first");
    let record = bench.state.record(&job()).unwrap();
    assert_eq!(
        record.retried.last().unwrap().message,
        "signal 9",
        "the rank that was dragged down is not the cause"
    );
    bench.now += 300;
    let effects = bench.step(Event::Tick);
    assert!(matches!(starts(&effects)[..], [(_, 0, Task::FineTune { role, .. })] if role.generation.0 == 2));
    assert!(
        matches!(&effects[0], Effect::Persist(Write::Job(record)) if record.generation.0 == 2),
        "never reused"
    );
}

#[test]
fn three_generations_without_a_step_end_the_job_with_the_earliest_cause() {
    let mut bench = Bench::training(Config::default());
    for round in 0..3 {
        let (first, second) = (bench.lease("w", 0).unwrap(), bench.lease("w", 1).unwrap());
        bench.finish_lease("w", 0, first, Err(died(&format!("death {round}"), 100 + round)));
        bench.finish_lease("w", 1, second, Err(died("later", 200)));
        bench.now += 2_000;
        bench.step(Event::Heartbeat { worker: worker("w"), progress: vec![] });
        bench.step(Event::Tick);
    }
    let (state, failure) = bench.state_of();
    assert_eq!((state, failure.unwrap().message.as_str()), (JobState::Failed, "death 0"));
}

#[test]
fn a_gang_waits_for_its_minimum_and_says_so() {
    let mut bench = Bench::training(Config::default());
    bench.step(Event::WorkerLeft { worker: worker("w") });
    bench.now += 1_000;
    bench.join("v", 1);
    assert_eq!(bench.state.waiting(&job()), Some(Waiting::GangTooSmall { needs: 2, free: 1 }));
}

#[test]
fn a_cancelled_job_keeps_its_slots_until_they_answer() {
    let mut bench = Bench::training(Config::default());
    let effects = bench.step(Event::Cancel { job: job(), reason: "no more".to_owned() });
    assert_eq!((stops(&effects), bench.state_of().0), (vec![0, 1], JobState::Cancelling));
    let stopped = || Err(Failure::new(ErrorCode::Cancelled, "stopped", ""));
    bench.finish("w", 0, stopped());
    assert_eq!(bench.state_of().0, JobState::Cancelling);
    bench.finish("w", 1, stopped());
    let (state, failure) = bench.state_of();
    assert_eq!(
        (state, failure.unwrap().message.as_str()),
        (JobState::Cancelled, "job a was cancelled: no more")
    );
}

#[test]
fn rank_zero_moves_the_job_on_while_the_others_still_close() {
    let mut bench = Bench::training(Config::default());
    let trained = FineTuneOutput {
        weights: artifact(),
        checkpoint: "c".to_owned(),
        steps: 400,
        world_size: 2,
        samples_per_second: 1.0,
        loss_first: 1.0,
        loss_last: 0.1,
        curve: artifact(),
    };
    let effects = bench.finish("w", 0, Ok(TaskOutput::FineTune(Some(trained))));
    assert!(matches!(starts(&effects)[..], [(_, 0, Task::Evaluate { .. })]));
    bench.finish("w", 1, Ok(TaskOutput::FineTune(None)));
    assert_eq!(bench.lease("w", 1).unwrap().phase, Phase::Evaluate);
}

#[test]
fn an_idle_engine_has_no_deadline() {
    assert_eq!(Bench::new(Config::default()).state.next_deadline(), None);
}

#[test]
fn a_half_cancelled_job_waits_for_its_workers_after_a_restart() {
    let mut bench = Bench::training(Config::default());
    bench.step(Event::Cancel { job: job(), reason: String::new() });
    let record = bench.state.record(&job()).unwrap().clone();
    bench.state =
        State::restore(Config::default(), Epoch(2), Now { mono_ms: 0, unix_ms: 0 }, [(record, vec![])]);
    bench.now = 100;
    bench.step(Event::Tick);
    assert_eq!(bench.state_of().0, JobState::Cancelling);
    bench.now = bench.state.next_deadline().unwrap();
    bench.step(Event::Tick);
    assert_eq!(bench.state_of().0, JobState::Cancelled);
}

#[test]
fn a_stop_that_was_lost_with_the_session_is_said_again() {
    let mut bench = Bench::training(Config::default());
    let (first, second) = (bench.lease("w", 0).unwrap(), bench.lease("w", 1).unwrap());
    bench.step(Event::Cancel { job: job(), reason: String::new() });
    let effects = bench.step(Event::WorkerJoined {
        worker: worker("w"),
        hostname: "h".to_owned(),
        version: "1".to_owned(),
        devices: vec!["cpu".to_owned(); 2],
        held: vec![(SlotIndex(0), first), (SlotIndex(1), second)],
    });
    assert_eq!(stops(&effects), [0, 1]);
}

#[test]
fn a_silent_worker_is_told_that_it_is_out() {
    let mut bench = Bench::new(Config::default());
    bench.join("w", 1);
    bench.now = bench.state.next_deadline().unwrap();
    let effects = bench.step(Event::Tick);
    assert!(effects.contains(&Effect::CloseSession { worker: worker("w") }), "{effects:?}");
}

#[test]
fn a_half_cancelled_job_settles_at_whatever_event_comes_when_its_wait_is_over() {
    let mut bench = Bench::training(Config::default());
    bench.step(Event::Cancel { job: job(), reason: String::new() });
    let record = bench.state.record(&job()).unwrap().clone();
    bench.state =
        State::restore(Config::default(), Epoch(2), Now { mono_ms: 0, unix_ms: 0 }, [(record, vec![])]);
    bench.now = bench.state.next_deadline().unwrap();
    bench.step(Event::Heartbeat { worker: worker("w"), progress: vec![] });
    assert_eq!(bench.state_of().0, JobState::Cancelled);
}

#[test]
fn the_time_in_the_queue_is_not_the_probes() {
    let mut bench = Bench::new(Config::default());
    bench.submit(|_| {});
    bench.now = 50_000;
    bench.join("w", 2);
    bench.now = 51_000;
    bench.finish("w", 0, Ok(probe()));
    assert_eq!(bench.state.record(&job()).unwrap().seconds[&Phase::Probe], 1.0);
}
