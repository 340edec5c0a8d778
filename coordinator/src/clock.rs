//! The time, as the engine wants it. The only place of this crate that reads a clock for a decision.
//!
//! It stands still while the process does. What is measured by it is silence: of workers, of leases. A process that was
//! stopped, or whose threads had no turn, heard nobody in that time, and what was said then still waits in its sockets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lethe_engine::Now;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

/// Beats in the longest time that counts in full.
const BEATS: u32 = 4;

/// A monotonic clock that begins at zero, beside the calendar. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    beat: Arc<Mutex<Beat>>,
    /// Between two beats at most this much time passes.
    longest: Duration,
}

/// The last sign that this process runs.
#[derive(Debug)]
struct Beat {
    at: Instant,
    time: Duration,
}

impl Clock {
    /// A clock that takes no more than `longest` of a pause of this process for time that has passed. It goes on as long
    /// as the handle is kept.
    pub(crate) fn start(longest: Duration) -> (Self, AbortOnDropHandle<()>) {
        let beat = Beat { at: Instant::now(), time: Duration::ZERO };
        let clock = Self { beat: Arc::new(Mutex::new(beat)), longest };
        let beating = clock.clone();
        let beats = tokio::spawn(async move {
            loop {
                sleep(longest / BEATS).await;
                beating.beat();
            }
        });
        (clock, AbortOnDropHandle::new(beats))
    }

    pub(crate) fn now(&self) -> Now {
        let beat = self.last();
        let time = beat.time + beat.at.elapsed().min(self.longest);
        Now { mono_ms: time.as_millis() as u64, unix_ms: unix_ms() }
    }

    /// The moment at which [`Clock::now`] first says `mono_ms`, unless this process pauses before.
    pub(crate) fn instant(&self, mono_ms: u64) -> Instant {
        let beat = self.last();
        beat.at + Duration::from_millis(mono_ms).saturating_sub(beat.time)
    }

    fn beat(&self) {
        let mut beat = self.last();
        let now = Instant::now();
        let passed = (now - beat.at).min(self.longest);
        *beat = Beat { at: now, time: beat.time + passed };
    }

    fn last(&self) -> MutexGuard<'_, Beat> {
        // Nobody panics with it in hand, and a beat is whole at any moment.
        self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_runs_with_the_process_and_stands_still_with_it() {
        let (clock, _beats) = Clock::start(LONGEST);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(clock.now().mono_ms, 60_000);
        // A jump, and not one beat in it: so it looks to a process that was stopped.
        tokio::time::advance(Duration::from_secs(6)).await;
        let after = clock.now().mono_ms;
        assert!((60_000..=61_000).contains(&after), "{after}");
        tokio::time::sleep_until(clock.instant(64_000)).await;
        assert_eq!(clock.now().mono_ms, 64_000);
    }
}
