//! Publishing where other files may be: what is somebody else's stays, and two jobs never mix.

use bytes::Bytes;
use lethe_artifacts::{ArtifactStore, Digest, Error, Publication, Receipt};

use crate::{conformance, place::Place};

conformance!(
    a_job_publishes_and_publishes_again,
    what_the_job_did_not_write_is_not_replaced,
    of_two_jobs_with_one_place_one_has_it,
    a_crash_between_the_receipt_and_the_files_is_gone_on_from,
);

fn files(text: &str) -> Vec<(String, Bytes)> {
    ["before_after.png", "generator.pt", "generator.pt.json"]
        .map(|name| (name.to_owned(), Bytes::from(format!("{name} {text}"))))
        .into()
}

const NAMES: [&str; 3] = ["before_after.png", "generator.pt", "generator.pt.json"];

fn taken(error: &Error, by: &str) {
    assert!(matches!(error, Error::Taken { .. }) && !error.retryable(), "{error:?}");
    assert!(error.to_string().contains(by), "{error}");
}

async fn assert_holds(place: &Place, text: &str) {
    for name in NAMES {
        assert_eq!(place.read(name).await, format!("{name} {text}").as_bytes());
    }
}

async fn a_job_publishes_and_publishes_again(place: Place) {
    let publication = Publication::new(place.store().await, "j-1");
    publication.check(&NAMES).await.unwrap();
    assert_eq!(place.names("").await, [""; 0], "a check writes nothing");
    for text in ["one", "one", "two"] {
        let put = publication.put(files(text)).await.unwrap();
        assert_eq!(put[1].sha256, Digest::of(format!("generator.pt {text}").as_bytes()));
        assert_holds(&place, text).await;
    }
    publication.check(&NAMES).await.unwrap();
    publication.put(vec![("result.json".to_owned(), Bytes::from_static(b"{}"))]).await.unwrap();
    assert_eq!(place.names("").await.len(), 5);
}

async fn what_the_job_did_not_write_is_not_replaced(place: Place) {
    let publication = Publication::new(place.store().await, "j-1");
    place.write("generator.pt", "precious").await;
    taken(&publication.check(&NAMES).await.unwrap_err(), "a file that this job did not write");
    let error = publication.put(files("one")).await.unwrap_err();
    taken(&error, "generator.pt");
    assert_eq!(place.names("").await, ["generator.pt"], "nothing was put");
    // The same bytes are no loss.
    place.write("generator.pt", "generator.pt one").await;
    publication.put(files("one")).await.unwrap();
    place.write("generator.pt", "changed").await;
    taken(&publication.put(files("one")).await.unwrap_err(), "generator.pt");
    assert_eq!(place.read("generator.pt").await, "changed");
    place.write(Receipt::NAME, "something else").await;
    taken(&publication.put(files("one")).await.unwrap_err(), Receipt::NAME);
}

async fn of_two_jobs_with_one_place_one_has_it(place: Place) {
    let store = place.store().await;
    let publish = |job: &'static str, store: ArtifactStore| async move {
        Publication::new(store, job).put(files(job)).await
    };
    let (one, two) = futures::join!(publish("j-1", store.clone()), publish("j-2", store.clone()));
    let (winner, error) = match (one, two) {
        (Ok(_), Err(error)) => ("j-1", error),
        (Err(error), Ok(_)) => ("j-2", error),
        other => panic!("{other:?}"),
    };
    taken(&error, winner);
    assert_holds(&place, winner).await;
    let loser = if winner == "j-1" { "j-2" } else { "j-1" };
    taken(&Publication::new(store, loser).check(&NAMES).await.unwrap_err(), winner);
}

async fn a_crash_between_the_receipt_and_the_files_is_gone_on_from(place: Place) {
    let publication = Publication::new(place.store().await, "j-1");
    publication.put(files("one")).await.unwrap();
    for gone in ["generator.pt", "generator.pt.json"] {
        place.remove(gone).await;
    }
    publication.put(files("one")).await.unwrap();
    assert_holds(&place, "one").await;
}
