//! What is common to every kind of store: what comes back, what is refused, and who wins.

use std::{fs, sync::Arc};

use bytes::Bytes;
use futures::stream;
use lethe_artifacts::{ArtifactRef, ArtifactStore, Digest, Error};

use crate::{conformance, place::Place};

conformance!(
    what_is_put_is_what_comes_back,
    opening_again_finds_everything,
    large_files_go_in_and_out_in_pieces,
    a_stream_that_fails_puts_nothing,
    damage_of_any_kind_is_found_and_named,
    one_creator_wins_and_replacing_is_atomic,
    a_prefix_is_a_folder,
    paths_stay_inside_the_store,
);

/// Three pieces and a bit.
const LARGE: usize = 3 * (8 << 20) + 12_345;

pub(crate) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
}

async fn paths(store: &ArtifactStore, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|object| object.path).collect()
}

async fn what_is_put_is_what_comes_back(place: Place) {
    let store = place.store().await;
    assert_eq!(paths(&store, "").await, Vec::<String>::new(), "the probe leaves nothing");
    for bytes in [Bytes::new(), Bytes::from_static(b"abc"), pattern(100_000).into()] {
        let put = store.put("models/a b/ü.pt", bytes.clone()).await.unwrap();
        let expected = ArtifactRef {
            path: "models/a b/ü.pt".to_owned(),
            sha256: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        assert_eq!(put, expected);
        assert_eq!(store.get(&put).await.unwrap(), bytes);
        store.verify(&put).await.unwrap();
        assert_eq!(place.read("models/a b/ü.pt").await, bytes);
        assert_eq!(serde_json::from_str::<ArtifactRef>(&serde_json::to_string(&put).unwrap()).unwrap(), put);
    }
}

async fn opening_again_finds_everything(place: Place) {
    let store = place.store().await;
    let put = store.put("reports/1.json", "{}").await.unwrap();
    let again = place.store().await;
    assert_eq!(again.get(&put).await.unwrap(), "{}");
    assert_eq!(again.location().to_string(), place.uri());
    assert_eq!(again.name_of("reports/1.json"), format!("{}/reports/1.json", place.uri()));
}

async fn large_files_go_in_and_out_in_pieces(place: Place) {
    let store = place.store().await;
    let source = place.scratch().join("source");
    for size in [0, 1, 8 << 20, (8 << 20) + 1, LARGE] {
        let bytes = pattern(size);
        fs::write(&source, &bytes).unwrap();
        let put = store.put_file("models/large", &source).await.unwrap();
        assert_eq!((put.sha256, put.size), (Digest::of(&bytes), size as u64));
        let uneven: Vec<_> = bytes.chunks(777_777).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let at_once = store.put("models/at once", bytes.clone()).await.unwrap();
        assert_eq!((at_once.sha256, at_once.size), (put.sha256, put.size));
        store.verify(&at_once).await.unwrap();
        let streamed = store.put_stream("models/streamed", stream::iter(uneven)).await.unwrap();
        assert_eq!((streamed.sha256, streamed.size), (put.sha256, put.size));
        assert!(store.get(&put).await.unwrap() == bytes);
        store.verify(&streamed).await.unwrap();
        let target = place.scratch().join("fetched/here/model");
        store.fetch_to(&streamed, &target).await.unwrap();
        assert!(fs::read(&target).unwrap() == bytes);
    }
    assert_eq!(fs::read_dir(place.scratch().join("fetched/here")).unwrap().count(), 1);
    let error = store.put_file("x", &place.scratch().join("missing")).await.unwrap_err();
    assert!(matches!(&error, Error::NotFound { object } if object.ends_with("missing")), "{error:?}");
}

async fn a_stream_that_fails_puts_nothing(place: Place) {
    let store = place.store().await;
    for pieces in [0, 1, 3] {
        let good = std::iter::repeat_with(|| Ok(Bytes::from(vec![1; 8 << 20]))).take(pieces);
        let broken = good.chain([Err(std::io::Error::other("the cable"))]);
        let error = store.put_stream("models/x", stream::iter(broken)).await.unwrap_err();
        assert!(
            matches!(&error, Error::Local { .. }) && error.to_string().contains("the cable"),
            "{error:?}"
        );
    }
    assert_eq!(paths(&store, "").await, Vec::<String>::new());
    assert_eq!(place.names("").await, Vec::<String>::new(), "not even a hidden file");
}

async fn damage_of_any_kind_is_found_and_named(place: Place) {
    let store = place.store().await;
    let bytes = pattern(50_000);
    let put = store.put("models/a", bytes.clone()).await.unwrap();
    let target = place.scratch().join("fetched/target");
    fs::create_dir(target.parent().unwrap()).unwrap();
    fs::write(&target, "what was there").unwrap();
    let mut flipped = bytes.clone();
    flipped[49_999] ^= 0x10;
    let longer = [bytes.as_slice(), b"x"].concat();
    for damaged in [&flipped[..], &bytes[..49_999], &longer, &[], &vec![7; 20 << 20]] {
        place.write("models/a", damaged.to_vec()).await;
        let results = [
            store.get(&put).await.map(|_| ()),
            store.verify(&put).await,
            store.fetch_to(&put, &target).await,
        ];
        for result in results {
            let error = result.unwrap_err();
            assert!(!error.retryable());
            let text = error.to_string();
            assert!(
                text.contains(&store.name_of("models/a")) && text.contains(&put.sha256.to_string()),
                "{text}"
            );
            let Error::Damaged { expected, expected_size, found_size, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!((expected, expected_size, found_size), (put.sha256, put.size, damaged.len() as u64));
        }
    }
    assert_eq!(fs::read(&target).unwrap(), b"what was there");
    assert_eq!(fs::read_dir(place.scratch().join("fetched")).unwrap().count(), 1, "nothing partial");
    place.remove("models/a").await;
    for result in
        [store.get(&put).await.map(|_| ()), store.verify(&put).await, store.fetch_to(&put, &target).await]
    {
        assert!(matches!(result, Err(Error::NotFound { object }) if object == store.name_of("models/a")));
    }
}

async fn one_creator_wins_and_replacing_is_atomic(place: Place) {
    let store = place.store().await;
    for round in 0..10 {
        let path = format!("commits/{round}");
        let contenders: Vec<_> = (0..8u8)
            .map(|contender| {
                let (store, path) = (store.clone(), path.clone());
                tokio::spawn(async move { store.create(&path, vec![contender; 10_000]).await })
            })
            .collect();
        let mut winners = Vec::new();
        for contender in contenders {
            match contender.await.unwrap() {
                Ok(put) => winners.push(put),
                Err(error) => assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}"),
            }
        }
        assert_eq!(winners.len(), 1);
        store.get(&winners[0]).await.unwrap();
    }
    let refs: Vec<ArtifactRef> = {
        let mut refs = Vec::new();
        for value in 0..2u8 {
            refs.push(store.put("replaced", vec![value; 300_000]).await.unwrap());
        }
        refs
    };
    let refs = Arc::new(refs);
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..30u8 {
                store.put("replaced", vec![round % 2; 300_000]).await.unwrap();
            }
        })
    };
    while !writer.is_finished() {
        let read = (store.get(&refs[0]).await, store.get(&refs[1]).await);
        for (result, other) in [(read.0, &refs[1]), (read.1, &refs[0])] {
            if let Err(error) = result {
                let Error::Damaged { found, .. } = error else { panic!("{error:?}") };
                assert_eq!(found, other.sha256, "a mixture");
            }
        }
    }
    writer.await.unwrap();
}

