//! A seeded simulation of whole fleets: the real engine, real machines, and between them streams that keep their order
//! and break, executors that die, hang and do not start, agents that are killed, leave or drain, coordinators that restart or want leases
//! back.
//!
//! After every step the engine's invariants and the machine's promises hold; no machine ever has to contradict its
//! coordinator; in the end every job has succeeded and nothing is left in any slot.

mod agents;
mod coordinator;
mod streams;

use std::collections::BTreeMap;
use std::time::Instant;

use lethe_domain::{Epoch, Inputs, JobId, JobState, Phase, Principal, ShardIndex, TaskOutput, WorkerId};
use lethe_engine::{Event as Occurrence, JobRecord, State, WorkerRecord};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::tests::spec;
use agents::Worker;

/// How often what happens, per executor, stream, agent or coordinator and 10 ms.
#[derive(Clone, Copy)]
struct Weather {
    executor_dies: f64,
    executor_does_not_start: f64,
    executor_is_deaf: f64,
    stream_breaks: f64,
    agent_dies: f64,
    agent_leaves: f64,
    agent_drains: f64,
    coordinator_dies: f64,
    /// The coordinator asks a lease to yield, at times on behalf of an epoch that is over.
    coordinator_wants_back: f64,
}

const STORM: Weather = Weather {
    executor_dies: 0.001,
    executor_does_not_start: 0.1,
    executor_is_deaf: 0.2,
    stream_breaks: 0.003,
    agent_dies: 0.0003,
    agent_leaves: 0.0003,
    agent_drains: 0.0003,
    coordinator_dies: 0.0005,
    coordinator_wants_back: 0.002,
};

type Shards = BTreeMap<(Phase, ShardIndex), TaskOutput>;

#[derive(Default)]
struct Gang {
    broken: bool,
    /// A rank was asked to yield: all end at this step.
    yields: bool,
    step: u64,
    started: u32,
}

struct World {
    rng: ChaCha8Rng,
    weather: Weather,
    begin: Instant,
    now: u64,
    epoch: u64,
    state: State,
    disk: BTreeMap<JobId, (JobRecord, Shards)>,
    marks: BTreeMap<WorkerId, WorkerRecord>,
    workers: BTreeMap<WorkerId, Worker>,
    /// The coordinator's newest session of each worker.
    sessions: BTreeMap<WorkerId, u64>,
    serials: u64,
    gangs: BTreeMap<(JobId, u32), Gang>,
    counts: Counts,
}

/// What the storm has done, to show that it blows.
#[derive(Debug, Default)]
struct Counts {
    sessions: u64,
    kills: u64,
    deaths: u64,
    cancelled: u64,
    /// Agents that drained.
    drains: u64,
    /// Leases that were handed back.
    yields: u64,
}

impl Weather {
    /// Each kind of trouble or none of it, so that no trouble hides what another one leaves behind.
    fn of(rng: &mut ChaCha8Rng) -> Self {
        let mut some = |usual: f64| if rng.random_bool(0.5) { usual } else { 0.0 };
        Self {
            executor_dies: some(STORM.executor_dies),
            executor_does_not_start: some(STORM.executor_does_not_start),
            executor_is_deaf: some(STORM.executor_is_deaf),
            stream_breaks: some(STORM.stream_breaks),
            agent_dies: some(STORM.agent_dies),
            agent_leaves: some(STORM.agent_leaves),
            agent_drains: some(STORM.agent_drains),
            coordinator_dies: some(STORM.coordinator_dies),
            coordinator_wants_back: some(STORM.coordinator_wants_back),
        }
    }

