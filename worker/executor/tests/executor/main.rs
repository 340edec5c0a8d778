//! The executor from outside: its real process, spoken to over a socket pair as an agent does.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends where it fails, and says what it skipped"
)]

mod bad_input;
mod calibration;
mod edits;
mod evaluation;
mod foreign_models;
mod gang;
mod harness;
mod job;
mod lifecycle;
mod phases;
mod recovery;
mod remote;
mod reuse;
mod search;
mod several;
mod shards;
mod standby;
mod strength;
