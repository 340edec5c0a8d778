//! A model file with its sidecar: read, told from other files, checked against its digest.
//!
//! Not here: what other files are (`FileKind`, in the domain), running the model, comparing it with a job spec (`generator`,
//! `labeller`, `features`).

use std::path::Path;
use std::{fs, io};

use lethe_domain::spec::ModelFormat;
use lethe_domain::{Ends, FileKind, ModelKind, Sidecar, conversion, sha256_text};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Version of the sidecar that is understood.
pub(crate) const SIDECAR_VERSION: u32 = 1;

/// A model file and the sidecar beside it, as somebody read them. Nobody has looked at what they hold.
#[derive(Debug, Clone)]
pub struct RawModel {
    /// The path, for messages.
    pub name: String,
    /// The model.
    pub bytes: Vec<u8>,
    /// The text of `path.json`, if there is one.
    pub sidecar: Option<Vec<u8>>,
}

impl RawModel {
    /// Reads `path` and, if it is there, `path.json`.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".json");
        let sidecar = match read(Path::new(&beside)) {
            Ok(text) => Some(text),
            Err(Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { name: path.display().to_string(), bytes, sidecar })
    }
}

/// The bytes of a model and what its sidecar says about them.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// The path, for messages.
    pub name: String,
    /// The model.
    pub bytes: Vec<u8>,
    /// Its description, if it has one.
    pub sidecar: Option<Sidecar>,
}

impl ModelFile {
    /// Reads `path` and, if it is there, `path.json`.
    ///
    /// # Errors
    /// [`Error::Read`], and as [`ModelFile::new`].
    pub fn open(path: &Path, kind: ModelKind, format: ModelFormat) -> Result<Self> {
        Self::of(RawModel::read(path)?, kind, format)
    }

    /// Takes a file that was read elsewhere.
    ///
    /// # Errors
    /// As [`ModelFile::new`].
    pub fn of(raw: RawModel, kind: ModelKind, format: ModelFormat) -> Result<Self> {
        Self::new(&raw.name, raw.bytes, raw.sidecar.as_deref(), kind, format)
    }

    /// Takes bytes that were read elsewhere.
    ///
    /// # Errors
    /// [`Error::Pickle`], [`Error::Foreign`] when the bytes are not of this format, [`Error::Sidecar`],
    /// [`Error::Digest`].
    pub fn new(
        name: &str,
        bytes: Vec<u8>,
        sidecar: Option<&[u8]>,
        kind: ModelKind,
        format: ModelFormat,
    ) -> Result<Self> {
        refuse_foreign(name, &bytes, kind, format)?;
        let beside = format!("{name}.json");
        let sidecar = sidecar.map(|text| parse_sidecar(&beside, text, kind, format)).transpose()?;
        let file = Self { name: name.to_owned(), bytes, sidecar };
        if let Some(sidecar) = &file.sidecar {
            let found = sha256(&file.bytes);
            if !sidecar.sha256.eq_ignore_ascii_case(&found) {
                return Err(Error::Digest {
                    file: file.name.clone(),
                    found,
                    expected: sidecar.sha256.clone(),
                });
            }
        }
        Ok(file)
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| Error::Read { file: path.display().to_string(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() && !metadata.is_dir() {
        // Opening a pipe would wait for whoever writes to it.
        return Err(failed(io::Error::other("it is a pipe or a device, expected a file")));
    }
    fs::read(path).map_err(failed)
}

/// SHA-256, lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    sha256_text(&Sha256::digest(bytes))
}

fn parse_sidecar(file: &str, text: &[u8], kind: ModelKind, format: ModelFormat) -> Result<Sidecar> {
    let refuse = |reason: String| Error::Sidecar { file: file.to_owned(), reason };
    let sidecar: Sidecar =
        serde_json::from_slice(text).map_err(|error| refuse(format!("is not a sidecar: {error}")))?;
    if sidecar.schema_version != SIDECAR_VERSION {
        return Err(refuse(format!(
            "has schema_version {}, expected {SIDECAR_VERSION}",
            sidecar.schema_version
        )));
    }
    if sidecar.kind != kind {
        return Err(refuse(format!("is of the kind {}, expected {kind}", sidecar.kind)));
    }
    if sidecar.format != format {
        return Err(refuse(format!("says the format is {}, expected {format}", sidecar.format)));
    }
    Ok(sidecar)
}

/// Refuses what is not in `format`.
fn refuse_foreign(name: &str, bytes: &[u8], kind: ModelKind, format: ModelFormat) -> Result<()> {
    let found = FileKind::of(Ends::of(bytes));
    let file = name.to_owned();
    match found.refusal(format) {
        None => Ok(()),
        Some(_) if found == FileKind::Pickle => Err(Error::Pickle { file, command: conversion(name, kind) }),
        Some(what) => Err(Error::Foreign { file, what: what.to_owned(), hint: "" }),
    }
}
