//! The folder of a run: the result on top, the state below `.lethe`.

use std::path::{Path, PathBuf};

use lethe_domain::JobResult;

use crate::error::Error;

/// An opened folder.
#[derive(Debug)]
pub(crate) struct Folder {
    /// As it was named, for people.
    out: PathBuf,
    /// The same, absolute.
    path: PathBuf,
    state: PathBuf,
}

impl Folder {
    /// Creates the folder if need be; `fresh` forgets the state it holds.
    pub(crate) fn open(out: &Path, fresh: bool) -> Result<Self, Error> {
        let path = std::path::absolute(out).map_err(|error| Error::io("find", out, error))?;
        let state = path.join(".lethe");
        if fresh && state.join("state").exists() {
            std::fs::remove_dir_all(&state).map_err(|error| Error::io("remove", &state, error))?;
        }
        let logs = state.join("logs");
        std::fs::create_dir_all(&logs).map_err(|error| Error::io("create", &logs, error))?;
        Ok(Self { out: out.to_owned(), path, state })
    }

    /// Where the result goes.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    pub(crate) fn store_uri(&self) -> String {
        format!("redb://{}", self.state.join("state").display())
    }

    pub(crate) fn artifacts_uri(&self) -> String {
        format!("file://{}", self.state.join("artifacts").display())
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// An artifact's path, relative to the folder.
    pub(crate) fn artifact_path(&self, path: &str) -> String {
        format!(".lethe/artifacts/{path}")
    }

    /// Writes result.json, whole or not at all.
    pub(crate) fn write_result(&self, result: &JobResult) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(result).map_err(anyhow::Error::from)?;
        let temporary = self.path.join(".result.json.part");
        let target = self.path.join("result.json");
        std::fs::write(&temporary, text).map_err(|error| Error::io("write", &temporary, error))?;
        std::fs::rename(&temporary, &target).map_err(|error| Error::io("write", &target, error))
    }
}
