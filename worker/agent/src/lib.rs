//! The agent: a machine's membership in the fleet. It joins a coordinator, owns slots, starts and ends executors.
//!
//! ```text
//! coordinator <--- session (link) ---> agent ---> machine: every decision, pure
//!                                        |
//!                                        +--- socket pair ---> executor of slot 0, 1, ... (a child process each)
//! ```
//! [`Agent::run`] is the whole of it; `lethe-worker` and `lethe run` both call it. Not here: tensors (worker/executor;
//! nothing in this crate links libtorch, so a CUDA fault never takes the agent down), what is done by whom (the
//! coordinator).

mod agent;
mod chaos;
mod config;
mod death;
mod devices;
mod error;
mod executor;
pub mod http;
mod identity;
mod link;
mod locate;
mod log;
mod machine;
mod spawner;
mod status;

pub use agent::Agent;
pub use chaos::{Chaos, ChaosError};
pub use config::{AgentConfig, Patience};
pub use devices::{DeviceChoice, Slots, plan_slots};
pub use error::{Error, Result};
pub use identity::{hostname, new_worker_id};
pub use locate::find_executor;
pub use status::{Activity, Counts, Faults, SlotView, Status};
