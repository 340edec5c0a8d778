//! What the coordinator can see of a spec before it accepts it: files, their descriptions and digests, and room to write.
//!
//! Runs nothing and leaves nothing behind. Not here: objects of stores beyond this machine (`remote`), what the spec says
//! about itself (`JobSpec::check`), models (the executor's probe).

mod remote;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use lethe_artifacts::{ArtifactStore, Digest, Environment, Location, Receipt, digest_file_blocking, resolve};
use lethe_domain::spec::ModelFormat;
use lethe_domain::{JobSpec, ModelKind, Sidecar, SpecError, SpecProblem};

use crate::records::RECORD_BYTES;

/// Enough to notice a full disk, where a few bytes may still fit.
const PAGE: [u8; 4096] = [0x5a; 4096];

/// Looks at everything a spec names.
///
/// # Errors
/// Every problem found, under the path of its key; one that belongs to no key (the artifact root) under the empty path.
pub(crate) async fn check(spec: &JobSpec, artifacts: &ArtifactStore) -> Result<(), SpecError> {
    let mut problems = spec.check().err().map_or_else(Vec::new, |error| error.problems);
    let root = artifacts.location().local_path().map(Path::to_owned);
    let here = spec.clone();
    let looked = tokio::task::spawn_blocking(move || look(&here, root.as_deref())).await;
    let mut seen =
        looked.unwrap_or_else(|error| vec![problem("", format!("the check was interrupted: {error}"))]);
    seen.extend(remote::look(spec, &Environment::of_process()).await);
    for found in seen {
        // What the spec's own check refused under this key is said already.
        if !problems.iter().any(|said| said.path == found.path && !found.path.is_empty()) {
            problems.push(found);
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(SpecError { problems }) }
}

fn problem(path: &str, message: impl Into<String>) -> SpecProblem {
    SpecProblem { path: path.to_owned(), message: message.into() }
}

fn look(spec: &JobSpec, root: Option<&Path>) -> Vec<SpecProblem> {
    let mut problems = Vec::new();
    if let Err(reason) = storable(spec) {
        problems.push(problem("", reason));
    }
    let mut digests = BTreeMap::new();
    for (key, uri) in spec.files() {
        let seen = location(uri).and_then(|location| match location.local_path() {
            Some(path) => file(key, path, spec, &mut digests),
            None => Ok(()),
        });
        problems.extend(seen.err().map(|message| problem(key, message)));
    }
    if let Some(publish) = &spec.publish {
        let seen = location(&publish.uri).and_then(|location| match location.local_path() {
            Some(folder) => publishable(spec, folder),
            None => Ok(()),
        });
        problems.extend(seen.err().map(|message| problem("publish.uri", message)));
    }
    if let Some(Err(message)) = root.map(writable) {
        problems.push(problem("", format!("the coordinator's artifact root cannot take results: {message}")));
    }
    problems
}

fn publishable(spec: &JobSpec, folder: &Path) -> Result<(), String> {
    if let Some((key, file)) = replaced(spec, folder) {
        return Err(format!(
            "found {}, where the result would replace {}, which {key} names: expected another folder",
            folder.display(),
            file.display()
        ));
    }
    let mut names = RESULT.iter().chain([&Receipt::NAME]).map(|name| folder.join(name));
    if let Some(file) = names.find(|file| file.symlink_metadata().is_ok()) {
        return Err(format!(
            "found {}, where {} is, which this job did not write and does not replace: expected a folder without it",
            folder.display(),
            file.display()
        ));
    }
    writable(folder)
}

/// Files that a result consists of.
pub const RESULT: [&str; 6] = [
    "generator.pt",
    "generator.pt.json",
    "generator.safetensors",
    "generator.safetensors.json",
    "before_after.png",
    "result.json",
];

/// The first file that the job reads and that a result in `folder` would replace, with its key. Files are compared by
/// their real places, whatever links lead there.
pub fn replaced(spec: &JobSpec, folder: &Path) -> Option<(&'static str, PathBuf)> {
    let folder = fs::canonicalize(folder).ok()?;
    spec.files().into_iter().find_map(|(key, uri)| {
        let file = fs::canonicalize(location(uri).ok()?.local_path()?).ok()?;
        let inside = file.parent() == Some(&folder);
        let named = file.file_name().is_some_and(|name| RESULT.iter().any(|result| name == *result));
        (inside && named).then_some((key, file))
    })
}

/// Everything that can be seen of a spec's files on this machine. Paths are absolute. Objects of other stores are not looked
/// at: the coordinator and the workers may reach them where this machine does not.
///
/// # Errors
/// Every problem found, under the path of its key.
pub fn look_at_files(spec: &JobSpec) -> Result<(), SpecError> {
    let problems = look(spec, None);
    if problems.is_empty() { Ok(()) } else { Err(SpecError { problems }) }
}

/// Whether the spec can be written down and read back as it is.
fn storable(spec: &JobSpec) -> Result<(), String> {
    let json = serde_json::to_string(spec).map_err(|error| format!("it has no JSON form: {error}"))?;
    if json.len() > RECORD_BYTES {
        return Err(format!("found {} bytes of JSON, expected at most {RECORD_BYTES}", json.len()));
    }
    match serde_json::from_str::<JobSpec>(&json) {
        Ok(back) if back == *spec => Ok(()),
        Ok(_) | Err(_) => Err("found a number that is not finite (NaN or infinity)".to_owned()),
    }
}

/// Where a uri leads. The coordinator does not know where a relative one would begin.
fn location(uri: &str) -> Result<Location, String> {
    let relative = !uri.starts_with('/') && !uri.starts_with("file:") && !uri.contains("://");
    if relative {
        return Err(format!(
            "found the relative path '{uri}', expected an absolute path or file:///path (the lethe command makes paths absolute before it sends a job)"
        ));
    }
    resolve(uri, Path::new("/")).map_err(|error| error.to_string())
}

/// What a model under this key is for; none: it is data.
fn kind_of(key: &str) -> Option<ModelKind> {
    match key {
        "generator.uri" => Some(ModelKind::Generator),
        "feature.classifier.uri" | "evaluate.judge.classifier.uri" => Some(ModelKind::Classifier),
        "feature.scorer.uri" | "evaluate.judge.scorer.uri" => Some(ModelKind::Scorer),
        "evaluate.features" => Some(ModelKind::Features),
        _ => None,
    }
}

fn file(
    key: &str,
    path: &Path,
    spec: &JobSpec,
    digests: &mut BTreeMap<PathBuf, Digest>,
) -> Result<(), String> {
    readable(path)?;
    let Some(kind) = kind_of(key) else { return Ok(()) };
    let beside = beside(path);
    let text = match fs::read(&beside) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("cannot read {}: {error}", beside.display())),
    };
    let names = Names { model: path.display().to_string(), description: beside.display().to_string() };
    let Some(sidecar) = names.fitting(text.as_deref(), kind, spec)? else { return Ok(()) };
    let found = match digests.get(path) {
        Some(found) => *found,
        None => {
            let (digest, _) = digest_file_blocking(path).map_err(|error| error.to_string())?;
            *digests.entry(path.to_owned()).or_insert(digest)
        }
    };
    names.same(&sidecar, found)
}

