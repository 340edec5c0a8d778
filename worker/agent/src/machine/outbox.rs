//! Outcomes on their way to the coordinator. Each is kept until it is acknowledged, through any number of sessions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lethe_domain::{Failure, HeldLease, LeaseId, TaskOutput};
use lethe_proto::LeaseOutcome;
use lethe_proto::session::WorkerEvent;

/// Outcomes that are not acknowledged, by lease: there is one per lease.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    letters: BTreeMap<LeaseId, Letter>,
}

#[derive(Debug)]
struct Letter {
    held: HeldLease,
    outcome: Result<TaskOutput, Failure>,
    /// When it is to be sent, for the first time or again.
    due: Instant,
}

impl Outbox {
    /// Keeps an outcome; it is due at once. The first outcome of a lease stands.
    pub(super) fn put(&mut self, now: Instant, held: HeldLease, outcome: Result<TaskOutput, Failure>) {
        let lease = held.lease.clone();
        self.letters.entry(lease).or_insert(Letter { held, outcome, due: now });
    }

    /// The coordinator has it: forget it.
    pub(super) fn acknowledged(&mut self, lease: &LeaseId) {
        self.letters.remove(lease);
    }

    /// Makes an outcome due at once; false when there is none of this lease.
    pub(super) fn ask_again(&mut self, now: Instant, lease: &LeaseId) -> bool {
        let letter = self.letters.get_mut(lease);
        letter.map(|letter| letter.due = now).is_some()
    }

    /// A session begins: whatever was sent before may be lost.
    pub(super) fn all_due(&mut self, now: Instant) {
        self.letters.values_mut().for_each(|letter| letter.due = now);
    }

    /// What is to be sent now; it is due again when it is not acknowledged by then.
    pub(super) fn take_due(&mut self, now: Instant, again_after: Duration) -> Vec<WorkerEvent> {
        let due = self.letters.values_mut().filter(|letter| letter.due <= now);
        due.map(|letter| {
            letter.due = now + again_after;
            let outcome = LeaseOutcome { lease: letter.held.lease.clone(), outcome: letter.outcome.clone() };
            WorkerEvent::Finished { slot: letter.held.slot, outcome: Box::new(outcome) }
        })
        .collect()
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.letters.values().map(|letter| letter.due).min()
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = HeldLease> {
        self.letters.values().map(|letter| letter.held.clone())
    }

    pub(super) fn len(&self) -> usize {
        self.letters.len()
    }
}
