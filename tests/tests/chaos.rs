//! A minute of random faults on a whole cluster (`make chaos` runs it for longer).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Stdio};

use lethe_testkit::skip;
use lethe_tests::bin;

#[test]
fn a_minute_of_faults_changes_no_bit_and_leaves_nothing_behind() {
    let chaos = Command::new(bin("lethe-chaos"))
        .args(["--seconds", "60", "--seed", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&chaos.stderr);
    assert!(chaos.status.success(), "{said}");
    if chaos.stdout.is_empty() {
        return skip(&format!("a rehearsal needs more than this machine has: {}", said.trim()));
    }
    let line: serde_json::Value = serde_json::from_slice(&chaos.stdout).unwrap();
    assert!(line["jobs_succeeded"].as_u64().unwrap() >= 1, "{line}");
}
