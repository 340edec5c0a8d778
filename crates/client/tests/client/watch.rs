//! Watching a job through whatever happens to its coordinator.

use std::time::Duration;

use futures::StreamExt;
use lethe_client::{Client, Error, Options};
use lethe_domain::{JobState, JobStatus};
use lethe_proto::status::Refusal;
use lethe_proto::v1;
use tonic::Status;

use crate::server::{Coordinator, Script, answer, open_stream, stream};
use crate::{id, job, options};

fn state(state: JobState, version: u64) -> v1::WatchJobResponse {
    v1::WatchJobResponse { job: Some(job(state, version).into()) }
}

/// Tells these states and then nothing more, with the stream open.
fn tells(states: Vec<v1::WatchJobResponse>) -> Script {
    Script { watch: answer(move |_| Ok(open_stream(states.clone()))), ..Script::default() }
}

fn versions(items: &[Result<JobStatus, Error>]) -> Vec<u64> {
    items.iter().filter_map(|item| item.as_ref().ok()).map(|status| status.version).collect()
}

#[tokio::test]
async fn every_state_is_given_once_and_the_final_one_ends_the_stream() {
    let server = Coordinator::start(tells(vec![
        state(JobState::Queued, 1),
        state(JobState::Running, 4),
        state(JobState::Running, 4),
        state(JobState::Running, 3),
        state(JobState::Succeeded, 9),
        state(JobState::Succeeded, 10),
    ]));
    let client = Client::connect(&[server.url()], options()).await.unwrap();
    let items: Vec<_> = client.watch(&id()).collect().await;
    assert_eq!(versions(&items), [1, 4, 9]);
    assert_eq!(items.len(), 3);
}

#[tokio::test]
async fn a_coordinator_that_is_killed_and_comes_back_is_watched_on() {
    let first = Coordinator::start(tells(vec![state(JobState::Queued, 1), state(JobState::Running, 2)]));
    let client = Client::connect(&[first.url()], options()).await.unwrap();
    let mut watch = client.watch(&id());
    assert_eq!(watch.next().await.unwrap().unwrap().version, 1);
    assert_eq!(watch.next().await.unwrap().unwrap().version, 2);
    let address = first.kill().await;
    let waiting = tokio::spawn(watch.collect::<Vec<_>>());
    let _second = Coordinator::start_at(
        address,
        tells(vec![state(JobState::Running, 2), state(JobState::Cancelled, 3)]),
    );
    let items = waiting.await.unwrap();
    assert_eq!(versions(&items), [3], "a state that was given is not given again: {items:?}");
    assert_eq!(items.len(), 1);
}

#[tokio::test]
async fn another_coordinator_takes_over() {
    let first = Coordinator::start(tells(vec![state(JobState::Running, 1)]));
    let second = Coordinator::start(tells(vec![state(JobState::Failed, 2)]));
    let client = Client::connect(&[first.url(), second.url()], options()).await.unwrap();
    let mut watch = client.watch(&id());
    assert_eq!(watch.next().await.unwrap().unwrap().version, 1);
    first.kill().await;
    assert_eq!(watch.next().await.unwrap().unwrap().state, JobState::Failed);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn patience_ends_with_unreachable() {
    let server = Coordinator::start(tells(vec![state(JobState::Running, 1)]));
    let options = Options { patience: Duration::from_millis(300), ..options() };
    let client = Client::connect(&[server.url()], options).await.unwrap();
    let mut watch = client.watch(&id());
    assert_eq!(watch.next().await.unwrap().unwrap().version, 1);
    server.kill().await;
    let begin = std::time::Instant::now();
    let error = watch.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(begin.elapsed() >= Duration::from_millis(300), "gave up after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(10), "gave up after {:?}", begin.elapsed());
    assert!(watch.next().await.is_none(), "an error is the last item");
}

#[tokio::test]
async fn a_coordinator_that_ends_the_stream_too_early_again_and_again_is_given_up_too() {
    let server =
        Coordinator::start(Script { watch: answer(|_| Ok(stream(Vec::new()))), ..Script::default() });
    let options = Options { patience: Duration::from_millis(300), ..options() };
    let client = Client::connect(&[server.url()], options).await.unwrap();
    let items: Vec<_> = client.watch(&id()).collect().await;
    assert_eq!(items.len(), 1);
    assert!(matches!(items[0], Err(Error::Unreachable { .. })), "{items:?}");
}

#[tokio::test]
async fn what_another_try_would_not_change_ends_the_stream_at_once() {
    let refusal = Refusal::NotFound { kind: "job".to_owned(), id: "thick-vae-7".to_owned() };
    let refuses = refusal.clone();
    let at_once = answer(move |_| Err(Status::from(refuses.clone())));
    let later = answer(move |_| {
        Ok(stream(vec![Ok(state(JobState::Running, 1)), Err(Status::from(refusal.clone()))]))
    });
    for (watch, states) in [(at_once, 0), (later, 1)] {
        let server = Coordinator::start(Script { watch, ..Script::default() });
        let client = Client::connect(&[server.url()], options()).await.unwrap();
        let items: Vec<_> = client.watch(&id()).collect().await;
        assert_eq!(items.len(), states + 1);
        assert!(matches!(items[states], Err(Error::NotFound { .. })), "{items:?}");
    }
}
