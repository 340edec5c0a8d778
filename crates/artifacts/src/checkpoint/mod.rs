//! Checkpoints: the steps of a training run, each whole or absent.
//!
//! A checkpoint is a folder `<prefix>/step-00000200-g3` (step 200, saved by generation 3): its files first, then
//! `manifest.json`, created last and never replaced. The manifest's existence is the commit, its digests are the
//! proof. A generation is never reused, so a later one saves the same step beside an earlier one's attempt.
//!
//! Not here: when to save and what to go on from; the engine decides.

mod layout;
mod manifest;
#[cfg(test)]
mod outage;
mod retention;

use std::{fmt, path::PathBuf};

use bytes::Bytes;

pub use manifest::{FileDigest, Header, Manifest, SCHEMA_VERSION};
pub use retention::{Keep, Removed};

use crate::{ArtifactRef, ArtifactStore, Digest, Error, Result};
use layout::Folder;

const MANIFEST: &str = "manifest.json";

/// The checkpoints of one job, below one prefix of a store.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    store: ArtifactStore,
    prefix: String,
    job: String,
}

/// A file to save.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Its name within the checkpoint, such as `generator.safetensors`.
    pub name: String,
    /// Where its bytes are.
    pub content: Content,
}

impl NewFile {
    /// A file from bytes in memory.
    pub fn new(name: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        Self { name: name.into(), content: Content::Bytes(bytes.into()) }
    }
}

/// The bytes of a file to save.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes.
    Bytes(Bytes),
    /// Those of this local file.
    File(PathBuf),
}

/// A committed checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its folder within the store.
    pub path: String,
    /// What it is and holds.
    pub manifest: Manifest,
}

impl Checkpoint {
    /// The artifact that is the file `name` of this checkpoint.
    pub fn file(&self, name: &str) -> Option<ArtifactRef> {
        let file = self.manifest.files.iter().find(|file| file.name == name)?;
        Some(ArtifactRef { path: format!("{}/{name}", self.path), sha256: file.sha256, size: file.size })
    }
}

/// The answer of [`Checkpoints::latest_valid`].
#[derive(Clone, Debug, PartialEq)]
pub struct Latest {
    /// The newest checkpoint whose every byte is as saved, if there is one.
    pub checkpoint: Option<Checkpoint>,
    /// Newer ones that are not, newest first: to be told to people.
    pub skipped: Vec<Skipped>,
}

/// A checkpoint that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its folder within the store.
    pub path: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped checkpoint {}: {}", self.path, self.fault)
    }
}

/// Why a checkpoint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It was never committed: saving was interrupted, or is going on.
    #[error("it has no manifest, so saving it was not finished")]
    Unfinished,
    /// The manifest is not what was written.
    #[error("its manifest is damaged: {0}")]
    Manifest(String),
    /// The manifest is one of a newer version.
    #[error(
        "its manifest has schema version {0}, this version reads up to {SCHEMA_VERSION}: use a newer lethe"
    )]
    Newer(u32),
    /// The manifest is one of another checkpoint.
    #[error("its manifest is of another checkpoint: {0}")]
    Foreign(String),
    /// A file of the manifest is not there.
    #[error("its file {0} is missing")]
    Missing(String),
    /// A file is not what the manifest says.
    #[error("its file {file} is damaged: expected {expected_size} bytes with SHA-256 {expected}, found {found_size} bytes with {}", found.map_or_else(|| "another".to_owned(), |digest| digest.to_string()))]
    Damaged {
        /// The file's name.
        file: String,
        /// The digest it should have.
        expected: Digest,
        /// The size it should have, in bytes.
        expected_size: u64,
        /// The digest it has; `None` when the size alone tells.
        found: Option<Digest>,
        /// The size it has, in bytes.
        found_size: u64,
    },
}

impl Checkpoints {
    /// The checkpoints of `job` below `prefix` of `store`.
    pub fn new(store: ArtifactStore, prefix: impl Into<String>, job: impl Into<String>) -> Self {
        Self { store, prefix: prefix.into(), job: job.into() }
    }

