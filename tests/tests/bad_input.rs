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
    refused(2, &["generator.output.size: found 32, but", "says 28", "hint:"], |spec| {
        spec["generator"]["output"]["size"] = 32.into()
    });
}

#[test]
fn another_range_than_the_spec_says() {
    refused(2, &["generator.output.range: found [0, 0.5], but", "says [0, 1]", "hint:"], |spec| {
        spec["generator"]["output"]["range"] = json!([0, 0.5])
    });
}

#[test]
fn another_latent_than_the_spec_says() {
    let says = ["generator.latent: found dimension: 3, but", "says dimension: 16", "hint:"];
    refused(2, &says, |spec| spec["generator"]["latent"] = json!({"dimension": 3}));
}

/// A module of `crates/models/tests/reference/scripts.py`, and a labeller for its 8x8 pixels.
fn script(spec: &mut Value, generator: &str) {
    let file = |name: &str| fixtures().join(format!("../reference/scripts/{name}.pt")).display().to_string();
    spec["generator"] = json!({"uri": file(generator), "format": "torchscript", "latent": {"dimension": 4},
                               "output": {"range": [0, 1], "channels": 1, "size": 8}});
    spec["feature"] = json!({"name": "bright", "scorer": {"uri": file("score"), "positive": {"top": 0.2}}});
    spec["evaluate"] = json!({"samples": 200});
}

#[test]
fn a_generator_that_makes_noise_of_its_own() {
    let says = ["BAD_MODEL", "noise.pt", "is no function of its input", "hint:", "module.eval()"];
    refused(1, &says, |spec| script(spec, "noise"));
}

