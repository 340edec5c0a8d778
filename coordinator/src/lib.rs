//! The coordinator: drives the engine, answers clients and workers over gRPC, and shows operators what happens.
//!
//! [`Coordinator::start`] is the whole of it; `lethe-coordinator`, `lethe serve` and `lethe run` are flags around it. One
//! task owns the engine's state (`driver`); the edges (`rpc`, `http`) read what it publishes and reach it through bounded
//! channels. What it writes down is in `records`.
//!
//! Not here: decisions (`lethe-engine`), libtorch and everything that looks at images (the executor), storage engines.

mod admission;
mod clock;
mod config;
mod coordinator;
mod driver;
mod election;
mod error;
mod history;
mod http;
mod metrics;
mod page;
mod published;
mod records;
mod results;
mod rpc;
mod upkeep;

pub use admission::{changed, look_at_files, look_at_objects, replaced};
pub use config::{CoordinatorConfig, Flags, HttpAddress, KEEP_EDITS};
pub use coordinator::{Coordinator, Handle};
pub use error::{Error, Result};
