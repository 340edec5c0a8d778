//! Finding the executor program.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The environment variable that names the program.
const VARIABLE: &str = "LETHE_EXECUTOR";
const PROGRAM: &str = "lethe-executor";

/// The executor program: the one named, else the one in `LETHE_EXECUTOR`, else the one beside the running program.
///
/// # Errors
/// [`Error::ExecutorUnusable`] when the one named is not a program; [`Error::ExecutorMissing`] when there is none, with
/// the paths tried.
pub fn find_executor(named: Option<&Path>) -> Result<PathBuf> {
    let variable = env::var_os(VARIABLE).map(PathBuf::from);
    let own = env::current_exe().ok();
    find(named.map(Path::to_owned).or(variable), own.as_deref())
}

fn find(named: Option<PathBuf>, own: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        let refuse = |reason: &str| Error::ExecutorUnusable { path: path.clone(), reason: reason.to_owned() };
        let Ok(metadata) = path.metadata() else { return Err(refuse("there is no such file")) };
        if !metadata.is_file() {
            return Err(refuse("it is not a file"));
        }
        if metadata.permissions().mode() & 0o111 == 0 {
            return Err(refuse("it is not executable: chmod +x"));
        }
        // Absolute: it is started again after the working directory may have changed.
        return Ok(std::path::absolute(&path).unwrap_or(path));
    }
    let beside: Vec<PathBuf> =
        own.and_then(Path::parent).map(|folder| folder.join(PROGRAM)).into_iter().collect();
    beside.iter().find(|path| path.is_file()).cloned().ok_or(Error::ExecutorMissing { tried: beside })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_program_beside_the_own_one_is_found_or_its_path_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("lethe-worker");
        let beside = folder.path().join(PROGRAM);
        let error = find(None, Some(&own)).unwrap_err().to_string();
        assert!(error.contains(&beside.display().to_string()) && error.contains("LETHE_EXECUTOR"), "{error}");
        fs::write(&beside, "").unwrap();
        assert_eq!(find(None, Some(&own)).unwrap(), beside);
    }

    #[test]
    fn what_is_named_must_be_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("executor");
        let problem = |path: &Path| find(Some(path.to_owned()), None).unwrap_err().to_string();
        assert!(problem(&path).contains("no such file"));
        assert!(problem(folder.path()).contains("not a file"));
        fs::write(&path, "").unwrap();
        assert!(problem(&path).contains("not executable"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(Some(path.clone()), None).unwrap(), path);
    }
}
