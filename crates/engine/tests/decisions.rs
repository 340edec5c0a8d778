//! One decision a test: events in, the exact effects out.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

use lethe_domain::{
    ArtifactRef, Attempt, Cut, DirectionOutput, EditMethod, EditOutput, EditSummary, Epoch, ErrorCode,
    Failure, FineTuneOutput, HeldLease, Input, InputRole, Inputs, JobId, JobSpec, JobState, LeaseId, Phase,
    Principal, ProbeOutput, Progress, SampleOutput, SearchSummary, ShardIndex, SlotIndex, SlotReport, Task,
    TaskOutput, Values, Waiting, WorkerId, WorkerOrder, WorkerState,
};
use lethe_engine::{
    Chore, Command, Config, Effect, Event, Introduction, JobRecord, Metric, Now, Refusal, State, Write,
};
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

fn inputs() -> Inputs {
    let generator = Input { uri: "g.pt".to_owned(), sha256: "a".repeat(64), size: 7 };
    Inputs([(InputRole::Generator, generator)].into())
}

fn spec(change: impl FnOnce(&mut Value)) -> Box<JobSpec> {
    let mut value = json!({
        "name": "a",
        "generator": {"uri": "g.pt", "format": "torchscript", "latent": {"dimension": 4},
                      "output": {"range": [0, 1], "channels": 1, "size": 8}},
        "feature": {"name": "smile", "scorer": {"uri": "s.pt", "positive": {"above": 1}}},
        "sample": {"shard_size": 10, "batch": 10, "until": {"total": 20}},
        "pool": {"latents": 10, "shard_size": 10, "batch": 10},
        "resources": {"slots": {"min": 2, "max": 2}},
    });
    change(&mut value);
    Box::new(JobSpec::from_value(value).unwrap())
}

fn report() -> SlotReport {
    SlotReport { torch: "2.11.0".to_owned(), canary: lethe_domain::canary::EXPECTED.to_vec() }
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
        warnings: vec![],
    })
}

fn direction() -> TaskOutput {
    TaskOutput::Direction(DirectionOutput {
        target: artifact(),
        samples: 20,
        positives: 2,
        cut: Cut { sign: 1.0, threshold: 1.0 },
        select: 1.0,
        goal: 0.5,
        edit: EditMethod::Line,
        threshold: 0.5,
        edited_share: 0.1,
        heldout_auc: 0.9,
        costs: lethe_domain::spec::Costs::default(),
        warnings: Vec::new(),
    })
}

fn edit() -> TaskOutput {
    TaskOutput::Edit(EditOutput { samples: 10, pool: artifact(), reused: false })
}

/// What is written down of the shards that training reads.
fn edits() -> Vec<(Phase, ShardIndex, TaskOutput)> {
    vec![(Phase::Edit, ShardIndex(0), edit())]
}

fn nobody() -> Principal {
    Principal::default()
}

