//! Puts the services together: jobs, the fleet, workers, health, reflection; with keepalive, so that a dead peer is noticed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lethe_artifacts::ArtifactStore;
use lethe_process::Incoming;
use lethe_proto::v1::fleet_service_server::FleetServiceServer;
use lethe_proto::v1::job_service_server::JobServiceServer;
use lethe_proto::v1::worker_service_server::WorkerServiceServer;
use lethe_proto::{DESCRIPTORS, MAX_MESSAGE_BYTES};
use tokio::net::TcpListener;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use super::fleet::Fleet;
use super::jobs::Jobs;
use super::workers::Workers;
use crate::driver::{DriverHandle, Readiness};
use crate::metrics::Metrics;
use crate::metrics::rpc::RpcTimes;
use crate::{Error, Result};

/// A peer that does not answer a ping for [`KEEPALIVE_TIMEOUT`] is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What the services work with.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) driver: DriverHandle,
    pub(crate) artifacts: ArtifactStore,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether workers may make faults on purpose.
    pub(crate) allow_chaos: bool,
}

/// Serves until `end` and until what is being answered then is answered.
///
/// # Errors
/// [`Error::Descriptors`] at once; [`Error::Ended`] when the listener fails.
pub(crate) async fn serve(
    server: Server,
    listener: TcpListener,
    end: impl Future<Output = ()>,
) -> Result<()> {
    let (health, health_service) = health_reporter();
    let follow = follow(server.driver.clone(), health);
    let descriptors =
        |error: tonic_reflection::server::Error| Error::Descriptors { reason: error.to_string() };
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let jobs = JobServiceServer::new(Jobs::new(server.driver.clone(), server.artifacts));
    let fleet = FleetServiceServer::new(Fleet::new(server.driver.clone()));
    let workers = WorkerServiceServer::new(Workers::new(server.driver, server.allow_chaos));
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(RpcTimes::new(server.metrics))
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(descriptors)?)
        .add_service(reflection().build_v1alpha().map_err(descriptors)?)
        .add_service(jobs)
        .add_service(fleet)
        .add_service(workers.max_decoding_message_size(MAX_MESSAGE_BYTES))
        .serve_with_incoming_shutdown(Incoming::new(listener).into_stream(), end);
    tokio::select! {
        served = serving => {
            served.map_err(|error| Error::Ended { part: "gRPC server", reason: error.to_string() })
        }
        never = follow => match never {},
    }
}

/// Keeps the health service saying what the driver says.
async fn follow(driver: DriverHandle, health: HealthReporter) -> std::convert::Infallible {
    let mut readiness = driver.readiness();
    loop {
        let status = match *readiness.borrow_and_update() {
            // Whoever comes to one that follows is told where to go.
            Readiness::Ready | Readiness::Following(_) => ServingStatus::Serving,
            Readiness::StoreDown(_) | Readiness::Draining => ServingStatus::NotServing,
        };
        let jobs = <JobServiceServer<Jobs> as NamedService>::NAME;
        let fleet = <FleetServiceServer<Fleet> as NamedService>::NAME;
        let workers = <WorkerServiceServer<Workers> as NamedService>::NAME;
        for service in ["", jobs, fleet, workers] {
            health.set_service_status(service, status).await;
        }
        if readiness.changed().await.is_err() {
            // The driver has ended; the last word stands.
            std::future::pending::<()>().await;
        }
    }
}
