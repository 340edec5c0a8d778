//! `lethe serve`: a coordinator in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use lethe_coordinator::{Coordinator, CoordinatorConfig};

use crate::commands::{block_on, log_to_stderr};
use crate::error::Error;
use crate::output::remark;

/// Start a coordinator that workers join and people submit jobs to.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where clients and workers connect (gRPC)
    #[arg(long, default_value = "127.0.0.1:7400", env = "LETHE_LISTEN")]
    listen: SocketAddr,
    /// Where the page, /metrics, /livez and /readyz are
    #[arg(long, default_value = "127.0.0.1:7401", env = "LETHE_HTTP")]
    http: SocketAddr,
    /// Folder for state and artifacts, unless they are named one by one
    #[arg(long, default_value = "lethe-state", env = "LETHE_DATA")]
    data: PathBuf,
    /// Where the state is: redb:///absolute/folder or memory://
    #[arg(long, env = "LETHE_STORE")]
    store: Option<String>,
    /// Where artifacts are: file:///absolute/folder. Workers must see the same folder
    #[arg(long, env = "LETHE_ARTIFACTS")]
    artifacts: Option<String>,
}

/// Serves until Ctrl-C or SIGTERM.
pub(crate) fn execute(arguments: Arguments) -> Result<ExitCode, Error> {
    log_to_stderr("info");
    let data =
        std::path::absolute(&arguments.data).map_err(|error| Error::io("find", &arguments.data, error))?;
    let below = |scheme: &str, name: &str| format!("{scheme}://{}", data.join(name).display());
    let config = CoordinatorConfig {
        listen: arguments.listen,
        http: Some(arguments.http),
        store: arguments.store.unwrap_or_else(|| below("redb", "state")),
        artifacts: arguments.artifacts.unwrap_or_else(|| below("file", "artifacts")),
        engine: Default::default(),
    };
    block_on(async {
        let coordinator = Coordinator::start(config).await.map_err(|error| Error::Other(error.into()))?;
        let grpc = coordinator.grpc_address();
        remark(&format!(
            "coordinator at http://{grpc}; workers join with: lethe-worker --coordinator http://{grpc}"
        ));
        if let Some(http) = coordinator.http_address() {
            remark(&format!("page at http://{http}/"));
        }
        stop_signal().await?;
        coordinator.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}

async fn stop_signal() -> Result<(), Error> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(anyhow::Error::from)?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