/// Why a step was refused; nothing else came of it but what a turn's end brings.
fn refused(effects: Vec<Effect>) -> Refusal {
    match effects.into_iter().next() {
        Some(Effect::Refuse(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

impl Bench {
    fn new(config: Config) -> Self {
        Self { state: State::new(config, Epoch(1)), now: 0 }
    }

    /// One event, then what the driver does at the end of a turn.
    fn step(&mut self, event: Event) -> Vec<Effect> {
        let tick = event == Event::Tick;
        let mut effects = self.step_only(event);
        if !tick && self.state.next_deadline().is_some_and(|at| at <= self.now) {
            effects.extend(self.step_only(Event::Tick));
        }
        effects.extend(self.step_only(Event::Plan));
        effects
    }

    fn step_only(&mut self, event: Event) -> Vec<Effect> {
        let now = Now { mono_ms: self.now, unix_ms: 1_000 + self.now };
        let effects = self.state.step(now, event);
        self.state.check_invariants().unwrap();
        effects
    }

    fn submit(&mut self, change: impl FnOnce(&mut Value)) -> Vec<Effect> {
        self.step(Event::Submit {
            by: nobody(),
            job: job(),
            spec: spec(change),
            inputs: inputs(),
            request_id: None,
        })
    }

    fn join(&mut self, name: &str, slots: usize) -> Vec<Effect> {
        self.join_with(name, slots, |_| {})
    }

    fn join_with(&mut self, name: &str, slots: usize, change: impl FnOnce(&mut Introduction)) -> Vec<Effect> {
        let mut introduction = Introduction {
            hostname: "h".to_owned(),
            version: "1".to_owned(),
            devices: vec!["cpu".to_owned(); slots],
            held: vec![],
            reports: (0..slots as u32).map(|slot| (SlotIndex(slot), report())).collect(),
            incarnation: String::new(),
        };
        change(&mut introduction);
        let introduction = Box::new(introduction);
        self.step(Event::WorkerJoined { worker: worker(name), introduction, session_open: false })
    }

    /// The lease on this slot.
    fn lease(&self, name: &str, slot: u32) -> Option<LeaseId> {
        let workers = self.state.workers(Now { mono_ms: self.now, unix_ms: 0 });
        workers.into_iter().find(|w| w.id == worker(name))?.slots.get(slot as usize)?.lease.clone()
    }

    /// What a worker with leases over single shards says that it holds.
    fn held(&self, name: &str, slots: u32) -> Vec<HeldLease> {
        let held = |slot| Some((SlotIndex(slot), self.lease(name, slot)?).into());
        (0..slots).filter_map(held).collect()
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
        // Without second leases over stragglers, which have tests of their own.
        let mut bench = Self::new(Config { tail_after_ms: 1 << 40, ..Config::default() });
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
        bench.finish("w", 0, Ok(edit()));
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
        by: nobody(),
        job: JobId::new(id).unwrap(),
        spec: spec(|_| {}),
        inputs: inputs(),
        request_id: Some("r".to_owned()),
    };
    bench.step(submit("one"));
    assert_eq!(bench.step(submit("two")), []);
    assert_eq!(bench.state.job_of_request(&nobody(), "r"), Some(&JobId::new("one").unwrap()));
    let mut other = submit("two");
    let Event::Submit { spec, .. } = &mut other else { unreachable!() };
    spec.sample.seed += 1;
    assert!(
        matches!(refused(bench.step(other)), Refusal::Conflict(why) if why.contains("for job one with another spec"))
    );
    // Somebody else's is another request.
    let mut other = submit("two");
    let Event::Submit { by, spec, .. } = &mut other else { unreachable!() };
    *by = Principal::new("ann").unwrap();
    spec.queue.owner = "ann".to_owned();
    bench.step(other);
    let theirs = bench.state.job_of_request(&Principal::new("ann").unwrap(), "r");
    assert_eq!(theirs, Some(&JobId::new("two").unwrap()));
}

#[test]
fn who_says_who_they_are_acts_for_themselves_alone() {
    let (ann, bob) = (Principal::new("ann").unwrap(), Principal::new("bob").unwrap());
    let mut bench = Bench::new(Config::default());
    let submit = |by: &Principal, owner: &str| {
        let mut spec = spec(|_| {});
        spec.queue.owner = owner.to_owned();
        Event::Submit { by: by.clone(), job: job(), spec, inputs: inputs(), request_id: None }
    };
    let denied =
        |effects| matches!(refused(effects), Refusal::Denied(why) if why.contains("bob may not act for ann"));
    assert!(denied(bench.step(submit(&bob, "ann"))));
    assert_eq!(bench.state.job_state(&job()), None);
    bench.step(submit(&ann, "ann"));
    assert!(denied(bench.step(Event::Cancel { by: bob.clone(), job: job(), reason: String::new() })));
    assert_eq!(bench.state_of().0, JobState::Queued);
    bench.step(Event::Cancel { by: ann.clone(), job: job(), reason: String::new() });
    bench.step(Event::TidiedUp { job: job() });
    assert!(bench.state.record(&job()).is_none(), "a summary is left");
    assert!(denied(bench.step(Event::Delete { by: bob, job: job() })));
    bench.step(Event::Delete { by: ann, job: job() });
    assert_eq!(bench.state.job_state(&job()), None);
}

#[test]
fn what_contradicts_how_things_stand_is_refused_and_changes_nothing() {
    let mut bench = Bench::training(Config::default());
    let other = JobId::new("other").unwrap();
    let cancel = |job| Event::Cancel { by: nobody(), job, reason: String::new() };
    assert_eq!(refused(bench.step(cancel(other.clone()))), Refusal::NoSuchJob(other.clone()));
    assert_eq!(
        refused(bench.step(Event::Delete { by: nobody(), job: other.clone() })),
        Refusal::NoSuchJob(other)
    );
    let running = refused(bench.step(Event::Delete { by: nobody(), job: job() }));
    assert!(matches!(running, Refusal::Conflict(why) if why.contains("is running: cancel it first")));
    let order = |name: &str, order| Event::Order { by: nobody(), worker: worker(name), order };
    let missing = refused(bench.step(order("v", WorkerOrder::Drain)));
    assert_eq!(missing, Refusal::NoSuchWorker(worker("v")));
    let slot = Some(SlotIndex(2));
    let beyond = refused(bench.step(order("w", WorkerOrder::Quarantine { slot, reason: String::new() })));
    assert_eq!(beyond, Refusal::Conflict("worker w has slots 0 to 1, not 2".to_owned()));
    let again =
        Event::Submit { by: nobody(), job: job(), spec: spec(|_| {}), inputs: inputs(), request_id: None };
    assert!(matches!(refused(bench.step(again)), Refusal::Conflict(why) if why.contains("already")));
}

#[test]
fn a_name_is_taken_as_long_as_the_session_of_another_process_is_open() {
    let mut bench = Bench::new(Config::default());
    let mut join = |incarnation: &str, held: Vec<HeldLease>, session_open| {
        let (devices, incarnation) = (vec!["cpu".to_owned()], incarnation.to_owned());
        let introduction =
            Introduction { hostname: "h".to_owned(), devices, held, incarnation, ..Default::default() };
        let introduction = Box::new(introduction);
        let effects = bench.step(Event::WorkerJoined { worker: worker("w"), introduction, session_open });
        let refusals = effects.into_iter().filter_map(|effect| match effect {
            Effect::Refuse(Refusal::Conflict(why)) => Some(why),
            _ => None,
        });
        refusals.collect::<Vec<_>>()
    };
    let lease = LeaseId { job: job(), phase: Phase::Probe, shard: ShardIndex(0), attempt: Attempt(1) };
    let held = || vec![(SlotIndex(0), lease.clone()).into()];
    assert_eq!(join("a", vec![], false), [""; 0]);
    assert_eq!(join("a", vec![], true), [""; 0], "the same one may come again");
    let [why] = &join("b", vec![], true)[..] else { panic!("not refused") };
    assert!(
        why.contains("another process has joined as worker w, on h") && why.contains("silent for 5 s"),
        "{why}"
    );
    assert_eq!(join("b", held(), true), [""; 0], "b was there before, a was faster");
    assert_eq!(join("c", vec![], false), [""; 0], "its connection is lost");
    assert_eq!(join("d", held(), true), [""; 0]);
    assert_eq!(join("e", held(), true).len(), 1);
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
    let effects = bench.step(Event::Heartbeat { worker: worker("v"), heard_ms: bench.now, progress: vec![] });
    let started = starts(&effects);
    assert!(matches!(started[..], [(_, 0, Task::Sample { range })] if range.start == 0), "{started:?}");
}

#[test]
fn a_shard_that_keeps_failing_is_named() {
    let mut bench = Bench::sampling(|spec| spec["sample"]["until"] = json!({"total": 10}));
    for round in 0..5 {
        bench.now += 60_000;
        bench.step(Event::Heartbeat { worker: worker("w"), heard_ms: bench.now, progress: vec![] });
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
    let mut stopped = Vec::new();
    for _ in 0..41 {
        bench.now += 2_950;
        stopped.extend(stops(&bench.step(Event::Heartbeat {
            worker: worker("w"),
            heard_ms: bench.now,
            progress: vec![],
        })));
    }
    assert_eq!(stopped, [0]);
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
        bench.step(Event::Heartbeat { worker: worker("w"), heard_ms: bench.now, progress: slots });
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
    assert_eq!((record.phase, record.reached[&Phase::Sample].shards_done), (Phase::Direction, 1));
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
        bench.step(Event::Heartbeat { worker: worker("w"), heard_ms: bench.now, progress: vec![] });
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
    let effects = bench.step(Event::Cancel { by: nobody(), job: job(), reason: "no more".to_owned() });
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
    let values = Values { lr: 0.002, alpha: 1.5, labeller_term: 2.0, anchor: 0.003, squares: 10.0 };
    let trained = FineTuneOutput {
        weights: artifact(),
        checkpoint: "c".to_owned(),
        steps: 400,
        world_size: 2,
        samples_per_second: 1.0,
        lr: 0.002,
        drift: None,
        halved: 1,
        alpha: 1.5,
        labeller_term: 2.0,
        strength: Some(1.25),
        loss_first: 1.0,
        loss_last: 0.1,
        curve: artifact(),
        search: Some(SearchSummary { trial: 5, values, trials: Vec::new() }),
        edits: EditSummary::default(),
    };
    let effects = bench.finish("w", 0, Ok(TaskOutput::FineTune(Some(trained))));
    let result = bench.state.record(&job()).unwrap().result();
    let unlearn = result.spec.unwrap().unlearn;
    assert_eq!(
        (unlearn.lr, unlearn.alpha, unlearn.labeller_term, unlearn.strength, unlearn.anchor, unlearn.trials),
        (Some(0.002), Some(1.5), Some(2.0), Some(1.25), 0.003, 0),
        "what was found is set"
    );
    assert_eq!(unlearn.slot_minutes, Some(0.0), "a slower machine is not to do less");
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
    bench.step(Event::Cancel { by: nobody(), job: job(), reason: String::new() });
    let record = bench.state.record(&job()).unwrap().clone();
    bench.state =
        State::restore(Config::default(), Epoch(2), Now { mono_ms: 0, unix_ms: 0 }, [(record, edits())], []);
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
    bench.step(Event::Cancel { by: nobody(), job: job(), reason: String::new() });
    let effects = bench.join_with("w", 2, |intro| {
        intro.held = vec![(SlotIndex(0), first).into(), (SlotIndex(1), second).into()];
    });
    assert_eq!(stops(&effects), [0, 1]);
}

#[test]
fn only_a_tick_buries_and_silence_is_counted_from_what_was_heard_last() {
    let mut bench = Bench::new(Config::default());
    bench.join("v", 1);
    bench.join("w", 1);
    bench.now = 60_000;
    let left = bench.step_only(Event::WorkerLeft { worker: worker("v") });
    assert_eq!(left, [], "whatever else happens, nobody is given up for it");
    // Its heartbeat came in time, and waits to be read behind others.
    bench.step_only(Event::Heard { workers: vec![(worker("w"), 59_000)] });
    assert_eq!(bench.step_only(Event::Tick), []);
    assert_eq!(bench.state.next_deadline(), Some(62_000));
    bench.now = 64_000;
    bench.step_only(Event::Heard { workers: vec![(worker("w"), 58_000)] });
    let effects = bench.step_only(Event::Tick);
    assert!(effects.contains(&Effect::CloseSession { worker: worker("w") }), "{effects:?}");
}

#[test]
fn a_silent_worker_is_told_that_it_is_out() {
    let mut bench = Bench::new(Config::default());
    bench.join("w", 1);
    bench.now = bench.state.next_deadline().unwrap();
    assert_eq!(bench.step(Event::Tick), [], "suspect first");
    bench.now = bench.state.next_deadline().unwrap();
    let effects = bench.step(Event::Tick);
    assert!(effects.contains(&Effect::CloseSession { worker: worker("w") }), "{effects:?}");
}

#[test]
fn a_half_cancelled_job_settles_at_whatever_event_comes_when_its_wait_is_over() {
    let mut bench = Bench::training(Config::default());
    bench.step(Event::Cancel { by: nobody(), job: job(), reason: String::new() });
    let record = bench.state.record(&job()).unwrap().clone();
    bench.state =
        State::restore(Config::default(), Epoch(2), Now { mono_ms: 0, unix_ms: 0 }, [(record, edits())], []);
    bench.now = bench.state.next_deadline().unwrap();
    bench.step(Event::Heartbeat { worker: worker("w"), heard_ms: bench.now, progress: vec![] });
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

fn heartbeat(bench: &mut Bench, name: &str) -> Vec<Effect> {
    bench.step(Event::Heartbeat { worker: worker(name), heard_ms: bench.now, progress: vec![] })
}

fn moved(lease: &LeaseId, done: u64) -> Progress {
    Progress { lease: lease.clone(), done, total: 400, samples_per_second: 1.0, loss: None }
}

fn yields(effects: &[Effect]) -> Vec<(u32, bool)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { command: Command::Yield { slot, save, .. }, .. } => Some((slot.0, *save)),
            _ => None,
        })
        .collect()
}

fn yielded() -> Result<TaskOutput, Failure> {
    Err(Failure::new(ErrorCode::Yielded, "yielded at step 7", ""))
}

/// A gang of two at work on one worker, both ranks at this step.
fn at_work(change: impl FnOnce(&mut Value), slots: usize, step: u64) -> Bench {
    let mut bench = Bench::new(Config { tail_after_ms: 1 << 40, ..Config::default() });
    bench.submit(change);
    bench.join("w", slots);
    bench.finish("w", 0, Ok(probe()));
    for slot in 0..2 {
        bench.finish("w", slot, Ok(sample(1)));
    }
    bench.finish("w", 0, Ok(direction()));
    bench.finish("w", 0, Ok(edit()));
    let lease = bench.lease("w", 0).unwrap();
    bench.step(Event::StoreOpen { lease: lease.clone(), address: "h:1".to_owned() });
    bench.step(Event::Heartbeat {
        worker: worker("w"),
        heard_ms: bench.now,
        progress: vec![(SlotIndex(0), moved(&lease, step))],
    });
    bench
}

#[test]
fn a_straggler_is_given_to_a_free_slot_too_and_the_first_result_counts() {
    let mut bench = Bench::new(Config::default());
    bench.submit(|spec| spec["sample"]["until"] = json!({"total": 10}));
    bench.join("w", 2);
    bench.finish("w", 0, Ok(probe()));
    let first = bench.lease("w", 0).unwrap();
    assert_eq!(bench.lease("w", 1), None);
    bench.now = bench.state.next_deadline().unwrap();
    assert!(bench.now < 3_100, "{}", bench.now);
    bench.now = 3_000;
    let effects = heartbeat(&mut bench, "w");
    assert!(matches!(starts(&effects)[..], [(_, 1, Task::Sample { .. })]), "{effects:?}");
    let twin = bench.lease("w", 1).unwrap();
    assert_eq!((twin.shard, twin.attempt.0), (first.shard, first.attempt.0 + 1));
    let effects = bench.finish_lease("w", 1, twin, Ok(sample(1)));
    assert_eq!(stops(&effects), [0], "the first lease is of no more use");
    let effects = bench.finish_lease("w", 0, first, Ok(sample(1)));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Persist(Write::Shard { .. }))));
}

