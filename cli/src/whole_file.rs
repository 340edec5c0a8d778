//! Files that appear whole or not at all, also after a power cut: written under another name, made durable, and moved.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::error::Error;

/// A file in the making. It is gone with this value, unless it was moved to its place.
#[derive(Debug)]
pub(crate) struct Part(TempPath);

impl Part {
    /// An empty one at `path`, which holds nothing of value: what a dead process left there is overwritten.
    pub(crate) fn create(path: PathBuf) -> Result<(Self, File), Error> {
        let file = File::create(&path).map_err(|error| Error::io("write", &path, error))?;
        let part = TempPath::try_from_path(&path).map_err(|error| Error::io("write", &path, error))?;
        Ok((Self(part), file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Moves it to its place, where nothing may be. Its bytes are durable already; now its name is.
    pub(crate) fn appear(self, target: &Path) -> Result<(), Error> {
        let moved = self.0.persist_noclobber(target).map_err(|error| error.error);
        moved.and_then(|()| sync_folder_of(target)).map_err(|error| Error::io("write", target, error))
    }

    /// Moves it to its place, whatever is there.
    pub(crate) fn replace(self, target: &Path) -> Result<(), Error> {
        let moved = self.0.persist(target).map_err(|error| error.error);
        moved.and_then(|()| sync_folder_of(target)).map_err(|error| Error::io("write", target, error))
    }
}

/// Writes a file of our own, replacing what is there.
pub(crate) fn write(target: &Path, bytes: &[u8]) -> Result<(), Error> {
    let name = target.file_name().unwrap_or_default().display();
    let (part, mut file) = Part::create(target.with_file_name(format!("{name}.part")))?;
    let written = io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all());
    written.map_err(|error| Error::io("write", target, error))?;
    part.replace(target)
}

fn sync_folder_of(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems have no such thing.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP)) => Ok(()),
        synced => synced,
    }
}
