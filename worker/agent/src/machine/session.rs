//! The coordinator's side: sessions, commands, heartbeats.

use std::time::{Duration, Instant};

use lethe_domain::{Assignment, Epoch, ErrorCode, Failure, HeldLease, LeaseId, SlotIndex};
use lethe_proto::executor::ExecutorCommand;
use lethe_proto::session::{WorkerCommand, WorkerEvent};

use super::slot::{Process, Stop, Work};
use super::{Effect, Machine, Now, indexed};

/// How the coordinator wants a lease to end.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Now.
    Stop,
    /// At the next step boundary; what does not is stopped by the coordinator.
    Yield { save: bool },
}

/// An open session.
#[derive(Debug)]
pub(super) struct Session {
    /// Between heartbeats.
    heartbeat: Duration,
    pub(super) next_heartbeat: Instant,
}

impl Machine {
    pub(super) fn on_joined(
        &mut self,
        now: Now,
        epoch: Epoch,
        heartbeat: Duration,
        effects: &mut Vec<Effect>,
    ) {
        if epoch < self.epoch {
            tracing::warn!(
                %epoch, newest = %self.epoch,
                "a coordinator of an older epoch answered; its commands are not taken (if its state was wiped on purpose, start this worker again)"
            );
            self.session = None;
            return effects.push(Effect::Rejoin);
        }
        self.epoch = epoch;
        self.counts.sessions += 1;
        self.session = Some(Session { heartbeat, next_heartbeat: now.at });
        self.outbox.all_due(now.at);
        if self.is_retiring() {
            effects.push(Effect::Send(WorkerEvent::Draining));
        }
        for slot in &self.slots {
            let Some(work) = &slot.work else { continue };
            let Some(address) = work.store.clone() else { continue };
            effects.push(Effect::Send(WorkerEvent::StoreOpen { lease: work.lease.clone(), address }));
        }
    }

    pub(super) fn on_command(&mut self, now: Now, command: WorkerCommand, effects: &mut Vec<Effect>) {
        if self.session.is_none() {
            return; // Of a session that was given up: what it says is settled by the next one.
        }
        match command {
            WorkerCommand::Start { epoch, slot, assignment } if self.is_current(epoch) => {
                self.on_start(now, slot, assignment, effects);
            }
            WorkerCommand::Stop { epoch, slot, lease } if self.is_current(epoch) => {
                self.on_end(now, slot, lease, End::Stop, effects);
            }
            WorkerCommand::Yield { epoch, slot, lease, save } if self.is_current(epoch) => {
                self.on_end(now, slot, lease, End::Yield { save }, effects);
            }
            WorkerCommand::Start { epoch, .. }
            | WorkerCommand::Stop { epoch, .. }
            | WorkerCommand::Yield { epoch, .. } => {
                tracing::warn!(%epoch, newest = %self.epoch, "refused a command of an older epoch");
            }
            WorkerCommand::Ack(lease) => self.outbox.acknowledged(&lease),
            // The answer to the registration is `Event::Joined`; another one means nothing.
            WorkerCommand::Registered(_) => {}
        }
    }

    /// Whether a command of this epoch is to be obeyed.
    fn is_current(&mut self, epoch: Epoch) -> bool {
        let current = epoch >= self.epoch;
        self.epoch = self.epoch.max(epoch);
        current
    }

