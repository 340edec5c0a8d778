//! Artifacts for a thread that waits: the store's calls, blocking, with the domain's references.

use std::future::Future;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lethe_artifacts::{ArtifactStore, Checkpoints, Digest, resolve};
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

/// The file that a uri of the job spec names.
///
/// # Errors
/// [`lethe_artifacts::Error::InvalidUri`].
pub(crate) fn local_file(uri: &str) -> Result<PathBuf> {
    let lethe_artifacts::Location::File(path) = resolve(uri, Path::new(""))?;
    Ok(path)
}
