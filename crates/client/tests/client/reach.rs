//! Finding a coordinator that answers: addresses, silence, standing in for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lethe_client::{Client, Error, Options};
use lethe_domain::JobState;
use lethe_proto::status::Refusal;
use lethe_proto::v1;

use crate::server::{Coordinator, Script, answer, nobody, silence};
use crate::{id, job, options, spec};

/// Shows every job with this version.
fn shows(version: u64) -> Script {
    let get = answer(move |_| {
        Ok(v1::GetJobResponse {
            job: Some(job(JobState::Running, version).into()),
            spec: Some(spec().into()),
            inputs: None,
        })
    });
    Script { get, ..Script::default() }
}

async fn version_seen(client: &Client) -> u64 {
    client.get(&id()).await.unwrap().0.version
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_without_trying() {
    for addresses in [vec![], vec!["https://localhost:1"], vec!["localhost:1", "no port"]] {
        let error = Client::connect(&addresses, options()).await.unwrap_err();
        assert!(matches!(error, Error::Address { .. }), "{addresses:?}: {error}");
        assert!(!error.retryable());
    }
}

#[tokio::test]
async fn where_nobody_listens_every_address_tried_and_the_cause_are_named() {
    let addresses = [nobody(), nobody()];
    let error = Client::connect(&addresses, options()).await.unwrap_err();
    assert!(error.retryable());
    let Error::Unreachable { address, reason } = error else { panic!("{error}") };
    assert_eq!(address, addresses.join(", "));
    assert!(reason.to_lowercase().contains("connection refused"), "{reason}");
}

#[tokio::test]
async fn a_coordinator_that_does_not_answer_is_given_up_in_time() {
    let server = Coordinator::start(Script { get: silence(), ..Script::default() });
    let options = Options { call_timeout: Duration::from_millis(100), ..options() };
    let client = Client::connect(&[server.url()], options).await.unwrap();
    let begin = Instant::now();
    let error = client.get(&id()).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(error.retryable());
    assert!(matches!(&error, Error::Unreachable { reason, .. } if reason.contains("no answer")), "{error}");
}

#[tokio::test]
async fn what_is_no_coordinator_is_told_from_one() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let closes = tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    // HTTP/2 begins without a greeting, so it may take a call to notice.
    let options = Options { call_timeout: Duration::from_secs(1), ..options() };
    let error = match Client::connect(&[address], options).await {
        Ok(client) => client.get(&id()).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    closes.abort();
}

#[tokio::test]
async fn the_next_one_is_asked_when_the_first_is_down_and_it_stays_the_first_asked() {
    let (one, two) = (Coordinator::start(shows(1)), Coordinator::start(shows(2)));
    let client = Client::connect(&[nobody(), one.url(), two.url()], options()).await.unwrap();
    assert_eq!((version_seen(&client).await, client.address()), (1, one.url()));
    one.kill().await;
    assert_eq!((version_seen(&client).await, client.address()), (2, two.url()));
    two.kill().await;
    let error = client.get(&id()).await.unwrap_err();
    let Error::Unreachable { address, .. } = error else { panic!("{error}") };
    assert_eq!(address.split(", ").count(), 3, "{address}");
}

#[tokio::test]
async fn one_that_cannot_answer_now_sends_us_to_the_next_and_is_reported_when_it_is_the_only_one() {
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let follower = Coordinator::start(Script {
        get: answer(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Err(Refusal::Unavailable { message: "another one leads".to_owned() }.into())
        }),
        ..Script::default()
    });
    let leader = Coordinator::start(shows(2));
    let client = Client::connect(&[follower.url(), leader.url()], options()).await.unwrap();
    assert_eq!(version_seen(&client).await, 2);
    assert_eq!(version_seen(&client).await, 2);
    assert_eq!(calls.load(Ordering::Relaxed), 1, "the leader is asked first once it is known");
    leader.kill().await;
    let error = client.get(&id()).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { message } if message == "another one leads"), "{error}");
}

#[tokio::test]
async fn a_coordinator_that_comes_back_is_found_again() {
    let server = Coordinator::start(shows(1));
    let client = Client::connect(&[server.url()], options()).await.unwrap();
    assert_eq!(version_seen(&client).await, 1);
    let address = server.kill().await;
    assert!(client.get(&id()).await.unwrap_err().retryable());
    let _server = Coordinator::start_at(address, shows(2));
    assert_eq!(version_seen(&client).await, 2);
}

/// A coordinator that follows this leader, or none; with the number of calls it got.
fn follower(leader: Option<String>) -> (Coordinator, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let script = Script {
        get: answer(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Err(Refusal::NotLeader { leader: leader.clone() }.into())
        }),
        ..Script::default()
    };
    (Coordinator::start(script), calls)
}

#[tokio::test]
async fn one_that_follows_sends_us_to_a_leader_that_was_not_in_the_list() {
    let leader = Coordinator::start(shows(2));
    let (follower, calls) = follower(Some(leader.address.to_string()));
    let client = Client::connect(&[follower.url()], options()).await.unwrap();
    assert_eq!((version_seen(&client).await, client.address()), (2, leader.url()));
    assert_eq!(version_seen(&client).await, 2);
    assert_eq!(calls.load(Ordering::Relaxed), 1, "the leader is asked first once it is known");
}

#[tokio::test]
async fn while_nobody_leads_a_call_waits_and_then_goes_through() {
    let (one, calls) = follower(None);
    let client = Client::connect(&[one.url()], options()).await.unwrap();
    let waiting = tokio::spawn(async move { version_seen(&client).await });
    while calls.load(Ordering::Relaxed) < 3 {
        tokio::task::yield_now().await;
    }
    let address = one.kill().await;
    let _leader = Coordinator::start_at(address, shows(3));
    assert_eq!(waiting.await.unwrap(), 3);
}

#[tokio::test]
async fn two_that_send_us_to_each_other_are_left_when_patience_ends() {
    let place = Coordinator::start(Script::default()).kill().await;
    let (one, calls) = follower(Some(place.to_string()));
    let (script, leader) = (Arc::new(AtomicU32::new(0)), one.address.to_string());
    let count = script.clone();
    let _other = Coordinator::start_at(
        place,
        Script {
            get: answer(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Err(Refusal::NotLeader { leader: Some(leader.clone()) }.into())
            }),
            ..Script::default()
        },
    );
    let options = Options { patience: Duration::from_millis(300), ..options() };
    let client = Client::connect(&[one.url()], options).await.unwrap();
    let error = client.get(&id()).await.unwrap_err();
    assert!(matches!(error, Error::NotLeader { .. }) && error.retryable(), "{error}");
    let (here, there) = (calls.load(Ordering::Relaxed), script.load(Ordering::Relaxed));
    assert!(here >= 2 && there >= 2 && here + there < 60, "{here} and {there} calls");
}
