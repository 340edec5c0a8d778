//! Room in the cache: taken before a model is fetched, made by removing what was not used for the longest time.
//!
//! Everything here happens under the folder's lock. Not here: fetching.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{Error, Result};

/// The model of an entry.
pub(super) const MODEL: &str = "model";
const SIDECAR: &str = "model.json";
const FETCHING: &str = "fetching-";

/// Room that is taken: a folder with a file of the full length. Removed, unless it is finished.
pub(super) struct Place {
    folder: PathBuf,
    /// Locked, so that nobody takes it for abandoned.
    _file: File,
}

/// What lies in the cache.
struct Entry {
    folder: PathBuf,
    bytes: u64,
    used: SystemTime,
    finished: bool,
}

/// Takes room for `size` bytes in a cache that may hold `bound`.
pub(super) fn take(cache: &Path, bound: u64, size: u64, object: &str) -> Result<Place> {
    let mut entries = entries(cache)?;
    entries.sort_by_key(|entry| entry.used);
    let mut held: u64 = entries.iter().map(|entry| entry.bytes).sum();
    for entry in &entries {
        // What nobody finishes any more goes whether there is room or not.
        if (entry.finished && held.saturating_add(size) <= bound) || in_use(&entry.folder)? {
            continue;
        }
        match fs::remove_dir_all(&entry.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::from_io(entry.folder.display(), error));
            }
            _ => held -= entry.bytes,
        }
    }
    if held.saturating_add(size) > bound {
        return Err(Error::CacheFull {
            object: object.to_owned(),
            size,
            folder: cache.display().to_string(),
            bound,
            busy: held,
        });
    }
    make(cache, size).map_err(|source| Error::from_io(cache.display(), source))
}

fn make(cache: &Path, size: u64) -> io::Result<Place> {
    let folder = (0..u32::MAX).map(|number| cache.join(format!("{FETCHING}{number}")));
    for folder in folder {
        match fs::create_dir(&folder) {
            Ok(()) => {
                let file = File::create_new(folder.join(MODEL))?;
                file.set_len(size)?;
                file.lock()?;
                return Ok(Place { folder, _file: file });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Entries and what is being fetched. What is neither is somebody else's.
fn entries(cache: &Path) -> Result<Vec<Entry>> {
    let failed = |source| Error::from_io(cache.display(), source);
    let mut found = Vec::new();
    for entry in fs::read_dir(cache).map_err(failed)? {
        let folder = entry.map_err(failed)?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let fetching = name.starts_with(FETCHING);
        let is_entry = name.split_once('-').is_some_and(|(digest, _)| digest.len() == 64);
        if !fetching && !is_entry {
            continue;
        }
        let bytes = [MODEL, SIDECAR].iter().filter_map(|name| fs::metadata(folder.join(name)).ok());
        let bytes = bytes.map(|metadata| metadata.len()).sum();
        let used = fs::metadata(folder.join(MODEL)).and_then(|metadata| metadata.modified());
        let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
        found.push(Entry { folder, bytes, used, finished: !fetching });
    }
    Ok(found)
}

/// Whether somebody holds the lock of its model.
fn in_use(entry: &Path) -> Result<bool> {
    let path = entry.join(MODEL);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::from_io(path.display(), error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(Error::from_io(path.display(), error)),
    }
}

impl Place {
    pub(super) fn model(&self) -> PathBuf {
        self.folder.join(MODEL)
    }

    /// Makes an entry of it, unless there is one: then that one stays.
    pub(super) fn finish(self, sidecar: Option<&[u8]>, entry: &Path) -> Result<()> {
        let finish = || -> io::Result<()> {
            if let Some(text) = sidecar {
                let mut file = File::create_new(self.folder.join(SIDECAR))?;
                file.write_all(text)?;
                file.sync_all()?;
            }
            File::open(&self.folder)?.sync_all()?;
            if !entry.join(MODEL).exists() {
                fs::rename(&self.folder, entry)?;
            }
            entry.parent().map_or(Ok(()), |cache| File::open(cache)?.sync_all())
        };
        finish().map_err(|source| Error::from_io(entry.display(), source))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Renamed, it is not there any more.
        let _best_effort = fs::remove_dir_all(&self.folder);
    }
}