    fn on_start(&mut self, now: Now, at: SlotIndex, assignment: Box<Assignment>, effects: &mut Vec<Effect>) {
        let lease = assignment.lease.clone();
        if self.leaving.is_some() || self.outbox.ask_again(now.at, &lease) {
            return;
        }
        let elsewhere = indexed(&self.slots).any(|(other, slot)| other != at && slot.lease() == Some(&lease));
        let Some(slot) = self.slots.get(at.0 as usize) else {
            return self.contradict(&format!("{lease} is for slot {at}, which does not exist"), effects);
        };
        match slot.lease() {
            Some(held) if *held == lease => return,
            Some(held) => {
                let problem = format!("{lease} is for slot {at}, which works on {held}");
                return self.contradict(&problem, effects);
            }
            None if elsewhere => {
                let problem = format!("{lease} is for slot {at}, and another slot works on it");
                return self.contradict(&problem, effects);
            }
            None if self.draining.is_some() => return self.hand_back(now, at, lease),
            None => {}
        }
        let Some(slot) = self.slot_mut(at) else { return };
        let mut work = Work::new(assignment);
        if slot.process == Process::Ready
            && let Some(assignment) = work.untold.take()
        {
            effects.push(Effect::Tell(at, ExecutorCommand::Start(assignment)));
        }
        slot.work = Some(work);
    }

    fn on_end(&mut self, now: Now, at: SlotIndex, lease: LeaseId, end: End, effects: &mut Vec<Effect>) {
        if self.outbox.ask_again(now.at, &lease) {
            return;
        }
        let by = now.at + self.patience.stop;
        let working = indexed(&self.slots).find(|(_, slot)| slot.lease() == Some(&lease));
        let at = working.map_or(at, |(at, _)| at);
        let work = self.slot_mut(at).and_then(|slot| slot.work_on(&lease));
        let Some(work) = work.filter(|work| work.untold.is_none()) else {
            // Not begun, or not known at all: there is nothing to wait for.
            return match end {
                End::Stop => {
                    let stopped = Failure::new(ErrorCode::Cancelled, format!("{lease} was stopped"), "");
                    self.forget(now, at, lease, stopped);
                }
                End::Yield { .. } => self.hand_back(now, at, lease),
            };
        };
        match (end, &mut work.stop) {
            (End::Stop, Some(stop)) => stop.asked = true,
            (End::Stop, None) => {
                work.stop = Some(Stop { by, asked: true });
                effects.push(Effect::Tell(at, ExecutorCommand::Stop(lease)));
            }
            // Said once, and once more when a checkpoint is wanted after all.
            (End::Yield { save }, None) if work.yielding < Some(save) => {
                work.yielding = Some(save);
                effects.push(Effect::Tell(at, ExecutorCommand::Yield { lease, save }));
            }
            (End::Yield { .. }, _) => {}
        }
    }

    /// Ends a lease that no executor was told of, in a way that counts as no try.
    pub(super) fn hand_back(&mut self, now: Now, at: SlotIndex, lease: LeaseId) {
        let back = Failure::new(ErrorCode::Yielded, format!("{lease} was handed back before it began"), "");
        self.forget(now, at, lease, back);
    }

    fn forget(&mut self, now: Now, at: SlotIndex, lease: LeaseId, failure: Failure) {
        let work = self.slot_mut(at).and_then(|slot| slot.work.take_if(|work| work.lease == lease));
        // One that is not there gave nothing for any shard; how many they were is known to whoever granted it.
        let shards = work.map_or(1, |work| work.shards);
        self.finish(now, HeldLease { slot: at, lease, shards }, Err(failure));
    }

    /// Coordinator and agent disagree. A new session begins with what is held, and the coordinator grants the rest again.
    fn contradict(&mut self, problem: &str, effects: &mut Vec<Effect>) {
        tracing::error!(problem, "the coordinator contradicts what this worker does; joining again");
        self.session = None;
        effects.push(Effect::Rejoin);
    }

    /// Who is up, heartbeats, and outcomes for the first time or again.
    pub(super) fn attend_session(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.attend_presence(effects);
        let Some(session) = &mut self.session else { return };
        if session.next_heartbeat <= now.at {
            session.next_heartbeat = now.at + session.heartbeat;
            let progress = indexed(&self.slots)
                .filter_map(|(at, slot)| Some((at, slot.work.as_ref()?.progress.clone()?)))
                .collect();
            effects.push(Effect::Send(WorkerEvent::Heartbeat(progress)));
        }
        let due = self.outbox.take_due(now.at, self.patience.acknowledge);
        effects.extend(due.into_iter().map(Effect::Send));
    }
}