    /// What is left when the storm is over: executors still do not hear.
    fn calm(self) -> Self {
        Self {
            executor_dies: 0.0,
            executor_does_not_start: 0.0,
            stream_breaks: 0.0,
            agent_dies: 0.0,
            agent_leaves: 0.0,
            agent_drains: 0.0,
            coordinator_dies: 0.0,
            coordinator_wants_back: 0.0,
            ..self
        }
    }
}
impl World {
    fn new(seed: u64, slots: &[usize]) -> Self {
        let begin = Instant::now();
        let worker = |(index, slots): (usize, &usize)| {
            (WorkerId::new(format!("w{index}")).unwrap(), agents::agent(begin, 0, *slots))
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            weather: Weather::of(&mut rng),
            rng,
            begin,
            now: 0,
            epoch: 1,
            state: State::new(coordinator::config(), Epoch(1)),
            disk: BTreeMap::new(),
            marks: BTreeMap::new(),
            workers: slots.iter().enumerate().map(worker).collect(),
            sessions: BTreeMap::new(),
            serials: 0,
            gangs: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    fn soon(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.now + self.rng.random_range(range)
    }

    fn worker(&mut self, id: &WorkerId) -> &mut Worker {
        self.workers.get_mut(id).unwrap()
    }

    /// A storm of up to half a minute, then calm. Whatever the storm left must be over soon: every lease that waits for
    /// something has a deadline.
    fn run(&mut self) {
        let ids: Vec<WorkerId> = self.workers.keys().cloned().collect();
        let calm_at = self.rng.random_range(0..30_000);
        let cancel_at = self.rng.random_range(0..30_000);
        let limit = 120_000;
        while self.now < limit {
            self.now += 10;
            if self.now >= calm_at {
                self.weather = self.weather.calm();
            }
            if self.now == cancel_at / 10 * 10 {
                self.occurs(Occurrence::Cancel {
                    by: Principal::default(),
                    job: job("b"),
                    reason: "had enough".to_owned(),
                });
            }
            if self.chance(self.weather.coordinator_dies) {
                self.crash_coordinator();
            }
            for id in &ids {
                if self.chance(self.weather.stream_breaks) {
                    self.break_wire(id);
                }
                if self.chance(self.weather.coordinator_wants_back) {
                    self.want_back(id);
                }
                self.carry(id);
                self.live(id);
            }
            if self.state.next_deadline().is_some_and(|at| at <= self.now) {
                self.occurs(Occurrence::Tick);
            }
            let over = |id: &JobId| self.state.record(id).unwrap().state.is_final();
            let idle = self.workers.values().all(|worker| worker.machine.held().is_empty());
            if idle && self.state.job_ids().iter().all(over) {
                return;
            }
        }
        let held: Vec<_> = self.workers.values().map(|worker| worker.machine.held()).collect();
        let now = lethe_engine::Now { mono_ms: self.now, unix_ms: self.now };
        let jobs = ["a", "b"].map(|name| self.state.status(&job(name), now).unwrap());
        panic!("not over {} ms after the storm; held: {held:?}; jobs: {jobs:#?}", limit - calm_at);
    }

    fn verdict(&self, name: &str) -> JobState {
        let record = self.state.record(&job(name)).unwrap();
        assert_ne!(record.state, JobState::Failed, "{:?}", record.failure);
        record.state
    }
}

fn job(name: &str) -> JobId {
    JobId::new(name).unwrap()
}

#[test]
fn no_storm_keeps_a_fleet_from_its_work() {
    let seeds = std::env::var("LETHE_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(500);
    let mut counts = Counts::default();
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, &[2, 1, 2]);
            for name in ["a", "b"] {
                let spec = Box::new(spec());
                world.occurs(Occurrence::Submit {
                    by: Principal::default(),
                    job: job(name),
                    spec,
                    inputs: Inputs::default(),
                    request_id: None,
                });
            }
            world.run();
            assert_eq!(world.verdict("a"), JobState::Succeeded);
            world.counts.cancelled = u64::from(world.verdict("b") == JobState::Cancelled);
            world.counts
        });
        let seen = outcome.unwrap_or_else(|_| panic!("seed {seed}: see above"));
        counts.sessions += seen.sessions;
        counts.kills += seen.kills;
        counts.deaths += seen.deaths;
        counts.drains += seen.drains;
        counts.yields += seen.yields;
        counts.cancelled += seen.cancelled;
    }
    // Much more than a calm run has: three sessions, no kill, no death.
    assert!(counts.sessions > 4 * seeds && counts.kills > seeds / 4 && counts.deaths > seeds, "{counts:?}");
    assert!(counts.cancelled > seeds / 10, "{counts:?}");
    assert!(counts.drains > seeds / 4 && counts.yields > seeds, "{counts:?}");
}
