//! Agents, the real machines, and their executors.

use std::time::{Duration, Instant};

use lethe_domain::{Assignment, ErrorCode, Failure, Progress, SlotIndex, Task, TaskOutput, WorkerId, canary};
use lethe_proto::LeaseOutcome;
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};

use super::coordinator::output;
use super::streams::{Up, Wire};
use super::{Gang, World};
use crate::config::Patience;
use crate::death::Death;
use crate::machine::witness::Witness;
use crate::machine::{Effect, Event, Introduction, Machine, Now};

/// Of fine-tuning, as in the spec.
pub(super) const STEPS: u64 = 40;
/// An executor process.
#[derive(Default)]
enum Process {
    #[default]
    None,
    Starting {
        until: u64,
    },
    Alive {
        work: Option<Box<Work>>,
        deaf: bool,
    },
}

struct Work {
    assignment: Assignment,
    done_at: u64,
    /// Told to stop: it obeys then.
    stop_at: Option<u64>,
    /// Asked to yield: it does then.
    yield_at: Option<u64>,
}

#[derive(Default)]
pub(super) struct Executor {
    process: Process,
    /// Killed: it is gone then.
    killed: Option<u64>,
}
pub(super) struct Worker {
    pub(super) machine: Machine,
    witness: Witness,
    pub(super) executors: Vec<Executor>,
    pub(super) wire: Option<Wire>,
    /// When to begin a session; none before every executor was ready.
    pub(super) join_at: Option<u64>,
    /// The agent is gone, and started anew then.
    pub(super) reborn_at: Option<u64>,
}
pub(super) fn agent(begin: Instant, now: u64, slots: usize) -> Worker {
    let at = begin + Duration::from_millis(now);
    let patience = Patience { drain: Duration::from_secs(4), ..Patience::default() };
    Worker {
        machine: Machine::new(at, &vec!["cpu".to_owned(); slots], patience),
        witness: Witness::new(slots),
        executors: (0..slots).map(|_| Executor::default()).collect(),
        wire: None,
        join_at: None,
        reborn_at: None,
    }
}
impl Worker {
    /// It is about to join.
    pub(super) fn introduce(&mut self) -> Introduction {
        let introduction = self.machine.introduce();
        self.witness.introduction(&introduction);
        introduction
    }
}

impl World {
    pub(super) fn happens(&mut self, id: &WorkerId, event: Event) {
        let now = Now { at: self.begin + Duration::from_millis(self.now), unix_ms: self.now };
        let worker = self.worker(id);
        if worker.reborn_at.is_some() {
            return;
        }
        worker.witness.event(&event);
        let effects = worker.machine.step(now, event);
        worker.witness.effects(&worker.machine, &effects);
        for effect in effects {
            self.act(id, effect);
        }
    }

    fn act(&mut self, id: &WorkerId, effect: Effect) {
        match effect {
            Effect::Join => self.worker(id).join_at = Some(self.now),
            Effect::Send(event) => self.say_up(id, Up::Event(event)),
            Effect::Rejoin => panic!("at {} ms {id} contradicts its coordinator", self.now),
            Effect::Start(at) => {
                let until = self.soon(10..800);
                self.executor(id, at).process = Process::Starting { until };
            }
            Effect::Tell(at, command) => self.told(id, at, command),
            Effect::Kill(at) => {
                self.counts.kills += 1;
                let gone = self.soon(1..200);
                self.executor(id, at).killed = Some(gone);
            }
            Effect::GiveUp(..) => {}
            Effect::End => {
                self.say_up(id, Up::Bye);
                self.agent_ends(id);
            }
        }
    }

    fn executor(&mut self, id: &WorkerId, at: SlotIndex) -> &mut Executor {
        &mut self.worker(id).executors[at.0 as usize]
    }

    fn told(&mut self, id: &WorkerId, at: SlotIndex, command: ExecutorCommand) {
        let (done_at, stop_at) = (self.soon(50..1_500), self.soon(0..300));
        let is_deaf = self.chance(self.weather.executor_is_deaf);
        match command {
            ExecutorCommand::Start(assignment) => {
                let lease = assignment.lease.clone();
                let mut opens = false;
                if let Task::FineTune { role, .. } = &assignment.task {
                    self.gangs.entry((lease.job.clone(), role.generation.0)).or_default().started += 1;
                    opens = role.rank.0 == 0;
                }
                let Process::Alive { work, deaf } = &mut self.executor(id, at).process else {
                    panic!("told while it is not ready")
                };
                *work =
                    Some(Box::new(Work { assignment: *assignment, done_at, stop_at: None, yield_at: None }));
                *deaf = is_deaf;
                if opens {
                    let open = ExecutorEvent::StoreOpen { lease, address: "a:1".to_owned() };
                    self.happens(id, Event::Executor(at, open));
                }
            }
            ExecutorCommand::Stop(_) => {
                if let Process::Alive { work: Some(work), deaf: false } = &mut self.executor(id, at).process {
                    work.stop_at = Some(stop_at);
                }
            }
            ExecutorCommand::Yield { .. } => {
                if let Process::Alive { work: Some(work), deaf: false } = &mut self.executor(id, at).process {
                    work.yield_at = Some(stop_at);
                }
            }
        }
    }

    /// The agent is gone; whoever starts it again takes a while.
    fn agent_ends(&mut self, id: &WorkerId) {
        let again = self.soon(200..8_000);
        for at in 0..self.worker(id).executors.len() {
            let executor = std::mem::take(&mut self.worker(id).executors[at]);
            self.breaks_gang(&executor);
        }
        self.worker(id).reborn_at = Some(again);
    }

