//! The engine's times and budgets. Every one is a setting; the defaults are those of docs/adr/0002.

use std::collections::BTreeMap;

use lethe_domain::{ErrorCode, Phase};

/// A worker needs 4 s to notice that its leader hangs, and a second or two to find the next one.
const CLAIM_MS: u64 = 8_000;

/// Probes that may find a disk full before the job fails: over about seven seconds.
const PROBES_OF_A_FULL_DISK: u32 = 4;

/// A worker that is away for a month does not come back under its name.
const CORDONS_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Times in milliseconds, and budgets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A worker without a heartbeat for this long is suspect: it gets nothing new.
    pub suspect_after_ms: u64,
    /// A worker without a heartbeat for this long is dead: its leases are granted again.
    pub dead_after_ms: u64,
    /// A new leader waits this long for workers to say what they hold.
    pub claim_ms: u64,
    /// A lease without progress for this long is taken back.
    pub lease_ms: u64,
    /// As many shards go into one lease as a slot does in about this time, by its speed so far.
    pub lease_target_ms: u64,
    /// Shards of one lease at most.
    pub shards_per_lease: u32,
    /// When nothing is left to grant, a shard that is out for at least this long is also given to a free slot.
    pub tail_after_ms: u64,
    /// And for this many times as long as a shard takes usually.
    pub tail_factor: u64,
    /// Pause before the second try of a failed lease; doubles with each further try.
    pub backoff_ms: u64,
    /// Longest pause between tries.
    pub backoff_max_ms: u64,
    /// Tries of one shard before the job fails and names it.
    pub attempts: u32,
    /// Tries of one shard, and generations of a gang, that storage may fail before the job does: an outage passes.
    pub storage_attempts: u32,
    /// Pause before the second try after storage failed; doubles with each further try.
    pub storage_backoff_ms: u64,
    /// Shards that fail on one slot and succeed on another, before the slot is quarantined.
    pub slot_strikes: u32,
    /// Generations of a gang that may end without a further step before the job fails.
    pub generations_without_progress: u32,
    /// How long a gang that has its minimum waits for more slots.
    pub gang_patience_ms: u64,
    /// How long the ranks of a gang that is asked to yield may take; then they are stopped.
    pub yield_ms: u64,
    /// A gang is not resized within this time of its forming, nor when it will be done within it.
    pub resize_after_ms: u64,
    /// Whether a gang yields its slots to a job of higher priority, by checkpoint.
    pub preempt: bool,
    /// Jobs that have ended and are kept; the oldest are forgotten. None: all.
    pub keep_jobs: Option<u32>,
    /// How long a job is kept after its end. None: for ever.
    pub keep_ms: Option<u64>,
    /// How long what is decided about a worker is kept after the worker was here last.
    pub keep_cordons_ms: u64,
    /// Slots that the jobs of an owner may hold together; an owner that is not named here may hold all.
    pub quotas: BTreeMap<String, u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            suspect_after_ms: 3_000,
            dead_after_ms: 5_000,
            claim_ms: CLAIM_MS,
            lease_ms: 120_000,
            lease_target_ms: 2_000,
            shards_per_lease: 32,
            tail_after_ms: 3_000,
            tail_factor: 3,
            backoff_ms: 250,
            backoff_max_ms: 60_000,
            attempts: 5,
            storage_attempts: 8,
            storage_backoff_ms: 1_000,
            slot_strikes: 3,
            generations_without_progress: 3,
            gang_patience_ms: 1_000,
            yield_ms: 10_000,
            resize_after_ms: 5_000,
            preempt: false,
            keep_jobs: None,
            keep_ms: None,
            keep_cordons_ms: CORDONS_MS,
            quotas: BTreeMap::new(),
        }
    }
}

impl Config {
    /// The pause before try number `failures + 1` after a failure of this kind.
    pub(crate) fn backoff(&self, code: ErrorCode, failures: u32) -> u64 {
        let first = if code.is_storage() { self.storage_backoff_ms } else { self.backoff_ms };
        let doublings = failures.saturating_sub(1).min(20);
        (first << doublings).min(self.backoff_max_ms)
    }

    /// How often a shard of this phase may fail like this before the job does.
    pub(crate) fn budget(&self, phase: Phase, code: ErrorCode) -> u32 {
        match (phase, code) {
            // A probe is there to find out whether there is room: a disk may be full for a moment, but nobody waits long.
            (Phase::Probe, ErrorCode::DiskFull) => PROBES_OF_A_FULL_DISK,
            (_, code) if code.is_storage() => self.storage_attempts,
            _ => self.attempts,
        }
    }
}
