//! Two coordinators on a real etcd cluster, a real worker that knows one address, and a leader that is killed or frozen.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use lethe_store::etcd_cluster::{Cluster, Security};
use lethe_tests::{Running, free_addresses, thick_vae};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A leader and one that follows; everybody else knows the follower alone.
struct Pair {
    folder: tempfile::TempDir,
    leader: Running,
    _follower: Running,
    address: String,
    _etcd: Cluster,
}

impl Pair {
    fn start() -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let etcd = runtime.block_on(Cluster::start(Security::Plain))?;
        let folder = tempfile::tempdir().unwrap();
        let start = |address: &str| {
            let store = etcd.uri("/lethe");
            let arguments = ["--listen", address, "--http", "off", "--data", "state", "--store", &store];
            Running::start("lethe-coordinator", &arguments, folder.path())
        };
        let mut leader = start(&free_addresses(1)[0]);
        leader.wait_for("this coordinator leads");
        let address = free_addresses(1).remove(0);
        let mut follower = start(&address);
        follower.wait_for("another coordinator leads");
        Some(Self { folder, leader, _follower: follower, address: format!("http://{address}"), _etcd: etcd })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn worker(&self) -> Running {
        let arguments = [
            "--coordinator",
            &self.address,
            "--id",
            "w1",
            "--slots",
            "2",
            "--devices",
            "cpu",
            "--threads",
            "1",
        ];
        Running::start("lethe-worker", &arguments, self.path())
    }

    fn lethe(&self, arguments: &[&str]) -> Running {
        Running::start("lethe", &[arguments, &["--coordinator", &self.address]].concat(), self.path())
    }

    fn submit(&self) -> String {
        self.lethe(&["job", "submit", "job.json"]).finish().expect(0).stdout.trim().to_owned()
    }

    fn succeeded(&self, job: &str) {
        let got = self.lethe(&["job", "get", job, "-o", "json"]).finish().expect(0);
        let status: Value = serde_json::from_str(&got.stdout).unwrap();
        assert_eq!(status["state"], "succeeded");
    }
}

#[test]
fn a_leader_killed_in_the_middle_of_training_is_replaced_and_no_step_is_lost() {
    no_step_is_lost_with_the_leader(Signal::SIGKILL);
}

#[test]
fn a_leader_that_freezes_in_the_middle_of_training_is_replaced_and_no_step_is_lost() {
    no_step_is_lost_with_the_leader(Signal::SIGSTOP);
}

/// The gang is taken over as it is: its first generation ends the training.
fn no_step_is_lost_with_the_leader(signal: Signal) {
    let Some(pair) = Pair::start() else { return };
    thick_vae(pair.path(), |spec| spec["unlearn"]["steps"] = 800.into());
    let mut worker = pair.worker();
    let job = pair.submit();
    let mut watch = pair.lethe(&["job", "watch", &job]);
    watch.wait_for("fine_tune");
    pair.leader.signal(signal);
    // A second session, at the one that followed.
    worker.wait_for("the session is over");
    worker.wait_for("joined");
    drop(watch);
    pair.lethe(&["job", "watch", &job]).finish().expect(0);
    pair.succeeded(&job);
    let trained = pair.path().join("state/artifacts/jobs").join(&job).join("fine_tune");
    let names =
        std::fs::read_dir(trained).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, ["curve-g1.json", "weights-g1.safetensors"]);
}

#[test]
fn a_leader_that_freezes_is_replaced_and_nobody_obeys_it_when_it_wakes_up() {
    let Some(mut pair) = Pair::start() else { return };
    thick_vae(pair.path(), |spec| spec["sample"]["until"]["total"] = 8_000.into());
    let mut worker = pair.worker();
    let job = pair.submit();
    let mut watch = pair.lethe(&["job", "watch", &job]);
    watch.wait_for("sample");
    pair.leader.signal(Signal::SIGSTOP);
    worker.wait_for("joined");
    worker.wait_for("joined");
    pair.leader.signal(Signal::SIGCONT);
    pair.leader.wait_for("another coordinator leads");
    drop(watch);
    pair.lethe(&["job", "watch", &job]).finish().expect(0);
    pair.succeeded(&job);
}
