//! An S3 store that cannot be used: each cause has its own error, which names the object and says what to do.

use std::time::{Duration, Instant};

use lethe_artifacts::{ArtifactStore, Checkpoints, Environment, Error, Header, NewFile};
use lethe_testkit::{Moto, moto::variables};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    place::{BUCKET, Place, environment},
    proxy::Proxy,
    signing::Server,
};

/// Opens it in an environment with these changes, and gives the error.
async fn refused(uri: &str, address: &str, changes: &[(&str, &str)]) -> Error {
    let mut all = variables(address);
    for (name, value) in changes {
        all.retain(|(known, _)| known != name);
        all.push(((*name).to_owned(), (*value).to_owned()));
    }
    let environment = Environment::new(all).patience(Duration::from_secs(2), Duration::from_secs(2));
    let error = ArtifactStore::open_in(uri, &environment).await.unwrap_err();
    for text in [error.to_string(), format!("{error:?}"), format!("{environment:?}")] {
        assert!(!text.contains("hunter2"), "a secret: {text}");
    }
    assert!(error.to_string().contains(uri), "{error}");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_is_told() {
    let server = Server::start(BUCKET).await;
    let uri = format!("s3://{BUCKET}/jobs");
    let error = refused(&uri, &server.address, &[("AWS_SECRET_ACCESS_KEY", "hunter2-wrong")]).await;
    assert!(matches!(error, Error::Denied { .. }) && !error.retryable(), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("SignatureDoesNotMatch") && text.contains("AWS_SECRET_ACCESS_KEY"), "{text}");
    let error = refused(&uri, &server.address, &[("AWS_ACCESS_KEY_ID", "nobody")]).await;
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_outlive_the_server() {
    let server = Server::start(BUCKET).await;
    let place = Place::s3("jobs", variables(&server.address));
    let put = place.store().await.put("a", vec![7; 9 << 20]).await.unwrap();
    let server = server.restart().await;
    let place = Place::s3("jobs", variables(&server.address));
    assert_eq!(place.store().await.get(&put).await.unwrap(), vec![7; 9 << 20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_bucket_is_told() {
    let Some(moto) = Moto::start() else { return };
    let error = refused("s3://nowhere/x", moto.address(), &[]).await;
    assert!(matches!(error, Error::NoBucket { .. }) && !error.retryable(), "{error:?}");
    assert!(error.to_string().contains("make it"), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_told_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let begun = Instant::now();
    let error = refused("s3://bucket/x", &address, &[]).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(error.retryable(), "{error:?}");
    let Error::Unreachable { endpoint, reason, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*endpoint, format!("http://{address}"));
    assert!(reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn a_server_that_is_no_s3_store_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let web = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            // Head and a page come in one or more pieces; what counts is that something was read before the answer.
            let mut request = vec![0; 1 << 16];
            let mut read = 0;
            while read < 4096 {
                match client.read(&mut request[read..]).await {
                    Ok(count @ 1..) => read += count,
                    _ => break,
                }
            }
            let page =
                b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 15\r\n\r\n<html>no</html>";
            // The client may be gone: it had no answer in time to a request that is shorter than the loop wants.
            let _ = client.write_all(page).await;
        }
    });
    let error = refused("s3://bucket/x", &address, &[]).await;
    web.abort();
    assert!(matches!(error, Error::Refused { passing: false, .. }), "{error:?}");
    assert!(error.to_string().contains("AWS_ENDPOINT_URL"), "{error}");
}

#[tokio::test]
async fn plain_http_must_be_asked_for() {
    let error = refused("s3://bucket/x", "127.0.0.1:9", &[("AWS_ALLOW_HTTP", "")]).await;
    assert!(error.to_string().contains("AWS_ALLOW_HTTP"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_creators_one_wins() {
    let Some(moto) = Moto::start() else { return };
    moto.bucket(BUCKET);
    let proxy = Proxy::before(moto.address()).await;
    let environment = environment(variables(&proxy.address));
    let store = ArtifactStore::open_in(&format!("s3://{BUCKET}"), &environment).await.unwrap();
    for round in 0..30 {
        let path = format!("commits/{round}");
        let contenders = (0..8u8).map(|contender| {
            let (store, path) = (store.clone(), path.clone());
            tokio::spawn(async move { store.create(&path, vec![contender; 1000]).await })
        });
        let mut winners = Vec::new();
        for contender in contenders.collect::<Vec<_>>() {
            match contender.await.unwrap() {
                Ok(put) => winners.push(put),
                Err(error) => assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}"),
            }
        }
        let [winner] = winners.as_slice() else { panic!("{} winners", winners.len()) };
        store.get(winner).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_checkpoints_each_is_committed_once() {
    let Some(moto) = Moto::start() else { return };
    moto.bucket(BUCKET);
    let proxy = Proxy::before(moto.address()).await;
    let place = Place::s3("x", variables(&proxy.address));
    let checkpoints = Checkpoints::new(place.store().await, "checkpoints", "job");
    let savers = (0..4u8).map(|saver| {
        let checkpoints = checkpoints.clone();
        let file = NewFile::new("a", vec![saver; 12 << 20]);
        tokio::spawn(async move { checkpoints.save(Header::default(), vec![file]).await })
    });
    let mut committed = 0;
    for saver in savers.collect::<Vec<_>>() {
        committed += usize::from(saver.await.unwrap().is_ok());
    }
    assert_eq!(committed, 1);
}
