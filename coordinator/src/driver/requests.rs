//! What the driver does with each request: steps the engine, which does it or refuses, and leaves an answer that is given when
//! everything is written down.

use lethe_domain::{Inputs, JobId, JobSpec, JobStatus, Principal, SpecError, WorkerId};
use lethe_engine::{Event, Introduction};
use lethe_proto::session::{Registered, Registration, WorkerEvent};
use lethe_proto::status::Refusal;

use super::View;
use super::sessions::Opened;
use super::task::{Driver, Turn, heartbeat_ms, refusal_in};
use super::{Answer, Membership, Reply, Request, going_away};

impl Driver {
    /// Takes one request.
    pub(super) fn take(&mut self, request: Request, turn: &mut Turn) {
        match request {
            Request::Submit { by, spec, inputs, request_id, reply } => {
                self.submit(by, spec, inputs, request_id, reply, turn);
            }
            Request::Cancel { by, job, reason, reply } => {
                let event = Event::Cancel { by: by.clone(), job: job.clone(), reason: reason.clone() };
                let done = self.ask(event, turn);
                if done.is_ok() {
                    tracing::info!(job = %job, %by, reason, "a job is to be cancelled");
                }
                turn.answers.push(answer(reply, done, move |view| view.status(&job)));
            }
            Request::Delete { by, job, reply } => {
                let done = self.ask(Event::Delete { by: by.clone(), job: job.clone() }, turn);
                if done.is_ok() {
                    tracing::info!(job = %job, %by, "a job is to be deleted");
                }
                turn.answers.push(answer(reply, done, |_| Some(())));
            }
            Request::UpkeepDone { event } => self.step(event, turn),
            Request::Join { registration, reply } => self.join(registration, reply, turn),
            Request::Order { by, worker, order, reply } => {
                let event = Event::Order { by: by.clone(), worker: worker.clone(), order: order.clone() };
                let done = self.ask(event, turn);
                if done.is_ok() {
                    tracing::info!(%worker, %by, ?order, "an order of an operator");
                }
                turn.answers.push(answer(reply, done, move |view| view.worker(&worker)));
            }
            Request::Worker { member, event } => {
                if self.sessions.is_current(&member)
                    && let Some(heard) = self.sessions.last_heard(&member.worker)
                    && let Some(event) = engine_event(member.worker, heard.ms(), event)
                {
                    self.step(event, turn);
                }
            }
            Request::Leave { member } => {
                if self.sessions.is_current(&member) {
                    self.sessions.close(&member);
                    self.step(Event::WorkerLeft { worker: member.worker }, turn);
                }
            }
            // Whoever asked did so while another one led.
            Request::Read { reply } => turn.answers.push(answer(reply, Ok(()), |view| Some(view.clone()))),
        }
    }

    fn submit(
        &mut self,
        by: Principal,
        spec: Box<JobSpec>,
        inputs: Option<Inputs>,
        request_id: Option<String>,
        reply: Reply<JobStatus>,
        turn: &mut Turn,
    ) {
        let known =
            request_id.as_deref().and_then(|request| self.state.job_of_request(&by, request)).cloned();
        let is_new = known.is_none();
        let id = match (known, &inputs) {
            (Some(id), _) => Ok(id),
            (None, Some(_)) => self.new_id(&spec.name),
            // Its files were not looked at, for it was known a moment ago.
            (None, None) => {
                let message = "the job of this request_id has just been deleted: try again";
                Err(Refusal::Unavailable { message: message.to_owned() })
            }
        };
        let job = match id {
            Ok(id) => id,
            Err(refusal) => return turn.answers.push(answer(reply, Err(refusal), |_| None)),
        };
        let (owner, inputs) = (spec.queue.owner.clone(), inputs.unwrap_or_default());
        let event = Event::Submit { by: by.clone(), job: job.clone(), spec, inputs, request_id };
        let done = self.ask(event, turn);
        if is_new && done.is_ok() {
            tracing::info!(%job, %by, owner, "a job was submitted");
        }
        turn.answers.push(answer(reply, done, move |view| view.status(&job)));
    }

    /// An id nobody has: the spec's name and six random hexadecimal digits.
    fn new_id(&self, name: &str) -> Result<JobId, Refusal> {
        loop {
            let random = uuid::Uuid::new_v4().simple().to_string();
            let id = JobId::new(format!("{name}-{}", random.get(..6).unwrap_or_default()));
            let id = id.map_err(|error| SpecError::one("name", error.to_string()))?;
            if self.state.job_state(&id).is_none() {
                return Ok(id);
            }
        }
    }

    fn join(&mut self, registration: Registration, reply: Reply<Membership>, turn: &mut Turn) {
        let Registration {
            worker,
            hostname,
            version,
            protocol: _,
            devices,
            held,
            reports,
            chaos: _,
            incarnation,
        } = registration;
        let slots = devices.len();
        let introduction = Box::new(Introduction { hostname, version, devices, held, reports, incarnation });
        let session_open = self.sessions.is_open(&worker);
        let event = Event::WorkerJoined { worker: worker.clone(), introduction, session_open };
        let effects = self.state.step(self.clock.now(), event);
        if let Err(refusal) = refusal_in(&effects) {
            return turn.answers.push(answer(reply, Err(refusal), |_| None));
        }
        // What the worker is to be told goes into its new session.
        let Opened { member, commands, replaced, heard } = self.sessions.open(worker, slots);
        self.collect(effects, turn);
        let registered = Registered { epoch: self.state.epoch(), heartbeat_ms: heartbeat_ms(&self.config) };
        let membership = Membership { member, registered, commands, replaced, heard };
        turn.answers.push(answer(reply, Ok(()), |_| Some(membership)));
    }
}

/// Answers with how things stand, or why it was refused, once everything is written down that the answer may speak of.
fn answer<T: Send + 'static>(
    reply: Reply<T>,
    done: Result<(), Refusal>,
    read: impl FnOnce(&View) -> Option<T> + Send + 'static,
) -> Answer {
    Box::new(move |view| {
        let view = view.map_err(Refusal::clone).and_then(|view| done.map(|()| view));
        let _ = reply.send(view.and_then(|view| read(view).ok_or_else(going_away)));
    })
}

fn engine_event(worker: WorkerId, heard_ms: u64, event: WorkerEvent) -> Option<Event> {
    match event {
        // Only the first event of a session may be one, and that one came as a join.
        WorkerEvent::Register(_) => None,
        WorkerEvent::Heartbeat(progress) => Some(Event::Heartbeat { worker, heard_ms, progress }),
        WorkerEvent::Finished { slot, outcome } => Some(Event::LeaseFinished {
            worker,
            slot,
            lease: outcome.lease,
            outcome: outcome.outcome.map(Box::new),
        }),
        WorkerEvent::StoreOpen { lease, address } => Some(Event::StoreOpen { lease, address }),
        WorkerEvent::SlotChanged { slot, report } => Some(Event::SlotChanged { worker, slot, report }),
        WorkerEvent::Draining => Some(Event::WorkerDraining { worker }),
    }
}
