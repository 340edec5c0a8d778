//! Example jobs, which set nothing but models and feature, on 2,000 latents each and with little effort: a change that forgets worse, or
//! that costs more elsewhere, by the judge, fails here. What they reach with the default effort is in docs/results.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use lethe_tests::{Running, examples};
use serde_json::Value;

/// The most that a job may leave and cost.
struct Bars {
    job: &'static str,
    remaining_share: f64,
    distance_over_rejection: f64,
    class_changed: f64,
}

fn figure<'a>(result: &'a Value, group: &str, name: &str) -> &'a Value {
    let mut figures = result["figures"].as_array().unwrap().iter();
    figures.find(|figure| figure["group"] == group && figure["name"] == name).unwrap()
}

/// The job as it is shipped, but for its paths, the effort and the number of latents it is judged on. Writes FOLDER/job.yaml.
fn quick(job: &str, folder: &Path) {
    let shipped = std::fs::read_to_string(examples().join(format!("{job}.yaml"))).unwrap();
    let set = ["sample", "direction", "pool", "unlearn"]
        .iter()
        .find(|group| shipped.contains(&format!("\n{group}:")));
    assert_eq!(set, None, "{job}.yaml is to show what a job does without settings");
    let here = examples().display().to_string();
    let changed = shipped.replace(": models/", &format!(": {here}/models/"));
    let changed = changed.replace(": data/", &format!(": {here}/data/"));
    let changed = changed.replace("\nevaluate:\n", "\nevaluate:\n  samples: 2000\n");
    std::fs::write(folder.join("job.yaml"), format!("{changed}unlearn: {{effort: quick}}\n")).unwrap();
}

fn is_within(bars: &Bars) {
    let folder = tempfile::tempdir().unwrap();
    quick(bars.job, folder.path());
    Running::start("lethe", &["run", "job.yaml", "--out", "out", "--slots", "2"], folder.path())
        .finish()
        .expect(0);
    let result = std::fs::read(folder.path().join("out/result.json")).unwrap();
    let result: Value = serde_json::from_slice(&result).unwrap();
    for (group, name, most) in [
        ("feature", "remaining_share", bars.remaining_share),
        ("fidelity", "distance_over_rejection", bars.distance_over_rejection),
        ("locality", "class_changed", bars.class_changed),
    ] {
        let found = figure(&result, group, name);
        assert!(found["after"].as_f64().unwrap() <= most, "{}: {found}", bars.job);
    }
    let warnings = result["warnings"].as_array().unwrap();
    assert!(warnings.iter().all(|warning| warning["code"] != "JUDGE_IS_LABELLER"), "{warnings:?}");
}

#[test]
fn thick_vae() {
    is_within(&Bars {
        job: "thick-vae",
        remaining_share: 0.06,
        distance_over_rejection: 1.04,
        class_changed: 0.01,
    });
}

/// A little effort costs more elsewhere on a good DCGAN: docs/results.md says how much is asked, and what is reached.
#[test]
fn digit_dcgan() {
    is_within(&Bars {
        job: "digit-dcgan",
        remaining_share: 0.08,
        distance_over_rejection: 1.35,
        class_changed: 0.035,
    });
}
