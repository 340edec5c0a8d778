//! The flags of `lethe-worker`, each with its environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use lethe_agent::{
    AgentConfig, Chaos, DeviceChoice, Error, Patience, find_executor, hostname, new_worker_id, plan_slots,
};
use lethe_domain::WorkerId;
use lethe_process::log::Format;

const AFTER_HELP: &str = "\
Examples:
  lethe-worker --coordinator http://coordinator:7400
  lethe-worker --coordinator http://a:7400,http://b:7400 --devices cpu --slots 4 --http 0.0.0.0:7402

Ranks of a gang on several machines meet at the address from which rank 0's worker reaches its coordinator, unless LETHE_GANG_HOST
or LETHE_GANG_INTERFACE names another; on ports that the system chooses.

SIGTERM or Ctrl-C drains: no more work is taken, leases at work end or are taken back within --drain-patience, then the
worker leaves. A second signal ends it at once.

Exit codes: 0 left when asked to (SIGTERM, Ctrl-C), 1 failed, 2 usage, 3 the coordinator does not take this worker.
A coordinator that cannot be reached is no failure: the worker tries again for ever, and running work goes on.";

/// Gives this machine's devices to a Lethe coordinator: one slot per device, one executor process per slot.
#[derive(Debug, Parser)]
#[command(name = "lethe-worker", version, about, long_about = None, after_help = AFTER_HELP)]
pub(crate) struct Flags {
    /// Address of the coordinator; several that stand in for each other: repeat it, or separate them by commas
    #[arg(long, env = "LETHE_COORDINATOR", value_name = "URL", value_delimiter = ',', required = true)]
    coordinator: Vec<String>,
    /// Name of this worker, unique in the fleet [default: the host's name and something random]
    #[arg(long, env = "LETHE_WORKER_ID", value_name = "NAME", value_parser = worker_id)]
    id: Option<WorkerId>,
    /// Devices to offer: auto (a slot per GPU, else the CPU), cpu, cuda, or a list such as cuda:0,cuda:1
    #[arg(long, env = "LETHE_DEVICES", value_name = "DEVICES", default_value = "auto")]
    devices: DeviceChoice,
    /// How many slots [default: one per GPU; one on the CPU]
    #[arg(long, env = "LETHE_SLOTS", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    slots: Option<u32>,
    /// CPU threads of each executor [default: the processors shared out evenly over the slots]
    #[arg(long, env = "LETHE_THREADS", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
    /// The executor program [default: lethe-executor beside this program]
    #[arg(long, env = "LETHE_EXECUTOR", value_name = "PATH")]
    executor: Option<PathBuf>,
    /// Folder for slot-I.log, what each executor writes to stderr [default: only in this program's own log]
    #[arg(long, env = "LETHE_LOG_DIR", value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Where /livez, /readyz and /metrics are served [default: nowhere]
    #[arg(long, env = "LETHE_HTTP", value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,
    /// An executor that does not stop for this long is killed
    #[arg(long, env = "LETHE_STOP_PATIENCE", value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    stop_patience: Duration,
    /// An executor that is not ready for this long after its start is killed
    #[arg(long, env = "LETHE_START_PATIENCE", value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    start_patience: Duration,
    /// When asked to leave: how long leases at work may go on, to end or to be taken back. 0s: they are stopped at once
    #[arg(long, env = "LETHE_DRAIN_PATIENCE", value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    drain_patience: Duration,
    /// Rehearse faults: kill=P,hang=P,slow=F,drop=P,canary,seed=N (P per second; see docs/chaos.md). Only a coordinator
    /// started with --allow-chaos takes such a worker
    #[arg(long, env = "LETHE_CHAOS", value_name = "FAULTS")]
    chaos: Option<Chaos>,
    /// Form of the log on stderr; RUST_LOG says how much of it
    #[arg(long, env = "LETHE_LOG_FORMAT", value_name = "FORM", default_value = "text")]
    pub(crate) log_format: Format,
}

impl Flags {
    /// What the agent is told, after a look at this machine.
    pub(crate) fn into_config(self) -> Result<AgentConfig, Error> {
        let hostname = hostname();
        let slots = plan_slots(&self.devices, self.slots, self.threads)?;
        Ok(AgentConfig {
            coordinators: self.coordinator,
            id: match self.id {
                Some(id) => id,
                None => new_worker_id(&hostname)?,
            },
            hostname,
            executor: find_executor(self.executor.as_deref())?,
            devices: slots.devices,
            threads: slots.threads,
            logs: self.log_dir,
            chaos: self.chaos,
            patience: Patience {
                stop: self.stop_patience,
                drain: self.drain_patience,
                leave: self.stop_patience,
                start: self.start_patience,
                ..Patience::default()
            },
        })
    }
}

fn worker_id(text: &str) -> Result<WorkerId, String> {
    WorkerId::new(text).map_err(|error| error.to_string())
}
