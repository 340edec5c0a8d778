//! What a coordinator is told, and the same as flags and environment, shared by `lethe-coordinator` and `lethe serve`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::FalseyValueParser;
use lethe_artifacts::Location;

use crate::{Error, Result};

/// What a coordinator is told.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Where gRPC is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where probes, metrics and the page are served; none: not at all.
    pub http: Option<SocketAddr>,
    /// The state store: `redb:///absolute/folder`, `memory://`, `etcd://host:2379,host:2379?prefix=/lethe`.
    pub store: String,
    /// Where clients, workers and other coordinators reach this one, `host:port`; none: where gRPC is served.
    pub advertise: Option<String>,
    /// How long a leader that has died holds up the next one, in a store that several coordinators share. Whole seconds.
    pub leader_ttl: Duration,
    /// The artifact root: `file:///absolute/folder` or `s3://bucket/prefix`.
    pub artifacts: String,
    /// Whether workers may make faults on purpose.
    pub allow_chaos: bool,
    /// How long edits are kept for other jobs after they were made; zero: none are kept.
    pub keep_edits: Duration,
    /// Times and budgets.
    pub engine: lethe_engine::Config,
}

/// How long edits are kept unless somebody says otherwise.
pub const KEEP_EDITS: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The flags of a coordinator.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// Where gRPC is served, for clients and workers.
    #[arg(long, env = "LETHE_LISTEN", default_value = "127.0.0.1:7400", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where clients, workers and other coordinators reach this one, when that is not where it listens.
    #[arg(long, env = "LETHE_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where /livez, /readyz, /metrics and the page are served, or "off".
    #[arg(long, env = "LETHE_HTTP", default_value = "127.0.0.1:7401", value_name = "ADDRESS", value_parser = http_address)]
    pub http: HttpAddress,
    /// Folder of the state store and the artifacts, where they are not named themselves. [default: /var/lib/lethe; lethe-state
    /// in the working folder for `lethe serve`]
    #[arg(long, env = "LETHE_DATA", value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// State store: redb:///absolute/folder, etcd://host:2379,host:2379?prefix=/lethe beside ETCD_* in the environment
    /// (see docs/etcd.md), or memory:// to forget everything at the end. [default: state in --data]
    #[arg(long, env = "LETHE_STORE", value_name = "URI")]
    pub store: Option<String>,
    /// A leader silent for this long is replaced, where several coordinators share a store.
    #[arg(long, env = "LETHE_LEADER_TTL", default_value = "3s", value_name = "DURATION", value_parser = at_least_a_second)]
    pub leader_ttl: Duration,
    /// Artifact root, the same for coordinator and workers: file:///absolute/folder or s3://bucket/prefix (see docs/storage.md). [default: artifacts in --data]
    #[arg(long, env = "LETHE_ARTIFACTS", value_name = "URI")]
    pub artifacts: Option<String>,
    /// A worker silent for this long is dead: its leases are granted again.
    #[arg(long, env = "LETHE_DEAD_AFTER", default_value = "5s", value_name = "DURATION", value_parser = at_least_a_second)]
    pub dead_after: Duration,
    /// A lease without progress for this long is taken back.
    #[arg(long, env = "LETHE_LEASE", default_value = "2m", value_name = "DURATION", value_parser = at_least_a_second)]
    pub lease: Duration,
    /// How long a gang that has its minimum waits for more slots.
    #[arg(long, env = "LETHE_GANG_PATIENCE", default_value = "1s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub gang_patience: Duration,
    /// Tries of one shard before its job fails.
    #[arg(long, env = "LETHE_ATTEMPTS", default_value_t = 5, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempts: u32,
    /// Shards of sampling in one lease at most; a slot gets as many as it does in about two seconds.
    #[arg(long, env = "LETHE_SHARDS_PER_LEASE", default_value_t = 32, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub shards_per_lease: u32,
    /// Jobs that have ended and are kept; beyond that the oldest are deleted, with their files. What they published
    /// elsewhere stays (see docs/retention.md).
    #[arg(long, env = "LETHE_KEEP_JOBS", default_value_t = 10_000, value_name = "COUNT")]
    pub keep_jobs: u32,
    /// How long a job is kept after its end; then it is deleted, with its files. [default: until --keep-jobs]
    #[arg(long, env = "LETHE_KEEP_FOR", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub keep_for: Option<Duration>,
    /// How long the edits of a job are kept for other jobs that would make the same (pool.reuse); 0s keeps none.
    #[arg(long, env = "LETHE_KEEP_EDITS", default_value = "7days", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub keep_edits: Duration,
    /// Slots that the jobs of an owner (queue.owner of their specs) may hold together; may be given several times.
    #[arg(long = "quota", env = "LETHE_QUOTA", value_name = "OWNER=SLOTS", value_delimiter = ',', value_parser = quota)]
    pub quotas: Vec<(String, u32)>,
    /// Let a gang in training yield its slots, by checkpoint, to a job of higher priority that finds none.
    #[arg(long, env = "LETHE_PREEMPT", value_parser = FalseyValueParser::new())]
    pub preempt: bool,
    /// Take workers that make faults on purpose (lethe-worker --chaos), for a rehearsal.
    #[arg(long, env = "LETHE_ALLOW_CHAOS", value_parser = FalseyValueParser::new())]
    pub allow_chaos: bool,
}

