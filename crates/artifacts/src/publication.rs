//! Publishing a job's result into a folder, or below a prefix, that is not Lethe's own: it replaces nothing there that this
//! job did not write.
//!
//! The place is taken by its receipt, which is created only if there is none: of two jobs that publish to one place, one
//! has it, and their files never mix. Not here: what is published.

use bytes::Bytes;
use futures::TryStreamExt;

use crate::{ArtifactRef, ArtifactStore, Digest, Error, Receipt, Result, digest::Hasher};

/// A place that a job publishes to.
#[derive(Clone, Debug)]
pub struct Publication {
    store: ArtifactStore,
    job: String,
}

/// How a file stands before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Absent,
    /// It is there already.
    Done,
    /// This job wrote it, with another digest.
    Ours(Digest),
}

impl Publication {
    /// The place of this job's result.
    pub fn new(store: ArtifactStore, job: &str) -> Self {
        Self { store, job: job.to_owned() }
    }

    /// Whether the job may publish files with these names there. Writes nothing.
    ///
    /// # Errors
    /// [`Error::Taken`] names what is in the way; those of reading the store.
    pub async fn check(&self, names: &[&str]) -> Result<()> {
        let receipt = self.receipt().await?;
        for name in names {
            if let Some(found) = self.digest_of(name).await?
                && !receipt.as_ref().is_some_and(|receipt| receipt.wrote(name, found))
            {
                return Err(self.taken_by_a_file(name));
            }
        }
        Ok(())
    }

    /// Puts the files there, in this order. What this job has put there before may be replaced.
    ///
    /// # Errors
    /// [`Error::Taken`] when the result of another job is there, or a file that this job did not write: then nothing is
    /// put. Otherwise as [`ArtifactStore::put`].
    pub async fn put(&self, files: Vec<(String, Bytes)>) -> Result<Vec<ArtifactRef>> {
        let found = self.receipt().await?;
        let mut receipt = found.clone().unwrap_or_else(|| Receipt::new(&self.job));
        let mut standings = Vec::with_capacity(files.len());
        for (name, bytes) in &files {
            let after = Hasher::default().absorb(bytes.clone()).await?.finish().0;
            let standing = match self.digest_of(name).await? {
                None => Standing::Absent,
                Some(before) if before == after => Standing::Done,
                Some(before) if receipt.wrote(name, before) => Standing::Ours(before),
                Some(_) => return Err(self.taken_by_a_file(name)),
            };
            let before = if let Standing::Ours(before) = standing { Some(before) } else { None };
            receipt.note(name, before, after);
            standings.push(standing);
        }
        self.keep(found.as_ref(), &receipt).await?;
        let mut put = Vec::with_capacity(files.len());
        for ((name, bytes), standing) in files.into_iter().zip(standings) {
            put.push(match standing {
                Standing::Ours(_) => self.store.put(&name, bytes).await?,
                Standing::Absent => self.create(&name, bytes).await?,
                Standing::Done => {
                    let (sha256, size) = Hasher::default().absorb(bytes).await?.finish();
                    ArtifactRef { path: name, sha256, size }
                }
            });
        }
        Ok(put)
    }

    /// The receipt of this job, if it has been here before.
    async fn receipt(&self) -> Result<Option<Receipt>> {
        let receipt = match self.store.read_unchecked(Receipt::NAME).await {
            Ok(bytes) => Receipt::decode(&bytes).ok_or_else(|| self.taken_by_a_file(Receipt::NAME))?,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if receipt.job() == self.job { Ok(Some(receipt)) } else { Err(self.taken_by(&receipt)) }
    }

    async fn keep(&self, found: Option<&Receipt>, receipt: &Receipt) -> Result<()> {
        if found == Some(receipt) {
            return Ok(());
        }
        let bytes = receipt.encode();
        let kept = match found {
            Some(_) => self.store.put(Receipt::NAME, bytes).await,
            None => self.store.create(Receipt::NAME, bytes).await,
        };
        match kept {
            Ok(_) => Ok(()),
            // Another was faster: another job, or another try of this one, which writes the same down.
            Err(Error::AlreadyExists { .. }) => match self.receipt().await? {
                Some(other) if other == *receipt => Ok(()),
                _ => Err(self.taken_by_a_file(Receipt::NAME)),
            },
            Err(error) => Err(error),
        }
    }

    async fn create(&self, name: &str, bytes: Bytes) -> Result<ArtifactRef> {
        match self.store.create(name, bytes.clone()).await {
            Err(Error::AlreadyExists { .. }) => {
                let (sha256, size) = Hasher::default().absorb(bytes).await?.finish();
                let same = self.digest_of(name).await? == Some(sha256);
                if same {
                    Ok(ArtifactRef { path: name.to_owned(), sha256, size })
                } else {
                    Err(self.taken_by_a_file(name))
                }
            }
            created => created,
        }
    }

    async fn digest_of(&self, name: &str) -> Result<Option<Digest>> {
        let version = match self.store.version(name).await {
            Ok(version) => version,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut pieces = std::pin::pin!(self.store.stream(name, version.size));
        let mut hasher = Hasher::default();
        while let Some(piece) = pieces.try_next().await? {
            hasher = hasher.absorb(piece).await?;
        }
        Ok(Some(hasher.finish().0))
    }

    fn taken_by_a_file(&self, name: &str) -> Error {
        let by = "a file that this job did not write".to_owned();
        Error::Taken { object: self.store.name_of(name), by }
    }

    fn taken_by(&self, other: &Receipt) -> Error {
        let by = format!("the result of job {}", other.job());
        Error::Taken { object: self.store.location().to_string(), by }
    }
}
