//! What every program of Lethe does before its work and beside it: settings that are there and empty count as unset, file
//! descriptors up to what the system allows, a log that nobody has to read, and an end for a process in which something
//! panicked.
//!
//! [`run`] is the frame of every `main`. Not here: what a program does, its exit codes, its signals.

mod descriptors;
mod environment;
pub mod log;
mod panics;
mod stderr;

use std::process::ExitCode;
use std::time::Duration;

pub use descriptors::Incoming;
pub use panics::caught;
pub use stderr::{Stderr, flush, lost_lines, say};

/// For what was said last to be read, when the program ends.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs a program. Call it first of all in `main`, before there is a second thread.
pub fn run(program: impl FnOnce() -> ExitCode) -> ExitCode {
    environment::drop_empty();
    panics::end_the_process();
    descriptors::raise();
    let code = program();
    flush(LAST_WORDS);
    code
}
