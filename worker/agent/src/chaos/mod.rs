//! Faults that a worker makes on purpose, so that a fleet can be rehearsed: which, how often, and how they are written.
//!
//! Not here: when which one falls (`dice`), making it (`trouble`).

mod dice;
mod trouble;

use std::fmt;
use std::str::FromStr;

pub(crate) use dice::{Dice, Fault};
pub(crate) use trouble::Trouble;

/// The most that an executor can be slowed down.
const SLOWEST: f64 = 1_000.0;

/// Faults to make on purpose. Written as `kill=P,hang=P,slow=F,drop=P,canary,seed=N`, each part at most once.
#[derive(Debug, Clone, PartialEq)]
pub struct Chaos {
    /// Per second and slot: the probability that its executor is killed.
    pub kill: f64,
    /// Per second and slot: the probability that its executor is halted for 3 to 10 seconds.
    pub hang: f64,
    /// Per second: the probability that the session is cut.
    pub drop: f64,
    /// Executors take this many times as long; 1 is as fast as they can.
    pub slow: f64,
    /// Executors answer the canary wrongly.
    pub canary: bool,
    /// A worker of the same name makes the same faults with the same seed.
    pub seed: u64,
}

/// Why a text names no faults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChaosError {
    /// No such fault.
    #[error(
        "'{0}' is no fault: expected kill=P, hang=P, slow=F, drop=P, canary or seed=N, separated by commas"
    )]
    Unknown(String),
    /// Said before.
    #[error("{0} is there twice")]
    Twice(String),
    /// Not a probability.
    #[error("{fault}={found}: expected a probability per second, 0 to 1")]
    Probability {
        /// kill, hang, drop.
        fault: String,
        /// As written.
        found: String,
    },
    /// Not a factor.
    #[error("slow={0}: expected a factor, 1 to 1000")]
    Factor(String),
    /// Not a seed.
    #[error("seed={0}: expected a whole number, 0 to 18446744073709551615")]
    Seed(String),
    /// Nothing would happen.
    #[error("'{0}' makes no fault: name at least one of kill, hang, slow, drop, canary")]
    Nothing(String),
}

impl Chaos {
    const NONE: Self = Self { kill: 0.0, hang: 0.0, drop: 0.0, slow: 1.0, canary: false, seed: 0 };

    /// What the executors are to do wrong by themselves, as their flag takes it, one by one.
    pub(crate) fn of_executors(&self) -> Vec<String> {
        let slow = (self.slow > 1.0).then(|| format!("slow={}", self.slow));
        let canary = self.canary.then(|| "canary".to_owned());
        slow.into_iter().chain(canary).collect()
    }
}

impl FromStr for Chaos {
    type Err = ChaosError;

    fn from_str(text: &str) -> Result<Self, ChaosError> {
        let mut chaos = Self::NONE;
        let mut seen = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, value) =
                part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
            if seen.contains(&name) {
                return Err(ChaosError::Twice(name.to_owned()));
            }
            seen.push(name);
            match (name, value) {
                ("kill", Some(value)) => chaos.kill = probability(name, value)?,
                ("hang", Some(value)) => chaos.hang = probability(name, value)?,
                ("drop", Some(value)) => chaos.drop = probability(name, value)?,
                ("slow", Some(value)) => {
                    let factor = value.parse().ok().filter(|factor| (1.0..=SLOWEST).contains(factor));
                    chaos.slow = factor.ok_or_else(|| ChaosError::Factor(value.to_owned()))?;
                }
                ("seed", Some(value)) => {
                    chaos.seed = value.parse().map_err(|_| ChaosError::Seed(value.to_owned()))?;
                }
                ("canary", None) => chaos.canary = true,
                _ => return Err(ChaosError::Unknown(part.to_owned())),
            }
        }
        if chaos == (Self { seed: chaos.seed, ..Self::NONE }) {
            return Err(ChaosError::Nothing(text.to_owned()));
        }
        Ok(chaos)
    }
}

fn probability(fault: &str, value: &str) -> Result<f64, ChaosError> {
    let wrong = || ChaosError::Probability { fault: fault.to_owned(), found: value.to_owned() };
    value.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(wrong)
}

/// As it is parsed, without what is off.
impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, share) in [("kill", self.kill), ("hang", self.hang), ("drop", self.drop)] {
            if share > 0.0 {
                write!(f, "{name}={share},")?;
            }
        }
        for fault in self.of_executors() {
            write!(f, "{fault},")?;
        }
        write!(f, "seed={}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_written_again() {
        let all: Chaos = "kill=0.5, hang=1,slow=2.5,drop=0.001,canary,seed=7".parse().unwrap();
        let expected = Chaos { kill: 0.5, hang: 1.0, drop: 0.001, slow: 2.5, canary: true, seed: 7 };
        assert_eq!(all, expected);
        assert_eq!(all.to_string(), "kill=0.5,hang=1,drop=0.001,slow=2.5,canary,seed=7");
        assert_eq!(all.to_string().parse(), Ok(all.clone()));
        assert_eq!(all.of_executors(), ["slow=2.5", "canary"]);
        assert!("kill=0.1".parse::<Chaos>().unwrap().of_executors().is_empty());
        let one: Chaos = "canary".parse().unwrap();
        assert_eq!(
            (one.to_string(), one.of_executors()),
            ("canary,seed=0".to_owned(), vec!["canary".to_owned()])
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            ("", "'' is no fault"),
            ("kill", "'kill' is no fault"),
            ("canary=1", "'canary=1' is no fault"),
            ("kill=0.1,maim=0.1", "'maim=0.1' is no fault"),
            ("kill=0.1,kill=0.2", "kill is there twice"),
            ("hang=1.5", "hang=1.5: expected a probability per second, 0 to 1"),
            ("drop=NaN", "drop=NaN: expected a probability"),
            ("slow=0.5", "slow=0.5: expected a factor, 1 to 1000"),
            ("slow=inf", "slow=inf"),
            ("kill=0.1,seed=-1", "seed=-1: expected a whole number"),
            ("seed=3", "'seed=3' makes no fault"),
            ("kill=0", "'kill=0' makes no fault"),
        ] {
            let error = text.parse::<Chaos>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
