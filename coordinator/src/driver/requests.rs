//! What the driver does with each request: checks how things stand, steps the engine, and leaves an answer that is given
//! when everything is written down.

use std::time::Duration;

use lethe_domain::{
    Inputs, JobId, JobSpec, JobState, JobStatus, SpecError, WorkerId, WorkerOrder, WorkerStatus,
};
use lethe_engine::{Event, Introduction};
use lethe_proto::session::{Registered, Registration, WorkerEvent};
use lethe_proto::status::Refusal;

use super::View;
use super::sessions::Opened;
use super::task::{Driver, Turn, heartbeat_ms};
use super::{Answer, Membership, Reply, Request, going_away, no_such_job, no_such_worker};

impl Driver {
    /// Takes one request.
    pub(super) fn take(&mut self, request: Request, turn: &mut Turn) {
        match request {
            Request::Submit { spec, inputs, request_id, reply } => {
                self.submit(*spec, inputs, request_id, reply, turn);
            }
            Request::Cancel { job, reason, reply } => self.cancel(job, reason, reply, turn),
            Request::Delete { job, reply } => self.delete(job, reply, turn),
            Request::Kept { event } => self.step(event, turn),
            Request::Join { registration, reply } => self.join(registration, reply, turn),
            Request::Order { worker, order, reply } => self.order(worker, order, reply, turn),
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
            Request::Read { reply } => turn.answers.push(answer(reply, |view| Some(view.clone()))),
        }
    }

    fn submit(
        &mut self,
        spec: JobSpec,
        inputs: Inputs,
        request_id: Option<String>,
        reply: Reply<JobStatus>,
        turn: &mut Turn,
    ) {
        let known = request_id.as_deref().and_then(|id| self.state.job_of_request(id)).cloned();
        let id = match known {
            Some(id) if !self.state.was_asked(&id, &spec) => {
                let message = format!(
                    "this request_id was used before, for job {id} with another spec: use a new one for a new job"
                );
                return turn.answers.push(refused(reply, Refusal::Conflict { message }));
            }
            Some(id) => id,
            None => match self.new_id(&spec.name) {
                Ok(id) => {
                    tracing::info!(job = %id, owner = spec.queue.owner, "a job was submitted");
                    let spec = Box::new(spec);
                    self.step(Event::Submit { job: id.clone(), spec, inputs, request_id }, turn);
                    id
                }
                Err(refusal) => return turn.answers.push(refused(reply, refusal)),
            },
        };
        turn.answers.push(answer(reply, move |view| view.status(&id)));
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

    fn cancel(&mut self, id: JobId, reason: String, reply: Reply<JobStatus>, turn: &mut Turn) {
        let refusal = match self.state.job_state(&id) {
            None => Some(no_such_job(&id)),
            Some(state @ (JobState::Succeeded | JobState::Failed)) => {
                let message = format!("job {id} has {state} already: there is nothing to cancel");
                Some(Refusal::Conflict { message })
            }
            Some(JobState::Queued | JobState::Running | JobState::Cancelling | JobState::Cancelled) => None,
        };
        if let Some(refusal) = refusal {
            return turn.answers.push(refused(reply, refusal));
        }
        tracing::info!(job = %id, reason, "a job is to be cancelled");
        self.step(Event::Cancel { job: id.clone(), reason }, turn);
        turn.answers.push(answer(reply, move |view| view.status(&id)));
    }

    fn order(&mut self, worker: WorkerId, order: WorkerOrder, reply: Reply<WorkerStatus>, turn: &mut Turn) {
        let Some(known) = self.state.worker(&worker, self.clock.now()) else {
            return turn.answers.push(refused(reply, no_such_worker(&worker)));
        };
        if let WorkerOrder::Quarantine { slot: Some(slot), .. } | WorkerOrder::Release { slot: Some(slot) } =
            &order
            && slot.0 as usize >= known.slots.len()
        {
            let message = format!("worker {worker} has slots 0 to {}, not {slot}", known.slots.len() - 1);
            return turn.answers.push(refused(reply, Refusal::Conflict { message }));
        }
        if let WorkerOrder::Release { slot } = &order
            && let Some(message) = self.state.release_is_vain(&worker, *slot)
        {
            return turn.answers.push(refused(reply, Refusal::Conflict { message }));
        }
        tracing::info!(%worker, ?order, "an order of an operator");
        self.step(Event::Order { worker: worker.clone(), order }, turn);
        turn.answers.push(answer(reply, move |view| view.worker(&worker)));
    }

    fn join(&mut self, registration: Registration, reply: Reply<Membership>, turn: &mut Turn) {
        let Registration {
            worker,
            hostname,
            version,
            protocol,
            devices,
            held,
            reports,
            chaos: _,
            incarnation,
        } = registration;
        if self.sessions.is_taken(&worker, &incarnation, !held.is_empty()) {
            let other = self.state.worker(&worker, self.clock.now());
            let host = other.map_or_else(|| "an unknown host".to_owned(), |other| other.hostname);
            let silence = Duration::from_millis(self.config.dead_after_ms).as_secs_f64();
            let message = format!(
                "another process has joined as worker {worker}, on {host}: give this one an --id of its own (a name is free again once its worker has left, or was silent for {silence} s)"
            );
            return turn.answers.push(refused(reply, Refusal::Conflict { message }));
        }
        let Opened { member, commands, replaced, heard } =
            self.sessions.open(worker.clone(), incarnation, !held.is_empty(), devices.len());
        let introduction = Box::new(Introduction { hostname, version, protocol, devices, held, reports });
        self.step(Event::WorkerJoined { worker, introduction }, turn);
        let registered = Registered { epoch: self.state.epoch(), heartbeat_ms: heartbeat_ms(&self.config) };
        turn.answers.push(Box::new(move |view| {
            let membership = view.map(|_| Membership { member, registered, commands, replaced, heard });
            let _ = reply.send(membership.map_err(Refusal::clone));
        }));
    }
}

/// Answers with how things stand once everything is written down.
fn answer<T: Send + 'static>(
    reply: Reply<T>,
    look: impl FnOnce(&View) -> Option<T> + Send + 'static,
) -> Answer {
    Box::new(move |view| {
        let found = view.map_err(Refusal::clone).and_then(|view| look(view).ok_or_else(going_away));
        let _ = reply.send(found);
    })
}

/// Refuses once everything is written down that the refusal may speak of.
fn refused<T: Send + 'static>(reply: Reply<T>, refusal: Refusal) -> Answer {
    Box::new(move |view| {
        let _ = reply.send(Err(view.err().cloned().unwrap_or(refusal)));
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
