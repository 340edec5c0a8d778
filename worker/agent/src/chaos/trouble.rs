//! Making the faults that fall, and counting them.
//!
//! The machine is told nothing: to it an executor that is killed here has died.

use std::time::Instant;

use lethe_domain::{SlotIndex, WorkerId};
use nix::sys::signal::Signal;

use super::{Chaos, Dice, Fault};
use crate::executor::Handle;
use crate::link::Outgoing;
use crate::status::{Activity, Faults, SlotView};

/// The troublemaker of an agent.
#[derive(Debug)]
pub(crate) struct Trouble {
    dice: Dice,
    pub(crate) faults: Faults,
}

impl Trouble {
    pub(crate) fn new(chaos: Chaos, worker: &WorkerId, now: Instant) -> Self {
        tracing::warn!(%chaos, "this worker makes faults on purpose");
        Self { dice: Dice::new(chaos, worker, now), faults: Faults::default() }
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        self.dice.next_deadline()
    }

    /// The executor of a slot has ended.
    pub(crate) fn gone(&mut self, slot: SlotIndex) {
        self.dice.gone(slot);
    }

    /// Makes what falls now. `outgoing` is the open session.
    pub(crate) fn make(
        &mut self,
        now: Instant,
        slots: &[SlotView],
        executors: &[Option<Handle>],
        outgoing: &mut Option<Outgoing>,
    ) {
        let up: Vec<bool> = slots.iter().map(|slot| slot.activity != Activity::Starting).collect();
        let executor = |slot: SlotIndex| executors.get(slot.0 as usize).and_then(Option::as_ref);
        for fault in self.dice.cast(now, &up) {
            match fault {
                Fault::Kill(slot) => {
                    let Some(executor) = executor(slot) else { continue };
                    executor.signal(Signal::SIGKILL);
                    self.faults.kills += 1;
                    tracing::warn!(%slot, "chaos: killed an executor");
                }
                Fault::Hang(slot, time) => {
                    let Some(executor) = executor(slot) else { continue };
                    executor.signal(Signal::SIGSTOP);
                    self.faults.hangs += 1;
                    tracing::warn!(%slot, seconds = time.as_secs_f64(), "chaos: halted an executor");
                }
                Fault::Wake(slot) => {
                    let Some(executor) = executor(slot) else { continue };
                    executor.signal(Signal::SIGCONT);
                    tracing::warn!(%slot, "chaos: let an executor go on");
                }
                Fault::Drop => {
                    // Nothing is said over it any more, and it is not closed: to the coordinator the worker is silent.
                    if outgoing.take().is_some() {
                        self.faults.drops += 1;
                        tracing::warn!("chaos: cut the session");
                    }
                }
            }
        }
    }
}
