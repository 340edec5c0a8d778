//! The time, as the engine wants it. The only place of this crate that reads a clock for a decision.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lethe_engine::Now;
use tokio::time::Instant;

/// A monotonic clock that begins at zero, beside the calendar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: self.origin.elapsed().as_millis() as u64, unix_ms: unix.as_millis() as u64 }
    }

    /// The moment at which [`Clock::now`] first says `mono_ms`.
    pub(crate) fn instant(&self, mono_ms: u64) -> Instant {
        self.origin + Duration::from_millis(mono_ms)
    }
}