#[test]
fn the_failure_of_a_straggler_costs_nothing_while_its_twin_is_at_work() {
    let mut bench = Bench::new(Config::default());
    bench.submit(|spec| spec["sample"]["until"] = json!({"total": 10}));
    bench.join("w", 2);
    bench.finish("w", 0, Ok(probe()));
    bench.now = 3_000;
    heartbeat(&mut bench, "w");
    assert!(bench.lease("w", 1).is_some());
    bench.finish("w", 0, Err(died("signal 9", 1)));
    assert!(bench.state.record(&job()).unwrap().retried.is_empty());
    bench.finish("w", 1, Ok(sample(1)));
    assert_eq!(bench.state.record(&job()).unwrap().phase, Phase::Direction);
}

#[test]
fn a_fast_slot_gets_more_shards_in_a_lease_and_each_is_counted_by_itself() {
    let mut bench = Bench::sampling(|spec| spec["sample"]["until"] = json!({"total": 1_000}));
    bench.now = 10;
    bench.finish("w", 0, Ok(sample(1)));
    let lease = bench.lease("w", 0).unwrap();
    assert_eq!(lease.shard, ShardIndex(2));
    // 10 samples in 10 ms: 2 s are 2,000 samples; a fair share of the 99 shards left for two slots are 25.
    let shards: Vec<TaskOutput> = (0..25).map(|_| sample(1)).collect();
    let effects = bench.finish("w", 0, Ok(TaskOutput::Shards(shards)));
    let kept: Vec<u32> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Persist(Write::Shard { shard, .. }) => Some(shard.0),
            _ => None,
        })
        .collect();
    assert_eq!(kept, (2..27).collect::<Vec<_>>());
    assert_eq!(bench.lease("w", 0).unwrap().shard, ShardIndex(27));
}

