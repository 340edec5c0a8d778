//! The folder of a run: the result on top, the state below `.lethe`. One run at a time has it.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lethe_domain::JobSpec;

use super::inputs::Inputs;
use crate::commands::job::RESULT;
use crate::error::Error;
use crate::whole_file;

/// Digests of what the job reads.
const INPUTS: &str = "inputs.json";

/// An opened folder.
#[derive(Debug)]
pub(crate) struct Folder {
    /// As it was named, for people.
    out: PathBuf,
    state: PathBuf,
    /// Held until the end; the system lets go of it whatever happens to this process.
    _lock: File,
}

impl Folder {
    /// Creates the folder if need be; `fresh` forgets the state it holds. Refused while another run has it, and where the
    /// result would replace a file that `spec` reads.
    pub(crate) fn open(out: &Path, fresh: bool, spec: &JobSpec) -> Result<Self, Error> {
        let path = std::path::absolute(out).map_err(|error| Error::io("find", out, error))?;
        if let Some((key, file)) = lethe_coordinator::replaced(spec, &path) {
            return Err(Error::Usage(format!(
                "--out {} would replace {}, which {key} names: choose another folder",
                out.display(),
                file.display()
            )));
        }
        let state = path.join(".lethe");
        fs::create_dir_all(&state).map_err(|error| Error::io("create", &state, error))?;
        let lock = lock(&state, out)?;
        let folder = Self { out: out.to_owned(), state, _lock: lock };
        if fresh {
            for part in [folder.state.join("state"), folder.state.join("artifacts"), folder.logs()] {
                gone(fs::remove_dir_all(&part), &part)?;
            }
        }
        let logs = folder.logs();
        fs::create_dir_all(&logs).map_err(|error| Error::io("create", &logs, error))?;
        Ok(folder)
    }

    /// Where the result goes.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// Takes the figures of an earlier run away, so that nobody takes them for those of the one that begins.
    pub(crate) fn forget_result(&self) -> Result<(), Error> {
        let file = self.out.join(RESULT);
        gone(fs::remove_file(&file), &file)
    }

    /// What the job that was begun here reads; none when that is not known.
    pub(crate) fn inputs(&self) -> Option<Inputs> {
        serde_json::from_slice(&fs::read(self.state.join(INPUTS)).ok()?).ok()
    }

    /// Keeps what the job that begins here reads.
    pub(crate) fn remember(&self, inputs: &Inputs) -> Result<(), Error> {
        whole_file::write_json(&self.state.join(INPUTS), inputs)
    }

    pub(crate) fn store_uri(&self) -> String {
        format!("redb://{}", self.state.join("state").display())
    }

    pub(crate) fn artifacts_uri(&self) -> String {
        lethe_artifacts::Location::File(self.state.join("artifacts")).to_string()
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// An artifact's path, relative to the folder.
    pub(crate) fn artifact_path(&self, path: &str) -> String {
        format!(".lethe/artifacts/{path}")
    }
}

/// What was not there is gone too.
fn gone(removed: std::io::Result<()>, path: &Path) -> Result<(), Error> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

fn lock(state: &Path, out: &Path) -> Result<File, Error> {
    let path = state.join("lock");
    let file = File::create(&path).map_err(|error| Error::io("write", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Usage(format!(
            "another lethe run is at work in {}: wait for it, end it, or choose another --out",
            out.display()
        ))),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
    }
}
