//! What is refused, with the path of the key or the name of the object.

use lethe_client::Error;
use lethe_domain::{JobId, JobSpec};
use lethe_proto::v1;
use lethe_proto::v1::job_service_client::JobServiceClient;
use lethe_proto::v1::submit_job_request::Source;
use serde_json::json;
use tonic_types::StatusExt;

use crate::fake::{FREELY, FakeWorker};
use crate::world::{World, channel, client, get, succeeded, url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_spec_is_refused_with_the_paths_of_its_keys() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let mut spec = world.spec();
    spec["generator"]["uri"] = json!("generator.pt");
    spec["evaluate"]["features"] = json!(world.text("missing.pt"));
    let spec = JobSpec::from_value(spec).unwrap();
    for error in [client.submit(&spec, None).await.unwrap_err(), client.validate(&spec).await.unwrap_err()] {
        let Error::Invalid(error) = error else { panic!("{error}") };
        let paths: Vec<&str> = error.problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["generator.uri", "evaluate.features"], "{error}");
    }
    assert_eq!(client.list(0, None).await.unwrap().jobs, vec![]);
    assert!(client.validate(&world.job()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_check_is_checked() {
    let world = World::new();
    let coordinator = world.start().await;
    let mut raw = JobServiceClient::new(channel(coordinator.grpc_address()).await);
    let mut spec = v1::JobSpec::from(world.job());
    spec.unlearn = Some(v1::Unlearn { steps: Some(0), lr: Some(-1.0), ..Default::default() });
    spec.name = "Not A Name".to_owned();
    let submit = |spec: Option<v1::JobSpec>, validate_only| v1::SubmitJobRequest {
        source: spec.map(Source::Spec),
        request_id: String::new(),
        validate_only,
    };
    let status = raw.submit_job(submit(Some(spec), false)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let details = status.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["name", "unlearn.steps", "unlearn.lr"], "{violations:?}");
    let status = raw.submit_job(submit(None, false)).await.unwrap_err();
    assert!(status.message().contains("spec: missing"), "{status}");
    let text = |text: &str| v1::SubmitJobRequest {
        source: Some(Source::SpecText(text.to_owned())),
        ..submit(None, true)
    };
    let status = raw.submit_job(text("{name: x, sample: {sed: 3}}")).await.unwrap_err();
    assert!(status.message().contains("sample.sed"), "{status}");
    let json = serde_json::to_string(&world.job()).unwrap();
    raw.submit_job(text(&json)).await.unwrap();
    // Checked and not accepted.
    let dry = raw.submit_job(submit(Some(world.job().into()), true)).await.unwrap().into_inner();
    assert_eq!(dry.job, None);
    assert_eq!(raw.list_jobs(v1::ListJobsRequest::default()).await.unwrap().into_inner().jobs, vec![]);
    let status = raw.list_jobs(v1::ListJobsRequest { page_size: -1, ..Default::default() }).await;
    assert_eq!(status.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_a_job_published_can_be_fetched() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let nobody = JobId::new("nobody").unwrap();
    assert!(matches!(client.get(&nobody).await, Err(Error::NotFound { kind, .. }) if kind == "job"));
    assert!(matches!(client.cancel(&nobody, "").await, Err(Error::NotFound { .. })));
    let job = client.submit(&world.job(), None).await.unwrap();
    let mut sink = Vec::new();
    let error = client.download(&job.id, "generator", &mut sink).await.unwrap_err();
    assert!(
        matches!(&error, Error::Conflict { message } if message.contains("published nothing")),
        "{error}"
    );

    let _worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 2, FREELY);
    succeeded(&client, &job.id).await;
    for name in ["weights", "", "../generator", "jobs/x/result/generator.pt"] {
        let error = client.download(&job.id, name, &mut sink).await.unwrap_err();
        assert!(matches!(&error, Error::NotFound { kind, .. } if kind == "artifact"), "{name}: {error}");
    }
    let file = world.path(&format!("artifacts/jobs/{}/result/generator.pt", job.id));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = client.download(&job.id, "generator", &mut sink).await.unwrap_err();
    assert!(error.to_string().contains("DAMAGED"), "{error}");
    assert!(sink.is_empty(), "not a byte of it was sent");
    std::fs::remove_file(world.path(&format!("artifacts/jobs/{}/result/before_after.png", job.id))).unwrap();
    let sheet = get(&coordinator, &format!("/jobs/{}/before_after.png", job.id)).await;
    assert!(sheet.status == 500 && sheet.text().contains("does not exist"), "{}", sheet.text());
}