#[test]
fn of_a_failed_lease_over_several_shards_each_is_tried_again_alone() {
    let mut bench = Bench::sampling(|spec| spec["sample"]["until"] = json!({"total": 100}));
    bench.now = 10;
    bench.finish("w", 0, Ok(sample(1)));
    assert_eq!(bench.lease("w", 0).unwrap().shard, ShardIndex(2));
    bench.finish("w", 0, Err(died("signal 9", 1)));
    bench.now = 2_000;
    for expected in [2, 3, 4] {
        bench.finish("w", 1, Ok(sample(1)));
        assert_eq!(bench.lease("w", 1).unwrap().shard, ShardIndex(expected), "before anything new");
    }
}

#[test]
fn a_drained_worker_gets_nothing_more_and_its_gang_yields_with_a_checkpoint() {
    let mut bench = at_work(|_| {}, 2, 7);
    bench.join("v", 2);
    let effects = bench.step(Event::Order { by: nobody(), worker: worker("w"), order: WorkerOrder::Drain });
    assert_eq!(yields(&effects), [(0, true), (1, true)]);
    assert!(matches!(&effects[0], Effect::Persist(Write::Worker(record)) if record.draining));
    bench.finish("w", 0, yielded());
    let effects = bench.finish("w", 1, yielded());
    let started = starts(&effects);
    assert!(
        matches!(started[..], [(at, 0, Task::FineTune { role, .. })] if *at == worker("v") && role.floor == 7 && role.generation.0 == 2),
        "{started:?}"
    );
    assert!(bench.state.record(&job()).unwrap().retried.is_empty(), "nothing failed");
    let workers = bench.state.workers(Now { mono_ms: bench.now, unix_ms: 0 });
    assert_eq!(
        workers.iter().map(|w| w.state).collect::<Vec<_>>(),
        [WorkerState::Busy, WorkerState::Draining]
    );
    bench.step(Event::Order {
        by: nobody(),
        worker: worker("w"),
        order: WorkerOrder::Release { slot: None },
    });
    assert_eq!(bench.state.worker(&worker("w"), Now::default()).unwrap().state, WorkerState::Ready);
}

#[test]
fn a_gang_that_does_not_yield_in_time_is_stopped() {
    let mut bench = at_work(|_| {}, 2, 7);
    bench.step(Event::WorkerDraining { worker: worker("w") });
    let mut stopped = Vec::new();
    for _ in 0..6 {
        bench.now += 2_000;
        stopped.extend(stops(&heartbeat(&mut bench, "w")));
    }
    assert_eq!(stopped, [0, 1]);
}

