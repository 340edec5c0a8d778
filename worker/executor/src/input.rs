//! The files that a job reads: found on this machine or fetched to it, read once, and compared with what the job was
//! accepted with. What was compared is what is used: nobody reads the file again.
//!
//! Not here: what they hold (crate `models`), the artifacts that jobs make (`storage`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use lethe_artifacts::{Cache, Cached, Digest, Environment, Location, Remote, Version, resolve};
use lethe_domain::{ErrorCode, Input, Inputs};
use lethe_models::RawModel;
use nix::unistd::gethostname;
use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Result};

/// What a file and its sidecar held when the job was accepted; none for a file that nobody looked at then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    file: Option<Input>,
    sidecar: Option<Input>,
}

impl Pins {
    /// Those of the file at `uri`.
    pub(crate) fn of(inputs: &Inputs, uri: &str) -> Self {
        Self { file: inputs.at(uri).cloned(), sidecar: inputs.at(&format!("{uri}.json")).cloned() }
    }
}

/// Reads a file and its sidecar. Gives the place on this machine too, which stays as long as the answer.
///
/// # Errors
/// [`lethe_artifacts::Error::InvalidUri`]; as [`Cache::fetch`]; [`lethe_models::Error::Read`]; `INPUT_CHANGED` when one of
/// them is not what the job was accepted with.
pub(crate) fn read(uri: &str, pins: &Pins) -> Result<(Cached, RawModel)> {
    let file = local_file(uri)?;
    let raw = RawModel::read(&file).map_err(|error| Error::from(error).about(uri, &file))?;
    if let Some(pinned) = &pins.file {
        compare(pinned, Some(&raw.bytes))?;
    }
    if let Some(pinned) = &pins.sidecar {
        compare(pinned, raw.sidecar.as_deref())?;
    }
    Ok((file, raw))
}

fn compare(pinned: &Input, found: Option<&[u8]>) -> Result<()> {
    let says = match found {
        None => "is gone".to_owned(),
        Some(bytes) => match Digest::of(bytes).to_string() {
            digest if digest == pinned.sha256 => return Ok(()),
            digest => format!("has SHA-256 {digest} ({} bytes)", bytes.len()),
        },
    };
    let machine =
        gethostname().map_or_else(|_| "this machine".into(), |name| name.to_string_lossy().into_owned());
    let message = format!(
        "{} on {machine} {says}, but the job was accepted with SHA-256 {} ({} bytes)",
        pinned.uri, pinned.sha256, pinned.size
    );
    let hint = "a job reads the same files from start to end, on every machine: put that file back and submit the job again, or submit it again with the new one";
    Err(Error::refused(ErrorCode::InputChanged, message, hint))
}

/// The file that a uri of the job spec names, on this machine: one of another store is fetched into the cache, unless it
/// is there. It stays there until the answer is dropped.
///
/// # Errors
/// [`lethe_artifacts::Error::InvalidUri`]; as [`Cache::fetch`].
fn local_file(uri: &str) -> Result<Cached> {
    let environment = Environment::of_process();
    match resolve(uri, Path::new(""))? {
        Location::File(path) => Ok(Cached::in_place(path)),
        remote => {
            let cache = Cache::of(&environment)?;
            let found = brief_runtime()?.block_on(cache.fetch(&remote, &environment))?;
            tracing::debug!(uri, file = %found.display(), "model is at hand");
            Ok(found)
        }
    }
}

/// What tells one state of a file and its sidecar from another, without reading them: whatever else is known of a model of
/// this machine or of another store.
///
/// # Errors
/// Those of a store that cannot be asked.
pub(crate) fn state_of(uri: &str) -> Result<State> {
    let environment = Environment::of_process();
    let location = resolve(uri, Path::new(""))?;
    let Some(remote) = Remote::at(&location, &environment)? else {
        let stamp = |path: PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some(Version { size: metadata.len(), tag: changed.as_nanos().to_string() })
        };
        let path = location.local_path().map(Path::to_owned).unwrap_or_default();
        let mut beside = path.clone().into_os_string();
        beside.push(".json");
        return Ok(State { file: stamp(path), sidecar: stamp(beside.into()) });
    };
    let look = async { Ok::<_, Error>((remote.version().await?, remote.sidecar_version().await?)) };
    let (file, sidecar) = brief_runtime()?.block_on(look)?;
    Ok(State { file: Some(file), sidecar })
}

/// A model file and its sidecar at some moment; none where there is no such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    file: Option<Version>,
    sidecar: Option<Version>,
}

/// For the few requests of looking for a model, where no runtime is at hand.
fn brief_runtime() -> Result<Runtime> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|source| Error::System { what: "a runtime cannot be started", source })
}
