//! The streams between workers and the coordinator: in order, delayed, and breaking.

use std::collections::VecDeque;
use std::time::Duration;

use lethe_domain::{Epoch, WorkerId};
use lethe_engine::{Event as Occurrence, Introduction as Introduced};
use lethe_proto::LeaseOutcome;
use lethe_proto::session::{WorkerCommand, WorkerEvent};
use rand::RngExt;

use super::World;
use crate::machine::{Event, Introduction};

/// From a worker to the coordinator.
pub(super) enum Up {
    Register(Introduction),
    Event(WorkerEvent),
    Bye,
}

/// From the coordinator to a worker.
pub(super) enum Down {
    Registered(Epoch),
    Command(WorkerCommand),
    Broken,
}

/// One session's streams. Each item with the time of its arrival; they never overtake each other.
pub(super) struct Wire {
    pub(super) serial: u64,
    pub(super) up: VecDeque<(u64, Up)>,
    pub(super) down: VecDeque<(u64, Down)>,
    pub(super) broken: bool,
}
impl World {
    /// Some of what is on its way is lost; the worker notices after a while, the coordinator does not.
    pub(super) fn break_wire(&mut self, id: &WorkerId) {
        let notice = self.soon(1..3_000);
        let (up, down) = (self.rng.random_range(0..8), self.rng.random_range(0..8));
        let Some(wire) = self.worker(id).wire.as_mut().filter(|wire| !wire.broken) else { return };
        wire.broken = true;
        wire.up.truncate(up);
        wire.down.truncate(down);
        let notice = wire.down.back().map_or(notice, |(before, _)| notice.max(*before));
        wire.down.push_back((notice, Down::Broken));
    }

    pub(super) fn say_down(&mut self, to: &WorkerId, item: Down) {
        let at = self.soon(1..60);
        let serial = self.sessions.get(to).copied();
        let wire = self.worker(to).wire.as_mut();
        if let Some(wire) = wire.filter(|wire| Some(wire.serial) == serial && !wire.broken) {
            let at = wire.down.back().map_or(at, |(before, _)| at.max(*before));
            wire.down.push_back((at, item));
        }
    }

    pub(super) fn say_up(&mut self, id: &WorkerId, item: Up) {
        let at = self.soon(1..60);
        let Some(wire) = self.worker(id).wire.as_mut().filter(|wire| !wire.broken) else { return };
        let at = wire.up.back().map_or(at, |(before, _)| at.max(*before));
        wire.up.push_back((at, item));
    }

    pub(super) fn carry(&mut self, id: &WorkerId) {
        let now = self.now;
        let due = |(at, _): &(u64, Up)| *at <= now;
        while let Some(wire) = &mut self.worker(id).wire
            && wire.up.front().is_some_and(due)
        {
            let serial = wire.serial;
            let (_, item) = wire.up.pop_front().unwrap();
            self.arrives(id, serial, item);
        }
        while let Some(wire) = &mut self.worker(id).wire
            && wire.down.front().is_some_and(|(at, _)| *at <= now)
        {
            match wire.down.pop_front().unwrap().1 {
                Down::Registered(epoch) => {
                    self.counts.sessions += 1;
                    self.happens(id, Event::Joined { epoch, heartbeat: Duration::from_secs(1) });
                }
                Down::Command(command) => self.happens(id, Event::Command(command)),
                Down::Broken => {
                    let again = self.soon(50..2_000);
                    let worker = self.worker(id);
                    worker.wire = None;
                    worker.join_at = Some(again);
                    self.happens(id, Event::Parted);
                }
            }
        }
        let worker = self.worker(id);
        if worker.wire.is_none() && worker.reborn_at.is_none() && worker.join_at.is_some_and(|at| at <= now) {
            let introduction = worker.introduce();
            self.serials += 1;
            let wire =
                Wire { serial: self.serials, up: VecDeque::new(), down: VecDeque::new(), broken: false };
            self.worker(id).wire = Some(wire);
            self.say_up(id, Up::Register(introduction));
        }
    }

    fn arrives(&mut self, id: &WorkerId, serial: u64, item: Up) {
        let current = self.sessions.get(id) == Some(&serial);
        match item {
            Up::Register(Introduction { held, reports }) => {
                self.sessions.insert(id.clone(), serial);
                let devices = vec!["cpu".to_owned(); self.worker(id).executors.len()];
                // In the order of the real coordinator: the answer first, then what joining brings.
                self.say_down(id, Down::Registered(Epoch(self.epoch)));
                self.occurs(Occurrence::WorkerJoined {
                    worker: id.clone(),
                    introduction: Box::new(Introduced { devices, held, reports, ..Introduced::default() }),
                    session_open: false,
                });
            }
            Up::Event(_) | Up::Bye if !current => {}
            Up::Event(WorkerEvent::Heartbeat(progress)) => {
                self.occurs(Occurrence::Heartbeat { worker: id.clone(), heard_ms: self.now, progress });
            }
            Up::Event(WorkerEvent::Finished { slot, outcome }) => {
                let LeaseOutcome { lease, outcome } = *outcome;
                let outcome = outcome.map(Box::new);
                self.occurs(Occurrence::LeaseFinished { worker: id.clone(), slot, lease, outcome });
            }
            Up::Event(WorkerEvent::StoreOpen { lease, address }) => {
                self.occurs(Occurrence::StoreOpen { lease, address });
            }
            Up::Event(WorkerEvent::SlotChanged { slot, report }) => {
                self.occurs(Occurrence::SlotChanged { worker: id.clone(), slot, report });
            }
            Up::Event(WorkerEvent::Draining) => {
                self.occurs(Occurrence::WorkerDraining { worker: id.clone() });
            }
            Up::Event(WorkerEvent::Register(_)) => unreachable!("the machine does not register"),
            Up::Bye => {
                self.sessions.remove(id);
                self.occurs(Occurrence::WorkerLeft { worker: id.clone() });
            }
        }
    }
}
