//! An agent as others see it: probes, metrics, a screen. It is a copy; nothing here changes anything.

use lethe_domain::LeaseId;

/// An agent as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether a session with a coordinator is open.
    pub joined: bool,
    /// Whether it takes no more work because it is about to leave.
    pub draining: bool,
    /// The slots, in order.
    pub slots: Vec<SlotView>,
    /// Outcomes that no coordinator has acknowledged yet.
    pub unacknowledged: usize,
    /// What has happened so far.
    pub counts: Counts,
    /// Faults made on purpose so far.
    pub faults: Faults,
}

/// A slot as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotView {
    /// cpu, cuda:0.
    pub device: String,
    /// What its executor does.
    pub activity: Activity,
    /// The lease it works on, or will work on once its executor is up.
    pub lease: Option<LeaseId>,
}

/// What the executor of a slot does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// It is not there, or not ready yet.
    Starting,
    /// It waits for work.
    Idle,
    /// It works.
    Busy,
    /// It was told to stop, or is being killed.
    Stopping,
}

impl Activity {
    /// Every activity.
    pub const ALL: [Activity; 4] = [Activity::Starting, Activity::Idle, Activity::Busy, Activity::Stopping];

    /// The name used in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Activity::Starting => "starting",
            Activity::Idle => "idle",
            Activity::Busy => "busy",
            Activity::Stopping => "stopping",
        }
    }
}

/// Counted since the agent began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions begun.
    pub sessions: u64,
    /// Leases that gave an output.
    pub succeeded: u64,
    /// Leases that failed.
    pub failed: u64,
    /// Leases that ended on request.
    pub cancelled: u64,
    /// Leases that were handed back.
    pub yielded: u64,
    /// Executors that died while they worked.
    pub died_at_work: u64,
    /// Executors that died while they had nothing to do.
    pub died_idle: u64,
    /// Executors that died, or were killed, before they were ready.
    pub did_not_start: u64,
    /// Executors that were killed because they did not stop.
    pub did_not_stop: u64,
}

/// Faults made on purpose ([`crate::Chaos`]), counted since the agent began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Executors killed.
    pub kills: u64,
    /// Executors halted for a while.
    pub hangs: u64,
    /// Sessions cut.
    pub drops: u64,
}
