//! The executors' side: starting, working, stopping, dying.

use std::mem::replace;

use lethe_domain::{ErrorCode, Failure, HeldLease, LeaseId, SlotIndex, SlotReport, TaskOutput};
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};
use lethe_proto::session::WorkerEvent;

use super::slot::{KillReason, Process, Slot, Stop, Work};
use super::{Effect, Machine, Now, indexed_mut};
use crate::death::Death;

/// Starts of a slot's first executor before the agent gives up.
const FIRST_TRIES: u32 = 3;

impl Machine {
    pub(super) fn on_executor(
        &mut self,
        now: Now,
        at: SlotIndex,
        event: ExecutorEvent,
        effects: &mut Vec<Effect>,
    ) {
        match event {
            ExecutorEvent::Ready { device: _, torch, canary } => {
                self.on_ready(at, SlotReport { torch, canary }, effects);
            }
            ExecutorEvent::Progress(progress) => {
                let work = self.slot_mut(at).and_then(|slot| slot.work_on(&progress.lease));
                if let Some(work) = work {
                    work.progress = Some(progress);
                }
            }
            ExecutorEvent::StoreOpen { lease, address } => {
                let work = self.slot_mut(at).and_then(|slot| slot.work_on(&lease));
                let Some(work) = work else { return };
                work.store = Some(address.clone());
                if self.session.is_some() {
                    effects.push(Effect::Send(WorkerEvent::StoreOpen { lease, address }));
                }
            }
            ExecutorEvent::Finished(outcome) => {
                self.on_outcome(now, at, outcome.lease, outcome.outcome, effects);
            }
        }
    }

    fn on_ready(&mut self, at: SlotIndex, report: SlotReport, effects: &mut Vec<Effect>) {
        let Some(slot) = self.slot_mut(at) else { return };
        if !matches!(slot.process, Process::Starting { .. }) {
            return; // Already on its way out.
        }
        slot.process = Process::Ready;
        slot.report = Some(report);
        slot.proven = true;
        if let Some(assignment) = slot.work.as_mut().and_then(|work| work.untold.take()) {
            effects.push(Effect::Tell(at, ExecutorCommand::Start(assignment)));
        }
        if !self.joining && self.slots.iter().all(|slot| slot.proven) {
            self.joining = true;
            effects.push(Effect::Join);
        }
    }

    fn on_outcome(
        &mut self,
        now: Now,
        at: SlotIndex,
        lease: LeaseId,
        outcome: Result<TaskOutput, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        let leaving = self.leaving.is_some();
        let Some(slot) = self.slot_mut(at) else { return };
        let Some(work) = slot.work.take_if(|work| work.lease == lease && work.untold.is_none()) else {
            return tracing::warn!(%lease, slot = %at, "an executor ended a lease that it does not have");
        };
        slot.strikes = 0;
        if leaving && slot.process == Process::Ready {
            kill(slot, at, KillReason::Leave, effects);
        }
        let yielded = outcome.as_ref().is_err_and(|failure| failure.code == ErrorCode::Yielded);
        let given_up = work.stop.is_some_and(|stop| !stop.asked) && outcome.is_err();
        if !given_up || yielded {
            self.finish(now, HeldLease { slot: at, lease, shards: work.shards }, outcome);
        }
    }

