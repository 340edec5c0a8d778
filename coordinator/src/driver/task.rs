//! The driver's loop: receive, step, persist, then act.
//!
//! A turn takes every request that waits, steps the engine through them, and writes everything down in one transaction;
//! only then is anything sent or answered. When writing fails, or the time for which this coordinator may lead is over,
//! the state is dropped, and every worker must join again and say what it holds: here when it is elected again, or at the
//! next leader (`recovery`, `following`). The task sleeps until the engine's next deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lethe_domain::{Assignment, Epoch, JobId, WorkerId};
use lethe_engine::{Chore, Command, Config, Effect, Event, JobRecord, Metric, State, Write};
use lethe_proto::session::WorkerCommand;
use lethe_proto::status::Refusal;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::published::{Published, Watchers};
use super::recovery::{no_leader, store_down};
use super::sessions::{SessionHandle, SessionId, Sessions};
use super::snapshot::Snapshot;
use super::{
    Answer, DriverHandle, REQUESTS, Readiness, Request, View, going_away, no_such_job, no_such_worker,
};
use crate::clock::Clock;
use crate::election::{Election, Outcome};
use crate::metrics::Metrics;
use crate::records::Records;
use crate::upkeep::Upkeep;
use crate::{Error, Result};

/// Requests taken in one turn, and so the most that one transaction holds.
const TURN: usize = 64;

/// How far jobs are is shown so often: five times in a second are enough for people.
const PACE: Duration = Duration::from_millis(200);

/// What the driver is made of.
pub(crate) struct Driver {
    pub(super) config: Config,
    artifacts: String,
    pub(super) clock: Clock,
    /// Keeps the clock going.
    _beats: AbortOnDropHandle<()>,
    pub(super) election: Election,
    pub(super) records: Records,
    pub(super) state: State,
    pub(super) sessions: Sessions,
    pub(super) watchers: Watchers,
    pub(super) snapshot: Snapshot,
    published: watch::Sender<Published>,
    /// Jobs that have come further since what is published, and when that is to be shown.
    pub(super) progressed: BTreeSet<JobId>,
    show_at: Instant,
    /// Why nothing is accepted, while that is so.
    pub(super) refusal: Refusal,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) readiness: watch::Sender<Readiness>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) upkeep: Upkeep,
    /// Ends what is done for jobs that have ended, when another may do it too.
    pub(super) upkeep_end: CancellationToken,
    /// Removes old edits, while this one leads.
    pub(super) forgetting: Option<AbortOnDropHandle<()>>,
    /// Where it says that it is done.
    pub(super) myself: mpsc::WeakSender<Request>,
}

/// What a turn has decided and not yet done.
#[derive(Default)]
pub(super) struct Turn {
    writes: Vec<Write>,
    commands: Vec<(WorkerId, SessionHandle, WorkerCommand)>,
    ended: Vec<SessionId>,
    metrics: Vec<Metric>,
    changed: Vec<JobId>,
    chores: Vec<Chore>,
    pub(super) answers: Vec<Answer>,
}

/// How often workers are to say that they live.
pub(super) fn heartbeat_ms(config: &Config) -> u32 {
    u32::try_from(config.dead_after_ms / 5).unwrap_or(u32::MAX).max(10)
}

/// Why a step does not do what was asked for.
pub(super) fn refusal_in(effects: &[Effect]) -> std::result::Result<(), Refusal> {
    match effects.first() {
        Some(Effect::Refuse(refusal)) => Err(match refusal.clone() {
            lethe_engine::Refusal::NoSuchJob(id) => no_such_job(&id),
            lethe_engine::Refusal::NoSuchWorker(id) => no_such_worker(&id),
            lethe_engine::Refusal::Denied(message) => Refusal::Denied { message },
            lethe_engine::Refusal::Conflict(message) => Refusal::Conflict { message },
        }),
        Some(_) | None => Ok(()),
    }
}