/// A model and its description, as people know them.
struct Names {
    model: String,
    description: String,
}

impl Names {
    /// The description, if it is one of such a model; none where none is needed.
    fn fitting(
        &self,
        text: Option<&[u8]>,
        kind: ModelKind,
        spec: &JobSpec,
    ) -> Result<Option<Sidecar>, String> {
        let Self { model, description } = self;
        let Some(text) = text else {
            let needed = kind == ModelKind::Generator && spec.generator.format == ModelFormat::Safetensors;
            return if needed {
                Err(format!(
                    "{model} has no description {description}: safetensors weights need one, tools/export writes it"
                ))
            } else {
                Ok(None)
            };
        };
        let sidecar: Sidecar = serde_json::from_slice(text)
            .map_err(|error| format!("{description} is no description of a model: {error}"))?;
        if sidecar.kind != kind {
            return Err(format!("{description} describes a {:?}, expected a {kind:?}", sidecar.kind));
        }
        Ok(Some(sidecar))
    }

    /// Whether the model is the one that is described.
    fn same(&self, sidecar: &Sidecar, found: Digest) -> Result<(), String> {
        if sidecar.sha256.eq_ignore_ascii_case(&found.to_string()) {
            return Ok(());
        }
        Err(format!(
            "{} has SHA-256 {found}, its description {} says {}: one of them is damaged or out of date",
            self.model, self.description, sidecar.sha256
        ))
    }
}

fn readable(path: &Path) -> Result<(), String> {
    let says = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no file {}", path.display()),
        _ => format!("cannot read {}: {error}", path.display()),
    };
    let metadata = fs::metadata(path).map_err(says)?;
    if metadata.is_dir() {
        return Err(format!("{} is a folder, expected a file", path.display()));
    }
    if !metadata.is_file() {
        // Opening a pipe would wait for whoever writes to it.
        return Err(format!("{} is a pipe or a device, expected a file", path.display()));
    }
    let mut file = File::open(path).map_err(says)?;
    let mut byte = [0];
    match file.read(&mut byte).map_err(says)? {
        0 => Err(format!("{} is empty", path.display())),
        _ => Ok(()),
    }
}

