//! A model file with its sidecar: read, told from a pickle, checked against its digest.
//!
//! Not here: running the model, comparing it with a job spec (`generator`, `labeller`, `features`).

use std::{fs, io};
use std::path::Path;

use lethe_domain::spec::ModelFormat;
use lethe_domain::{ModelKind, Sidecar, sha256_text};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Version of the sidecar that is understood.
pub(crate) const SIDECAR_VERSION: u32 = 1;

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
        let bytes = read(path)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".json");
        let sidecar = match read(Path::new(&beside)) {
            Ok(text) => Some(text),
            Err(Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Self::new(&path.display().to_string(), bytes, sidecar.as_deref(), kind, format)
    }

    /// Takes bytes that were read elsewhere.
    ///
    /// # Errors
    /// [`Error::Pickle`], [`Error::Unreadable`] when the bytes are not of this format, [`Error::Sidecar`],
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
        return Err(refuse(format!("describes a {:?}, expected a {kind:?}", sidecar.kind)));
    }
    if sidecar.format != format {
        return Err(refuse(format!("says the format is {:?}, expected {format:?}", sidecar.format)));
    }
    Ok(sidecar)
}

/// Refuses what is not in `format`, by its first bytes and, for zip archives, by what they contain.
fn refuse_foreign(name: &str, bytes: &[u8], kind: ModelKind, format: ModelFormat) -> Result<()> {
    let zip = bytes.starts_with(b"PK\x03\x04");
    // Protocol 2 and later open with 0x80; torch.save without zip writes such a pickle.
    let raw_pickle = matches!(bytes, [0x80, 2..=5, ..]);
    let script = zip && entries(bytes).any(is_script_code);
    let pickled = zip && !script && entries(bytes).any(|entry| entry.ends_with(b"data.pkl"));
    if raw_pickle || pickled {
        return Err(Error::Pickle { file: name.to_owned(), command: conversion(name, kind) });
    }
    let unreadable =
        |reason: &str| Err(Error::Unreadable { file: name.to_owned(), reason: reason.to_owned() });
    match format {
        ModelFormat::TorchScript if bytes.is_empty() => unreadable("is empty"),
        ModelFormat::TorchScript if !zip => unreadable("is not a TorchScript archive (not a zip file)"),
        ModelFormat::Safetensors if zip => unreadable("is a zip archive, not safetensors"),
        _ => Ok(()),
    }
}

/// Names in the central directory of a zip file. A stray match inside compressed data only adds a name.
fn entries(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    const HEADER: usize = 46;
    bytes.windows(4).enumerate().filter(|(_, window)| *window == b"PK\x01\x02").filter_map(|(at, _)| {
        let length = u16::from_le_bytes([*bytes.get(at + 28)?, *bytes.get(at + 29)?]) as usize;
        bytes.get(at + HEADER..at + HEADER + length)
    })
}

/// Both files are written by torch.jit.save and by no torch.save.
fn is_script_code(entry: &[u8]) -> bool {
    entry.ends_with(b"/constants.pkl") || entry.windows(6).any(|part| part == b"/code/")
}

fn conversion(name: &str, kind: ModelKind) -> String {
    const IMAGES: &str = "--channels C --size H,W";
    let (kind, more) = match kind {
        ModelKind::Generator => ("generator", format!("--latent D --output-range LO,HI {IMAGES}")),
        ModelKind::Classifier => ("classifier", IMAGES.to_owned()),
        ModelKind::Scorer => ("scorer", IMAGES.to_owned()),
        ModelKind::Features => ("features", IMAGES.to_owned()),
    };
    let out = Path::new(name).file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
    format!(
        "python tools/export --kind {kind} --module FILE.py:CLASS --weights {name} {more} --out {out}-export.pt"
    )
}
