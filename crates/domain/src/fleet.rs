//! Workers and their slots as people see them, and what an operator can want of them.
//!
//! Not here: how a worker comes to stand where it does (crate `engine`).

use serde::{Deserialize, Serialize};

use crate::{LeaseId, SlotIndex, WorkerId};

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Joined; no executor of it has shown yet that it computes what it should.
    Joining,
    /// Some executors have yet to show it.
    Canary,
    /// Waits for work.
    Ready,
    /// At work.
    Busy,
    /// Heartbeats are late.
    Suspect,
    /// Heartbeats have ceased: what it worked on is granted again.
    Dead,
    /// Gets no more work, and hands back what it has.
    Draining,
    /// Gets no work until somebody releases it.
    Quarantined,
}

impl WorkerState {
    /// Every state.
    pub const ALL: [WorkerState; 8] = [
        WorkerState::Joining,
        WorkerState::Canary,
        WorkerState::Ready,
        WorkerState::Busy,
        WorkerState::Suspect,
        WorkerState::Dead,
        WorkerState::Draining,
        WorkerState::Quarantined,
    ];

    /// The name used on the wire, in metrics and on screens.
    pub fn name(self) -> &'static str {
        match self {
            WorkerState::Joining => "joining",
            WorkerState::Canary => "canary",
            WorkerState::Ready => "ready",
            WorkerState::Busy => "busy",
            WorkerState::Suspect => "suspect",
            WorkerState::Dead => "dead",
            WorkerState::Draining => "draining",
            WorkerState::Quarantined => "quarantined",
        }
    }
}

/// What a slot does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotState {
    /// The device: cpu, cuda:0.
    pub device: String,
    /// The lease it works on.
    pub lease: Option<LeaseId>,
    /// Whether its executor is up and has shown that it computes what it should.
    pub proven: bool,
    /// Why it gets no work.
    pub quarantine: Option<String>,
    /// Samples per second, as measured over its last leases; 0 before the first.
    pub samples_per_second: f64,
}

/// A worker as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The worker.
    pub id: WorkerId,
    /// Its machine's name.
    pub hostname: String,
    /// Its Lethe version.
    pub version: String,
    /// Where it stands.
    pub state: WorkerState,
    /// Why it stands there, where that is not plain: who drained it, what its canary gave.
    pub reason: Option<String>,
    /// Its slots, in order.
    pub slots: Vec<SlotState>,
    /// Milliseconds since its last heartbeat.
    pub heartbeat_age_ms: u64,
}

/// What an operator wants of a worker, or of one slot of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerOrder {
    /// No more work; hand back what there is.
    Drain,
    /// No work until released. `slot` none: the whole worker.
    Quarantine {
        /// Which slot.
        slot: Option<SlotIndex>,
        /// Why, for people.
        reason: String,
    },
    /// Take work again. `slot` none: the whole worker.
    Release {
        /// Which slot.
        slot: Option<SlotIndex>,
    },
}

/// What a slot's executor says of itself once it is up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotReport {
    /// libtorch's version.
    pub torch: String,
    /// What the canary's model gave for the canary's input; empty from a worker that has none.
    pub canary: Vec<f32>,
}

/// 1 slot, 2 slots.
pub fn counted_slots(count: u32) -> String {
    if count == 1 { "1 slot".to_owned() } else { format!("{count} slots") }
}
