//! The only entry: one event in, effects out.

use lethe_domain::SlotRef;

use crate::{Effect, Event, Now, Refusal, State};

impl State {
    /// Takes one event and says what must be done, in order: everything to persist first. What somebody asks for is done or refused.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Effect> {
        self.now = now;
        if let Err(refusal) = self.refuse(&event) {
            return vec![Effect::Refuse(refusal)];
        }
        let mut effects = Vec::new();
        match event {
            Event::Submit { by, job, spec, inputs, request_id } => {
                self.on_submit(by, job, *spec, inputs, request_id, &mut effects);
            }
            Event::Cancel { by: _, job, reason } => self.on_cancel(&job, &reason, &mut effects),
            Event::Delete { by: _, job } => self.on_delete(&job, &mut effects),
            Event::TidiedUp { job } => self.on_tidied(&job, &mut effects),
            Event::Erased { job } => self.on_erased(&job, &mut effects),
            Event::WorkerJoined { worker, introduction, session_open: _ } => {
                self.on_joined(&worker, *introduction, &mut effects);
            }
            Event::Heard { workers } => workers.iter().for_each(|(worker, at)| self.hear(worker, *at)),
            Event::Heartbeat { worker, heard_ms, progress } => {
                self.on_heartbeat(&worker, heard_ms, progress, &mut effects);
            }
            Event::SlotChanged { worker, slot, report } => {
                self.on_slot_changed(&SlotRef { worker, slot }, report.as_ref(), &mut effects);
            }
            Event::WorkerDraining { worker } => self.on_draining(&worker, &mut effects),
            Event::Order { by: _, worker, order } => self.on_order(&worker, order, &mut effects),
            Event::WorkerLeft { worker } => self.lose_worker(&worker, &mut effects),
            Event::LeaseFinished { worker, slot, lease, outcome } => {
                self.on_finished(&SlotRef { worker, slot }, &lease, outcome, &mut effects);
            }
            Event::StoreOpen { lease, address } => self.on_store_open(&lease, &address, &mut effects),
            Event::Tick => self.on_tick(&mut effects),
            Event::Plan => self.on_plan(&mut effects),
        }
        for effect in &effects {
            if let Effect::Notify { job } = effect {
                self.changed.jobs.insert(job.clone());
            }
        }
        in_order(effects)
    }

    /// Refuses what somebody asks for and does not get. What merely happens is not refused.
    fn refuse(&self, event: &Event) -> Result<(), Refusal> {
        match event {
            Event::Submit { by, job, spec, inputs: _, request_id } => {
                self.refuse_submit(by, job, spec, request_id.as_deref())
            }
            Event::Cancel { by, job, reason: _ } => self.refuse_cancel(by, job),
            Event::Delete { by, job } => self.refuse_delete(by, job),
            Event::WorkerJoined { worker, introduction, session_open } => {
                self.refuse_join(worker, introduction, *session_open)
            }
            Event::Order { by: _, worker, order } => self.refuse_order(worker, order),
            Event::TidiedUp { .. }
            | Event::Erased { .. }
            | Event::Heard { .. }
            | Event::Heartbeat { .. }
            | Event::SlotChanged { .. }
            | Event::WorkerDraining { .. }
            | Event::WorkerLeft { .. }
            | Event::LeaseFinished { .. }
            | Event::StoreOpen { .. }
            | Event::Tick
            | Event::Plan => Ok(()),
        }
    }
}

/// Everything to persist first, the rest as it came; a job is announced once, at the end.
fn in_order(effects: Vec<Effect>) -> Vec<Effect> {
    let mut persist = Vec::new();
    let mut act = Vec::new();
    let mut notify = Vec::new();
    for effect in effects {
        match effect {
            Effect::Persist(_) => persist.push(effect),
            Effect::Refuse(_)
            | Effect::Send { .. }
            | Effect::CloseSession { .. }
            | Effect::Chore(_)
            | Effect::Metric(_) => act.push(effect),
            Effect::Notify { .. } if notify.contains(&effect) => {}
            Effect::Notify { .. } => notify.push(effect),
        }
    }
    persist.into_iter().chain(act).chain(notify).collect()
}
