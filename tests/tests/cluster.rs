//! Coordinator, workers and clients as separate processes on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

use std::path::Path;
use std::time::Duration;

use lethe_tests::{Finished, Running, children, is_alive, thick_vae, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

struct Cluster {
    folder: tempfile::TempDir,
    coordinator: Running,
    address: String,
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (coordinator, address) = serve(folder.path(), "127.0.0.1:0");
        Self { folder, coordinator, address }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn worker(&self, id: &str, slots: &str) -> Running {
        let arguments = [
            "--coordinator",
            &self.address,
            "--id",
            id,
            "--slots",
            slots,
            "--devices",
            "cpu",
            "--threads",
            "1",
        ];
        Running::start("lethe-worker", &arguments, self.path())
    }

    fn lethe(&self, arguments: &[&str]) -> Running {
        let address = ["--coordinator", &self.address];
        Running::start("lethe", &[arguments, &address].concat(), self.path())
    }

    fn job(&self, arguments: &[&str]) -> Finished {
        self.lethe(arguments).finish()
    }

    fn submit(&self) -> String {
        self.job(&["job", "submit", "job.json"]).expect(0).stdout.trim().to_owned()
    }

    fn status(&self, job: &str) -> Value {
        serde_json::from_str(&self.job(&["job", "get", job, "-o", "json"]).expect(0).stdout).unwrap()
    }
}

fn serve(folder: &Path, listen: &str) -> (Running, String) {
    let mut coordinator = Running::start(
        "lethe",
        &["serve", "--listen", listen, "--http", "127.0.0.1:0", "--data", "state"],
        folder,
    );
    let line = coordinator.wait_for("workers join with");
    let address = line.split_whitespace().next_back().unwrap().to_owned();
    (coordinator, address)
}

#[test]
fn submit_watch_get_list_and_download_from_other_processes() {
    let cluster = Cluster::start();
    thick_vae(cluster.path(), |_| {});
    let _worker = cluster.worker("w1", "2");
    let job = cluster.submit();
    let watched = cluster.job(&["job", "watch", &job]).expect(0);
    assert!(watched.stdout.contains("remaining share"), "{}", watched.stdout);
    let status = cluster.status(&job);
    assert_eq!(status["state"], "succeeded");
    let listed = |filter: &[&str]| cluster.job(&[&["job", "list"], filter].concat()).expect(0).stdout;
    assert!(listed(&[]).contains(&job));
    let all =
        ["--state", "succeeded", "--owner", "default", "--name", "thick-vae", "--since", "1h", "-o", "wide"];
    assert!(listed(&all).contains(&job) && listed(&all).contains("OWNER"), "{}", listed(&all));
    for other in [["--state", "failed"], ["--owner", "ann"], ["--name", "thin"], ["--since", "1ms"]] {
        assert!(!listed(&other).contains(&job), "{other:?}");
    }
    assert!(cluster.job(&["worker", "list"]).expect(0).stdout.contains("w1"));
    cluster.job(&["job", "download", &job, "--out", "got"]).expect(0);
    for file in ["generator.safetensors", "generator.safetensors.json", "before_after.png", "result.json"] {
        assert!(cluster.path().join("got").join(file).exists(), "{file}");
    }
    cluster.coordinator.signal(Signal::SIGTERM);
    cluster.coordinator.finish().expect(0);
}

#[test]
fn a_killed_agent_takes_its_executors_with_it_and_another_worker_finishes() {
    let cluster = Cluster::start();
    thick_vae(cluster.path(), |spec| spec["sample"]["until"]["total"] = 4_000.into());
    let mut first = cluster.worker("w1", "1");
    let job = cluster.submit();
    let mut watch = cluster.lethe(&["job", "watch", &job]);
    watch.wait_for("sample");
    let executors = children(first.pid());
    assert_eq!(executors.len(), 1);
    first.signal(Signal::SIGKILL);
    wait_until("no orphan", Duration::from_secs(5), || !executors.iter().any(|pid| is_alive(*pid)));
    first = cluster.worker("w2", "1");
    watch.finish().expect(0);
    assert_eq!(cluster.status(&job)["state"], "succeeded");
    first.signal(Signal::SIGTERM);
    first.finish().expect(0);
}

#[test]
fn a_killed_coordinator_comes_back_and_goes_on() {
    let cluster = Cluster::start();
    thick_vae(cluster.path(), |spec| spec["sample"]["until"]["total"] = 4_000.into());
    let _worker = cluster.worker("w1", "2");
    let job = cluster.submit();
    let mut watch = cluster.lethe(&["job", "watch", &job]);
    watch.wait_for("sample");
    cluster.coordinator.signal(Signal::SIGKILL);
    let listen = cluster.address.trim_start_matches("http://").to_owned();
    let Cluster { folder, coordinator, address } = cluster;
    coordinator.finish().expect(137);
    let (coordinator, _) = serve(folder.path(), &listen);
    let cluster = Cluster { folder, coordinator, address };
    watch.finish().expect(0);
    assert_eq!(cluster.status(&job)["state"], "succeeded");
}

#[test]
fn cancel_says_so_only_when_the_slots_are_free() {
    let cluster = Cluster::start();
    thick_vae(cluster.path(), |spec| spec["unlearn"]["steps"] = 100_000.into());
    let _worker = cluster.worker("w1", "2");
    let job = cluster.submit();
    let mut watch = cluster.lethe(&["job", "watch", &job]);
    watch.wait_for("fine_tune");
    let cancelled = cluster.job(&["job", "cancel", &job, "--reason", "changed my mind"]).expect(0);
    assert!(cancelled.stdout.contains("is cancelled, its slots are free"), "{}", cancelled.stdout);
    let workers: Value =
        serde_json::from_str(&cluster.job(&["worker", "list", "-o", "json"]).expect(0).stdout).unwrap();
    assert!(workers[0]["slots"].as_array().unwrap().iter().all(|slot| slot["lease"].is_null()), "{workers}");
    watch.finish().expect(4);
    assert!(cluster.status(&job)["failure"]["message"].as_str().unwrap().contains("changed my mind"));
}

#[test]
fn deleting_is_refused_while_a_job_runs_and_forgets_it_afterwards() {
    let cluster = Cluster::start();
    thick_vae(cluster.path(), |_| {});
    let job = cluster.submit();
    let refused = cluster.job(&["job", "delete", &job]).expect(1);
    assert!(refused.stderr.contains(&format!("lethe job cancel {job}")), "{}", refused.stderr);
    cluster.job(&["job", "cancel", &job]).expect(0);
    let deleted = cluster.job(&["job", "delete", &job]).expect(0);
    assert!(deleted.stderr.contains(&format!("{job} is deleted")), "{}", deleted.stderr);
    let gone = || cluster.job(&["job", "get", &job]).stderr.contains("no job");
    wait_until("nobody knows it", Duration::from_secs(30), gone);
    let missing = cluster.job(&["job", "delete", &job]).expect(1);
    assert!(missing.stderr.contains(&job), "{}", missing.stderr);
}

#[test]
fn nobody_there_is_exit_code_three_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = ["job", "list", "--coordinator", "http://127.0.0.1:9"];
    let ended = Running::start("lethe", &nobody, folder.path()).finish().expect(3);
    assert!(
        ended.stderr.contains("cannot reach the coordinator") && ended.stderr.contains("hint:"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_worker_that_was_frozen_comes_back() {
    let cluster = Cluster::start();
    let worker = cluster.worker("w1", "1");
    let is = |state: &str| cluster.job(&["worker", "list"]).expect(0).stdout.contains(state);
    wait_until("the worker joins", Duration::from_secs(30), || is("ready"));
    worker.signal(Signal::SIGSTOP);
    wait_until("a frozen worker is dead", Duration::from_secs(10), || is("dead"));
    worker.signal(Signal::SIGCONT);
    wait_until("it joins again by itself", Duration::from_secs(10), || is("ready"));
}
