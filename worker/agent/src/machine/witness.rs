//! What every test of the machine checks after every step: the promises listed in the parent module.

use std::collections::BTreeSet;

use lethe_domain::{Epoch, LeaseId, SlotIndex, SlotReport};
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};
use lethe_proto::session::{WorkerCommand, WorkerEvent};

use super::{Effect, Event, Introduction, Machine};

/// Sees every event and effect of a machine, and holds it to its promises.
#[derive(Debug, Default)]
pub(super) struct Witness {
    slots: Vec<Seen>,
    /// Said to be over, and not acknowledged.
    said: BTreeSet<LeaseId>,
    /// The newest epoch of a leader that was taken.
    epoch: Epoch,
    /// Whether a session is open.
    joined: bool,
    /// The event was a command of an older epoch.
    past: bool,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    life: Life,
    told: Option<LeaseId>,
    /// What the executor that is ready says of itself.
    report: Option<SlotReport>,
    /// What the coordinator has been told of that.
    believed: Option<SlotReport>,
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
        Self { slots: vec![Seen::default(); slots], ..Self::default() }
    }

    fn slot(&mut self, at: SlotIndex) -> &mut Seen {
        &mut self.slots[at.0 as usize]
    }

    /// The machine is about to join with these words.
    pub(super) fn introduction(&mut self, introduction: &Introduction) {
        for seen in &mut self.slots {
            seen.believed = None;
        }
        for (at, report) in &introduction.reports {
            self.slot(*at).believed = Some(report.clone());
        }
        let ready = self.slots.iter().filter(|seen| seen.life == Life::Ready).count();
        assert_eq!(introduction.reports.len(), ready, "A6: {introduction:?}");
        self.nothing_false();
    }

    fn nothing_false(&self) {
        for (at, seen) in self.slots.iter().enumerate() {
            if seen.believed.is_some() {
                assert_eq!(seen.life, Life::Ready, "A6: slot {at} counts as up");
                assert_eq!(seen.believed, seen.report, "A6: of slot {at}");
            }
        }
    }

    pub(super) fn event(&mut self, event: &Event) {
        self.past = false;
        match event {
            Event::Executor(at, ExecutorEvent::Ready { torch, canary, .. })
                if self.slot(*at).life == Life::Starting =>
            {
                self.slot(*at).life = Life::Ready;
                self.slot(*at).report = Some(SlotReport { torch: torch.clone(), canary: canary.clone() });
            }
            Event::Joined { epoch, .. } => {
                self.joined = *epoch >= self.epoch;
                self.epoch = self.epoch.max(*epoch);
            }
            Event::Parted => self.joined = false,
            Event::Command(
                WorkerCommand::Start { epoch, .. }
                | WorkerCommand::Stop { epoch, .. }
                | WorkerCommand::Yield { epoch, .. },
            ) if self.joined => {
                self.past = *epoch < self.epoch;
                self.epoch = self.epoch.max(*epoch);
            }
            Event::Executor(at, ExecutorEvent::Finished(outcome)) => {
                self.slot(*at).told.take_if(|told| *told == outcome.lease);
            }
            Event::Died(at, _) => {
                let believed = self.slot(*at).believed.take();
                *self.slot(*at) = Seen { believed, ..Seen::default() };
            }
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
                    let stop = matches!(command, ExecutorCommand::Stop(_));
                    assert!(stop || !self.past, "A5: {command:?} on behalf of an older epoch");
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
                Effect::Send(WorkerEvent::SlotChanged { slot, report }) => {
                    let believed = &mut self.slot(*slot).believed;
                    assert_ne!(believed.is_some(), report.is_some(), "A6: no change: {report:?}");
                    believed.clone_from(report);
                }
                Effect::Rejoin => self.joined = false,
                Effect::Send(WorkerEvent::Finished { outcome, .. }) => {
                    self.nothing_false();
                    let busy = self.slots.iter().any(|slot| slot.told.as_ref() == Some(&outcome.lease));
                    assert!(!busy, "A4: {} is still at work", outcome.lease);
                    self.said.insert(outcome.lease.clone());
                }
                _ => {}
            }
        }
        if self.joined {
            self.nothing_false();
            let known = |seen: &Seen| seen.believed.is_some() == (seen.life == Life::Ready);
            assert!(self.slots.iter().all(known), "A6: {:?}", self.slots);
        }
        let held = machine.held();
        let leases: BTreeSet<&LeaseId> = held.iter().map(|held| &held.lease).collect();
        assert_eq!(leases.len(), held.len(), "A1: held twice: {held:?}");
        assert!(self.said.iter().all(|lease| leases.contains(lease)), "A3: {:?} of {held:?}", self.said);
    }
}
