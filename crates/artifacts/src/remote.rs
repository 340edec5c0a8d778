//! One object of a store beyond this machine that a job names: a model, a data set; and the description beside it.
//!
//! Not here: keeping a copy (`cache`), what the description says.

use std::path::Path;

use bytes::Bytes;
use futures::TryStreamExt;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use crate::{ArtifactStore, Digest, Environment, Error, Location, Result, digest::Hasher};

/// More than any description has.
const SIDECAR_BYTES: u64 = 1 << 20;

/// An object by its location. Nobody has looked whether it is there.
#[derive(Clone, Debug)]
pub struct Remote {
    store: ArtifactStore,
    /// The last part of its key.
    name: String,
}

/// Which bytes an object has, as far as the store tells without sending them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// In bytes.
    pub size: u64,
    /// The store's own mark: another one for other bytes.
    pub tag: String,
}

impl Remote {
    /// The object at `location`; none when that is one of this machine. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::InvalidUri`] for a bucket without a key; [`Error::Refused`] for an environment that makes no sense.
    pub fn at(location: &Location, environment: &Environment) -> Result<Option<Self>> {
        let Location::S3 { bucket, key } = location else { return Ok(None) };
        if key.is_empty() {
            let reason = "it is a whole bucket; an object has a key: s3://bucket/key".to_owned();
            return Err(Error::InvalidUri { uri: location.to_string(), reason });
        }
        let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
        let folder = Location::S3 { bucket: bucket.clone(), key: folder.to_owned() };
        Ok(Some(Self { store: ArtifactStore::remote(folder, environment)?, name: name.to_owned() }))
    }

    /// Its uri.
    pub fn uri(&self) -> String {
        self.store.name_of(&self.name)
    }

    /// The uri of its description.
    pub fn sidecar_uri(&self) -> String {
        self.store.name_of(&self.sidecar_name())
    }

    fn sidecar_name(&self) -> String {
        format!("{}.json", self.name)
    }

    /// What the store says about it.
    ///
    /// # Errors
    /// [`Error::NotFound`], and those of the store.
    pub async fn version(&self) -> Result<Version> {
        self.store.version(&self.name).await
    }

    /// What the store says about its description; none when there is none.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sidecar_version(&self) -> Result<Option<Version>> {
        absent(self.store.version(&self.sidecar_name()).await)
    }

    /// Its description; none when there is none.
    ///
    /// # Errors
    /// Those of the store, and [`Error::Refused`] for one of more than a megabyte.
    pub async fn sidecar(&self) -> Result<Option<Bytes>> {
        match self.sidecar_version().await? {
            None => Ok(None),
            Some(Version { size, .. }) if size > SIDECAR_BYTES => Err(Error::Refused {
                object: self.sidecar_uri(),
                reason: format!("{size} bytes are no description of a model"),
                passing: false,
            }),
            Some(_) => absent(self.store.read_unchecked(&self.sidecar_name()).await),
        }
    }

    /// Its first and its last bytes, so many of each or all.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn ends(&self, version: &Version, bytes: u64) -> Result<(Bytes, Bytes)> {
        let size = version.size;
        let first = self.store.range(&self.name, 0..size.min(bytes)).await?;
        let last = match size.checked_sub(bytes) {
            Some(from) => self.store.range(&self.name, from..size).await?,
            None => first.clone(),
        };
        Ok((first, last))
    }

    /// Its digest, by reading all of it and keeping nothing.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn digest(&self, version: &Version) -> Result<Digest> {
        let mut pieces = std::pin::pin!(self.store.stream(&self.name, version.size));
        let mut hasher = Hasher::default();
        while let Some(piece) = pieces.try_next().await? {
            hasher = hasher.absorb(piece).await?;
        }
        Ok(hasher.finish().0)
    }

    /// Copies it into `file`, which exists, and makes it durable; gives its digest.
    pub(crate) async fn copy_into(&self, version: &Version, file: &Path) -> Result<Digest> {
        let mut pieces = std::pin::pin!(self.store.stream(&self.name, version.size));
        let mut hasher = Hasher::default();
        let failed = |source| Error::from_io(file.display(), source);
        let mut local = tokio::fs::OpenOptions::new().write(true).open(file).await.map_err(failed)?;
        while let Some(piece) = pieces.try_next().await? {
            let write = async { local.write_all(&piece).await.map_err(failed) };
            let (absorbed, ()) = futures::try_join!(hasher.absorb(piece.clone()), write)?;
            hasher = absorbed;
        }
        local.flush().await.map_err(failed)?;
        local.sync_all().await.map_err(failed)?;
        Ok(hasher.finish().0)
    }

    /// The error of bytes that are not what the description says.
    pub(crate) fn damaged(&self, expected: Digest, found: Digest, size: u64) -> Error {
        Error::Damaged { object: self.uri(), expected, expected_size: size, found, found_size: size }
    }
}

/// The digest that a description says its model has; none when it says none.
pub(crate) fn digest_in(sidecar: &[u8]) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Sidecar {
        sha256: String,
    }
    let sidecar: Sidecar = serde_json::from_slice(sidecar).ok()?;
    sidecar.sha256.to_ascii_lowercase().parse().ok()
}

fn absent<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
