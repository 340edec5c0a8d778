//! What every test of the machine checks after every step: the promises listed in the parent module.

use std::collections::BTreeSet;

use lethe_domain::{LeaseId, SlotIndex};
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};
use lethe_proto::session::{WorkerCommand, WorkerEvent};

use super::{Effect, Event, Machine};

/// Sees every event and effect of a machine, and holds it to its promises.
#[derive(Debug, Default)]
pub(super) struct Witness {
    slots: Vec<Seen>,
    /// Said to be over, and not acknowledged.
    said: BTreeSet<LeaseId>,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    life: Life,
    told: Option<LeaseId>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Life {
    #[default]
    None,
    Starting,
    Ready,
    Killed,
}

impl Witness {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: vec![Seen::default(); slots], said: BTreeSet::new() }
    }

    fn slot(&mut self, at: SlotIndex) -> &mut Seen {
        &mut self.slots[at.0 as usize]
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Executor(at, ExecutorEvent::Ready { .. }) if self.slot(*at).life == Life::Starting => {
                self.slot(*at).life = Life::Ready;
            }
            Event::Executor(at, ExecutorEvent::Finished(outcome)) => {
                self.slot(*at).told.take_if(|told| *told == outcome.lease);
            }
            Event::Died(at, _) => *self.slot(*at) = Seen::default(),
            Event::Command(WorkerCommand::Ack(lease)) => drop(self.said.remove(lease)),
            _ => {}
        }
    }

    pub(super) fn effects(&mut self, machine: &Machine, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Start(at) => {
                    assert_eq!(self.slot(*at).life, Life::None, "slot {at} has an executor");
                    self.slot(*at).life = Life::Starting;
                }
                Effect::Tell(at, command) => {
                    assert_eq!(
                        self.slot(*at).life,
                        Life::Ready,
                        "A2: {command:?} to an executor that is not ready"
                    );
                    if let ExecutorCommand::Start(assignment) = command {
                        let told = self.slot(*at).told.replace(assignment.lease.clone());
                        assert_eq!(told, None, "A1: slot {at} is busy");
                    }
                }
                Effect::Kill(at) => {
                    let life = self.slot(*at).life;
                    assert!(matches!(life, Life::Starting | Life::Ready), "A2: kills what is {life:?}");
                    self.slot(*at).life = Life::Killed;
                }
                Effect::Send(WorkerEvent::Finished { outcome, .. }) => {
                    let busy = self.slots.iter().any(|slot| slot.told.as_ref() == Some(&outcome.lease));
                    assert!(!busy, "A4: {} is still at work", outcome.lease);
                    self.said.insert(outcome.lease.clone());
                }
                _ => {}
            }
        }
        let held = machine.held();
        let leases: BTreeSet<&LeaseId> = held.iter().map(|(_, lease)| lease).collect();
        assert_eq!(leases.len(), held.len(), "A1: held twice: {held:?}");
        assert!(self.said.iter().all(|lease| leases.contains(lease)), "A3: {:?} of {held:?}", self.said);
    }
}
