//! The driver's loop: receive, step, persist, then act.
//!
//! A turn takes every request that waits, steps the engine through them, and writes everything down in one transaction;
//! only then is anything sent or answered. When writing fails, leadership is lost: the state is dropped and read again,
//! and every worker must join again and say what it holds. The task sleeps until the engine's next deadline.

use std::collections::BTreeMap;
use std::sync::Arc;

use lethe_domain::{Assignment, JobId, JobState, WorkerId};
use lethe_engine::{Command, Config, Effect, Event, Metric, State, Write};
use lethe_proto::session::WorkerCommand;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::recovery::store_down;
use super::sessions::{Member, Sessions, Way};
use super::{Answer, DriverHandle, REQUESTS, Readiness, Request, View};
use crate::Result;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::records::{Loaded, Records};
use crate::results::Results;

/// Requests taken in one turn, and so the most that one transaction holds.
const TURN: usize = 64;

/// What the driver is made of.
pub(crate) struct Driver {
    pub(super) config: Config,
    artifacts: String,
    pub(super) clock: Clock,
    pub(super) records: Records,
    pub(super) state: State,
    /// The engine is told the time at this moment even if it does not ask: a job that was being cancelled before a
    /// restart is cancelled once every worker has had the time to say what it still holds.
    pub(super) settle_at: Option<u64>,
    pub(super) sessions: Sessions,
    pub(super) watchers: BTreeMap<JobId, watch::Sender<()>>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) readiness: watch::Sender<Readiness>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) results: Results,
}

/// What a turn has decided and not yet done.
#[derive(Default)]
pub(super) struct Turn {
    writes: Vec<Write>,
    commands: Vec<(WorkerId, Way, WorkerCommand)>,
    ended: Vec<Member>,
    metrics: Vec<Metric>,
    changed: Vec<JobId>,
    pub(super) answers: Vec<Answer>,
}

impl Driver {
    /// Reads the state and becomes its leader.
    ///
    /// # Errors
    /// As [`Records::lead`].
    pub(crate) async fn restore(
        config: Config,
        artifacts: String,
        mut records: Records,
        metrics: Arc<Metrics>,
        results: Results,
    ) -> Result<(Self, DriverHandle)> {
        let clock = Clock::start();
        let Loaded { epoch, jobs } = records.lead().await?;
        let state = State::restore(config.clone(), epoch, clock.now(), jobs);
        let (sender, requests) = mpsc::channel(REQUESTS);
        let (readiness, ready) = watch::channel(Readiness::Ready);
        let mut driver = Self {
            config,
            artifacts,
            clock,
            records,
            state,
            settle_at: None,
            sessions: Sessions::default(),
            watchers: BTreeMap::new(),
            requests,
            readiness,
            metrics,
            results,
        };
        driver.restored();
        Ok((driver, DriverHandle { requests: sender, readiness: ready }))
    }

    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(TURN);
        loop {
            let deadline = self.deadline();
            let slept = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                taken = self.requests.recv_many(&mut batch, TURN) => if taken == 0 { break },
                () = slept => {}
            }
            if let Err(error) = self.turn(&mut batch).await {
                self.recover(error, &stop).await;
            }
        }
        self.readiness.send_replace(Readiness::Draining);
    }

    fn deadline(&self) -> Option<Instant> {
        let at = [self.state.next_deadline(), self.settle_at].into_iter().flatten().min();
        at.map(|ms| self.clock.instant(ms))
    }

    /// Takes what waits, writes it down, then acts.
    async fn turn(&mut self, batch: &mut Vec<Request>) -> Result<()> {
        let mut turn = Turn::default();
        let now = self.clock.now().mono_ms;
        let due = |at: Option<u64>| at.is_some_and(|at| at <= now);
        if due(self.state.next_deadline()) || due(self.settle_at) {
            self.settle_at = self.settle_at.filter(|at| *at > now);
            self.step(Event::Tick, &mut turn);
        }
        for request in batch.drain(..) {
            self.take(request, &mut turn);
        }
        if let Err(error) = self.records.save(turn.writes.iter()).await {
            let refusal = store_down(&error);
            turn.answers.into_iter().for_each(|answer| answer(Err(&refusal)));
            return Err(error);
        }
        self.act(turn);
        Ok(())
    }

    /// One step of the engine; what is to be sent takes the way that is open now.
    pub(super) fn step(&mut self, event: Event, turn: &mut Turn) {
        for effect in self.state.step(self.clock.now(), event) {
            match effect {
                Effect::Persist(write) => turn.writes.push(write),
                Effect::Send { worker, command } => {
                    let Some(way) = self.sessions.way(&worker) else { continue };
                    turn.commands.push((worker, way, self.wire(command)));
                }
                Effect::CloseSession { worker } => turn.ended.extend(self.sessions.member(&worker)),
                Effect::Notify { job } => turn.changed.push(job),
                Effect::Metric(metric) => turn.metrics.push(metric),
            }
        }
    }

    fn wire(&self, command: Command) -> WorkerCommand {
        let epoch = self.state.epoch();
        match command {
            Command::Start { slot, assignment } => {
                let assignment = Assignment { artifacts: self.artifacts.clone(), ..*assignment };
                WorkerCommand::Start { epoch, slot, assignment: Box::new(assignment) }
            }
            Command::Stop { slot, lease } => WorkerCommand::Stop { epoch, slot, lease },
            Command::Ack { lease } => WorkerCommand::Ack(lease),
        }
    }

    /// Does what has been written down.
    fn act(&mut self, turn: Turn) {
        for (worker, way, command) in turn.commands {
            self.sessions.send(&worker, &way, command);
        }
        turn.ended.iter().for_each(|member| self.sessions.close(member));
        turn.metrics.iter().for_each(|metric| self.metrics.count(metric));
        for job in &turn.changed {
            self.notify(job);
        }
        let view = View::new(&self.state, self.clock.now());
        for write in &turn.writes {
            if let Write::Job(record) = write
                && record.state == JobState::Succeeded
                && let Some(result) = view.result(&record.id)
            {
                self.results.write(result, record.spec.publish.as_ref());
            }
        }
        turn.answers.into_iter().for_each(|answer| answer(Ok(&view)));
    }

    fn notify(&mut self, job: &JobId) {
        if let Some(watchers) = self.watchers.get(job) {
            watchers.send_replace(());
        }
    }
}
