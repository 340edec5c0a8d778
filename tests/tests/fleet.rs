//! Workers that come, go, fail and are told what to do, while a job runs: real processes, real kills.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lethe_tests::{Finished, Running, children, examples, thick_vae, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// The scorer of another feature, under the name of the one the job is accepted with.
const SCORER: &str = "scorer.pt";

struct Fleet {
    folder: tempfile::TempDir,
    _coordinator: Running,
    address: String,
}

impl Fleet {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments =
            [&["serve", "--listen", "127.0.0.1:0", "--http", "off", "--data", "state"], more].concat();
        let mut coordinator = Running::start("lethe", &arguments, folder.path());
        let line = coordinator.wait_for("workers join with");
        let address = line.split_whitespace().next_back().unwrap().to_owned();
        Self { folder, _coordinator: coordinator, address }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn worker(&self, id: &str, more: &[&str]) -> Running {
        let arguments = [
            "--coordinator",
            &self.address,
            "--id",
            id,
            "--slots",
            "1",
            "--devices",
            "cpu",
            "--threads",
            "1",
        ];
        Running::start("lethe-worker", &[&arguments, more].concat(), self.path())
    }

    fn joined(&self, id: &str, more: &[&str]) -> Running {
        let mut worker = self.worker(id, more);
        worker.wait_for("joined");
        worker
    }

    fn lethe(&self, arguments: &[&str]) -> Finished {
        let all = [arguments, &["--coordinator", &self.address]].concat();
        Running::start("lethe", &all, self.path()).finish()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let got = self.lethe(&[arguments, &["-o", "json"]].concat()).expect(0);
        serde_json::from_str(&got.stdout).unwrap()
    }

    /// A job that trains for a while on up to this many slots.
    fn submit(&self, slots: u32, steps: u64) -> String {
        thick_vae(self.path(), |spec| {
            spec["sample"]["until"]["total"] = 400.into();
            spec["unlearn"]["steps"] = steps.into();
            spec["resources"]["slots"] = json!({"min": 1, "max": slots});
        });
        self.lethe(&["job", "submit", "job.json"]).expect(0).stdout.trim().to_owned()
    }

    fn step(&self, job: &str) -> u64 {
        let status = self.json(&["job", "get", job]);
        let phases = status["phases"].as_array().unwrap();
        phases.iter().find(|phase| phase["phase"] == "fine_tune").unwrap()["done"].as_u64().unwrap()
    }

    /// Waits until training has come this far.
    fn trained(&self, job: &str, step: u64) {
        wait_until("training goes on", Duration::from_secs(120), || self.step(job) >= step);
    }

    /// Waits until the job has succeeded, and gives its generator's bytes.
    fn generator(&self, job: &str) -> Vec<u8> {
        self.lethe(&["job", "watch", job]).expect(0);
        self.lethe(&["job", "download", job, "--out", job]).expect(0);
        std::fs::read(self.path().join(job).join("generator.safetensors")).unwrap()
    }
}

#[test]
fn a_lost_rank_costs_no_step_and_no_bit_and_the_survivors_read_no_storage() {
    let fleet = Fleet::start(&["--gang-patience", "5s"]);
    let mut workers: Vec<Running> = ["w1", "w2", "w3"].iter().map(|id| fleet.joined(id, &[])).collect();
    let calm = fleet.submit(3, 500);
    let expected = fleet.generator(&calm);
    let job = fleet.submit(3, 500);
    fleet.trained(&job, 100);
    let checkpoints = fleet.path().join("state/artifacts/jobs").join(&job).join("checkpoints");
    let before = fleet.step(&job);
    kill(Pid::from_raw(children(workers[1].pid())[0].cast_signed()), Signal::SIGKILL).unwrap();
    std::fs::remove_dir_all(&checkpoints).unwrap();
    let said = workers[0].wait_for("memory, step");
    let after = said.rsplit("memory, step ").next().unwrap();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    let step: u64 = digits.parse().unwrap();
    assert!(step >= before, "went on at {step}, {before} were done before: {said}");
    assert_eq!(fleet.generator(&job), expected);
    let status = fleet.json(&["job", "get", &job]);
    let retried = status["retried"].as_array().unwrap();
    assert!(retried.iter().any(|failure| failure["code"] == "EXECUTOR_DIED"), "the first cause: {retried:?}");
}

#[test]
fn a_worker_that_is_drained_or_told_to_end_hands_its_rank_back_and_the_job_goes_on() {
    let fleet = Fleet::start(&["--gang-patience", "5s"]);
    let first = fleet.joined("w1", &[]);
    let second = fleet.joined("w2", &[]);
    let _third = fleet.joined("w3", &[]);
    let job = fleet.submit(3, 800);
    fleet.trained(&job, 50);
    let drained = fleet.lethe(&["worker", "drain", "w1", "--wait", "--timeout", "60"]).expect(0);
    assert!(drained.stdout.contains("is draining"), "{}", drained.stdout);
    let step = fleet.step(&job);
    fleet.trained(&job, step + 10);
    second.signal(Signal::SIGTERM);
    second.finish().expect(0);
    let step = fleet.step(&job);
    fleet.trained(&job, step + 10);
    let status = fleet.json(&["job", "get", &job]);
    assert_eq!((status["retried"].as_array().unwrap().len(), &status["slots"]), (0, &json!(1)));
    assert!(fleet.lethe(&["worker", "release", "w1"]).expect(0).stdout.contains("is ready"));
    fleet.lethe(&["job", "watch", &job]).expect(0);
    drop(first);
}

