//! Files that appear whole or not at all: a temporary name, then a rename.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Error;

/// Where a file is until it is whole: beside its place, out of sight.
pub(crate) fn temporary(target: &Path) -> PathBuf {
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    target.with_file_name(format!(".{name}.part"))
}

/// Writes `value` as JSON.
pub(crate) fn write_json(target: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(value).map_err(anyhow::Error::from)?;
    let temporary = temporary(target);
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, target));
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Error::io("write", target, error)
    })
}
