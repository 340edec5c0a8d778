//! A coordinator whose answers each test writes, on a runtime of its own, so that it can be killed with its connections.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, pending, ready};
use futures::stream::{BoxStream, StreamExt};
use lethe_proto::v1;
use lethe_proto::v1::fleet_service_server::{FleetService, FleetServiceServer};
use lethe_proto::v1::job_service_server::{JobService, JobServiceServer};
use lethe_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// What a method does with a request.
pub(crate) struct Handler<In, Out>(Box<dyn Fn(In) -> BoxFuture<'static, Result<Out, Status>> + Send + Sync>);

impl<In, Out: Send + 'static> Default for Handler<In, Out> {
    fn default() -> Self {
        answer(|_| Err(Status::unimplemented("not in this test")))
    }
}

/// Answers at once.
pub(crate) fn answer<In, Out: Send + 'static>(
    make: impl Fn(In) -> Result<Out, Status> + Send + Sync + 'static,
) -> Handler<In, Out> {
    Handler(Box::new(move |request| ready(make(request)).boxed()))
}

/// Never answers.
pub(crate) fn silence<In, Out: Send + 'static>() -> Handler<In, Out> {
    Handler(Box::new(|_| pending().boxed()))
}

/// A stream of these, which then ends.
pub(crate) fn stream<T: Send + 'static>(
    items: Vec<Result<T, Status>>,
) -> BoxStream<'static, Result<T, Status>> {
    futures::stream::iter(items).boxed()
}

/// A stream of these, which then stays open.
pub(crate) fn open_stream<T: Send + 'static>(items: Vec<T>) -> BoxStream<'static, Result<T, Status>> {
    futures::stream::iter(items.into_iter().map(Ok)).chain(futures::stream::pending()).boxed()
}

type Outgoing<T> = BoxStream<'static, Result<T, Status>>;

/// A coordinator's answers.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) submit: Handler<v1::SubmitJobRequest, v1::SubmitJobResponse>,
    pub(crate) validate: Handler<v1::ValidateJobRequest, v1::ValidateJobResponse>,
    pub(crate) get: Handler<v1::GetJobRequest, v1::GetJobResponse>,
    pub(crate) list: Handler<v1::ListJobsRequest, v1::ListJobsResponse>,
    pub(crate) watch: Handler<v1::WatchJobRequest, Outgoing<v1::WatchJobResponse>>,
    pub(crate) cancel: Handler<v1::CancelJobRequest, v1::CancelJobResponse>,
    pub(crate) download: Handler<v1::DownloadArtifactRequest, Outgoing<v1::DownloadArtifactResponse>>,
    pub(crate) workers: Handler<v1::ListWorkersRequest, v1::ListWorkersResponse>,
    pub(crate) session: Handler<Streaming<v1::SessionRequest>, Outgoing<v1::SessionResponse>>,
}

/// A coordinator that serves a script.
pub(crate) struct Coordinator {
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Coordinator {
    /// Serves on a free port.
    pub(crate) fn start(script: Script) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), script)
    }

    /// Serves on this address.
    pub(crate) fn start_at(address: SocketAddr, script: Script) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, bound) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let script = std::sync::Arc::new(Service(script));
            Server::builder()
                .add_service(JobServiceServer::from_arc(script.clone()))
                .add_service(FleetServiceServer::from_arc(script.clone()))
                .add_service(WorkerServiceServer::from_arc(script))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        let address = bound.recv_timeout(Duration::from_secs(20)).unwrap();
        Self { address, runtime: Some(runtime) }
    }

    /// The address as a client takes it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it and every connection it has, without a word to anybody; gives its address, free again.
    pub(crate) async fn kill(mut self) -> SocketAddr {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(20))).await.unwrap();
        self.address
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An address nobody listens on.
pub(crate) fn nobody() -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

struct Service(Script);

type Pinned<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

/// Calls that are tested against a real coordinator.
fn not_scripted() -> Status {
    Status::unimplemented("no test scripts this call")
}

#[tonic::async_trait]
impl JobService for Service {
    type WatchJobStream = Pinned<v1::WatchJobResponse>;
    type DownloadArtifactStream = Pinned<v1::DownloadArtifactResponse>;

    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        (self.0.submit.0)(request.into_inner()).await.map(Response::new)
    }

    async fn validate_job(
        &self,
        request: Request<v1::ValidateJobRequest>,
    ) -> Result<Response<v1::ValidateJobResponse>, Status> {
        (self.0.validate.0)(request.into_inner()).await.map(Response::new)
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        (self.0.get.0)(request.into_inner()).await.map(Response::new)
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        (self.0.list.0)(request.into_inner()).await.map(Response::new)
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        (self.0.watch.0)(request.into_inner()).await.map(Response::new)
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        (self.0.cancel.0)(request.into_inner()).await.map(Response::new)
    }

    async fn download_artifact(
        &self,
        request: Request<v1::DownloadArtifactRequest>,
    ) -> Result<Response<Self::DownloadArtifactStream>, Status> {
        (self.0.download.0)(request.into_inner()).await.map(Response::new)
    }

    async fn delete_job(
        &self,
        _: Request<v1::DeleteJobRequest>,
    ) -> Result<Response<v1::DeleteJobResponse>, Status> {
        Err(not_scripted())
    }

    async fn explain_job(
        &self,
        _: Request<v1::ExplainJobRequest>,
    ) -> Result<Response<v1::ExplainJobResponse>, Status> {
        Err(not_scripted())
    }
}

#[tonic::async_trait]
impl FleetService for Service {
    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        (self.0.workers.0)(request.into_inner()).await.map(Response::new)
    }

    async fn get_worker(
        &self,
        _: Request<v1::GetWorkerRequest>,
    ) -> Result<Response<v1::GetWorkerResponse>, Status> {
        Err(not_scripted())
    }

    async fn drain_worker(
        &self,
        _: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        Err(not_scripted())
    }

    async fn quarantine_worker(
        &self,
        _: Request<v1::QuarantineWorkerRequest>,
    ) -> Result<Response<v1::QuarantineWorkerResponse>, Status> {
        Err(not_scripted())
    }

    async fn release_worker(
        &self,
        _: Request<v1::ReleaseWorkerRequest>,
    ) -> Result<Response<v1::ReleaseWorkerResponse>, Status> {
        Err(not_scripted())
    }
}

#[tonic::async_trait]
impl WorkerService for Service {
    type SessionStream = Pinned<v1::SessionResponse>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        (self.0.session.0)(request.into_inner()).await.map(Response::new)
    }
}