#[test]
fn newcomers_are_folded_in_at_a_step_boundary_once_that_is_worth_it() {
    let many = |spec: &mut Value| spec["resources"]["slots"] = json!({"min": 2, "max": 3});
    let mut bench = at_work(many, 2, 7);
    bench.join("v", 1);
    assert_eq!(yields(&heartbeat(&mut bench, "v")), [], "not right after it was formed");
    bench.now = 2_000;
    heartbeat(&mut bench, "w");
    heartbeat(&mut bench, "v");
    bench.now = 4_000;
    heartbeat(&mut bench, "w");
    heartbeat(&mut bench, "v");
    bench.now = 5_900;
    let effects = heartbeat(&mut bench, "w");
    assert_eq!(yields(&effects), [(0, false), (1, false)]);
    heartbeat(&mut bench, "v");
    bench.finish("w", 0, yielded());
    let effects = bench.finish("w", 1, yielded());
    assert!(
        matches!(starts(&effects)[..], [(_, 0, Task::FineTune { role, .. })] if role.world == 3),
        "{effects:?}"
    );
}

#[test]
fn a_spare_stands_by_and_takes_the_place_of_a_lost_rank() {
    let spared = |spec: &mut Value| spec["resources"]["slots"] = json!({"min": 2, "max": 2, "spares": 1});
    let mut bench = at_work(spared, 3, 7);
    let spare = bench.lease("w", 2).unwrap();
    assert_eq!((spare.phase, spare.shard), (Phase::FineTune, ShardIndex(2)));
    let effects = bench.finish("w", 1, Err(died("signal 9", 1)));
    assert_eq!(stops(&effects), [0, 2]);
    bench.step(Event::SlotChanged { worker: worker("w"), slot: SlotIndex(1), report: None });
    bench.finish("w", 0, Err(Failure::new(ErrorCode::GangAborted, "peer lost", "")));
    let effects = bench.finish("w", 2, Err(Failure::new(ErrorCode::Cancelled, "stopped", "")));
    let placed = (bench.lease("w", 0).unwrap().shard, bench.lease("w", 2).unwrap().shard);
    assert_eq!(
        placed,
        (ShardIndex(0), ShardIndex(1)),
        "at once, since the last generation had moved: {effects:?}"
    );
    assert_eq!(bench.lease("w", 1), None, "its executor is not up yet");
}

#[test]
fn a_gang_outlives_its_coordinator() {
    let bench = at_work(|_| {}, 2, 7);
    let held = bench.held("w", 2);
    let record = bench.state.record(&job()).unwrap().clone();
    let mut next = Bench::new(Config::default());
    next.state = State::restore(Config::default(), Epoch(2), Now::default(), [(record, edits())], []);
    next.now = 1_000;
    let effects = next.join_with("w", 2, |intro| intro.held = held.clone());
    assert_eq!((stops(&effects), starts(&effects)), (vec![], vec![]), "training goes on");
    let progress = held.iter().map(|held| (held.slot, moved(&held.lease, 9))).collect();
    next.step(Event::Heartbeat { worker: worker("w"), heard_ms: next.now, progress });
    let effects = next.finish("w", 0, Err(died("signal 9", 1)));
    assert_eq!(stops(&effects), [1]);
    let effects = next.finish("w", 1, Err(Failure::new(ErrorCode::GangAborted, "peer lost", "")));
    assert!(matches!(starts(&effects)[..], [(_, 0, Task::FineTune { role, .. })] if role.floor == 9));
}

#[test]
fn ranks_that_nobody_claims_after_a_restart_are_given_up() {
    let bench = at_work(|_| {}, 2, 7);
    let held = bench.held("w", 1);
    let record = bench.state.record(&job()).unwrap().clone();
    let mut next = Bench::new(Config::default());
    next.state = State::restore(Config::default(), Epoch(2), Now::default(), [(record, edits())], []);
    next.now = 100;
    next.join_with("w", 2, |intro| intro.held = held);
    let now = Now { mono_ms: next.now, unix_ms: 0 };
    assert_eq!(next.state.explain(&job(), now).unwrap()[0].what, "rank 1 of generation 1");
    let mut stopped = Vec::new();
    for _ in 0..5 {
        next.now += 2_000;
        stopped.extend(stops(&heartbeat(&mut next, "w")));
    }
    assert_eq!(stopped, [0]);
    next.finish("w", 0, Err(Failure::new(ErrorCode::Cancelled, "stopped", "")));
    next.now += 1_000;
    let effects = heartbeat(&mut next, "w");
    assert!(
        matches!(starts(&effects)[..], [(_, 0, Task::FineTune { role, .. })] if role.floor == u64::MAX),
        "nobody knows how far the last generation came: storage is asked too; {effects:?}"
    );
}

#[test]
fn a_slot_with_a_wrong_canary_gets_no_work_and_says_why() {
    let mut bench = Bench::new(Config::default());
    bench.submit(|_| {});
    let wrong = SlotReport { torch: "2.9".to_owned(), canary: vec![0.0; 16] };
    bench.join_with("w", 1, |intro| intro.reports[0].1 = wrong);
    assert_eq!(bench.lease("w", 0), None);
    let now = Now { mono_ms: 0, unix_ms: 0 };
    let status = bench.state.worker(&worker("w"), now).unwrap();
    assert_eq!(status.state, WorkerState::Quarantined);
    assert!(status.reason.unwrap().contains("its canary is wrong"));
    assert_eq!(bench.state.waiting(&job()), Some(Waiting::NoUsableSlot { slots: 1 }));
    let why = bench.state.explain(&job(), now).unwrap().remove(0);
    assert!(why.what == "phase probe" && why.why.contains("its canary is wrong"), "{why:?}");
    bench.step(Event::SlotChanged { worker: worker("w"), slot: SlotIndex(0), report: Some(report()) });
    assert!(bench.lease("w", 0).is_some(), "an executor that computes what it should is believed");
}

