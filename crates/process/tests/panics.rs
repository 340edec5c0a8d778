//! A panic anywhere ends a process: in a task of tokio, which would keep it, in a thread nobody waits for, and where the log
//! cannot be written. Each case is this test's own program, started once more.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::fs::File;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const CASE: &str = "LETHE_TEST_CASE";

/// The child: everything else waits for ever.
#[test]
#[ignore = "the child process of the tests below"]
fn child() {
    let code = lethe_process::run(|| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        match std::env::var(CASE).unwrap().as_str() {
            "task" => drop(runtime.spawn(async { panic!("in a task") })),
            "blocking" => drop(runtime.spawn_blocking(|| panic!("in a blocking task"))),
            "thread" => drop(std::thread::spawn(|| panic!("in a thread"))),
            "caught" => {
                assert_eq!(lethe_process::caught(|| -> u8 { panic!("caught") }), Err("caught".to_owned()));
                return ExitCode::SUCCESS;
            }
            other => panic!("unknown case {other}"),
        }
        runtime.block_on(std::future::pending())
    });
    assert_eq!(code, ExitCode::SUCCESS);
}

fn run(case: &str, stderr: impl Into<Stdio>) -> (Option<i32>, String) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env(CASE, case)
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{case}: {:?}", begun.elapsed());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_panic_in_any_task_or_thread_ends_the_process_and_says_where_it_was() {
    for (case, says) in [("task", "in a task"), ("blocking", "in a blocking task"), ("thread", "in a thread")]
    {
        let (code, said) = run(case, Stdio::piped());
        assert_eq!(code, Some(101), "{case}: {said}");
        assert!(said.contains(says) && said.contains("tests/panics.rs"), "{case}: {said}");
    }
}

#[test]
fn it_ends_the_process_also_where_nobody_hears_of_it() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(run("task", full).0, Some(101));
    // A pipe that is full, and that nobody reads.
    let (reader, writer) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(&writer, nix::fcntl::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    let page = [b'x'; 4096];
    while nix::unistd::write(&writer, &page).is_ok() {}
    nix::fcntl::fcntl(&writer, nix::fcntl::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    assert_eq!(run("task", writer).0, Some(101));
    drop(reader);
}

#[test]
fn a_panic_that_is_caught_is_not_the_end() {
    let (code, said) = run("caught", Stdio::piped());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("panicked") && said.contains("caught"), "{said}");
}
