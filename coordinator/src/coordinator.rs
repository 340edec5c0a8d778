//! Starts the parts in order, and ends them in the other order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lethe_artifacts::ArtifactStore;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::unix_ms;
use crate::driver::Driver;
use crate::election::{Election, Leader};
use crate::metrics::Metrics;
use crate::records::Records;
use crate::upkeep::Upkeep;
use crate::{CoordinatorConfig, Error, Result, http, rpc};

/// How long the end of the coordinator waits for results that are being written, and for answers that are being given.
const PATIENCE: Duration = Duration::from_secs(5);

/// The thread that the driver has for itself.
const DRIVER: &str = "lethe-driver";

/// Where a coordinator comes from.
#[derive(Debug)]
pub struct Coordinator;

/// A coordinator that runs. Dropped, it ends at once; what is written down stays.
#[derive(Debug)]
pub struct Handle {
    grpc_address: SocketAddr,
    http_address: Option<SocketAddr>,
    parts: Parts,
    upkeep: Upkeep,
}

/// The tasks, each with the token that ends it.
#[derive(Debug)]
struct Parts {
    driver: Part<()>,
    grpc: Part<Result<()>>,
    http: Option<Part<Result<()>>>,
}

#[derive(Debug)]
struct Part<T> {
    task: JoinHandle<T>,
    end: DropGuard,
}

impl Coordinator {
    /// Opens the stores, reads the state, and serves. Returns when clients and workers can connect.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Artifacts`] and [`Error::Record`] for what it rests on; [`Error::Listen`].
    pub async fn start(config: CoordinatorConfig) -> Result<Handle> {
        config.check()?;
        let grpc = listen(config.listen).await?;
        let page = match config.http {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let metrics = Arc::new(Metrics::new()?);
        let artifacts = ArtifactStore::open(&config.artifacts).await?;
        let store = lethe_store::connect(&config.store).await?;
        let grpc_address = address_of(&grpc, config.listen)?;
        let me = Leader {
            address: config.advertise.unwrap_or_else(|| grpc_address.to_string()),
            id: uuid::Uuid::new_v4().to_string(),
            started_unix_ms: unix_ms(),
        };
        let election = Election::new(store.clone(), metrics.clone(), me, config.leader_ttl);
        let records = Records::new(store.clone(), metrics.clone());
        let upkeep = Upkeep::new(artifacts.clone(), config.keep_edits);
        let root = artifacts.location().to_string();
        let (driver, handle) =
            Driver::start(config.engine, root, (election, records), metrics.clone(), upkeep.clone()).await?;

        let http_address = page.as_ref().map(|listener| address_of(listener, config.listen)).transpose()?;
        let driver = Part::thread(DRIVER, |end| driver.run(end))?;
        let web = http::Web {
            driver: handle.clone(),
            store,
            artifacts: artifacts.clone(),
            metrics: metrics.clone(),
        };
        let allow_chaos = config.allow_chaos;
        let server = rpc::Server { driver: handle, artifacts, metrics, allow_chaos };
        let parts = Parts {
            driver,
            grpc: Part::spawn(|end| rpc::serve(server, grpc, end.cancelled_owned())),
            http: page.map(|listener| Part::spawn(|end| http::serve(web, listener, end.cancelled_owned()))),
        };
        tracing::info!(grpc = %grpc_address, http = ?http_address, "the coordinator serves");
        Ok(Handle { grpc_address, http_address, parts, upkeep })
    }
}

impl Handle {
    /// Where gRPC is served, with the port that was really taken.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where probes, metrics and the page are served.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Serves until SIGTERM or Ctrl-C, and ends in good order.
    ///
    /// # Errors
    /// When a part ends by itself.
    pub async fn until_told(mut self) -> Result<()> {
        let ended =
            |source: std::io::Error| Error::Ended { part: "signal handler", reason: source.to_string() };
        let mut terminate = signal(SignalKind::terminate()).map_err(ended)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(ended)?;
        let result = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            error = self.ended() => Err(error),
        };
        if result.is_ok() {
            tracing::info!("told to end");
        }
        self.shutdown().await;
        result
    }

    /// Waits until a part ends that should run for ever, and says why it did. Never, when all is well.
    async fn ended(&mut self) -> Error {
        let Parts { driver, grpc, http } = &mut self.parts;
        let page = async {
            match http {
                Some(http) => (&mut http.task).await,
                None => std::future::pending().await,
            }
        };
        let (part, ended) = tokio::select! {
            ended = &mut driver.task => ("driver", ended.map(Ok)),
            ended = &mut grpc.task => ("gRPC server", ended),
            ended = page => ("HTTP server", ended),
        };
        match ended {
            Ok(Ok(())) => Error::Ended { part, reason: "nobody told it to".to_owned() },
            Ok(Err(error)) => error,
            Err(error) => Error::Ended { part, reason: error.to_string() },
        }
    }

    /// Ends it in good order: nothing new is accepted, sessions and watches end, answers that are being given and
    /// results that are being written get a while. Running work goes on at the workers; they join the next coordinator.
    pub async fn shutdown(self) {
        let Parts { driver, grpc, http } = self.parts;
        driver.stop(PATIENCE).await;
        grpc.stop(PATIENCE).await;
        self.upkeep.finish(PATIENCE).await;
        if let Some(http) = http {
            http.stop(PATIENCE).await;
        }
        tracing::info!("the coordinator has ended");
    }
}

impl Part<()> {
    /// Runs on a thread of its own: no answer that is being put together keeps it waiting.
    ///
    /// # Errors
    /// [`Error::Ended`] when the system gives no thread.
    fn thread<F: Future<Output = ()> + Send + 'static>(
        name: &'static str,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Result<Self> {
        let (token, aborted) = (CancellationToken::new(), CancellationToken::new());
        let (running, runtime) = (run(token.clone()), runtime::Handle::current());
        let (say_end, end) = oneshot::channel();
        let abort = aborted.clone().drop_guard();
        let body = move || {
            runtime.block_on(aborted.run_until_cancelled(running));
            // Nobody waits for it any more: no harm.
            let _ = say_end.send(());
        };
        let started = thread::Builder::new().name(name.to_owned()).spawn(body);
        started.map_err(|error| Error::Ended { part: "driver", reason: error.to_string() })?;
        // Without a word it ended by a panic, of which the log tells.
        let task = tokio::spawn(async move {
            let _abort = abort;
            end.await.unwrap_or_default();
        });
        Ok(Self { task, end: token.drop_guard() })
    }
}

impl<T: Send + 'static> Part<T> {
    fn spawn<F: Future<Output = T> + Send + 'static>(run: impl FnOnce(CancellationToken) -> F) -> Self {
        let token = CancellationToken::new();
        Self { task: tokio::spawn(run(token.clone())), end: token.drop_guard() }
    }

    /// Tells the part to end, and makes it when it takes too long.
    async fn stop(mut self, patience: Duration) {
        drop(self.end);
        if timeout(patience, &mut self.task).await.is_err() {
            self.task.abort();
            // Only that it has ended matters; how is known.
            let _ = self.task.await;
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

fn address_of(listener: &TcpListener, asked: SocketAddr) -> Result<SocketAddr> {
    listener.local_addr().map_err(|source| Error::Listen { address: asked, source })
}
