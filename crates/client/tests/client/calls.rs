//! Calls and their answers in domain types, and refusals as typed errors.

use std::sync::{Arc, Mutex};

use lethe_client::{Client, Error};
use lethe_domain::{
    ErrorCode, Failure, JobState, SlotState, SpecError, SpecProblem, WorkerId, WorkerState, WorkerStatus,
};
use lethe_proto::status::Refusal;
use lethe_proto::v1;
use tonic::Status;

use crate::server::{Coordinator, Script, answer};
use crate::{id, job, options, spec};

async fn client(script: Script) -> (Coordinator, Client) {
    let server = Coordinator::start(script);
    let client = Client::connect(&[server.url()], options()).await.unwrap();
    (server, client)
}

/// A client of a coordinator that refuses to show any job, for this reason.
async fn refused(refusal: Refusal) -> Error {
    let get = answer(move |_| Err(Status::from(refusal.clone())));
    let (_server, client) = client(Script { get, ..Script::default() }).await;
    client.get(&id()).await.unwrap_err()
}

#[tokio::test]
async fn a_submitted_job_carries_its_spec_and_its_request_id() {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    let submit = answer(move |request| {
        seen.lock().unwrap().push(request);
        Ok(v1::SubmitJobResponse { job: Some(job(JobState::Queued, 1).into()) })
    });
    let (_server, client) = client(Script { submit, ..Script::default() }).await;
    for request_id in [Some("retry-me"), None, None] {
        assert_eq!(client.submit(&spec(), request_id).await.unwrap(), job(JobState::Queued, 1));
    }
    let requests = requests.lock().unwrap();
    assert!(
        requests
            .iter()
            .all(|request| request.source == Some(v1::submit_job_request::Source::Spec(spec().into()))
                && !request.validate_only)
    );
    let ids: Vec<&str> = requests.iter().map(|request| request.request_id.as_str()).collect();
    assert_eq!(ids[0], "retry-me");
    assert!(!ids[1].is_empty() && !ids[2].is_empty() && ids[1] != ids[2], "{ids:?}");
}

#[tokio::test]
async fn a_job_comes_with_what_was_asked_for() {
    let get = answer(|request: v1::GetJobRequest| {
        assert_eq!(request.job_id, "thick-vae-7");
        Ok(v1::GetJobResponse {
            job: Some(job(JobState::Running, 5).into()),
            spec: Some(spec().into()),
            inputs: None,
        })
    });
    let cancel = answer(|request: v1::CancelJobRequest| {
        assert_eq!((request.job_id.as_str(), request.reason.as_str()), ("thick-vae-7", "changed my mind"));
        Ok(v1::CancelJobResponse { job: Some(job(JobState::Cancelling, 6).into()) })
    });
    let (_server, client) = client(Script { get, cancel, ..Script::default() }).await;
    assert_eq!(client.get(&id()).await.unwrap(), (job(JobState::Running, 5), spec()));
    assert_eq!(client.cancel(&id(), "changed my mind").await.unwrap().state, JobState::Cancelling);
}

#[tokio::test]
async fn pages_follow_each_other() {
    let list = answer(|request: v1::ListJobsRequest| {
        assert_eq!(request.page_size, 2);
        let (version, next) = match request.page_token.as_str() {
            "" => (2, "second"),
            "second" => (1, ""),
            other => return Err(Status::invalid_argument(other)),
        };
        Ok(v1::ListJobsResponse {
            jobs: vec![job(JobState::Succeeded, version).into()],
            next_page_token: next.to_owned(),
        })
    });
    let (_server, client) = client(Script { list, ..Script::default() }).await;
    let first = client.list(2, None).await.unwrap();
    assert_eq!(first.jobs, [job(JobState::Succeeded, 2)]);
    let second = client.list(2, first.next.as_deref()).await.unwrap();
    assert_eq!((second.jobs, second.next), (vec![job(JobState::Succeeded, 1)], None));
}

#[tokio::test]
async fn workers_come_in_domain_types() {
    let worker = WorkerStatus {
        id: WorkerId::new("node-7").unwrap(),
        hostname: "node-7.example".to_owned(),
        version: "0.1.0".to_owned(),
        state: WorkerState::Suspect,
        slots: vec![SlotState {
            device: "cpu".to_owned(),
            lease: None,
            proven: true,
            quarantine: None,
            samples_per_second: 0.0,
        }],
        reason: None,
        heartbeat_age_ms: 1500,
    };
    let wire = v1::Worker::from(worker.clone());
    let workers = answer(move |_| Ok(v1::ListWorkersResponse { workers: vec![wire.clone()] }));
    let (_server, client) = client(Script { workers, ..Script::default() }).await;
    assert_eq!(client.workers().await.unwrap(), [worker]);
}

