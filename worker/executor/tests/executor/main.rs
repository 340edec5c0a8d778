//! The executor from outside: its real process, spoken to over a socket pair as an agent does.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends where it fails, and says what it skipped"
)]

mod bad_input;
mod evaluation;
mod gang;
mod harness;
mod job;
mod lifecycle;
#[path = "../../../../crates/artifacts/tests/conformance/moto.rs"]
mod moto;
mod phases;
mod recovery;
mod remote;
mod shards;
#[path = "../../../../crates/artifacts/tests/conformance/small_disk.rs"]
#[allow(dead_code, reason = "nothing here waits for storage itself")]
mod small_disk;
mod standby;
