//! Downloads: whole and right, or an error that says what is wrong.

use std::pin::Pin;
use std::task::{Context, Poll};

use lethe_client::{Client, Error};
use lethe_domain::ArtifactRef;
use lethe_proto::status::Refusal;
use lethe_proto::v1;
use tokio::io::AsyncWrite;
use tonic::Status;

use crate::server::{Coordinator, Script, answer, stream};
use crate::{id, options};

/// What is downloaded; its digest is that of `printf 'lethe' | sha256sum`.
const CONTENT: &[u8] = b"lethe";
const SHA256: &str = "7b3dcb32b39a4b7fb3ece08eb8a6416d503b80667b49a3032a7a61c87a9467c7";

fn artifact() -> ArtifactRef {
    ArtifactRef { path: "jobs/thick-vae-7/vae.safetensors".to_owned(), sha256: SHA256.to_owned(), size: 5 }
}

fn part(chunk: &[u8], artifact: Option<ArtifactRef>) -> Result<v1::DownloadArtifactResponse, Status> {
    Ok(v1::DownloadArtifactResponse { chunk: chunk.to_vec(), artifact: artifact.map(Into::into) })
}

/// Downloads what this coordinator sends.
async fn download(
    parts: Vec<Result<v1::DownloadArtifactResponse, Status>>,
) -> (Result<ArtifactRef, Error>, Vec<u8>) {
    let download = answer(move |request: v1::DownloadArtifactRequest| {
        assert_eq!((request.job_id.as_str(), request.name.as_str()), ("thick-vae-7", "generator"));
        Ok(stream(parts.clone()))
    });
    let server = Coordinator::start(Script { download, ..Script::default() });
    let client = Client::connect(&[server.url()], options()).await.unwrap();
    let mut sink = Vec::new();
    let outcome = client.download(&id(), "generator", &mut sink).await;
    (outcome, sink)
}

#[tokio::test]
async fn a_file_in_parts_arrives_whole() {
    let parts = vec![part(b"", Some(artifact())), part(b"le", None), part(b"", None), part(b"the", None)];
    let (outcome, sink) = download(parts).await;
    assert_eq!(outcome.unwrap(), artifact());
    assert_eq!(sink, CONTENT);
}

#[tokio::test]
async fn an_empty_file_arrives() {
    let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned();
    let empty = ArtifactRef { path: "empty".to_owned(), sha256, size: 0 };
    let (outcome, sink) = download(vec![part(b"", Some(empty.clone()))]).await;
    assert_eq!((outcome.unwrap(), sink), (empty, Vec::new()));
}

#[tokio::test]
async fn a_bit_that_flipped_and_a_byte_that_is_missing_are_found() {
    for (content, expected, found) in [(&b"lethd"[..], "sha256 ", "sha256 "), (b"leth", "5 bytes", "4 bytes")]
    {
        let (outcome, _) = download(vec![part(content, Some(artifact()))]).await;
        let error = outcome.unwrap_err();
        assert!(error.retryable());
        let Error::Damaged { name, expected: e, found: f } = error else { panic!("{error}") };
        assert_eq!(name, "generator");
        assert!(e.starts_with(expected) && f.starts_with(found) && e != f, "{e} {f}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_no_file() {
    let (outcome, _) =
        download(vec![part(CONTENT, Some(artifact())), Err(Status::unavailable("going down"))]).await;
    assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
    let (outcome, _) = download(vec![part(CONTENT, None)]).await;
    assert!(
        matches!(&outcome, Err(Error::Misunderstood { reason, .. }) if reason == "artifact: missing"),
        "{outcome:?}"
    );
    let missing = Refusal::NotFound { kind: "artifact".to_owned(), id: "generator".to_owned() };
    let (outcome, _) = download(vec![Err(missing.into())]).await;
    assert!(matches!(&outcome, Err(Error::NotFound { kind, .. }) if kind == "artifact"), "{outcome:?}");
}

/// A disk without room.
struct Full;

impl AsyncWrite for Full {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Err(std::io::ErrorKind::StorageFull.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_sink_that_refuses_is_told_from_a_bad_connection() {
    let download = answer(|_| Ok(stream(vec![part(CONTENT, Some(artifact()))])));
    let server = Coordinator::start(Script { download, ..Script::default() });
    let client = Client::connect(&[server.url()], options()).await.unwrap();
    let error = client.download(&id(), "generator", &mut Full).await.unwrap_err();
    assert!(matches!(&error, Error::Write { name, .. } if name == "generator"), "{error}");
    assert!(!error.retryable());
}
