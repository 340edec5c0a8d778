//! What a coordinator is told, and the same as flags and environment, shared by `lethe-coordinator` and `lethe serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lethe_artifacts::Location;

use crate::{Error, Result};

/// What a coordinator is told.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Where gRPC is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where probes, metrics and the page are served; none: not at all.
    pub http: Option<SocketAddr>,
    /// The state store: `redb:///absolute/folder`, `memory://`.
    pub store: String,
    /// The artifact root: `file:///absolute/folder`.
    pub artifacts: String,
    /// Times and budgets.
    pub engine: lethe_engine::Config,
}

/// The flags of a coordinator.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// Where gRPC is served, for clients and workers.
    #[arg(long, env = "LETHE_LISTEN", default_value = "127.0.0.1:7400", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz, /metrics and the page are served, or "off".
    #[arg(long, env = "LETHE_HTTP", default_value = "127.0.0.1:7401", value_name = "ADDRESS", value_parser = http_address)]
    pub http: HttpAddress,
    /// Folder of the state store and the artifacts, where they are not named themselves. [default: /var/lib/lethe; lethe-state
    /// in the working folder for `lethe serve`]
    #[arg(long, env = "LETHE_DATA", value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// State store: redb:///absolute/folder, or memory:// to forget everything at the end. [default: state in --data]
    #[arg(long, env = "LETHE_STORE", value_name = "URI")]
    pub store: Option<String>,
    /// Artifact root, the same for coordinator and workers: file:///absolute/folder. [default: artifacts in --data]
    #[arg(long, env = "LETHE_ARTIFACTS", value_name = "URI")]
    pub artifacts: Option<String>,
    /// A worker silent for this long is dead: its leases are granted again.
    #[arg(long, env = "LETHE_DEAD_AFTER", default_value = "5s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub dead_after: Duration,
    /// A lease without progress for this long is taken back.
    #[arg(long, env = "LETHE_LEASE", default_value = "2m", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub lease: Duration,
    /// How long a gang that has its minimum waits for more slots.
    #[arg(long, env = "LETHE_GANG_PATIENCE", default_value = "1s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub gang_patience: Duration,
    /// Tries of one shard before its job fails.
    #[arg(long, env = "LETHE_ATTEMPTS", default_value_t = 5, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempts: u32,
}

/// Where HTTP is served, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpAddress(pub Option<SocketAddr>);

fn http_address(text: &str) -> Result<HttpAddress, String> {
    if text == "off" {
        return Ok(HttpAddress(None));
    }
    text.parse().map(|address| HttpAddress(Some(address))).map_err(|_| {
        format!("expected an address such as 127.0.0.1:7401 or 0.0.0.0:7401, or off; found '{text}'")
    })
}

impl Flags {
    /// What they say, with this folder where they name none.
    ///
    /// # Errors
    /// A relative folder, when the working folder is gone.
    pub fn config(self, data: &str) -> Result<CoordinatorConfig> {
        let flags = self;
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let dead_after_ms = ms(flags.dead_after).max(1);
        let defaults = lethe_engine::Config::default();
        let data = std::path::absolute(flags.data.unwrap_or_else(|| data.into())).map_err(Error::Data)?;
        Ok(CoordinatorConfig {
            listen: flags.listen,
            http: flags.http.0,
            store: flags.store.unwrap_or_else(|| format!("redb://{}", data.join("state").display())),
            artifacts: flags.artifacts.unwrap_or_else(|| Location::File(data.join("artifacts")).to_string()),
            engine: lethe_engine::Config {
                dead_after_ms,
                suspect_after_ms: dead_after_ms / 5 * 3,
                lease_ms: ms(flags.lease),
                gang_patience_ms: ms(flags.gang_patience),
                attempts: flags.attempts,
                ..defaults
            },
        })
    }
}

impl CoordinatorConfig {
    /// Checks what can be known without opening anything: for `--check-config`.
    ///
    /// # Errors
    /// A store or an artifact root that no version of this program could open.
    pub fn check(&self) -> Result<()> {
        lethe_artifacts::resolve(&self.artifacts, Path::new("/"))?;
        let refuse = |reason: &str| {
            Err(lethe_store::Error::InvalidUri { uri: self.store.clone(), reason: reason.to_owned() }.into())
        };
        match self.store.split_once("://") {
            Some(("memory", "")) => Ok(()),
            Some(("redb", folder)) if folder.starts_with('/') => Ok(()),
            Some(("redb", _)) => refuse("the folder must be an absolute path, so three slashes"),
            Some(_) | None => refuse("unknown kind of store"),
        }
    }
}