async fn a_prefix_is_a_folder(place: Place) {
    let store = place.store().await;
    for path in ["jobs/1/a", "jobs/1/b/c", "jobs/10/a", "jobs/2", "other"] {
        store.put(path, "x").await.unwrap();
    }
    assert_eq!(paths(&store, "jobs").await, ["jobs/1/a", "jobs/1/b/c", "jobs/10/a", "jobs/2"]);
    assert_eq!(paths(&store, "jobs/1").await, ["jobs/1/a", "jobs/1/b/c"]);
    assert_eq!(paths(&store, "none").await, Vec::<String>::new());
    assert_eq!(store.delete_prefix("jobs/1").await.unwrap(), 2);
    assert_eq!(store.delete_prefix("jobs/1").await.unwrap(), 0);
    assert!(matches!(store.delete_prefix("").await, Err(Error::InvalidPath { .. })));
    store.delete("other").await.unwrap();
    store.delete("other").await.unwrap();
    assert_eq!(paths(&store, "").await, ["jobs/10/a", "jobs/2"]);
}

async fn paths_stay_inside_the_store(place: Place) {
    let store = place.store().await;
    for path in ["", "/", "/a", "a/", "a//b", "../a", "a/../../b", "./a", "a\0b", "a\nb", "a#1", "#"] {
        let error = store.put(path, "x").await.unwrap_err();
        assert!(matches!(error, Error::InvalidPath { .. }), "{path:?}: {error:?}");
        let outside = ArtifactRef { path: path.to_owned(), sha256: Digest::of(b"x"), size: 1 };
        assert!(matches!(store.get(&outside).await, Err(Error::InvalidPath { .. })), "{path:?}");
    }
    assert_eq!(place.names("").await, Vec::<String>::new());
}
