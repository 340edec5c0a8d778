//! A published file of a job, in pieces.

use bytes::BytesMut;
use futures::stream::{BoxStream, iter, try_unfold};
use futures::{StreamExt, TryStreamExt};
use lethe_artifacts::{ArtifactStore, Location};
use lethe_domain::{ErrorCode, Failure, JobId};
use lethe_proto::status::Refusal;
use lethe_proto::v1::{self, DownloadArtifactResponse};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
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
    let path = match artifacts.location() {
        Location::File(root) => root.join(&artifact.path),
    };
    let failed = move |error: std::io::Error| {
        Refusal::Failure(Failure::new(ErrorCode::Storage, format!("cannot read '{name}': {error}"), ""))
    };
    let file = File::open(path).await.map_err(&failed)?;
    let head =
        v1::ArtifactRef { path: artifact.path, sha256: artifact.sha256.to_string(), size: artifact.size };
    let head = DownloadArtifactResponse { chunk: Vec::new(), artifact: Some(head) };
    let pieces = try_unfold(file, |mut file| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let count = file.read_buf(&mut piece).await?;
        let message = DownloadArtifactResponse { chunk: piece.into(), artifact: None };
        Ok((count > 0).then_some((message, file)))
    });
    let pieces = pieces.map_err(move |error| Status::from(failed(error)));
    Ok(iter([Ok(head)]).chain(pieces).boxed())
}