#[test]
fn a_slot_that_fails_where_others_succeed_is_quarantined() {
    // One shard a lease.
    let config = Config { tail_after_ms: 1 << 40, lease_target_ms: 1, ..Config::default() };
    let mut bench = Bench::new(config);
    bench.submit(|spec| spec["sample"]["until"] = json!({"total": 1_000}));
    bench.join("bad", 1);
    bench.finish("bad", 0, Ok(probe()));
    bench.join("good", 1);
    for round in 0..3 {
        bench.finish("bad", 0, Err(died("device lost", 1)));
        bench.now += 1_000;
        heartbeat(&mut bench, "bad");
        heartbeat(&mut bench, "good");
        let mut effects = Vec::new();
        while bench.lease("good", 0).unwrap().attempt.0 == 1 {
            effects = bench.finish("good", 0, Ok(sample(1)));
        }
        effects.extend(bench.finish("good", 0, Ok(sample(1))));
        let marked = effects.iter().any(|effect| matches!(effect, Effect::Persist(Write::Worker(_))));
        assert_eq!(marked, round == 2, "round {round}");
    }
    let status = bench.state.worker(&worker("bad"), Now { mono_ms: bench.now, unix_ms: 0 }).unwrap();
    assert!(status.slots[0].quarantine.as_ref().unwrap().contains("succeeded elsewhere"), "{status:?}");
}

#[test]
fn a_heartbeat_brings_back_that_a_lease_is_not_wanted_any_more() {
    let mut bench = Bench::sampling(|_| {});
    let lease = LeaseId { shard: ShardIndex(9), ..bench.lease("w", 0).unwrap() };
    let progress = vec![(SlotIndex(0), moved(&lease, 1))];
    assert_eq!(
        stops(&bench.step(Event::Heartbeat { worker: worker("w"), heard_ms: bench.now, progress })),
        [0]
    );
}

#[test]
fn an_urgent_job_has_a_gang_yield_by_checkpoint_where_that_is_allowed() {
    for preempt in [false, true] {
        let mut bench = at_work(|_| {}, 2, 7);
        let mut config = Config { preempt, ..Config::default() };
        config.tail_after_ms = 1 << 40;
        let record = bench.state.record(&job()).unwrap().clone();
        let held = bench.held("w", 2);
        bench.state = State::restore(config, Epoch(2), Now::default(), [(record, edits())], []);
        bench.join_with("w", 2, |intro| intro.held = held);
        let urgent = JobId::new("urgent").unwrap();
        let mut spec = spec(|_| {});
        spec.queue.priority = 10;
        let effects = bench.step(Event::Submit {
            by: nobody(),
            job: urgent.clone(),
            spec,
            inputs: inputs(),
            request_id: None,
        });
        let expected = if preempt { vec![(0, true), (1, true)] } else { vec![] };
        assert_eq!(yields(&effects), expected);
        if preempt {
            bench.finish("w", 0, yielded());
            bench.finish("w", 1, yielded());
            assert_eq!(bench.lease("w", 0).unwrap().job, urgent);
        }
    }
}

#[test]
fn a_quota_is_told_to_whoever_waits_for_it() {
    let quotas = [("team-a".to_owned(), 1)].into();
    let mut bench = Bench::new(Config { quotas, ..Config::default() });
    bench.join("w", 2);
    for name in ["a", "b"] {
        let mut spec = spec(|_| {});
        spec.queue.owner = "team-a".to_owned();
        bench.step(Event::Submit {
            by: nobody(),
            job: JobId::new(name).unwrap(),
            spec,
            inputs: inputs(),
            request_id: None,
        });
    }
    let waits = bench.state.waiting(&JobId::new("b").unwrap()).unwrap();
    assert_eq!(waits, Waiting::OverQuota { owner: "team-a".to_owned(), holds: 1, quota: 1, needs: 1 });
    let now = Now { mono_ms: 0, unix_ms: 0 };
    let why = bench.state.explain(&JobId::new("b").unwrap(), now).unwrap().remove(0).why;
    assert!(why == waits.to_string() && why.contains("the quota is 1"), "{why}");
}

#[test]
fn a_gang_of_one_takes_newcomers_in_too_and_waits_for_nobody() {
    let mut bench = Bench::new(Config { tail_after_ms: 1 << 40, ..Config::default() });
    bench.submit(|spec| spec["resources"]["slots"] = json!({"min": 1, "max": 3}));
    bench.join("w", 1);
    bench.finish("w", 0, Ok(probe()));
    bench.finish("w", 0, Ok(sample(1)));
    bench.finish("w", 0, Ok(sample(1)));
    bench.finish("w", 0, Ok(direction()));
    bench.finish("w", 0, Ok(edit()));
    let lease = bench.lease("w", 0).unwrap();
    let now = Now { mono_ms: bench.now, unix_ms: 0 };
    assert_eq!(bench.state.explain(&job(), now).unwrap(), []);
    bench.step(Event::Heartbeat {
        worker: worker("w"),
        heard_ms: bench.now,
        progress: vec![(SlotIndex(0), moved(&lease, 7))],
    });
    bench.join("v", 1);
    let mut asked = Vec::new();
    for _ in 0..4 {
        bench.now += 2_000;
        asked.extend(yields(&heartbeat(&mut bench, "w")));
        asked.extend(yields(&heartbeat(&mut bench, "v")));
    }
    assert_eq!(asked, [(0, false)]);
    let effects = bench.finish("w", 0, yielded());
    assert!(
        matches!(starts(&effects)[..], [(_, 0, Task::FineTune { role, .. })] if role.world == 2),
        "{effects:?}"
    );
}