/// The path of a model's description.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// Whether a file can be made in this folder, or in the nearest one above it that exists.
fn writable(folder: &Path) -> Result<(), String> {
    let existing = folder.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    if !existing.is_dir() {
        return Err(format!("{} is a file, expected a folder", existing.display()));
    }
    let probe = existing.join(format!(".lethe-probe-{}", uuid::Uuid::new_v4().simple()));
    let made = File::create_new(&probe).and_then(|mut file| {
        file.write_all(&PAGE)?;
        file.sync_all()
    });
    // It may not even have been made; and what cannot be removed is only a page.
    let _ = fs::remove_file(&probe);
    made.map_err(|error| format!("cannot write to {}: {error}", existing.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct World {
        folder: tempfile::TempDir,
        artifacts: ArtifactStore,
    }

    impl World {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("root");
            let artifacts = ArtifactStore::open(root.to_str().unwrap()).await.unwrap();
            let world = Self { folder, artifacts };
            world.file("vae.safetensors", b"weights");
            world.describe("vae.safetensors", "generator", &Digest::of(b"weights").to_string());
            world.file("thickness.pt", b"scorer");
            world
        }

        fn path(&self, name: &str) -> String {
            self.folder.path().join(name).to_str().unwrap().to_owned()
        }

        fn file(&self, name: &str, bytes: &[u8]) {
            fs::write(self.path(name), bytes).unwrap();
        }

        fn describe(&self, name: &str, kind: &str, sha256: &str) {
            let sidecar =
                json!({"schema_version": 1, "kind": kind, "format": "safetensors", "sha256": sha256});
            self.file(&format!("{name}.json"), sidecar.to_string().as_bytes());
        }

        fn spec(&self) -> Value {
            json!({
                "name": "thick-vae",
                "generator": {"uri": self.path("vae.safetensors"), "format": "safetensors",
                              "latent": {"dimension": 20}, "output": {"range": [0, 1], "channels": 1, "size": 28}},
                "feature": {"name": "thick", "scorer": {"uri": self.path("thickness.pt"), "positive": {"top": 0.1}}},
            })
        }

        async fn problems(&self, spec: Value) -> Vec<(String, String)> {
            let spec = JobSpec::from_value(spec).unwrap();
            let problems = check(&spec, &self.artifacts).await.err().map_or(vec![], |error| error.problems);
            problems.into_iter().map(|problem| (problem.path, problem.message)).collect()
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[tokio::test]
    async fn a_good_spec_passes_and_nothing_is_left_behind() {
        let world = World::new().await;
        let before = world.names();
        let mut spec = world.spec();
        spec["publish"] = json!({"uri": world.path("new/deep")});
        assert_eq!(world.problems(spec).await, vec![]);
        assert_eq!(world.names(), before);
        assert_eq!(fs::read_dir(world.folder.path().join("root")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn every_problem_is_told_at_once_under_its_key() {
        let world = World::new().await;
        world.describe("vae.safetensors", "generator", &"0".repeat(64));
        world.file("empty.pt", b"");
        let mut spec = world.spec();
        spec["feature"]["scorer"]["uri"] = json!("models/thickness.pt");
        spec["evaluate"] = json!({"features": world.path("missing.pt"), "reference": {"uri": world.path("root")},
            "judge": {"scorer": {"uri": world.path("empty.pt"), "positive": {"above": 1}}}});
        spec["publish"] = json!({"uri": world.path("thickness.pt/out")});
        let problems = world.problems(spec).await;
        let expected = [
            ("generator.uri", "one of them is damaged or out of date"),
            ("feature.scorer.uri", "found the relative path 'models/thickness.pt'"),
            ("evaluate.judge.scorer.uri", "is empty"),
            ("evaluate.features", "there is no file"),
            ("evaluate.reference.uri", "is a folder, expected a file"),
            ("publish.uri", "is a file, expected a folder"),
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for ((path, message), (key, part)) in problems.iter().zip(expected) {
            assert!(path == key && message.contains(part), "{path}: {message}, expected {key}: {part}");
        }
    }

    #[tokio::test]
    async fn descriptions_are_needed_and_must_fit() {
        let world = World::new().await;
        world.describe("vae.safetensors", "scorer", &Digest::of(b"weights").to_string());
        let problems = world.problems(world.spec()).await;
        assert!(problems[0].1.contains("describes a Scorer, expected a Generator"), "{problems:?}");
        world.file("vae.safetensors.json", b"{}");
        assert!(world.problems(world.spec()).await[0].1.contains("is no description of a model"));
        fs::remove_file(world.path("vae.safetensors.json")).unwrap();
        let problems = world.problems(world.spec()).await;
        assert!(problems[0].1.contains("safetensors weights need one"), "{problems:?}");
    }

    #[tokio::test]
    async fn what_could_not_be_read_back_is_refused() {
        let world = World::new().await;
        let mut spec = JobSpec::from_value(world.spec()).unwrap();
        spec.generator.output.range = [0.0, f64::INFINITY];
        let error = check(&spec, &world.artifacts).await.unwrap_err();
        assert!(error.problems[0].message.contains("not finite"), "{error}");
        let mut spec = JobSpec::from_value(world.spec()).unwrap();
        spec.evaluate.space = "x".repeat(RECORD_BYTES);
        let error = check(&spec, &world.artifacts).await.unwrap_err();
        assert!(error.problems[0].message.contains("expected at most"), "{error}");
    }

    #[tokio::test]
    async fn an_artifact_root_that_is_gone_is_told() {
        let world = World::new().await;
        fs::remove_dir(world.folder.path().join("root")).unwrap();
        world.file("root", b"a file now");
        let problems = world.problems(world.spec()).await;
        assert!(
            problems[0].0.is_empty() && problems[0].1.contains("artifact root cannot take results"),
            "{problems:?}"
        );
    }
}
