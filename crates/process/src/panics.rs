//! A panic ends the process. Half of a coordinator or a worker is worse than none: it holds its place and does nothing.
//!
//! tokio catches what its tasks throw, so the end comes from the hook, before anything is unwound. Nothing is lost by it:
//! what is written down is whole at any moment, and executors die with their agent by the kernel's hand. Unwinding stays on
//! for the one place that wants it ([`caught`]).

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::thread;

use crate::{LAST_WORDS, flush, say};

/// What Rust's own panics end with.
const EXIT_CODE: i32 = 101;

thread_local! {
    /// Whether this thread is inside [`caught`].
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn end_the_process() {
    panic::set_hook(Box::new(|panic| {
        say(&account(panic));
        if !CATCHING.get() {
            flush(LAST_WORDS);
            // SAFETY: _exit has no preconditions. Exit handlers of libraries could wait for threads that never end.
            unsafe { libc::_exit(EXIT_CODE) }
        }
    }));
}

fn account(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let mut text = format!("error: thread '{}' {panic}", thread.name().unwrap_or("unnamed"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text.push_str(&format!("\n{backtrace}"));
    }
    text
}

/// Does some work whose panic is not the end: gives its message instead. Whoever calls this must not go on with what the
/// work may have left half done.
///
/// # Errors
/// The message of the panic.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = CATCHING.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    done.map_err(|panic| message_of(panic.as_ref()).to_owned())
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caught_panic_is_its_message() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(caught(|| -> u8 { panic!("at {}", 7) }), Err("at 7".to_owned()));
        assert_eq!(caught(|| -> u8 { panic!("plain") }), Err("plain".to_owned()));
        assert!(!CATCHING.get());
    }
}
