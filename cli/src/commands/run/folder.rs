//! The folder of a run: the result on top, the state below `.lethe`. One run at a time has it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lethe_artifacts::resolve;
use lethe_domain::{JobSpec, result_files};

use crate::error::Error;
use crate::result_folder::{Force, ResultFolder};

/// An opened folder.
#[derive(Debug)]
pub(crate) struct Folder(ResultFolder);

impl Folder {
    /// Creates the folder if need be; `fresh` forgets the state it holds. Refused while another run has it, and where the
    /// result would replace a file that no run wrote, or one that `spec` reads.
    pub(crate) fn open(out: &Path, fresh: bool, spec: &JobSpec) -> Result<Self, Error> {
        let path = std::path::absolute(out).map_err(|error| Error::io("find", out, error))?;
        if let Some((key, file)) = lethe_coordinator::replaced(spec, &path) {
            return Err(Error::Usage(format!(
                "--out {} would replace {}, which {key} names: choose another folder",
                out.display(),
                file.display()
            )));
        }
        if publishes_to(spec, &path) {
            return Err(Error::Usage(format!(
                "publish.uri is --out {}, where the result goes anyway: leave publish out, or name another folder",
                out.display()
            )));
        }
        let folder = Self(ResultFolder::take(out, None, &result_files::ALL, Force::Never)?);
        if fresh {
            for part in [folder.below("state"), folder.below("artifacts"), folder.logs()] {
                gone(fs::remove_dir_all(&part), &part)?;
            }
        }
        let logs = folder.logs();
        fs::create_dir_all(&logs).map_err(|error| Error::io("create", &logs, error))?;
        Ok(folder)
    }

    /// Where the result goes, as it was named.
    pub(crate) fn out(&self) -> &Path {
        self.0.out()
    }

    /// The folder as one that takes a result.
    pub(crate) fn results(&mut self) -> &mut ResultFolder {
        &mut self.0
    }

    /// Takes the figures of an earlier run away, so that nobody takes them for those of the one that begins.
    pub(crate) fn forget_result(&self) -> Result<(), Error> {
        let file = self.out().join(result_files::RESULT);
        gone(fs::remove_file(&file), &file)
    }

    fn below(&self, name: &str) -> PathBuf {
        self.0.state().join(name)
    }

    pub(crate) fn store_uri(&self) -> String {
        format!("redb://{}", self.below("state").display())
    }

    pub(crate) fn artifacts_uri(&self) -> String {
        lethe_artifacts::Location::File(self.below("artifacts")).to_string()
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.below("logs")
    }
}

/// An artifact's path, relative to the folder.
pub(crate) fn artifact_path(path: &str) -> String {
    format!(".lethe/artifacts/{path}")
}

/// Whether the job publishes into this very folder.
fn publishes_to(spec: &JobSpec, out: &Path) -> bool {
    let place = spec.publish.as_ref().and_then(|publish| resolve(&publish.uri, Path::new("/")).ok());
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    place.and_then(|place| place.local_path().map(real)).is_some_and(|place| place == real(out))
}

/// What was not there is gone too.
fn gone(removed: std::io::Result<()>, path: &Path) -> Result<(), Error> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}
