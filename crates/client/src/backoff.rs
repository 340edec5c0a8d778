//! Pauses between tries: each about twice as long as the one before, with jitter, so that many clients of one
//! coordinator do not come back in step.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A series of pauses.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses that begin near `first` and never exceed `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first.min(longest) }
    }

    /// The next pause: between half of it and all of it, by chance.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(0.5 + 0.5 * chance())
    }

    /// Begins again with the first pause, after a success.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.longest);
    }
}

/// A number in [0, 1). The standard library's randomly keyed hasher is random enough to keep clients apart.
fn chance() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(300));
        for whole in [100, 200, 300, 300] {
            let pause = backoff.pause();
            assert!(ms(whole) / 2 <= pause && pause <= ms(whole), "{pause:?} of {whole} ms");
        }
        backoff.reset();
        assert!(backoff.pause() <= ms(100));
    }

    #[test]
    fn two_clients_do_not_pause_alike() {
        let pauses: std::collections::BTreeSet<Duration> =
            (0..16).map(|_| Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).pause()).collect();
        assert!(pauses.len() > 8, "{pauses:?}");
    }
}
