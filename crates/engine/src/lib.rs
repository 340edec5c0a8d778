//! The verbs of Lethe: the only place where a decision about jobs, leases and gangs is taken.
//!
//! [`State::step`] takes the time and an [`Event`], changes the state in place and returns [`Effect`]s in the order in
//! which they must happen: everything to persist comes before anything that can be seen outside. A driver owns the
//! state: receive, step, persist, then act. When persisting fails the driver drops the state and restores it from the
//! store; it never patches it back.
//!
//! Not here: tokio, gRPC, storage, tensors, a clock, randomness. Time and ids arrive as arguments.

#![deny(clippy::wildcard_enum_match_arm)]

mod config;
mod cordons;
mod done;
mod effect;
mod event;
mod explain;
mod fleet;
mod gang;
mod grant;
mod invariants;
mod job;
mod lease_work;
mod past;
mod plan;
pub mod planner;
mod pool;
mod record;
mod refusal;
mod resize;
mod result;
mod retention;
mod returns;
mod snapshot;
mod state;
mod status;
mod step;
mod waits;
mod wake;

pub use config::Config;
pub use effect::{Chore, Command, Effect, Metric, Write};
pub use event::{Event, Introduction, Now};
pub use invariants::Violation;
pub use record::{GangRecord, JobRecord, RECORD_VERSION, Request, WorkerRecord};
pub use refusal::Refusal;
pub use snapshot::{Changed, FleetSnapshot, JobSnapshot, WorkerSnapshot};
pub use state::State;
