//! Where results go: no file is lost that Lethe did not write, whatever it is called and wherever the result is sent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use lethe_tests::{Finished, Running, examples, thick_vae};
use serde_json::{Value, json};

/// A coordinator with a worker.
struct Fleet {
    folder: tempfile::TempDir,
    address: String,
    _coordinator: Running,
    _worker: Running,
}

impl Fleet {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let serve = ["serve", "--listen", "127.0.0.1:0", "--http", "off", "--data", "state"];
        let mut coordinator = Running::start("lethe", &serve, folder.path());
        let line = coordinator.wait_for("workers join with");
        let address = line.split_whitespace().next_back().unwrap().to_owned();
        let work = ["--coordinator", &address, "--devices", "cpu", "--threads", "1"];
        let mut worker = Running::start("lethe-worker", &work, folder.path());
        worker.wait_for("joined");
        Self { folder, address, _coordinator: coordinator, _worker: worker }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn lethe(&self, arguments: &[&str]) -> Finished {
        let all = [arguments, &["--coordinator", &self.address]].concat();
        Running::start("lethe", &all, self.path()).finish()
    }

    /// The id of a job that is done.
    fn done(&self) -> String {
        let status = self.lethe(&["job", "submit", "job.json", "--wait", "-o", "json"]).expect(0).stdout;
        serde_json::from_str::<Value>(&status).unwrap()["id"].as_str().unwrap().to_owned()
    }
}

/// A job around a generator that lies beside it under the name that a result has.
fn own_generator(folder: &Path, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    for name in ["generator.safetensors", "generator.safetensors.json"] {
        let model = name.replace("generator", "models/vae");
        fs::copy(examples().join(model), folder.join(name)).unwrap();
    }
    thick_vae(folder, |spec| {
        spec["generator"]["uri"] = "generator.safetensors".into();
        spec["unlearn"]["steps"] = 4.into();
        change(spec);
    });
    fs::read(folder.join("generator.safetensors")).unwrap()
}

#[test]
fn a_download_goes_into_a_folder_of_its_own_and_replaces_nothing_unless_told_to() {
    let fleet = Fleet::start();
    let (here, before) = (fleet.path(), own_generator(fleet.path(), |_| {}));
    let job = fleet.done();

    let refused = fleet.lethe(&["job", "download", &job, "--out", "."]).expect(2).stderr;
    for says in ["generator.safetensors", "generator.safetensors.json", "--force"] {
        assert!(refused.contains(says), "{refused}");
    }
    assert!(fs::read(here.join("generator.safetensors")).unwrap() == before);
    assert!(!here.join(".lethe").exists() && !here.join("result.json").exists(), "nothing was made");

    for _ in 0..2 {
        fleet.lethe(&["job", "download", &job]).expect(0);
    }
    let made = fs::read(here.join(&job).join("generator.safetensors")).unwrap();
    assert!(made != before && here.join(&job).join("result.json").exists());

    let another = fleet.done();
    let refused = fleet.lethe(&["job", "download", &another, "--out", &job]).expect(2).stderr;
    assert!(refused.contains("result.json"), "{refused}");
    fs::write(here.join(&job).join("result.json"), "changed by hand").unwrap();
    let refused = fleet.lethe(&["job", "download", &job]).expect(2).stderr;
    assert!(refused.contains("result.json") && !refused.contains("generator"), "{refused}");
    fleet.lethe(&["job", "download", &job, "--force"]).expect(0);

    fleet.lethe(&["job", "download", &job, "--out", ".", "--force"]).expect(0);
    assert!(fs::read(here.join("generator.safetensors")).unwrap() == made);
}

#[test]
fn two_jobs_do_not_publish_into_one_folder() {
    let fleet = Fleet::start();
    own_generator(fleet.path(), |spec| spec["publish"] = json!({"uri": "published"}));
    let job = fleet.done();
    let published = fleet.path().join("published");
    let before = fs::read(published.join("generator.safetensors")).unwrap();
    let refused = fleet.lethe(&["job", "submit", "job.json"]).expect(2).stderr;
    assert!(refused.contains("publish.uri") && refused.contains("did not write"), "{refused}");
    assert!(fs::read(published.join("generator.safetensors")).unwrap() == before);
    let receipt = fs::read_to_string(published.join(".lethe/files.json")).unwrap();
    assert!(receipt.contains(&job) && receipt.contains("generator.safetensors.json"), "{receipt}");
}

#[test]
fn a_run_refuses_a_folder_with_files_that_no_run_wrote_before_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    own_generator(folder.path(), |_| {});
    let run = || Running::start("lethe", &["run", "job.json", "--out", "out"], folder.path()).finish();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("generator.pt"), "precious").unwrap();
    let refused = run().expect(2).stderr;
    assert!(refused.contains("out/generator.pt"), "{refused}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "nothing was made");
    fs::remove_file(out.join("generator.pt")).unwrap();
    run().expect(0);
    // Its own result it may replace, as long as nobody changes it.
    thick_vae(folder.path(), |spec| spec["unlearn"]["steps"] = 3.into());
    run().expect(0);
    fs::write(out.join("generator.safetensors"), "precious").unwrap();
    thick_vae(folder.path(), |spec| spec["unlearn"]["steps"] = 2.into());
    assert!(run().expect(2).stderr.contains("out/generator.safetensors"));
    assert_eq!(fs::read_to_string(out.join("generator.safetensors")).unwrap(), "precious");
}

#[test]
fn a_run_does_not_publish_where_its_result_goes_anyway() {
    let folder = tempfile::tempdir().unwrap();
    own_generator(folder.path(), |spec| spec["publish"] = json!({"uri": "out"}));
    let refused =
        Running::start("lethe", &["run", "job.json", "--out", "out"], folder.path()).finish().expect(2);
    assert!(refused.stderr.contains("publish.uri is --out out"), "{}", refused.stderr);
}
