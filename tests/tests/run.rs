//! `lethe run` as a person uses it, and as the world treats it: interrupted, killed, run again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

use std::path::Path;
use std::time::Duration;

use lethe_tests::{Running, children, is_alive, thick_vae, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn result(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("out/result.json")).unwrap()).unwrap()
}

fn start(folder: &Path, slots: &str) -> Running {
    Running::start("lethe", &["run", "job.json", "--out", "out", "--slots", slots], folder)
}

/// A run that nothing disturbs.
fn undisturbed(folder: &Path, slots: &str) -> Outcome {
    start(folder, slots).finish().expect(0);
    outcome(folder)
}

/// What does not depend on the number of slots, nor on what befell them.
#[derive(PartialEq)]
struct Outcome {
    figures: Vec<Value>,
    /// The file, byte for byte.
    generator: Vec<u8>,
}

fn outcome(folder: &Path) -> Outcome {
    let result = result(folder);
    let (artifacts, train) = (&result["artifacts"], &result["train"]);
    let measured = ["figures", "warnings", "judge", "direction"].map(|part| result[part].clone());
    let made = [&artifacts["target_sha256"], &train["loss_first"], &train["loss_last"]].map(Value::clone);
    let generator = folder.join("out").join(artifacts["generator"].as_str().unwrap());
    Outcome { figures: [&measured[..], &made[..]].concat(), generator: std::fs::read(generator).unwrap() }
}

fn assert_same(one: &Outcome, other: &Outcome) {
    assert_eq!(one.figures, other.figures);
    assert!(one.generator == other.generator, "the generators differ");
}

fn figure<'a>(result: &'a Value, group: &str, name: &str) -> &'a Value {
    let mut figures = result["figures"].as_array().unwrap().iter();
    figures.find(|figure| figure["group"] == group && figure["name"] == name).unwrap()
}

fn kill_9(pid: u32) {
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
}