impl Driver {
    /// Stands for election once, so that it leads from the start where nobody else does. A store that does not answer
    /// yet is waited for while it runs.
    ///
    /// # Errors
    /// As [`Election::campaign`] and [`Records::load`], where another try does not help.
    pub(crate) async fn start(
        config: Config,
        artifacts: String,
        (election, records): (Election, Records),
        metrics: Arc<Metrics>,
        upkeep: Upkeep,
    ) -> Result<(Self, DriverHandle)> {
        // What a worker lets pass between two heartbeats is no pause.
        let (clock, beats) = Clock::start(Duration::from_millis(heartbeat_ms(&config).into()));
        let sessions = Sessions::new(clock.clone());
        let state = State::restore(config.clone(), Epoch(0), clock.now(), Vec::new(), Vec::new());
        let (sender, requests) = mpsc::channel(REQUESTS);
        let (readiness, ready) = watch::channel(Readiness::StoreDown("it was not asked yet".to_owned()));
        let (published, publications) = watch::channel(Published::Nothing(no_leader()));
        let watchers = Watchers::default();
        let (handle_clock, archive) = (clock.clone(), records.archive());
        let mut driver = Self {
            config,
            artifacts,
            clock,
            _beats: beats,
            election,
            records,
            state,
            sessions,
            watchers: watchers.clone(),
            snapshot: Snapshot::default(),
            published,
            progressed: BTreeSet::new(),
            show_at: Instant::now(),
            refusal: no_leader(),
            requests,
            readiness,
            metrics,
            upkeep,
            upkeep_end: CancellationToken::new(),
            forgetting: None,
            myself: sender.downgrade(),
        };
        match driver.enter().await {
            Ok(Outcome::Leads) => {}
            Ok(Outcome::Follows(leader, _)) => {
                driver.set(Readiness::Following(leader.address.clone()));
                driver.publish(Published::Following(leader.address));
            }
            Err(error) if error.retryable() || error.is_conflict() => {
                tracing::warn!(%error, "cannot read the state yet");
                driver.set(Readiness::StoreDown(error.to_string()));
            }
            Err(error) => return Err(error),
        }
        let handle = DriverHandle {
            requests: sender,
            readiness: ready,
            published: publications,
            watchers,
            archive,
            clock: handle_clock,
        };
        Ok((driver, handle))
    }

    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while (self.leads() || self.stand(&stop).await) && !stop.is_cancelled() {
            if let Err(error) = self.lead(&stop).await {
                self.lose(&error);
            }
        }
        self.set(Readiness::Draining);
        self.publish(Published::Nothing(going_away()));
        self.watchers.end_all();
        self.sessions.close_all();
        self.election.resign().await;
    }

    /// Leads until it is told to stop.
    ///
    /// # Errors
    /// Why it cannot lead any more.
    async fn lead(&mut self, stop: &CancellationToken) -> Result<()> {
        let mut batch = Vec::with_capacity(TURN);
        let over = self.election.over();
        tokio::pin!(over);
        loop {
            let deadline = self.deadline();
            let slept = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut over => return Err(Error::TermOver),
                taken = self.requests.recv_many(&mut batch, TURN) => if taken == 0 {
                    stop.cancel();
                    return Ok(());
                },
                () = slept => {}
            }
            self.turn(&mut batch).await?;
        }
    }

    pub(super) fn set(&self, readiness: Readiness) {
        self.readiness.send_replace(readiness);
    }

    pub(super) fn publish(&self, published: Published) {
        self.published.send_replace(published);
    }

    fn leads(&self) -> bool {
        *self.readiness.borrow() == Readiness::Ready
    }

    fn deadline(&self) -> Option<Instant> {
        let due = self.state.next_deadline().map(|ms| self.clock.instant(ms));
        let show = (!self.progressed.is_empty()).then_some(self.show_at);
        due.into_iter().chain(show).min()
    }

    /// Takes what waits, writes it down, then acts.
    async fn turn(&mut self, batch: &mut Vec<Request>) -> Result<()> {
        // A process that was stopped for a while wakes up here.
        let Some(fence) = self.election.fence() else {
            batch.drain(..).for_each(|request| request.refuse(&no_leader()));
            return Err(Error::TermOver);
        };
        let mut turn = Turn::default();
        for request in batch.drain(..) {
            self.take(request, &mut turn);
        }
        // After what has come in, and knowing of what still waits: time alone is given up for.
        if self.state.next_deadline().is_some_and(|at| at <= self.clock.now().mono_ms) {
            self.step(Event::Heard { workers: self.sessions.heard() }, &mut turn);
            self.step(Event::Tick, &mut turn);
        }
        self.step(Event::Plan, &mut turn);
        if let Err(error) = self.records.save(fence, turn.writes.iter()).await {
            let refusal = store_down(&error);
            turn.answers.into_iter().for_each(|answer| answer(Err(&refusal)));
            return Err(error);
        }
        // The write may have taken its time: what it decided is read again by whoever leads now.
        if self.election.fence().is_none() {
            turn.answers.into_iter().for_each(|answer| answer(Err(&no_leader())));
            return Err(Error::TermOver);
        }
        self.act(turn);
        Ok(())
    }

    /// One step of the engine, of something that happens.
    pub(super) fn step(&mut self, event: Event, turn: &mut Turn) {
        let effects = self.state.step(self.clock.now(), event);
        self.collect(effects, turn);
    }

    /// One step of the engine, of something that is asked for.
    ///
    /// # Errors
    /// Why it is not done.
    pub(super) fn ask(&mut self, event: Event, turn: &mut Turn) -> std::result::Result<(), Refusal> {
        let effects = self.state.step(self.clock.now(), event);
        refusal_in(&effects)?;
        self.collect(effects, turn);
        Ok(())
    }

    /// What a step wants done, for the end of the turn; what is to be sent takes the way that is open now.
    pub(super) fn collect(&mut self, effects: Vec<Effect>, turn: &mut Turn) {
        for effect in effects {
            match effect {
                Effect::Refuse(refusal) => tracing::warn!(?refusal, "refused, and nobody had asked"),
                Effect::Persist(write) => turn.writes.push(write),
                Effect::Send { worker, command } => {
                    let Some(handle) = self.sessions.handle(&worker) else { continue };
                    turn.commands.push((worker, handle, self.wire(command)));
                }
                Effect::CloseSession { worker } => turn.ended.extend(self.sessions.session(&worker)),
                Effect::Notify { job } => turn.changed.push(job),
                Effect::Chore(chore) => turn.chores.push(chore),
                Effect::Metric(metric) => turn.metrics.push(metric),
            }
        }
    }

    fn wire(&self, command: Command) -> WorkerCommand {
        let epoch = self.state.epoch();
        match command {
            Command::Start { slot, assignment } => {
                let mut assignment = Assignment { artifacts: self.artifacts.clone(), ..*assignment };
                assignment.spec.pool.reuse &= self.upkeep.keeps_edits();
                WorkerCommand::Start { epoch, slot, assignment: Box::new(assignment) }
            }
            Command::Stop { slot, lease } => WorkerCommand::Stop { epoch, slot, lease },
            Command::Yield { slot, lease, save } => WorkerCommand::Yield { epoch, slot, lease, save },
            Command::Ack { lease } => WorkerCommand::Ack(lease),
        }
    }

    /// Publishes what has changed: that jobs have come further only now and then, and then for all of them at once.
    fn show(&mut self, records: BTreeMap<JobId, Arc<JobRecord>>, changed_jobs: &mut Vec<JobId>) {
        let mut changed = self.state.take_changed();
        self.progressed.append(&mut changed.progress);
        let now = Instant::now();
        if self.show_at <= now && !self.progressed.is_empty() {
            self.show_at = now + PACE;
            let progressed = std::mem::take(&mut self.progressed);
            changed_jobs.extend(progressed.iter().cloned());
            changed.jobs.extend(progressed);
        }
        if changed.jobs.is_empty() && changed.workers.is_empty() && records.is_empty() {
            return;
        }
        self.snapshot.update(&self.state, changed, records, &self.sessions);
        self.publish(Published::Leading(self.snapshot.clone(), self.election.term_end()));
    }

    /// Does what has been written down: first of all it can be read.
    fn act(&mut self, mut turn: Turn) {
        let records = turn.writes.into_iter().filter_map(|write| {
            if let Write::Job(record) = write { Some((record.id.clone(), Arc::from(record))) } else { None }
        });
        let records: BTreeMap<JobId, Arc<JobRecord>> = records.collect();
        let ended = records.values().filter(|record| record.state.is_final() && !record.tidy);
        let ended: Vec<_> = ended.cloned().collect();
        self.show(records, &mut turn.changed);
        for (worker, handle, command) in turn.commands {
            self.sessions.send(&worker, &handle, command);
        }
        for member in &turn.ended {
            tracing::warn!(worker = %member.worker, "a worker is dead: it was silent for too long");
            self.sessions.close(member);
        }
        turn.metrics.iter().for_each(|metric| self.metrics.count(metric));
        turn.changed.iter().for_each(|job| self.watchers.notify(job));
        for record in ended {
            let failure = record.failure.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::info!(job = %record.id, state = %record.state, failure, "a job has ended");
        }
        turn.chores.into_iter().for_each(|chore| self.look_after(chore));
        let view = View::new(self.snapshot.clone(), self.clock.now());
        turn.answers.into_iter().for_each(|answer| answer(Ok(&view)));
    }
}
