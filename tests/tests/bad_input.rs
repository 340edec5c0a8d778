//! Bad input, one case a test: a clear error that names the cause and the remedy, the documented exit code, and nothing
//! half-written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use lethe_testkit::skip;
use lethe_tests::{Finished, Running, bin, examples, thick_vae};
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/models/tests/fixtures").canonicalize().unwrap()
}

fn run(folder: &Path, change: impl FnOnce(&mut Value)) -> Finished {
    thick_vae(folder, change);
    Running::start("lethe", &["run", "job.json", "--out", "out", "--slots", "1"], folder).finish()
}

/// Runs a job that must fail with this code and say all of this, and leave no result behind.
#[track_caller]
fn refused(code: i32, says: &[&str], change: impl FnOnce(&mut Value)) {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), change).expect(code);
    assert_clear(&ended, says);
    for file in ["out/generator.safetensors", "out/before_after.png"] {
        assert!(!folder.path().join(file).exists(), "{file}");
    }
}

#[track_caller]
fn assert_clear(ended: &Finished, says: &[&str]) {
    for text in says {
        assert!(ended.stderr.contains(text), "no '{text}' in:\n{}", ended.stderr);
    }
    for noise in ["panicked", "stack backtrace", "frame #"] {
        assert!(!ended.stderr.contains(noise), "{}", ended.stderr);
    }
}

/// A copy of the VAE with its bytes changed; the sidecar keeps up with the digest if asked.
fn damaged_vae(folder: &Path, keep_up: bool, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let models = examples().join("models");
    let mut bytes = std::fs::read(models.join("vae.safetensors")).unwrap();
    change(&mut bytes);
    let copy = folder.join("vae.safetensors");
    std::fs::write(&copy, bytes).unwrap();
    let mut sidecar: Value =
        serde_json::from_slice(&std::fs::read(models.join("vae.safetensors.json")).unwrap()).unwrap();
    if keep_up {
        sidecar["sha256"] = lethe_artifacts::digest_file_blocking(&copy).unwrap().0.to_string().into();
    }
    std::fs::write(folder.join("vae.safetensors.json"), serde_json::to_vec(&sidecar).unwrap()).unwrap();
    copy.display().to_string()
}

#[test]
fn another_image_size_than_the_spec_says() {
    refused(1, &["SPEC_MISMATCH", "28", "32", "hint:"], |spec| {
        spec["generator"]["output"]["size"] = 32.into()
    });
}

#[test]
fn another_range_than_the_spec_says() {
    refused(1, &["SPEC_MISMATCH", "range", "hint:"], |spec| {
        spec["generator"]["output"]["range"] = json!([0, 0.5])
    });
}

#[test]
fn another_latent_than_the_spec_says() {
    refused(1, &["latent", "hint:"], |spec| spec["generator"]["latent"] = json!({"dimension": 3}));
}

#[test]
fn nan_in_the_images() {
    let folder = tempfile::tempdir().unwrap();
    let uri = damaged_vae(folder.path(), true, |bytes| {
        let start = bytes.len() - 64;
        bytes[start..].chunks_exact_mut(4).for_each(|value| value.copy_from_slice(&f32::NAN.to_le_bytes()));
    });
    refused(1, &["NOT_FINITE", "vae.safetensors", "hint:"], |spec| spec["generator"]["uri"] = uri.into());
}

#[test]
fn a_class_that_the_classifier_does_not_have() {
    let classifier = examples().join("models/classifier.pt").display().to_string();
    refused(1, &["SPEC_MISMATCH", "classifier.pt", "10", "12", "hint:"], |spec| {
        spec["feature"] =
            json!({"name": "twelve", "classifier": {"uri": classifier, "output": "logits", "class": 12}});
    });
}

#[test]
fn a_feature_that_nobody_shows() {
    refused(1, &["NO_POSITIVES", "'thick'", "1000 samples", "hint:"], |spec| {
        spec["feature"]["scorer"]["positive"] = json!({"above": 1000});
    });
}

#[test]
fn a_feature_that_everybody_shows() {
    refused(1, &["NO_NEGATIVES", "'thick'", "1000 samples", "hint:"], |spec| {
        spec["feature"]["scorer"]["positive"] = json!({"above": -1000});
    });
}