#[test]
fn a_lease_over_several_shards_outlives_its_coordinator_whole() {
    let mut bench = Bench::new(Config::default());
    let many = |spec: &mut Value| spec["sample"]["until"] = json!({"total": 1_000});
    bench.submit(many);
    bench.join("w", 2);
    bench.finish("w", 0, Ok(probe()));
    bench.now += 100;
    // The second lease of each slot is sized by the first.
    bench.finish("w", 0, Ok(sample(1)));
    let lease = bench.lease("w", 0).unwrap();
    let shards = 8;
    let held = HeldLease { slot: SlotIndex(0), lease: lease.clone(), shards };
    let record = bench.state.record(&job()).unwrap().clone();
    let done = vec![(Phase::Sample, ShardIndex(0), sample(1)), (Phase::Sample, ShardIndex(3), sample(1))];
    let mut next = Bench::new(Config::default());
    next.state = State::restore(Config::default(), Epoch(2), Now::default(), [(record, done)], []);
    let effects = next.join_with("w", 2, |intro| intro.held = vec![held]);
    assert!(stops(&effects).is_empty());
    let first = lease.shard.0;
    for (other, _, task) in starts(&effects) {
        let Task::Sample { range } = task else { panic!("{task:?}") };
        let granted = range.start / 10..(range.start + range.count) / 10;
        let overlap =
            granted.clone().find(|shard| (u64::from(first)..u64::from(first + shards)).contains(shard));
        assert_eq!(overlap, None, "{other} has {granted:?}, {lease} covers {shards} from {first}");
    }
    let outputs = TaskOutput::Shards((0..shards).map(|_| sample(1)).collect());
    next.finish("w", 0, Ok(outputs));
    let now = Now { mono_ms: next.now, unix_ms: 0 };
    let status = next.state.status(&job(), now).unwrap();
    let sampled = status.phases.iter().find(|phase| phase.phase == Phase::Sample).unwrap();
    let before = u32::from(first > 0) + u32::from(!(first..first + shards).contains(&3));
    assert_eq!(sampled.shards_done, shards + before, "{sampled:?}");
}

#[test]
fn a_rank_that_gets_another_state_twice_is_quarantined_and_the_job_goes_on_without_it() {
    let mut bench = at_work(|_| {}, 2, 7);
    for round in 0..2 {
        let differs = Failure::new(ErrorCode::StateDiffers, "rank 1 got another state", "");
        bench.finish("w", 1, Err(differs));
        bench.finish("w", 0, Err(Failure::new(ErrorCode::GangAborted, "peer lost", "")));
        for _ in 0..5 {
            bench.now += 1_000;
            heartbeat(&mut bench, "w");
        }
        if bench.lease("w", 1).is_none() {
            bench.join("v", 1);
        }
        let lease = bench.lease("w", 0).unwrap();
        bench.step(Event::StoreOpen { lease, address: "h:1".to_owned() });
        let status = bench.state.worker(&worker("w"), Now { mono_ms: bench.now, unix_ms: 0 }).unwrap();
        assert_eq!(status.slots[1].quarantine.is_some(), round == 1, "{status:?}");
    }
    assert_eq!(bench.state_of().0, JobState::Running);
    assert!(bench.lease("w", 0).is_some() && bench.lease("v", 0).is_some(), "a gang of the other two");
}

#[test]
fn a_quota_below_the_gangs_minimum_is_called_hopeless() {
    let mut bench = at_work(|_| {}, 2, 7);
    let record = bench.state.record(&job()).unwrap().clone();
    let owner = record.spec.queue.owner.clone();
    let config = Config { quotas: [(owner, 1)].into(), ..Config::default() };
    bench.state =
        State::restore(config, Epoch(2), Now::default(), [(JobRecord { gang: None, ..record }, edits())], []);
    bench.join("w", 2);
    bench.now += 10_000;
    bench.step(Event::Heartbeat { worker: worker("w"), heard_ms: bench.now, progress: vec![] });
    bench.step(Event::Tick);
    let why = bench.state.explain(&job(), Now { mono_ms: bench.now, unix_ms: 0 }).unwrap().pop().unwrap().why;
    assert!(why.contains("may never hold more than 1") && why.contains("resources.slots.min"), "{why}");
}

#[test]
fn what_was_done_and_how_long_it_took_stays_known_when_a_job_ends_early_and_when_a_leader_dies() {
    let mut bench = at_work(|_| {}, 2, 7);
    bench.now += 4_000;
    let record = bench.state.record(&job()).unwrap().clone();
    let fine_tune = |bench: &Bench| {
        let status =
            bench.state.status(&job(), Now { mono_ms: bench.now, unix_ms: 1_000 + bench.now }).unwrap();
        status.phases.into_iter().find(|phase| phase.phase == Phase::FineTune).unwrap()
    };
    let before = fine_tune(&bench);
    assert!(before.seconds >= 4.0 && before.done == 7, "{before:?}");
    let mut next = Bench::new(Config::default());
    let now = Now { mono_ms: 0, unix_ms: 1_000 + bench.now };
    next.state = State::restore(Config::default(), Epoch(2), now, [(record, edits())], []);
    let status = next.state.status(&job(), now).unwrap();
    let after = status.phases.into_iter().find(|phase| phase.phase == Phase::FineTune).unwrap();
    assert_eq!(after.seconds, before.seconds, "another leader counts on");
    bench.step(Event::Cancel { by: nobody(), job: job(), reason: String::new() });
    for slot in 0..2 {
        bench.finish("w", slot, Err(Failure::new(ErrorCode::Cancelled, "stopped", "")));
    }
    bench.now += 9_000;
    let ended = fine_tune(&bench);
    assert_eq!((ended.done, ended.total, ended.seconds), (before.done, before.total, before.seconds));
}

#[test]
fn a_release_that_would_change_nothing_is_told_why() {
    let mut bench = Bench::new(Config::default());
    bench.join_with("w", 2, |intro| intro.reports[1].1.canary = vec![0.0]);
    let release = |slot: Option<u32>| Event::Order {
        by: nobody(),
        worker: worker("w"),
        order: WorkerOrder::Release { slot: slot.map(SlotIndex) },
    };
    assert_eq!(bench.step(release(Some(0))), []);
    let vain = |effects| match refused(effects) {
        Refusal::Conflict(why) => why,
        other => panic!("{other:?}"),
    };
    for slot in [None, Some(1)] {
        let why = vain(bench.step(release(slot)));
        assert!(why.contains("its canary is wrong") && why.contains("start the worker again"), "{why}");
    }
    let order = WorkerOrder::Quarantine { slot: None, reason: "noisy".to_owned() };
    let effects = bench.step(Event::Order { by: nobody(), worker: worker("w"), order });
    let counted = effects.iter().filter(|effect| matches!(effect, Effect::Metric(Metric::SlotQuarantined)));
    assert_eq!(counted.count(), 2, "an operator's count too");
    assert!(vain(bench.step(release(Some(0)))).contains("release the worker"));
    assert!(
        bench.step(release(None)).contains(&Effect::Persist(Write::ForgetWorker { worker: worker("w") }))
    );
}