/// The longest time that means anything here.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A time in which a process that lives can be heard from, over a network and from a busy machine.
fn at_least_a_second(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if !(Duration::from_secs(1)..=LONGEST).contains(&duration) {
        return Err(format!("expected 1s to 30days; found {text}"));
    }
    Ok(duration)
}

fn quota(text: &str) -> Result<(String, u32), String> {
    let refuse = || format!("expected an owner and a number of slots, such as team-a=16; found '{text}'");
    let (owner, slots) = text.split_once('=').ok_or_else(refuse)?;
    if owner.trim().is_empty() {
        return Err(refuse());
    }
    Ok((owner.to_owned(), slots.parse().map_err(|_| refuse())?))
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
    /// An owner with two quotas; a relative folder, when the working folder is gone.
    pub fn config(self, data: &str) -> Result<CoordinatorConfig> {
        let flags = self;
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let dead_after_ms = ms(flags.dead_after);
        let mut quotas = BTreeMap::new();
        for (owner, slots) in flags.quotas {
            if let Some(other) = quotas.insert(owner.clone(), slots) {
                return Err(Error::Quota { owner, found: [other, slots] });
            }
        }
        let defaults = lethe_engine::Config::default();
        let data = std::path::absolute(flags.data.unwrap_or_else(|| data.into())).map_err(Error::Data)?;
        Ok(CoordinatorConfig {
            listen: flags.listen,
            advertise: flags.advertise,
            leader_ttl: flags.leader_ttl,
            http: flags.http.0,
            store: flags.store.unwrap_or_else(|| format!("redb://{}", data.join("state").display())),
            artifacts: flags.artifacts.unwrap_or_else(|| Location::File(data.join("artifacts")).to_string()),
            allow_chaos: flags.allow_chaos,
            keep_edits: flags.keep_edits,
            engine: lethe_engine::Config {
                dead_after_ms,
                claim_ms: defaults.claim_ms.max(dead_after_ms),
                suspect_after_ms: dead_after_ms / 5 * 3,
                lease_ms: ms(flags.lease),
                gang_patience_ms: ms(flags.gang_patience),
                attempts: flags.attempts,
                preempt: flags.preempt,
                shards_per_lease: flags.shards_per_lease,
                keep_jobs: Some(flags.keep_jobs),
                keep_ms: flags.keep_for.map(ms),
                quotas,
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
        lethe_store::check(&self.store)?;
        match &self.advertise {
            None if self.store.starts_with("etcd://") && self.listen.ip().is_unspecified() => {
                Err(Error::Advertise { listen: self.listen })
            }
            Some(address) if !is_address(address) => Err(Error::Address { address: address.clone() }),
            Some(_) | None => Ok(()),
        }
    }
}

fn is_address(text: &str) -> bool {
    let uri: Result<http::Uri, _> = format!("http://{text}").parse();
    uri.is_ok_and(|uri| uri.port_u16().is_some() && uri.path() == "/" && uri.query().is_none())
}
