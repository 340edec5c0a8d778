//! What an agent is told.

use std::path::PathBuf;
use std::time::Duration;

use lethe_domain::WorkerId;

use crate::Chaos;

/// What an agent is told.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Addresses of coordinators that stand in for each other, `http://host:port`; at least one.
    pub coordinators: Vec<String>,
    /// The worker's name, unique among live workers.
    pub id: WorkerId,
    /// The machine's name, for people.
    pub hostname: String,
    /// The executor program; see [`crate::find_executor`].
    pub executor: PathBuf,
    /// A device per slot; see [`crate::plan_slots`].
    pub devices: Vec<String>,
    /// CPU threads of each executor.
    pub threads: u32,
    /// Folder for `slot-I.log`, what executors write to stderr; none: it is only in the agent's own log.
    pub logs: Option<PathBuf>,
    /// Faults to make on purpose.
    pub chaos: Option<Chaos>,
    /// How long the agent waits for whom.
    pub patience: Patience,
}

/// How long the agent waits before it acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// For an executor to end a lease it was told to stop; then it is killed.
    pub stop: Duration,
    /// For an executor to be ready after it was started; then it is killed.
    pub start: Duration,
    /// For leases to end, or to be taken back, once the agent is asked to leave; then it leaves. Zero: it leaves at once.
    pub drain: Duration,
    /// For executors to end their leases when the agent leaves; then they are killed.
    pub leave: Duration,
    /// For the last outcomes to be acknowledged when the agent leaves.
    pub farewell: Duration,
    /// For an outcome to be acknowledged before it is sent again.
    pub acknowledge: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            stop: Duration::from_secs(5),
            start: Duration::from_secs(60),
            drain: Duration::ZERO,
            leave: Duration::from_secs(5),
            farewell: Duration::from_secs(2),
            acknowledge: Duration::from_secs(5),
        }
    }
}