    pub(super) fn on_died(&mut self, now: Now, at: SlotIndex, mut death: Death, effects: &mut Vec<Effect>) {
        let leaving = self.leaving.is_some();
        let (stop_seconds, start_seconds) =
            (self.patience.stop.as_secs_f64(), self.patience.start.as_secs_f64());
        let Some(slot) = self.slots.get_mut(at.0 as usize) else { return };
        let process = replace(&mut slot.process, Process::Absent { start_at: now.at });
        let started = matches!(process, Process::Ready | Process::Doomed(KillReason::DidNotStop));
        // Work that waits outlives an executor that had been up: the next one takes it.
        let work = slot.work.take_if(|work| work.untold.is_none() || !started);
        let reason = match process {
            Process::Doomed(KillReason::DidNotStop) => &mut self.counts.did_not_stop,
            Process::Ready if work.is_some() => &mut self.counts.died_at_work,
            Process::Ready | Process::Doomed(KillReason::Leave) => &mut self.counts.died_idle,
            Process::Absent { .. } | Process::Starting { .. } | Process::Doomed(KillReason::DidNotStart) => {
                &mut self.counts.did_not_start
            }
        };
        if process == Process::Doomed(KillReason::DidNotStart) {
            death.how = format!("it was not ready within {start_seconds:.1} s and was killed");
        }
        if !leaving {
            *reason += 1;
            tracing::warn!(slot = %at, device = slot.device, how = death.how, "an executor died");
        }
        // What was killed on purpose is no sign of anything.
        if process != Process::Doomed(KillReason::DidNotStop) {
            slot.strikes += 1;
        }
        slot.process = Process::Absent { start_at: now.at + slot.pause() };
        let hopeless = !slot.proven
            && (slot.strikes >= FIRST_TRIES || process == Process::Doomed(KillReason::DidNotStart));
        let device = slot.device.clone();
        if let Some(work) = work {
            let told = Told { at, device: &device, started, stop_seconds };
            if let Some(failure) = told.failure(&work, &death, process) {
                let held = HeldLease { slot: at, lease: work.lease, shards: work.shards };
                self.finish(now, held, Err(failure));
            }
        }
        if hopeless && !leaving {
            effects.push(Effect::GiveUp(at, death));
            self.on_leave(now, effects);
        }
    }

    /// What time brings: restarts, and the end of patience.
    pub(super) fn attend_executors(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let retiring = self.is_retiring();
        for (at, slot) in indexed_mut(&mut self.slots) {
            match slot.process {
                Process::Absent { start_at } if !retiring && start_at <= now.at => {
                    slot.process = Process::Starting { ready_by: now.at + self.patience.start };
                    effects.push(Effect::Start(at));
                }
                Process::Starting { ready_by } if ready_by <= now.at => {
                    kill(slot, at, KillReason::DidNotStart, effects);
                }
                Process::Ready => {
                    let stop = slot.work.as_ref().and_then(|work| work.stop);
                    if stop.is_some_and(|stop| stop.by <= now.at) {
                        kill(slot, at, KillReason::DidNotStop, effects);
                    }
                }
                Process::Absent { .. } | Process::Starting { .. } | Process::Doomed(_) => {}
            }
        }
    }
}

/// Kills the executor of a slot; its death is reported as an event.
pub(super) fn kill(slot: &mut Slot, at: SlotIndex, kill_reason: KillReason, effects: &mut Vec<Effect>) {
    slot.process = Process::Doomed(kill_reason);
    effects.push(Effect::Kill(at));
}

/// Puts the death of an executor into words for the lease it had.
struct Told<'a> {
    at: SlotIndex,
    device: &'a str,
    /// Whether it had ever been ready.
    started: bool,
    stop_seconds: f64,
}

impl Told<'_> {
    /// None when nobody waits for it: the agent leaves.
    fn failure(&self, work: &Work, death: &Death, process: Process) -> Option<Failure> {
        let (at, device, lease) = (self.at, self.device, &work.lease);
        match work.stop {
            Some(Stop { asked: false, .. }) => None,
            Some(Stop { asked: true, .. }) => {
                let end = if process == Process::Doomed(KillReason::DidNotStop) {
                    format!("its executor did not end within {:.1} s and was killed", self.stop_seconds)
                } else {
                    format!("its executor died meanwhile: {}", death.how)
                };
                Some(Failure::new(ErrorCode::Cancelled, format!("{lease} was stopped; {end}"), ""))
            }
            None => {
                let what = if self.started {
                    format!("died while it worked on {lease}")
                } else {
                    format!("did not start, and so did not work on {lease}")
                };
                let message = format!("the executor of slot {at} ({device}) {what}: {}", death.account());
                Some(Failure::new(ErrorCode::ExecutorDied, message, death.hint.clone()))
            }
        }
    }
}
