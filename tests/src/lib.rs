//! The harness of the scenarios: real binaries as child processes, their lines as events, kills by process id.
//!
//! `cargo build --workspace --bins` must have run first (`make test` does): a test of another package cannot ask cargo
//! for binaries. Not here: the scenarios (tests/tests).

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a harness of tests fails by panicking")]

pub mod made_up;
mod process;
mod spec;

pub use process::{Finished, Running, children, free_addresses, is_alive, wait_until};
pub use spec::{examples, no_op, thick_vae};

use std::path::PathBuf;

/// The folder of the built binaries.
pub fn bin(name: &str) -> PathBuf {
    let folder = std::env::var_os("LETHE_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().expect("the test has a path");
        test.parent().and_then(|deps| deps.parent()).expect("below target/release/deps").to_owned()
    });
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: cargo build --release --workspace --bins", path.display());
    path
}
