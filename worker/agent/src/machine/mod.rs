//! Every decision of the agent, pure: an event and the time in, effects out.
//!
//! Promises, checked after every step of the tests (`witness`):
//! - A1 a slot works on at most one lease, and a lease is at work or in the outbox, never both, never twice;
//! - A2 an executor is told only when it is ready, and is killed at most once;
//! - A3 an outcome leaves the outbox only when it is acknowledged;
//! - A4 a slot says that it is free (an outcome) only when its executor said so or is dead;
//! - A5 no command of an older epoch has any effect;
//! - A6 while a session is open, the coordinator has been told that a slot is up exactly when its executor is ready, and
//!   hears that one is gone before it hears of the lease that ended with it.
//!
//! Not here: processes, sockets, clocks (the driver in `agent`, `executor` and `link`).

mod draining;
mod executors;
mod leaving;
mod message;
mod outbox;
mod presence;
mod session;
mod slot;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod witness;

use std::time::Instant;

use lethe_domain::{Epoch, ErrorCode, Failure, HeldLease, SlotIndex, TaskOutput};

pub(crate) use message::{Effect, Event, Introduction, Now};

use crate::config::Patience;
use crate::status::{Counts, Faults, Status};
use leaving::Leaving;
use outbox::Outbox;
use session::Session;
use slot::Slot;

/// The state of an agent.
#[derive(Debug)]
pub(crate) struct Machine {
    patience: Patience,
    slots: Vec<Slot>,
    outbox: Outbox,
    /// The session, while one is open.
    session: Option<Session>,
    /// Of the newest leader seen.
    epoch: Epoch,
    /// Whether `Effect::Join` was given.
    joining: bool,
    /// No more work is taken; what there is has until then to end.
    draining: Option<Instant>,
    leaving: Option<Leaving>,
    counts: Counts,
}

impl Machine {
    /// An agent with these slots. Its executors are started by the first step.
    pub(crate) fn new(now: Instant, devices: &[String], patience: Patience) -> Self {
        Self {
            patience,
            slots: devices.iter().map(|device| Slot::new(device.clone(), now)).collect(),
            outbox: Outbox::default(),
            session: None,
            epoch: Epoch::default(),
            joining: false,
            draining: None,
            leaving: None,
            counts: Counts::default(),
        }
    }

    /// Takes one event and says what is to be done, in order.
    pub(crate) fn step(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Joined { epoch, heartbeat } => self.on_joined(now, epoch, heartbeat, &mut effects),
            Event::Parted => self.session = None,
            Event::Command(command) => self.on_command(now, command, &mut effects),
            Event::Executor(slot, event) => self.on_executor(now, slot, event, &mut effects),
            Event::Died(slot, death) => self.on_died(now, slot, death, &mut effects),
            Event::Drain => self.on_drain(now, &mut effects),
            Event::Leave => self.on_leave(now, &mut effects),
            Event::Tick => {}
        }
        self.attend_drain(now, &mut effects);
        self.attend_executors(now, &mut effects);
        self.attend_session(now, &mut effects);
        self.attend_end(now, &mut effects);
        effects
    }

    /// When the next `Event::Tick` is wanted if nothing else happens.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let retiring = self.is_retiring();
        let slots = self.slots.iter().filter_map(|slot| slot.next_deadline(retiring));
        let session = self.session.as_ref().map(|session| session.next_heartbeat);
        let outbox = self.session.as_ref().and_then(|_| self.outbox.next_due());
        let farewell = self.leaving.as_ref().and_then(|leaving| leaving.farewell);
        let drained = self.draining.filter(|_| self.leaving.is_none());
        slots.chain(session).chain(outbox).chain(farewell).chain(drained).min()
    }

    /// Leases at work, and those that are over and not acknowledged.
    fn held(&self) -> Vec<HeldLease> {
        let at_work = indexed(&self.slots).filter_map(|(slot, state)| {
            let work = state.work.as_ref()?;
            Some(HeldLease { slot, lease: work.lease.clone(), shards: work.shards })
        });
        at_work.chain(self.outbox.leases()).collect()
    }

    /// The agent as others see it.
    pub(crate) fn status(&self) -> Status {
        Status {
            joined: self.session.is_some(),
            draining: self.is_retiring(),
            slots: self.slots.iter().map(Slot::view).collect(),
            unacknowledged: self.outbox.len(),
            counts: self.counts.clone(),
            faults: Faults::default(),
        }
    }

    /// A lease is over and its slot is free.
    fn finish(&mut self, now: Now, held: HeldLease, mut outcome: Result<TaskOutput, Failure>) {
        match &mut outcome {
            Ok(_) => self.counts.succeeded += 1,
            Err(failure) => {
                let count = match failure.code {
                    ErrorCode::Cancelled => &mut self.counts.cancelled,
                    ErrorCode::Yielded => &mut self.counts.yielded,
                    _ => &mut self.counts.failed,
                };
                *count += 1;
                if failure.at_unix_ms == 0 {
                    failure.at_unix_ms = now.unix_ms;
                }
            }
        }
        self.outbox.put(now.at, held, outcome);
    }

    fn slot_mut(&mut self, at: SlotIndex) -> Option<&mut Slot> {
        self.slots.get_mut(at.0 as usize)
    }
}

/// Slots with their indices.
fn indexed(slots: &[Slot]) -> impl Iterator<Item = (SlotIndex, &Slot)> {
    (0..).map(SlotIndex).zip(slots)
}

/// Slots with their indices.
fn indexed_mut(slots: &mut [Slot]) -> impl Iterator<Item = (SlotIndex, &mut Slot)> {
    (0..).map(SlotIndex).zip(slots)
}