#[test]
fn a_worker_that_computes_something_else_gets_no_work_and_explain_says_why() {
    let fleet = Fleet::start(&["--allow-chaos"]);
    let job = fleet.submit(1, 20);
    let why = fleet.lethe(&["job", "explain", &job]).expect(0).stdout;
    assert!(why.contains("no worker has joined"), "{why}");
    let _bad = fleet.joined("bad", &["--chaos", "canary"]);
    let why = fleet.lethe(&["job", "explain", &job]).expect(0).stdout;
    assert!(why.contains("phase probe") && why.contains("its canary is wrong"), "{why}");
    let listed = fleet.lethe(&["worker", "list"]).expect(0).stdout;
    assert!(listed.contains("quarantined"), "{listed}");
    let shown = fleet.lethe(&["worker", "get", "bad"]).expect(0).stdout;
    assert!(shown.contains("check libtorch and the device"), "{shown}");
    let _good = fleet.joined("good", &[]);
    fleet.lethe(&["job", "watch", &job]).expect(0);
    let idle = fleet.lethe(&["job", "explain", &job]).expect(0).stdout;
    assert!(idle.contains("nothing of job"), "{idle}");
}

#[test]
fn faults_on_purpose_are_refused_where_they_are_not_allowed() {
    let fleet = Fleet::start(&[]);
    let refused = fleet.worker("w1", &["--chaos", "kill=0.1"]).finish().expect(3);
    assert!(refused.stderr.contains("--allow-chaos"), "{}", refused.stderr);
}

#[test]
fn an_operator_quarantines_a_slot_and_what_it_did_is_done_elsewhere() {
    let fleet = Fleet::start(&[]);
    let _first = fleet.joined("w1", &[]);
    let job = fleet.submit(1, 20);
    let quarantine = ["worker", "quarantine", "w1", "--slot", "0", "--reason", "it smells"];
    let shown = fleet.lethe(&quarantine).expect(0).stdout;
    assert!(shown.contains("quarantined: it smells"), "{shown}");
    let wrong = fleet.lethe(&["worker", "quarantine", "w1", "--slot", "7"]).expect(1);
    assert!(wrong.stderr.contains("has slots 0 to 0"), "{}", wrong.stderr);
    fleet.lethe(&["worker", "drain", "nobody"]).expect(1);
    let _second = fleet.joined("w2", &[]);
    fleet.lethe(&["job", "watch", &job]).expect(0);
    let worker = fleet.json(&["worker", "get", "w1"]);
    assert_eq!((&worker["state"], &worker["slots"][0]["lease"]), (&json!("quarantined"), &Value::Null));
}

/// A job whose scorer is a file of its own.
fn with_own_scorer(fleet: &Fleet, steps: u64) -> String {
    std::fs::copy(examples().join("models/thickness.pt"), fleet.path().join(SCORER)).unwrap();
    thick_vae(fleet.path(), |spec| {
        spec["feature"]["scorer"]["uri"] = SCORER.into();
        spec["sample"]["until"]["total"] = 400.into();
        spec["unlearn"]["steps"] = steps.into();
    });
    fleet.lethe(&["job", "submit", "job.json"]).expect(0).stdout.trim().to_owned()
}

/// The failure of a job that met another file.
fn changed(fleet: &Fleet, job: &str) -> String {
    let watched = fleet.lethe(&["job", "watch", job]).expect(1);
    assert!(watched.stderr.contains("INPUT_CHANGED"), "{}", watched.stderr);
    let status = fleet.json(&["job", "get", job]);
    assert_eq!(status["retried"].as_array().unwrap().len(), 0, "it is not tried again");
    let message = status["failure"]["message"].as_str().unwrap().to_owned();
    for part in [
        "scorer.pt on ",
        &sha256(&examples().join("models/thickness.pt")),
        &sha256(&examples().join("models/slant.pt")),
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    message
}

fn sha256(file: &Path) -> String {
    let summed = Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8(summed.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_model_replaced_in_the_middle_of_a_job_ends_it() {
    let fleet = Fleet::start(&[]);
    let _worker = fleet.joined("w1", &[]);
    let job = with_own_scorer(&fleet, 150);
    fleet.trained(&job, 1);
    let next = fleet.path().join("next.pt");
    std::fs::copy(examples().join("models/slant.pt"), &next).unwrap();
    std::fs::rename(&next, fleet.path().join(SCORER)).unwrap();
    changed(&fleet, &job);
}

#[test]
fn a_worker_that_sees_another_file_under_the_name_does_no_work_with_it() {
    let fleet = Fleet::start(&[]);
    // It must be there before the mount hides it, from this worker alone.
    std::fs::write(fleet.path().join(SCORER), "not yet").unwrap();
    let slant = examples().join("models/slant.pt").display().to_string();
    let worker = lethe_tests::bin("lethe-worker").display().to_string();
    let script = format!(
        "mount --bind {slant} {SCORER} && exec {worker} --coordinator {} --id elsewhere --slots 1 --devices cpu --threads 1",
        fleet.address
    );
    // As root a mount namespace is enough; others get one by being root in a user namespace.
    let user: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let mut elsewhere = Running::start_command(
        Command::new("unshare")
            .args(user)
            .args(["--mount", "--", "sh", "-c", &script])
            .current_dir(fleet.path()),
    );
    elsewhere.wait_for("joined");
    let job = with_own_scorer(&fleet, 20);
    changed(&fleet, &job);
    drop(elsewhere);
    let _worker = fleet.joined("here", &[]);
    let job = with_own_scorer(&fleet, 20);
    fleet.lethe(&["job", "watch", &job]).expect(0);
    let status = fleet.json(&["job", "get", &job]);
    assert_eq!(status["result"]["inputs"]["labeller"]["sha256"], sha256(&fleet.path().join(SCORER)));
}