    fn breaks_gang(&mut self, executor: &Executor) {
        if let Process::Alive { work: Some(work), .. } = &executor.process
            && let Some(gang) = self.gang(&work.assignment)
        {
            gang.broken = true;
        }
    }

    fn gang(&mut self, assignment: &Assignment) -> Option<&mut Gang> {
        let Task::FineTune { role, .. } = &assignment.task else { return None };
        self.gangs.get_mut(&(assignment.lease.job.clone(), role.generation.0))
    }

    pub(super) fn live(&mut self, id: &WorkerId) {
        if let Some(again) = self.worker(id).reborn_at {
            let over = self.worker(id).wire.as_ref().is_none_or(|wire| wire.up.is_empty());
            if again <= self.now && over {
                let slots = self.worker(id).executors.len();
                *self.worker(id) = agent(self.begin, self.now, slots);
            }
            return;
        }
        if self.chance(self.weather.agent_dies) {
            self.break_wire(id);
            return self.agent_ends(id);
        }
        if self.chance(self.weather.agent_drains) {
            self.counts.drains += 1;
            self.happens(id, Event::Drain);
        }
        if self.chance(self.weather.agent_leaves) {
            self.happens(id, Event::Leave);
        }
        for at in 0..self.worker(id).executors.len() as u32 {
            for event in self.executor_does(id, SlotIndex(at)) {
                self.happens(id, event);
            }
        }
        let at = self.begin + Duration::from_millis(self.now);
        if self.worker(id).machine.next_deadline().is_some_and(|deadline| deadline <= at) {
            self.happens(id, Event::Tick);
        }
    }

    /// What an executor says or suffers in these 10 ms.
    fn executor_does(&mut self, id: &WorkerId, at: SlotIndex) -> Vec<Event> {
        let now = self.now;
        let dies = self.chance(self.weather.executor_dies);
        let fails = self.chance(self.weather.executor_does_not_start);
        let mut executor = std::mem::take(self.executor(id, at));
        let gone = executor.killed.is_some_and(|at| at <= now);
        let (mut events, mut died) = (Vec::new(), gone);
        match &mut executor.process {
            Process::None => died = false,
            Process::Starting { until } => {
                if *until <= now && !died {
                    died = fails;
                    executor.process = Process::Alive { work: None, deaf: false };
                    let (device, torch) = ("cpu".to_owned(), "0".to_owned());
                    let ready = ExecutorEvent::Ready { device, torch, canary: canary::EXPECTED.to_vec() };
                    events.extend((!fails).then_some(Event::Executor(at, ready)));
                }
            }
            Process::Alive { work, deaf } => {
                died |= dies;
                let outcome = match work {
                    Some(work) if !died => self.progress(work, *deaf, &mut events, at),
                    _ => None,
                };
                if let Some(outcome) = outcome {
                    let work = work.take().unwrap();
                    let yielded = outcome.as_ref().is_err_and(|failure| failure.code == ErrorCode::Yielded);
                    self.counts.yields += u64::from(yielded);
                    if outcome.is_err()
                        && !yielded
                        && let Some(gang) = self.gang(&work.assignment)
                    {
                        gang.broken = true;
                    }
                    let outcome = Box::new(LeaseOutcome { lease: work.assignment.lease, outcome });
                    events.push(Event::Executor(at, ExecutorEvent::Finished(outcome)));
                }
            }
        }
        if died {
            self.counts.deaths += 1;
            self.breaks_gang(&executor);
            let death = Death { how: "signal 9".to_owned(), log: Vec::new(), hint: String::new() };
            events.push(Event::Died(at, death));
            executor = Executor::default();
        }
        *self.executor(id, at) = executor;
        events
    }

    fn progress(
        &mut self,
        work: &mut Work,
        deaf: bool,
        events: &mut Vec<Event>,
        at: SlotIndex,
    ) -> Option<Result<TaskOutput, Failure>> {
        let now = self.now;
        let failed = |code| Some(Err(Failure { at_unix_ms: now, ..Failure::new(code, "", "") }));
        if work.stop_at.is_some_and(|at| at <= now) {
            return failed(ErrorCode::Cancelled);
        }
        let yields = work.yield_at.is_some_and(|at| at <= now);
        let lease = work.assignment.lease.clone();
        let mut done = now;
        let over = match (&work.assignment.task, self.gang(&work.assignment)) {
            (Task::FineTune { role, .. }, Some(gang)) => {
                // A deaf rank hangs in a collective whose other end is gone.
                if gang.broken {
                    return if deaf { None } else { failed(ErrorCode::GangAborted) };
                }
                if role.rank.0 == 0 && gang.started == role.world && now.is_multiple_of(50) {
                    gang.step += 1;
                }
                gang.yields |= yields;
                if gang.yields && gang.step < STEPS {
                    return if deaf { None } else { failed(ErrorCode::Yielded) };
                }
                done = gang.step;
                gang.step >= STEPS
            }
            _ if yields => return failed(ErrorCode::Yielded),
            (Task::Standby { .. }, _) => false,
            _ => work.done_at <= now,
        };
        if over {
            return Some(Ok(output(&work.assignment)));
        }
        if now.is_multiple_of(200) {
            let progress = Progress { lease, done, total: STEPS, samples_per_second: 1.0, loss: None };
            events.push(Event::Executor(at, ExecutorEvent::Progress(progress)));
        }
        None
    }
}
