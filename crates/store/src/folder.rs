//! The folder of an embedded store: made if missing, and taken by one owner at a time.
//!
//! The lock is held for the life of the store, also while its file is closed and opened again after an error.
//! Not here: what is in the state file.

use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// A folder this handle alone may use.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Dropping it gives the folder back; so does the end of the process, however it ends.
    _lock: File,
}

impl Folder {
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let classify = |source| classify_io(path, path, source);
        fs::create_dir_all(path).map_err(classify)?;
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .map_err(classify)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                lock.read_to_string(&mut owner).map_err(classify)?;
                return Err(Error::InUse { folder: path.to_owned(), owner: owner.trim().parse().ok() });
            }
            Err(TryLockError::Error(source)) => return Err(classify(source)),
        }
        // Only for the other's error message, so a disk too full to hold the number is no reason to stop.
        let _unsaid = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a rename in the folder durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// An error of the system on `file` in `folder`, by cause.
pub(crate) fn classify_io(folder: &Path, file: &Path, source: io::Error) -> Error {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Error::DiskFull { file: file.to_owned(), source }
        }
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::NotFound
        | ErrorKind::AlreadyExists => Error::Unwritable { folder: folder.to_owned(), source },
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
            Error::Corrupted { file: file.to_owned(), detail: source.to_string() }
        }
        _ => Error::Io { file: file.to_owned(), source },
    }
}
