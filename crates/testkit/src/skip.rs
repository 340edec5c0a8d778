//! A test that could not be run on this machine says so where it cannot be overlooked.

use std::fs::OpenOptions;
use std::io::Write;

/// Says that the test of this thread was left out, and why: on standard error, which runners swallow when a test
/// passes, and as a line of the file that `LETHE_SKIPS` names, which `make test` prints at its end.
///
/// # Panics
/// If that file cannot be written.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(|path| path.file_stem()).unwrap_or_default().to_string_lossy();
    // libtest gives the thread the test's name, cargo the program its crate's and a hash.
    let place = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    let line = format!("SKIPPED {place} {}: {reason}", thread.name().unwrap_or("a test"));
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("LETHE_SKIPS") {
        let mut file =
            OpenOptions::new().create(true).append(true).open(path).expect("LETHE_SKIPS can be written");
        file.write_all((line + "\n").as_bytes()).expect("LETHE_SKIPS can be written");
    }
}