#[test]
fn too_few_positives() {
    refused(1, &["NO_POSITIVES", "sample.until.positives", "hint:"], |spec| {
        spec["feature"]["scorer"]["positive"] = json!({"above": 4});
        spec["sample"]["until"] = json!({"positives": 500});
        spec["sample"]["at_most"] = 500.into();
    });
}

#[test]
fn truncated_safetensors() {
    for keep_up in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let uri = damaged_vae(folder.path(), keep_up, |bytes| bytes.truncate(bytes.len() / 2));
        let ended = run(folder.path(), |spec| spec["generator"]["uri"] = uri.into());
        assert!([1, 2].contains(&ended.code()), "{}", ended.code());
        assert_clear(&ended, &["vae.safetensors"]);
    }
}

#[test]
fn bit_flipped_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let uri = damaged_vae(folder.path(), false, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let ended = run(folder.path(), |spec| spec["generator"]["uri"] = uri.into());
    assert!([1, 2].contains(&ended.code()), "{}", ended.code());
    assert_clear(&ended, &["vae.safetensors", "SHA-256"]);
}

#[test]
fn torchscript_without_forward() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("no_forward.pt");
    std::fs::copy(fixtures().join("broken_no_forward.pt"), &copy).unwrap();
    let uri = copy.display().to_string();
    refused(1, &["BAD_MODEL", "no_forward.pt", "forward", "export a module"], |spec| {
        spec["feature"]["scorer"]["uri"] = uri.into();
    });
}

#[test]
fn a_pickle_is_never_loaded_and_the_error_says_how_to_convert_it() {
    let uri = fixtures().join("broken_pickled_module.pt").display().to_string();
    refused(1, &["BAD_MODEL", "pickle", "tools/export"], |spec| {
        spec["generator"]["uri"] = uri.into();
        spec["generator"]["format"] = "torchscript".into();
    });
}

#[test]
fn a_batch_that_does_not_fit() {
    refused(1, &["OUT_OF_MEMORY", "sample.batch", "hint:"], |spec| {
        spec["sample"] =
            json!({"shard_size": 20_000_000, "batch": 20_000_000, "until": {"total": 20_000_000}});
    });
}

#[test]
fn a_missing_file_an_unknown_key_and_a_wrong_type_are_usage_errors_with_their_paths() {
    refused(2, &["generator.uri: found", "does not exist", "hint:"], |spec| {
        spec["generator"]["uri"] = "nowhere.pt".into()
    });
    refused(2, &["unlearn.stepz: unknown field `stepz`", "expected one of `steps`"], |spec| {
        spec["unlearn"]["stepz"] = 1.into()
    });
    refused(2, &["unlearn.steps: invalid type: string \"many\", expected u64"], |spec| {
        spec["unlearn"]["steps"] = "many".into()
    });
    refused(2, &["resources.slots.min", "--slots 1"], |spec| {
        spec["resources"]["slots"] = json!({"min": 2, "max": 2})
    });
}

#[test]
fn an_unwritable_folder() {
    let folder = tempfile::tempdir().unwrap();
    thick_vae(folder.path(), |_| {});
    std::fs::write(folder.path().join("file"), b"in the way").unwrap();
    let arguments = ["run", "job.json", "--out", "file/out", "--slots", "1"];
    let ended = Running::start("lethe", &arguments, folder.path()).finish().expect(1);
    assert_clear(&ended, &["cannot create", "file/out"]);
}

#[test]
fn a_full_disk() {
    if !nix::unistd::Uid::effective().is_root() {
        return skip("a full disk needs root, to mount a small one");
    }
    let folder = tempfile::tempdir().unwrap();
    thick_vae(folder.path(), |_| {});
    std::fs::create_dir(folder.path().join("out")).unwrap();
    // The mount lives in a namespace of its own and goes with it.
    let script = format!(
        "mount -t tmpfs -o size=2m tmpfs out && {} run job.json --out out --slots 1; code=$?; ls out; exit $code",
        bin("lethe").display()
    );
    let mut command = Command::new("unshare");
    let ended = Running::start_command(command.args(["-m", "sh", "-c", &script]).current_dir(folder.path()))
        .finish()
        .expect(1);
    assert_clear(&ended, &["DISK_FULL", "hint:"]);
    assert!(
        !ended.stdout.contains("generator.safetensors") && !ended.stdout.contains(".part"),
        "{}",
        ended.stdout
    );
}
