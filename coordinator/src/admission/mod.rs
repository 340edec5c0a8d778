//! What the coordinator can see of a spec before it accepts it: files, their descriptions and digests, and room to write.
//!
//! Runs nothing and leaves nothing behind. Not here: files of this machine (`local`), objects of stores beyond it (`remote`),
//! what a file and its description say (`content`, `archive`), what the spec says about itself (`JobSpec::check`), running models (the
//! executor's probe).

mod archive;
mod content;
mod local;
mod remote;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use lethe_artifacts::{ArtifactStore, Environment, Location, Receipt, resolve};
use lethe_domain::{Draft, ErrorCode, Failure, Input, InputRole, Inputs, JobSpec, SpecProblem, result_files};
use lethe_proto::status::Refusal;

use crate::records::RECORD_BYTES;

/// Enough to notice a full disk, where a few bytes may still fit.
const PAGE: [u8; 4096] = [0x5a; 4096];

/// What was found while looking.
#[derive(Debug, Default)]
struct Findings {
    problems: Vec<SpecProblem>,
    inputs: Inputs,
}

impl Findings {
    fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(SpecProblem { path: path.to_owned(), message: message.into() });
    }
}

/// Looks at everything a spec names. Gives what the files hold.
///
/// # Errors
/// [`Refusal::Spec`] with every problem found, under the path of its key; [`Refusal::Failure`] when the spec is sound, but
/// the artifact root takes nothing.
pub(crate) async fn check(spec: &JobSpec, artifacts: &ArtifactStore) -> Result<Inputs, Refusal> {
    let draft = Draft::whole(spec.clone());
    let root = artifacts.location().local_path().map(Path::to_owned);
    let look = move || (look(&draft), root.map_or(Ok(()), |root| writable(&root)), draft);
    let interrupted =
        |error| Failure::new(ErrorCode::Internal, format!("the check was interrupted: {error}"), "");
    let (mut found, room, mut draft) = tokio::task::spawn_blocking(look).await.map_err(interrupted)?;
    remote::look(&draft, &Environment::of_process().while_somebody_waits(), remote::Read::Whole, &mut found)
        .await;
    draft.add(found.problems);
    draft.finish()?;
    room.map_err(|(message, error)| no_room(&message, &error))?;
    Ok(found.inputs)
}

/// Adds everything that can be seen of a spec's files on this machine. Paths are absolute.
pub fn look_at_files(draft: &mut Draft) {
    let found = look(draft);
    draft.add(found.problems);
}

/// Adds what can be seen of a spec's objects on other stores, of each no more than its ends. The coordinator and the
/// workers may reach stores that this machine does not.
pub async fn look_at_objects(draft: &mut Draft, environment: &Environment) {
    let mut found = Findings::default();
    remote::look(draft, environment, remote::Read::Ends, &mut found).await;
    draft.add(found.problems);
}

/// The first of a job's files that no longer is what the job was accepted with, wherever it is.
///
/// # Errors
/// Those of reading them, in words.
pub async fn changed(inputs: &Inputs) -> Result<Option<(InputRole, &Input)>, String> {
    for (role, input) in &inputs.0 {
        let location = location(&input.uri)?;
        let digest = match location.local_path() {
            Some(path) => lethe_artifacts::digest_file(path).await.map(|(digest, _)| digest),
            None => remote::digest_at(&location, &Environment::of_process()).await,
        };
        if digest.map_err(|error| error.to_string())?.to_string() != input.sha256 {
            return Ok(Some((*role, input)));
        }
    }
    Ok(None)
}

fn look(draft: &Draft) -> Findings {
    let spec = draft.spec();
    let mut found = Findings::default();
    if let Err(reason) = storable(spec) {
        found.problem("", reason);
    }
    for (key, uri) in spec.files() {
        match location(uri) {
            Ok(location) => {
                if let Some(path) = location.local_path() {
                    local::file(key, uri, path, draft, &mut found);
                }
            }
            Err(message) => found.problem(key, message),
        }
    }
    if let Some(publish) = &spec.publish {
        let seen = location(&publish.uri).and_then(|location| match location.local_path() {
            Some(folder) => publishable(spec, folder),
            None => Ok(()),
        });
        if let Err(message) = seen {
            found.problem("publish.uri", message);
        }
    }
    found
}

fn publishable(spec: &JobSpec, folder: &Path) -> Result<(), String> {
    if let Some((key, file)) = replaced(spec, folder) {
        return Err(format!(
            "found {}, where the result would replace {}, which {key} names: expected another folder",
            folder.display(),
            file.display()
        ));
    }
    let mut names = result_files::ALL.iter().chain([&Receipt::NAME]).map(|name| folder.join(name));
    if let Some(file) = names.find(|file| file.symlink_metadata().is_ok()) {
        return Err(format!(
            "found {}, where {} is, which this job did not write and does not replace: expected a folder without it",
            folder.display(),
            file.display()
        ));
    }
    writable(folder).map_err(|(message, _)| message)
}

/// The first file that the job reads and that a result in `folder` would replace, with its key. Files are compared by
/// their real places, whatever links lead there.
pub fn replaced(spec: &JobSpec, folder: &Path) -> Option<(&'static str, PathBuf)> {
    let folder = fs::canonicalize(folder).ok()?;
    spec.files().into_iter().find_map(|(key, uri)| {
        let file = fs::canonicalize(location(uri).ok()?.local_path()?).ok()?;
        let inside = file.parent() == Some(&folder);
        let named =
            file.file_name().is_some_and(|name| result_files::ALL.iter().any(|result| name == *result));
        (inside && named).then_some((key, file))
    })
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

/// Whether a file can be made in this folder, or in the nearest one above it that exists. If not: why, in words too.
fn writable(folder: &Path) -> Result<(), (String, io::Error)> {
    let existing = folder.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    if !existing.is_dir() {
        let message = format!("{} is a file, expected a folder", existing.display());
        return Err((message, io::ErrorKind::NotADirectory.into()));
    }
    let probe = existing.join(format!(".lethe-probe-{}", uuid::Uuid::new_v4().simple()));
    let made = File::create_new(&probe).and_then(|mut file| {
        file.write_all(&PAGE)?;
        file.sync_all()
    });
    // It may not even have been made; and what cannot be removed is only a page.
    let _ = fs::remove_file(&probe);
    made.map_err(|error| (format!("cannot write to {}: {error}", existing.display()), error))
}

/// Nothing is wrong with the spec: the coordinator's own folder takes no results.
fn no_room(message: &str, error: &io::Error) -> Failure {
    let (code, hint) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorCode::DiskFull, "free some space there")
        }
        _ => (ErrorCode::Storage, "the folder is the coordinator's setting --artifacts"),
    };
    Failure::new(code, format!("the coordinator's artifact root cannot take results: {message}"), hint)
}

#[cfg(test)]
mod tests;
