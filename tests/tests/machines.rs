//! Two machines: network namespaces of this test's own, joined by a wire, each with a worker.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

use std::path::Path;
use std::process::Command;

use lethe_testkit::skip;
use lethe_tests::{Running, bin, thick_vae};
use serde_json::json;

const ADDRESSES: [&str; 2] = ["10.77.31.1", "10.77.31.2"];

/// The names of the two; they go with it, and everything in them.
struct Machines([String; 2]);

impl Machines {
    /// None, and a skip on record, where this user may not.
    fn start() -> Option<Self> {
        let machines = Self(["a", "b"].map(|name| format!("lethe-{}-{name}", std::process::id())));
        let [a, b] = &machines.0;
        let mut steps = vec![format!("netns add {a}"), format!("netns add {b}")];
        steps.push(format!("-n {a} link add wire type veth peer name wire netns {b}"));
        for (name, address) in machines.0.iter().zip(ADDRESSES) {
            steps.push(format!("-n {name} address add {address}/24 dev wire"));
            steps.extend(["lo", "wire"].map(|device| format!("-n {name} link set {device} up")));
        }
        for step in steps {
            let done = Command::new("ip").args(step.split(' ')).output();
            if !done.as_ref().is_ok_and(|done| done.status.success()) {
                skip(&format!("two machines need root and iproute2: ip {step}: {done:?}"));
                return None;
            }
        }
        Some(machines)
    }

    fn run(&self, machine: usize, name: &str, arguments: &[&str], folder: &Path) -> Running {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0[machine]]).arg(bin(name)).args(arguments).current_dir(folder);
        Running::start_command(&mut command)
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

#[test]
fn a_gang_over_two_machines_meets_without_being_told_where() {
    let Some(machines) = Machines::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    thick_vae(folder.path(), |spec| {
        spec["sample"]["until"]["total"] = 400.into();
        spec["unlearn"]["steps"] = 20.into();
        spec["resources"]["slots"] = json!({"min": 2, "max": 2});
    });
    let coordinator = format!("{}:7400", ADDRESSES[0]);
    let arguments = ["--listen", &coordinator, "--http", "off", "--data", "state"];
    let _coordinator = machines.run(0, "lethe-coordinator", &arguments, folder.path());
    let workers = [0, 1].map(|machine| {
        let id = format!("w{machine}");
        let arguments = ["--coordinator", &coordinator, "--id", &id, "--devices", "cpu", "--threads", "1"];
        let mut worker = machines.run(machine, "lethe-worker", &arguments, folder.path());
        worker.wait_for("joined");
        worker
    });
    let lethe = |arguments: &[&str]| {
        let all = [arguments, &["--coordinator", &coordinator]].concat();
        machines.run(1, "lethe", &all, folder.path()).finish().expect(0).stdout
    };
    let job = lethe(&["job", "submit", "job.json"]);
    lethe(&["job", "watch", job.trim()]);
    let got = lethe(&["job", "get", job.trim(), "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&got).unwrap();
    assert_eq!((&status["state"], &status["retried"]), (&json!("succeeded"), &json!([])));
    drop(workers);
}
