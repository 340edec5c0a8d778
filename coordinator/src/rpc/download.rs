//! A published file of a job, in pieces.

use bytes::Bytes;
use futures::stream::{BoxStream, iter};
use futures::{StreamExt, TryStreamExt};
use lethe_artifacts::ArtifactStore;
use lethe_domain::JobId;
use lethe_proto::status::Refusal;
use lethe_proto::v1::{self, DownloadArtifactResponse};
use tonic::Status;

use crate::driver::DriverHandle;
use crate::published::{find, refusal};

/// Bytes of one message.
const PIECE: usize = 64 << 10;

/// Begins a download. The whole file is compared with its digest before the first piece is sent.
///
/// # Errors
/// There is no such job or name; the job has published nothing; the file is damaged, gone or cannot be read.
pub(super) async fn download(
    driver: &DriverHandle,
    artifacts: &ArtifactStore,
    id: JobId,
    name: String,
) -> Result<BoxStream<'static, Result<DownloadArtifactResponse, Status>>, Refusal> {
    let artifact = find(driver, &id, &name).await?;
    artifacts.verify(&artifact).await.map_err(|error| refusal(&error))?;
    let stored = artifacts.stream(&artifact.path, artifact.size);
    let head =
        v1::ArtifactRef { path: artifact.path, sha256: artifact.sha256.to_string(), size: artifact.size };
    let head = DownloadArtifactResponse { chunk: Vec::new(), artifact: Some(head) };
    let pieces = stored.map_err(|error| Status::from(refusal(&error))).map_ok(|bytes| {
        let starts = (0..bytes.len()).step_by(PIECE);
        iter(starts.map(move |start| Ok(message(bytes.slice(start..bytes.len().min(start + PIECE))))))
    });
    Ok(iter([Ok(head)]).chain(pieces.try_flatten()).boxed())
}

fn message(piece: Bytes) -> DownloadArtifactResponse {
    DownloadArtifactResponse { chunk: piece.into(), artifact: None }
}