#[test]
fn pixels_beyond_the_range_unless_they_are_to_be_cut() {
    let beyond = |spec: &mut Value| {
        script(spec, "unbounded");
        spec["generator"]["output"]["range"] = json!([-1, 1]);
    };
    refused(1, &["SPEC_MISMATCH", "unbounded.pt", "generator.output.clamp: true"], beyond);
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), |spec| {
        beyond(spec);
        spec["generator"]["output"]["clamp"] = true.into();
    })
    .expect(0);
    let sidecar = std::fs::read(folder.path().join("out/generator.pt.json")).unwrap();
    let sidecar: Value = serde_json::from_slice(&sidecar).unwrap();
    assert_eq!(sidecar["output"]["clamp"], true);
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
    refused(2, &["feature.classifier.uri: found class 12", "classifier.pt", "10 classes"], |spec| {
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
    refused(2, &["feature.scorer.uri:", "no_forward.pt", "forward", "export a module"], |spec| {
        spec["feature"]["scorer"]["uri"] = uri.into();
    });
}

#[test]
fn a_pickle_is_never_loaded_and_the_error_says_how_to_convert_it() {
    let uri = fixtures().join("broken_pickled_module.pt").display().to_string();
    refused(2, &["generator.uri:", "is a pickle", "tools/export"], |spec| {
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
    refused(2, &["generator.uri: there is no file", "nowhere.pt"], |spec| {
        spec["generator"]["uri"] = "nowhere.pt".into()
    });
    refused(2, &["unlearn.stepz: unknown key; did you mean steps?"], |spec| {
        spec["unlearn"]["stepz"] = 1.into()
    });
    refused(2, &["unlearn.steps: found the text \"many\", expected a whole number"], |spec| {
        spec["unlearn"]["steps"] = "many".into()
    });
    refused(2, &["resources.slots.min", "--slots 1"], |spec| {
        spec["resources"]["slots"] = json!({"min": 2, "max": 2})
    });
}

#[test]
fn everything_is_told_at_once_and_validate_knows_what_run_knows() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures().join("broken_no_forward.pt"), folder.path().join("no_forward.pt")).unwrap();
    std::fs::write(folder.path().join("features.pt"), "version https://git-lfs.github.com/spec/v1\n")
        .unwrap();
    thick_vae(folder.path(), |spec| {
        spec["generator"]["prior"] = json!({"uniform": [-1, 1]});
        spec["feature"]["scorer"]["uri"] = "no_forward.pt".into();
        spec["evaluate"]["features"] = "features.pt".into();
    });
    for command in [&["job", "validate", "job.json"][..], &["run", "job.json", "--out", "out"]] {
        let ended = Running::start("lethe", command, folder.path()).finish().expect(2);
        let says = [
            "generator.prior: found uniform: [-1, 1], but ",
            "says normal",
            "feature.scorer.uri: ",
            "without the method forward",
            "evaluate.features: ",
            "git lfs pull",
        ];
        assert_clear(&ended, &says);
    }
    assert!(!folder.path().join("out").exists());
    thick_vae(folder.path(), |spec| {
        spec["unlearn"] = json!({"stepz": 1, "lr": "fast", "alpha": -1});
        spec["name"] = "No Spaces".into();
        spec["evaluate"]["features"] = "features.pt".into();
    });
    for command in ["validate", "submit"] {
        let ended = Running::start("lethe", &["job", command, "job.json"], folder.path()).finish().expect(2);
        let keys =
            ["did you mean steps?", "unlearn.lr: found the text", "unlearn.alpha: found -1", "name: found"];
        assert_clear(&ended, &keys);
        assert_clear(&ended, &["git lfs pull", "hint: the keys are described"]);
    }
    std::fs::write(folder.path().join("job.json"), "name: a\nname: b\n").unwrap();
    let ended = Running::start("lethe", &["job", "validate", "job.json"], folder.path()).finish().expect(2);
    assert_clear(&ended, &["line 2, column 1: the key name is there twice"]);
    let ended = Running::start("lethe", &["job", "validate", "none.json"], folder.path()).finish().expect(2);
    assert_clear(&ended, &["cannot read none.json"]);
}

#[test]
fn a_store_that_gives_no_answer_is_told_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    thick_vae(folder.path(), |spec| spec["generator"]["uri"] = "s3://models/x.safetensors".into());
    let mut command = Command::new(bin("lethe"));
    command.args(["job", "validate", "job.json"]).current_dir(folder.path());
    for (name, value) in [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "me"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ] {
        command.env(name, value);
    }
    let begun = std::time::Instant::now();
    let ended = Running::start_command(&mut command).finish().expect(2);
    assert_clear(&ended, &["generator.uri: could not look at it", "no answer from http://127.0.0.1:9"]);
    assert!(!ended.stderr.contains("hint:"), "{}", ended.stderr);
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
}

#[test]
fn what_the_sidecar_says_need_not_be_said_again() {
    let folder = tempfile::tempdir().unwrap();
    let spec = thick_vae(folder.path(), |spec| {
        let generator = spec["generator"].as_object_mut().unwrap();
        generator.retain(|key, _| key == "uri");
        spec["unlearn"]["steps"] = 4.into();
    });
    Running::start("lethe", &["job", "validate", "job.json"], folder.path()).finish().expect(0);
    Running::start("lethe", &["run", "job.json", "--out", "out", "--slots", "1"], folder.path())
        .finish()
        .expect(0);
    let mut without: Value = serde_json::from_slice(&std::fs::read(&spec).unwrap()).unwrap();
    let script =
        ["generator.format: missing", "generator.latent: missing", "generator.output: missing", "sidecar"];
    let weights = ["generator.uri: ", "safetensors weights need one"];
    for (model, says) in [("thickness.pt", &script[..]), ("vae.safetensors", &weights)] {
        std::fs::copy(examples().join("models").join(model), folder.path().join(model)).unwrap();
        without["generator"]["uri"] = model.into();
        std::fs::write(&spec, without.to_string()).unwrap();
        let ended =
            Running::start("lethe", &["job", "validate", "job.json"], folder.path()).finish().expect(2);
        assert_clear(&ended, says);
    }
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
