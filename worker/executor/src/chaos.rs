//! Faults made on purpose, for rehearsals: only what `--chaos` names, which an agent gives when it was told to itself.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::link::Stop;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Chaos {
    /// The canary gives a wrong number.
    Canary,
    /// Every batch and step takes this many times as long.
    Slow(f64),
}

/// Reads `canary` or `slow=FACTOR`.
pub(crate) fn parse(text: &str) -> std::result::Result<Chaos, String> {
    let slow = |factor: &str| factor.parse().ok().filter(|factor: &f64| (1.0..=1000.0).contains(factor));
    match text.split_once('=') {
        None if text == "canary" => Some(Chaos::Canary),
        Some(("slow", factor)) => slow(factor).map(Chaos::Slow),
        _ => None,
    }
    .ok_or_else(|| format!("found '{text}', expected canary or slow=FACTOR, a factor of 1 to 1000"))
}

/// How fast work goes on: as fast as it can, or slowed down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    factor: f64,
    /// When the last batch was begun.
    begun: Option<Instant>,
}

impl Pace {
    /// By the faults asked for.
    pub(crate) fn of(chaos: &[Chaos]) -> Self {
        let factors = chaos.iter().filter_map(|fault| match fault {
            Chaos::Slow(factor) => Some(*factor),
            Chaos::Canary => None,
        });
        Self { factor: factors.fold(1.0, f64::max), begun: None }
    }

    /// Between two batches: waits as long as the last one's slowness takes, or until a stop.
    ///
    /// # Errors
    /// [`crate::error::Error::Stopped`].
    pub(crate) fn keep(&mut self, stop: &Stop) -> Result<()> {
        if self.factor > 1.0 {
            let took = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
            stop.wait(took.mul_f64(self.factor - 1.0))?;
            self.begun = Some(Instant::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_anything_else_is_refused() {
        assert_eq!(parse("canary"), Ok(Chaos::Canary));
        assert_eq!(parse("slow=2.5"), Ok(Chaos::Slow(2.5)));
        for text in ["", "slow", "slow=", "slow=0.5", "slow=NaN", "slow=inf", "canary=1", "fast=2"] {
            assert!(parse(text).unwrap_err().contains("expected canary or slow=FACTOR"), "{text}");
        }
    }

    #[test]
    fn a_slow_slot_takes_that_many_times_as_long() {
        let (stop, mut pace) = (Stop::default(), Pace::of(&[Chaos::Canary, Chaos::Slow(3.0)]));
        pace.keep(&stop).unwrap();
        let begun = pace.begun.unwrap();
        stop.wait(Duration::from_millis(20)).unwrap();
        pace.keep(&stop).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(60), "{:?}", begun.elapsed());
        assert_eq!(Pace::of(&[Chaos::Canary]).factor, 1.0);
    }
}
