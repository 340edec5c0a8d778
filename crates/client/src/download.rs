//! Downloading a file of a finished job, with its digest checked on the way.

use lethe_domain::{ArtifactRef, JobId, sha256_text};
use lethe_proto::{ConversionError, v1};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::connection::in_time;
use crate::jobs::jobs;
use crate::{Client, Error};

impl Client {
    /// Writes a file of a finished job into `sink`: `generator`, `sidecar` or `before_after_png`. Gives what it was.
    ///
    /// After an error the sink holds a part that is of no use: write to a temporary name and rename on success.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a job or a name that does not exist; [`Error::Damaged`] when size or SHA-256 of what
    /// arrived are not those recorded; [`Error::Write`] when the sink refuses.
    pub async fn download(
        &self,
        id: &JobId,
        name: &str,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<ArtifactRef, Error> {
        let request = v1::DownloadArtifactRequest { job_id: id.to_string(), name: name.to_owned() };
        let mut stream = self
            .call(request, async |channel, request| jobs(channel).download_artifact(request).await)
            .await?;
        let address = self.address();
        let write = |source| Error::Write { name: name.to_owned(), source };
        let mut expected = None;
        let (mut digest, mut size) = (Sha256::new(), 0);
        while let Some(part) = in_time(&address, self.options().call_timeout, stream.message()).await? {
            expected = expected.or(part.artifact);
            digest.update(&part.chunk);
            size += part.chunk.len() as u64;
            sink.write_all(&part.chunk).await.map_err(write)?;
        }
        sink.flush().await.map_err(write)?;
        let expected: ArtifactRef = match expected {
            Some(artifact) => artifact.into(),
            None => {
                return Err(Error::misunderstood(&address, ConversionError::missing("artifact")));
            }
        };
        let found = sha256_text(&digest.finalize());
        let damaged = |expected, found| Error::Damaged { name: name.to_owned(), expected, found };
        if size != expected.size {
            return Err(damaged(format!("{} bytes", expected.size), format!("{size} bytes")));
        }
        if found != expected.sha256 {
            return Err(damaged(format!("sha256 {}", expected.sha256), format!("sha256 {found}")));
        }
        Ok(expected)
    }
}