#[tokio::test]
async fn a_wrong_spec_is_refused_before_it_is_sent() {
    // This coordinator would answer every call with Unimplemented.
    let (_server, client) = client(Script::default()).await;
    let mut wrong = spec();
    wrong.unlearn.lr = Some(-1.0);
    for error in [client.submit(&wrong, None).await.unwrap_err(), client.validate(&wrong).await.unwrap_err()]
    {
        let Error::Invalid(error) = error else { panic!("{error}") };
        assert_eq!(error.problems[0].path, "unlearn.lr");
    }
}

#[tokio::test]
async fn what_only_the_coordinator_can_see_is_reported_the_same_way() {
    let problem = || SpecProblem { path: "generator.uri".to_owned(), message: "no such file".to_owned() };
    let validate = answer(move |request: v1::ValidateJobRequest| {
        let Some(v1::validate_job_request::Source::Spec(spec)) = request.source else { panic!("no message") };
        let missing = spec.name == "thick-vae";
        Ok(v1::ValidateJobResponse { problems: missing.then(|| problem().into()).into_iter().collect() })
    });
    let submit = answer(move |_| Err(Refusal::Spec(SpecError { problems: vec![problem()] }).into()));
    let (_server, client) = client(Script { validate, submit, ..Script::default() }).await;
    for error in
        [client.submit(&spec(), None).await.unwrap_err(), client.validate(&spec()).await.unwrap_err()]
    {
        let Error::Invalid(error) = error else { panic!("{error}") };
        assert_eq!(error.problems, [problem()]);
    }
    let mut other = spec();
    other.name = "thin-vae".to_owned();
    client.validate(&other).await.unwrap();
}

#[tokio::test]
async fn each_refusal_arrives_as_what_it_is() {
    let error = refused(Refusal::NotFound { kind: "job".to_owned(), id: "x".to_owned() }).await;
    assert!(matches!(&error, Error::NotFound { kind, id } if kind == "job" && id == "x"), "{error}");
    assert!(!error.retryable());

    let error = refused(Refusal::Conflict { message: "already final".to_owned() }).await;
    assert!(matches!(&error, Error::Conflict { message } if message == "already final"), "{error}");
    assert!(!error.retryable());

    let error = refused(Refusal::Unavailable { message: "no leader".to_owned() }).await;
    assert!(matches!(&error, Error::Unavailable { message } if message == "no leader"), "{error}");
    assert!(error.retryable());

    for (code, retryable) in
        [(ErrorCode::Storage, true), (ErrorCode::DiskFull, true), (ErrorCode::Cancelled, false)]
    {
        let failure =
            Failure { at_unix_ms: 1_785_542_400_001, ..Failure::new(code, "what happened", "what to do") };
        let error = refused(Refusal::Failure(failure.clone())).await;
        assert_eq!(error.retryable(), retryable);
        assert!(matches!(&error, Error::Rejected(found) if *found == failure), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_with_a_thousand_reasons_arrives() {
    let problem = |place: usize| SpecProblem { path: format!("feature.p{place}"), message: "é".repeat(100) };
    let error = refused(Refusal::Spec(SpecError { problems: (0..1000).map(problem).collect() })).await;
    let Error::Invalid(error) = error else { panic!("{error}") };
    assert_eq!(error.problems[0], problem(0));
    assert!(error.problems.last().unwrap().message.ends_with("more problems"));
}

#[tokio::test]
async fn an_answer_nobody_understands_names_the_field() {
    let get = answer(|_| {
        let mut wire = v1::Job::from(job(JobState::Running, 1));
        wire.state = 99;
        Ok(v1::GetJobResponse { job: Some(wire), spec: Some(spec().into()), inputs: None })
    });
    let list = answer(|_| Err(Status::unimplemented("")));
    let cancel = answer(|_| Ok(v1::CancelJobResponse { job: None }));
    let (_server, client) = client(Script { get, list, cancel, ..Script::default() }).await;
    let errors = [
        (client.get(&id()).await.unwrap_err(), "job.state: found 99"),
        (client.list(0, None).await.unwrap_err(), "Unimplemented"),
        (client.cancel(&id(), "").await.unwrap_err(), "job: missing"),
    ];
    for (error, reason) in errors {
        assert!(
            matches!(&error, Error::Misunderstood { reason: found, .. } if found.contains(reason)),
            "{error}"
        );
        assert!(!error.retryable());
    }
}