#[test]
fn a_probe_asks_again_whether_a_full_disk_has_room_but_not_for_long() {
    let full = || Err(Failure::new(ErrorCode::DiskFull, "the disk of file:///a is full", ""));
    let mut bench = Bench::new(Config::default());
    bench.submit(|_| {});
    bench.join("w", 1);
    let begun = bench.now;
    while bench.state_of().0 == JobState::Running {
        if bench.lease("w", 0).is_some() {
            bench.finish("w", 0, full());
        } else {
            bench.now += 500;
            heartbeat(&mut bench, "w");
        }
    }
    let (state, failure) = bench.state_of();
    assert_eq!(state, JobState::Failed);
    let message = failure.unwrap().message;
    assert_eq!(message, "phase probe failed 4 times, last: the disk of file:///a is full");
    assert!((5_000..10_000).contains(&(bench.now - begun)), "{} ms", bench.now - begun);
}

#[test]
fn a_job_keeps_to_its_budget_once_the_costs_are_known_and_its_request_stays_the_same() {
    let slow = |value: &mut Value| {
        value["pool"] = json!({"shard_size": 1_000, "batch": 10});
        value["resources"]["slots"] = json!({"min": 1, "max": 1});
    };
    let mut bench = Bench::new(Config::default());
    let submit = Event::Submit {
        by: nobody(),
        job: job(),
        spec: spec(slow),
        inputs: inputs(),
        request_id: Some("r".to_owned()),
    };
    bench.step(submit);
    bench.join("w", 1);
    bench.finish("w", 0, Ok(probe()));
    for _ in 0..2 {
        bench.finish("w", 0, Ok(sample(1)));
    }
    let TaskOutput::Direction(mut found) = direction() else { unreachable!() };
    // 1,500, 2,560 and 250 seconds of the 1,800.
    found.costs = lethe_domain::spec::Costs { edit: 0.025, train: 0.01, evaluate: 0.025 };
    bench.finish("w", 0, Ok(TaskOutput::Direction(found)));
    let record = bench.state.record(&job()).unwrap();
    assert_eq!(record.phase, Phase::Edit);
    let numbers = [record.spec.pool.latents, record.spec.unlearn.steps, record.spec.evaluate.samples];
    assert_eq!(numbers, [21_213, 707, 3_536], "0.35 of them");
    assert_eq!(bench.state.status(&job(), Now::default()).unwrap().phases[3].total, 21_213);
    assert!(bench.state.was_asked(&job(), &spec(slow)), "what was asked for is known");
    assert!(!bench.state.was_asked(&job(), &spec(|_| {})));
}

#[test]
fn a_cordon_goes_a_month_after_its_worker_was_here_last() {
    let day = 24 * 60 * 60 * 1_000;
    let mut bench = Bench::new(Config::default());
    for name in ["stays", "leaves"] {
        bench.join(name, 1);
        let order = WorkerOrder::Quarantine { slot: None, reason: "noisy".to_owned() };
        bench.step(Event::Order { by: nobody(), worker: worker(name), order });
    }
    let mut gone = Vec::new();
    for days in 0..100 {
        if days == 50 {
            bench.step(Event::WorkerLeft { worker: worker("leaves") });
        }
        bench.now += day;
        let workers = ["stays", "leaves"].map(|name| (worker(name), bench.now)).to_vec();
        let heard = bench.step(Event::Heard { workers });
        for effect in heard.into_iter().chain(bench.step(Event::Tick)) {
            if let Effect::Persist(Write::ForgetWorker { worker }) = effect {
                gone.push((days, worker));
            }
        }
    }
    let [(day, left)] = &gone[..] else { panic!("{gone:?}") };
    assert!((65..=81).contains(day) && left == &worker("leaves"), "{gone:?}");
    // Who is here loses no mark by being here for long, and a release leaves nothing.
    let release =
        Event::Order { by: nobody(), worker: worker("stays"), order: WorkerOrder::Release { slot: None } };
    let effects = bench.step(release);
    assert!(
        effects.contains(&Effect::Persist(Write::ForgetWorker { worker: worker("stays") })),
        "{effects:?}"
    );
}

#[test]
fn a_job_that_cannot_go_yet_keeps_nobody_awake() {
    let mut bench = Bench::new(Config { keep_ms: Some(1_000), ..Config::default() });
    bench.submit(|_| {});
    let effects = bench.step(Event::Cancel { by: nobody(), job: job(), reason: String::new() });
    assert!(
        effects.contains(&Effect::Chore(Chore::TidyUp { job: job() })) && effects.contains(&forget_shards()),
        "{effects:?}"
    );
    // Storage does not answer for a while.
    for _ in 0..3 {
        bench.now += 600_000;
        bench.step(Event::Tick);
        let next = bench.state.next_deadline();
        assert!(next.is_none_or(|at| at > bench.now + 1_000), "{next:?}");
        assert!(bench.state_of().0.is_final() && bench.state.record(&job()).is_some());
    }
    let effects = bench.step(Event::TidiedUp { job: job() });
    assert!(effects.contains(&Effect::Persist(Write::ForgetJob { job: job() })), "{effects:?}");
    assert!(
        effects.contains(&Effect::Chore(Chore::Erase { job: job() })) && bench.state.record(&job()).is_none()
    );
    assert!(
        bench.step(Event::Erased { job: job() }).contains(&Effect::Persist(Write::Erased { job: job() }))
    );
    assert_eq!(bench.step(Event::Erased { job: job() }), [], "said twice");
}

fn forget_shards() -> Effect {
    Effect::Persist(Write::ForgetShards { job: job() })
}
