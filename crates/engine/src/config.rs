//! The engine's times and budgets. Every one is a setting; the defaults are those of docs/adr/0002.

/// Times in milliseconds, and budgets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A worker without a heartbeat for this long is shown as suspect.
    pub suspect_after_ms: u64,
    /// A worker without a heartbeat for this long is dead: its leases are granted again.
    pub dead_after_ms: u64,
    /// A lease without progress for this long is taken back.
    pub lease_ms: u64,
    /// Pause before the second try of a failed lease; doubles with each further try.
    pub backoff_ms: u64,
    /// Longest pause between tries.
    pub backoff_max_ms: u64,
    /// Tries of one shard before the job fails and names it.
    pub attempts: u32,
    /// Generations of a gang that may end without a further step before the job fails.
    pub generations_without_progress: u32,
    /// How long a gang that has its minimum waits for more slots.
    pub gang_patience_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            suspect_after_ms: 3_000,
            dead_after_ms: 5_000,
            lease_ms: 120_000,
            backoff_ms: 250,
            backoff_max_ms: 60_000,
            attempts: 5,
            generations_without_progress: 3,
            gang_patience_ms: 1_000,
        }
    }
}

impl Config {
    /// The pause before try number `failures + 1`.
    pub(crate) fn backoff(&self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(20);
        (self.backoff_ms << doublings).min(self.backoff_max_ms)
    }
}
