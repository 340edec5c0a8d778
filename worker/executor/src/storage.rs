//! Artifacts for a thread that waits: the store's calls, blocking, with the domain's references.

use std::future::Future;
use std::path::Path;

use bytes::Bytes;
use lethe_artifacts::{ArtifactStore, Checkpoints, Digest, Listed, Publication};
use lethe_domain::ArtifactRef;
use lethe_models::Tensors;
use tokio::runtime::Handle;

use crate::error::{Error, Result};

/// The artifact root of a job.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    runtime: Handle,
    store: ArtifactStore,
}

impl Storage {
    /// Opens the place and tries it: it is made if missing, written to and read from.
    ///
    /// # Errors
    /// As [`ArtifactStore::open`].
    pub(crate) fn open(runtime: &Handle, uri: &str) -> Result<Self> {
        Ok(Self { runtime: runtime.clone(), store: runtime.block_on(ArtifactStore::open(uri))? })
    }

    /// Another place, opened and tried likewise.
    ///
    /// # Errors
    /// As [`ArtifactStore::open`].
    pub(crate) fn elsewhere(&self, uri: &str) -> Result<Self> {
        Self::open(&self.runtime, uri)
    }

    /// The folder, when it is one of this machine.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.store.location().local_path()
    }

    /// Puts bytes, whole and durable on return, replacing what is there.
    ///
    /// # Errors
    /// As [`ArtifactStore::put`].
    pub(crate) fn put(&self, path: &str, bytes: impl Into<Bytes>) -> Result<ArtifactRef> {
        let put = self.wait(self.store.put(path, bytes))?;
        Ok(ArtifactRef { path: put.path, sha256: put.sha256.to_string(), size: put.size })
    }

    /// Puts a job's result into another place, which it opens and tries; nothing is replaced there that this job did not
    /// write.
    ///
    /// # Errors
    /// As [`ArtifactStore::open`] and [`Publication::put`].
    pub(crate) fn publish(&self, uri: &str, job: &str, files: Vec<(String, Bytes)>) -> Result<()> {
        let publication = Publication::new(self.elsewhere(uri)?.store, job);
        self.wait(publication.put(files))?;
        Ok(())
    }

    /// Whether a job may publish files with these names at another place.
    ///
    /// # Errors
    /// As [`ArtifactStore::open`] and [`Publication::check`].
    pub(crate) fn publishable(&self, uri: &str, job: &str, names: &[&str]) -> Result<()> {
        let publication = Publication::new(self.elsewhere(uri)?.store, job);
        Ok(self.wait(publication.check(names))?)
    }

    /// The bytes of an artifact, if they are what they must be.
    ///
    /// # Errors
    /// As [`ArtifactStore::get`].
    pub(crate) fn get(&self, artifact: &ArtifactRef) -> Result<Bytes> {
        let sha256: Digest = artifact
            .sha256
            .parse()
            .map_err(|error| Error::internal(format!("the reference to {}: {error}", artifact.path)))?;
        let artifact =
            lethe_artifacts::ArtifactRef { path: artifact.path.clone(), sha256, size: artifact.size };
        Ok(self.wait(self.store.get(&artifact))?)
    }

    /// What lies below a folder, ordered by path.
    ///
    /// # Errors
    /// As [`ArtifactStore::list`].
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        Ok(self.wait(self.store.list(folder))?)
    }

    /// The tensors of a safetensors artifact.
    ///
    /// # Errors
    /// As [`Storage::get`] and [`Tensors::from_bytes`].
    pub(crate) fn tensors(&self, artifact: &ArtifactRef) -> Result<Tensors> {
        Ok(Tensors::from_bytes(&self.get(artifact)?, &artifact.path)?)
    }

    /// A job's checkpoints.
    pub(crate) fn checkpoints(&self, job: &str) -> Checkpoints {
        Checkpoints::new(self.store.clone(), format!("jobs/{job}/checkpoints"), job)
    }

    /// Waits for a call of the store.
    pub(crate) fn wait<F: Future>(&self, call: F) -> F::Output {
        self.runtime.block_on(call)
    }
}