fn assert_whole(result: &Value, folder: &Path) {
    assert_eq!(result["state"], "succeeded");
    let share = figure(result, "feature", "share");
    let (before, after) = (share["before"].as_f64().unwrap(), share["after"].as_f64().unwrap());
    assert!(before > 0.02 && after < before, "{before} {after}");
    assert!(figure(result, "fidelity", "own_distance")["before"].as_f64().unwrap() > 0.0);
    assert_eq!(result["train"]["steps"], 60);
    for file in ["generator", "before_after_png"] {
        let path = folder.join("out").join(result["artifacts"][file].as_str().unwrap());
        assert!(std::fs::metadata(&path).unwrap().len() > 500, "{}", path.display());
    }
    let checkpoint = folder.join("out").join(result["artifacts"]["checkpoint"].as_str().unwrap());
    assert!(checkpoint.join("manifest.json").exists(), "{}", checkpoint.display());
    let leftovers: Vec<_> = std::fs::read_dir(folder.join("out"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().ends_with(".part"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[test]
fn one_command_gives_the_same_result_on_one_two_and_three_slots() {
    let mut outcomes = Vec::new();
    for slots in ["1", "2", "3"] {
        let folder = tempfile::tempdir().unwrap();
        thick_vae(folder.path(), |spec| {
            spec["resources"]["slots"]["max"] = slots.parse::<u32>().unwrap().into()
        });
        outcomes.push(undisturbed(folder.path(), slots));
        let result = result(folder.path());
        assert_whole(&result, folder.path());
        assert_eq!(result["train"]["world_size"].to_string(), slots);
    }
    assert_same(&outcomes[0], &outcomes[1]);
    assert_same(&outcomes[0], &outcomes[2]);
}

#[test]
fn a_finished_run_is_not_run_again_unless_asked() {
    let folder = tempfile::tempdir().unwrap();
    thick_vae(folder.path(), |spec| spec["unlearn"]["steps"] = 10.into());
    start(folder.path(), "1").finish().expect(0);
    let first = result(folder.path());
    let again = start(folder.path(), "1").finish().expect(0);
    assert!(again.stderr.contains("already run here"), "{}", again.stderr);
    assert_eq!(result(folder.path()), first);
    Running::start("lethe", &["run", "job.json", "--out", "out", "--slots", "1", "--fresh"], folder.path())
        .finish()
        .expect(0);
    assert_ne!(result(folder.path())["job"], first["job"]);
}

#[test]
fn a_killed_executor_costs_nothing_while_sampling_and_while_training() {
    let folder = tempfile::tempdir().unwrap();
    thick_vae(folder.path(), |_| {});
    let expected = undisturbed(folder.path(), "2");

    for phase in ["sample", "edit", "fine_tune"] {
        let folder = tempfile::tempdir().unwrap();
        thick_vae(folder.path(), |_| {});
        let mut run = start(folder.path(), "2");
        run.wait_for(phase);
        let victim = *children(run.pid()).first().expect("an executor");
        kill_9(victim);
        run.finish().expect(0);
        assert_whole(&result(folder.path()), folder.path());
        assert_same(&outcome(folder.path()), &expected);
    }
}

#[test]
fn a_run_killed_at_any_phase_goes_on_and_leaves_no_orphan() {
    let folder = tempfile::tempdir().unwrap();
    thick_vae(folder.path(), |_| {});
    let expected = undisturbed(folder.path(), "2");

    let folder = tempfile::tempdir().unwrap();
    thick_vae(folder.path(), |_| {});
    for phase in ["sample", "edit", "fine_tune", "evaluate"] {
        let mut run = start(folder.path(), "2");
        run.wait_for(phase);
        let executors = children(run.pid());
        assert_eq!(executors.len(), 2);
        run.signal(Signal::SIGKILL);
        run.finish().expect(137);
        wait_until("no executor outlives its run", Duration::from_secs(5), || {
            !executors.iter().any(|pid| is_alive(*pid))
        });
    }
    let last = start(folder.path(), "2").finish().expect(0);
    assert!(last.stderr.contains("going on with job"), "{}", last.stderr);
    assert_whole(&result(folder.path()), folder.path());
    assert_same(&outcome(folder.path()), &expected);
}

#[test]
fn ctrl_c_ends_the_executors_keeps_the_state_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    thick_vae(folder.path(), |_| {});
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut run = start(folder.path(), "2");
        run.wait_for("sample");
        let executors = children(run.pid());
        run.signal(signal);
        let ended = run.finish().expect(130);
        assert!(ended.stderr.contains("the same command goes on"), "{}", ended.stderr);
        assert!(!executors.iter().any(|pid| is_alive(*pid)));
    }
    start(folder.path(), "2").finish().expect(0);
    assert_whole(&result(folder.path()), folder.path());
}

#[test]
fn two_runs_in_one_folder_are_one_too_many() {
    let folder = tempfile::tempdir().unwrap();
    thick_vae(folder.path(), |spec| spec["unlearn"]["steps"] = 2_000.into());
    let mut first = start(folder.path(), "1");
    first.wait_for("sample");
    let command = ["run", "job.json", "--out", "out", "--slots", "1"];
    for more in [&[][..], &["--fresh"]] {
        let second = Running::start("lethe", &[&command, more].concat(), folder.path()).finish().expect(2);
        assert!(
            second.stderr.contains("another lethe run or download is at work in out"),
            "{}",
            second.stderr
        );
    }
    assert!(folder.path().join("out/.lethe/state").exists(), "the first one's state is still there");
}

#[test]
fn a_result_never_replaces_the_generator_it_was_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("generator.safetensors");
    std::fs::copy(lethe_tests::examples().join("models/vae.safetensors"), &own).unwrap();
    std::fs::copy(
        lethe_tests::examples().join("models/vae.safetensors.json"),
        folder.path().join("generator.safetensors.json"),
    )
    .unwrap();
    let before = std::fs::read(&own).unwrap();
    thick_vae(folder.path(), |spec| spec["generator"]["uri"] = "generator.safetensors".into());
    let refused =
        Running::start("lethe", &["run", "job.json", "--out", "."], folder.path()).finish().expect(2);
    assert!(refused.stderr.contains("which generator.uri names"), "{}", refused.stderr);

    thick_vae(folder.path(), |spec| {
        spec["generator"]["uri"] = "generator.safetensors".into();
        spec["publish"] = serde_json::json!({"uri": "."});
    });
    for command in [&["run", "job.json", "--out", "out"][..], &["job", "validate", "job.json"]] {
        let refused = Running::start("lethe", command, folder.path()).finish().expect(2);
        assert!(refused.stderr.contains("publish.uri"), "{}", refused.stderr);
    }
    assert!(std::fs::read(&own).unwrap() == before);
}

#[test]
fn a_run_does_not_go_on_with_another_generator() {
    let folder = tempfile::tempdir().unwrap();
    let examples = lethe_tests::examples().join("models");
    let own = folder.path().join("own.pt");
    std::fs::copy(examples.join("thickness.pt"), &own).unwrap();
    thick_vae(folder.path(), |spec| {
        spec["feature"]["scorer"]["uri"] = "own.pt".into();
        spec["unlearn"]["steps"] = 4.into();
    });
    let run = || start(folder.path(), "1").finish();
    run().expect(0);
    std::fs::copy(examples.join("slant.pt"), &own).unwrap();
    let refused = run().expect(2);
    assert!(refused.stderr.contains("own.pt (labeller) has changed"), "{}", refused.stderr);
    std::fs::copy(examples.join("thickness.pt"), &own).unwrap();
    run().expect(0);
}

#[test]
fn a_folder_with_a_percent_sign_is_that_folder() {
    let folder = tempfile::tempdir().unwrap();
    thick_vae(folder.path(), |spec| spec["unlearn"]["steps"] = 4.into());
    Running::start("lethe", &["run", "job.json", "--out", "a%20#b", "--slots", "1"], folder.path())
        .finish()
        .expect(0);
    assert!(folder.path().join("a%20#b/.lethe/artifacts/jobs").exists());
    assert!(!folder.path().join("a b").exists());
}
