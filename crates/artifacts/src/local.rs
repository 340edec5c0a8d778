//! Opening a folder as an object store: the only place that knows about files.
//!
//! Not here: anything done with the store afterwards.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use object_store::{ObjectStore, local::LocalFileSystem};

use crate::{Error, Result, error::interrupted};

/// An upload's hidden file that was not written to for so long belongs to nobody any more.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// The folder as a store that is durable on return; made if missing, and swept of what dead processes left behind.
pub(crate) async fn open(folder: &Path) -> Result<Arc<dyn ObjectStore>> {
    let folder = folder.to_owned();
    let open = move || {
        let classify = |source| match Error::from_io(folder.display(), source) {
            // A file where the folder should be.
            Error::AlreadyExists { object } => {
                Error::NoAccess { object, source: std::io::ErrorKind::NotADirectory.into() }
            }
            other => other,
        };
        fs::create_dir_all(&folder).map_err(classify)?;
        if let Some(parent) = folder.parent() {
            // The folder's own name; objects below are synced by the store. Not every parent can be opened.
            let _best_effort = File::open(parent).and_then(|parent| parent.sync_all());
        }
        sweep(&folder, SystemTime::now());
        let store = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|error| Error::from_store(folder.display(), error))?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        Ok(Arc::new(store) as Arc<dyn ObjectStore>)
    };
    tokio::task::spawn_blocking(open).await.map_err(interrupted)?
}

/// Removes abandoned uploads (`name#1`: the store's hidden files). What cannot be removed now is left for later.
fn sweep(folder: &Path, now: SystemTime) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            sweep(&path, now);
            continue;
        }
        let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
        if is_hidden_upload(&entry.file_name().to_string_lossy()) && age.is_some_and(|age| age > ABANDONED) {
            let _best_effort = fs::remove_file(&path);
        }
    }
}

/// Whether a name ends in `#` and digits. No artifact's does: `store` refuses `#`.
fn is_hidden_upload(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_abandoned_uploads_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("jobs/1");
        fs::create_dir_all(&deep).unwrap();
        let names = ["model#1", "model#22", "model", "model#a", "#", "a#1b"];
        for name in names {
            fs::write(deep.join(name), "x").unwrap();
        }
        let left = || {
            let names =
                fs::read_dir(&deep).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        sweep(folder.path(), SystemTime::now());
        assert_eq!(left().len(), names.len(), "all of them are new");
        sweep(folder.path(), SystemTime::now() + ABANDONED + Duration::from_secs(1));
        assert_eq!(left(), ["#", "a#1b", "model", "model#a"]);
    }
}