    /// Saves a checkpoint. When this returns, it is committed and durable; when the process dies before, it is absent.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when this generation has committed this step: nothing is touched then.
    /// [`Error::InvalidPath`] for a bad or repeated file name; otherwise as [`ArtifactStore::put`] and
    /// [`ArtifactStore::put_file`].
    pub async fn save(&self, header: Header, files: Vec<NewFile>) -> Result<Checkpoint> {
        layout::check_names(files.iter().map(|file| file.name.as_str()))?;
        let folder = Folder { step: header.step, generation: header.generation };
        let path = format!("{}/{folder}", self.prefix);
        let manifest_path = format!("{path}/{MANIFEST}");
        match self.store.read_unchecked(&manifest_path).await {
            Ok(_) => return Err(Error::AlreadyExists { object: self.store.name_of(&manifest_path) }),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let digests = match self.put_all(&path, files).await {
            Ok(digests) => digests,
            Err(error) => {
                // Without a manifest it helps nobody, and takes the room that the next one needs.
                let _best_effort = self.store.delete_prefix(&path).await;
                return Err(error);
            }
        };
        let manifest = Manifest::new(self.job.clone(), header, digests);
        self.store.create(&manifest_path, manifest.encode()).await?;
        Ok(Checkpoint { path, manifest })
    }

    /// The newest checkpoint (highest step, then highest generation) whose every byte is as saved, read in full to
    /// know. Damaged and unfinished ones are passed over and reported.
    ///
    /// # Errors
    /// Those of a store that cannot be read: an outage is no reason to start from an older step.
    pub async fn latest_valid(&self) -> Result<Latest> {
        let mut latest = Latest { checkpoint: None, skipped: Vec::new() };
        for (folder, objects) in layout::folders(&self.prefix, self.store.list(&self.prefix).await?) {
            let path = format!("{}/{folder}", self.prefix);
            let checked = match self.inspect(folder, &objects).await? {
                Ok(checkpoint) => self.verify(checkpoint).await?,
                Err(fault) => Err(fault),
            };
            match checked {
                Ok(checkpoint) => {
                    latest.checkpoint = Some(checkpoint);
                    break;
                }
                Err(fault) => latest.skipped.push(Skipped { path, fault }),
            }
        }
        Ok(latest)
    }

    /// The bytes of one file of a checkpoint, checked once more.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the checkpoint has no such file; otherwise as [`ArtifactStore::get`].
    pub async fn load(&self, checkpoint: &Checkpoint, name: &str) -> Result<Bytes> {
        match checkpoint.file(name) {
            Some(artifact) => self.store.get(&artifact).await,
            None => {
                Err(Error::NotFound { object: self.store.name_of(&format!("{}/{name}", checkpoint.path)) })
            }
        }
    }

    async fn put_all(&self, folder: &str, files: Vec<NewFile>) -> Result<Vec<FileDigest>> {
        let mut digests = Vec::with_capacity(files.len());
        for NewFile { name, content } in files {
            let at = format!("{folder}/{name}");
            let put = match content {
                Content::Bytes(bytes) => self.store.put(&at, bytes).await?,
                Content::File(file) => self.store.put_file(&at, &file).await?,
            };
            digests.push(FileDigest { name, size: put.size, sha256: put.sha256 });
        }
        Ok(digests)
    }

    /// What can be told from the manifest and the sizes of the files.
    async fn inspect(&self, folder: Folder, objects: &[layout::Object]) -> Result<Result<Checkpoint, Fault>> {
        let path = format!("{}/{folder}", self.prefix);
        let bytes = match self.store.read_unchecked(&format!("{path}/{MANIFEST}")).await {
            Ok(bytes) => bytes,
            Err(Error::NotFound { .. }) => return Ok(Err(Fault::Unfinished)),
            Err(error) => return Err(error),
        };
        let manifest = match Manifest::decode(&bytes) {
            Ok(manifest) => manifest,
            Err(fault) => return Ok(Err(fault)),
        };
        let fault =
            manifest.foreign_to(&self.job, folder).or_else(|| layout::missing_or_resized(&manifest, objects));
        Ok(fault.map_or(Ok(Checkpoint { path, manifest }), Err))
    }

    /// Reads every file.
    async fn verify(&self, checkpoint: Checkpoint) -> Result<Result<Checkpoint, Fault>> {
        for file in &checkpoint.manifest.files {
            let artifact = ArtifactRef {
                path: format!("{}/{}", checkpoint.path, file.name),
                sha256: file.sha256,
                size: file.size,
            };
            match self.store.verify(&artifact).await {
                Ok(()) => {}
                Err(Error::NotFound { .. }) => return Ok(Err(Fault::Missing(file.name.clone()))),
                Err(Error::Damaged { expected, expected_size, found, found_size, .. }) => {
                    let file = file.name.clone();
                    return Ok(Err(Fault::Damaged {
                        file,
                        expected,
                        expected_size,
                        found: Some(found),
                        found_size,
                    }));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Ok(checkpoint))
    }
}
