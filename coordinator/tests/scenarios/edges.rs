//! Services every gRPC tool expects: health and reflection.

use tokio_stream::StreamExt;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::world::{World, channel};

const SERVICES: [&str; 4] = ["", "lethe.v1.JobService", "lethe.v1.FleetService", "lethe.v1.WorkerService"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_serving_and_draining() {
    let world = World::new();
    let coordinator = world.start().await;
    let mut health = HealthClient::new(channel(coordinator.grpc_address()).await);
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in SERVICES {
        let answer = health.check(ask(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let mut states = health.watch(ask("lethe.v1.JobService")).await.unwrap().into_inner();
    assert_eq!(states.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let shutdown = tokio::spawn(coordinator.shutdown());
    assert_eq!(states.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop((states, health));
    shutdown.await.unwrap();
}

macro_rules! reflection_test {
    ($name:ident, $version:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version::{ServerReflectionRequest, ServiceResponse};

            let world = World::new();
            let coordinator = world.start().await;
            let mut client = ServerReflectionClient::new(channel(coordinator.grpc_address()).await);
            let ask =
                |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
            let questions = [
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol("lethe.v1.JobSpec".to_owned())),
            ];
            let answers = client.server_reflection_info(tokio_stream::iter(questions)).await.unwrap();
            let mut answers = answers.into_inner();
            let Some(MessageResponse::ListServicesResponse(list)) =
                answers.next().await.unwrap().unwrap().message_response
            else {
                panic!("expected the services")
            };
            let names: Vec<String> = list.service.into_iter().map(|ServiceResponse { name }| name).collect();
            for service in SERVICES[1..].iter().chain(&["grpc.health.v1.Health"]) {
                assert!(names.iter().any(|name| name == service), "{service}: {names:?}");
            }
            let Some(MessageResponse::FileDescriptorResponse(files)) =
                answers.next().await.unwrap().unwrap().message_response
            else {
                panic!("expected a file")
            };
            let file = files.file_descriptor_proto.first().unwrap();
            assert!(file.windows(11).any(|part| part == b"publish_uri"), "the file that has JobSpec");
        }
    };
}

reflection_test!(reflection_speaks_v1, v1);
reflection_test!(reflection_speaks_v1alpha, v1alpha);
