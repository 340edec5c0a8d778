//! When which fault falls, pure: the time and the slots in, faults out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lethe_domain::{SlotIndex, WorkerId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Chaos;

/// Between two casts.
const CAST: Duration = Duration::from_secs(1);
/// How long an executor hangs, in milliseconds.
const HANG_MS: std::ops::RangeInclusive<u64> = 3_000..=10_000;

/// Something that goes wrong, or comes right again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Kill the executor of this slot.
    Kill(SlotIndex),
    /// Halt the executor of this slot, for so long.
    Hang(SlotIndex, Duration),
    /// Let a halted executor go on.
    Wake(SlotIndex),
    /// Cut the session.
    Drop,
}

/// Cast once a second, always as often for as many slots: what falls depends on the seed and the worker's name alone.
#[derive(Debug)]
pub(crate) struct Dice {
    chaos: Chaos,
    rng: ChaCha8Rng,
    next: Instant,
    /// Halted executors, and until when.
    halted: BTreeMap<SlotIndex, Instant>,
}

impl Dice {
    pub(crate) fn new(chaos: Chaos, worker: &WorkerId, now: Instant) -> Self {
        let mut seed = [0_u8; 32];
        let bytes = chaos.seed.to_le_bytes().into_iter().chain(worker.as_str().bytes());
        for (at, byte) in bytes.enumerate() {
            // Turned by one bit per round, so that a name of equal halves does not cancel itself.
            let place = &mut seed[at % 32];
            *place = place.rotate_left(1) ^ byte;
        }
        Self { chaos, rng: ChaCha8Rng::from_seed(seed), next: now + CAST, halted: BTreeMap::new() }
    }

    /// When to cast next.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.halted.values().copied().fold(self.next, Instant::min)
    }

    /// The executor of a slot has ended: there is nobody to wake.
    pub(crate) fn gone(&mut self, slot: SlotIndex) {
        self.halted.remove(&slot);
    }

    /// What falls now. `up`: per slot, whether it has an executor that is ready; nothing befalls another.
    pub(crate) fn cast(&mut self, now: Instant, up: &[bool]) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.halted.retain(|slot, until| {
            let halted = now < *until;
            faults.extend((!halted).then_some(Fault::Wake(*slot)));
            halted
        });
        if now < self.next {
            return faults;
        }
        self.next = now + CAST;
        for (slot, up) in (0..).map(SlotIndex).zip(up) {
            let kill = self.rng.random_bool(self.chaos.kill);
            let hang = self.rng.random_bool(self.chaos.hang);
            let time = Duration::from_millis(self.rng.random_range(HANG_MS));
            if !up {
                continue;
            }
            if kill {
                faults.push(Fault::Kill(slot));
            } else if hang && !self.halted.contains_key(&slot) {
                self.halted.insert(slot, now + time);
                faults.push(Fault::Hang(slot, time));
            }
        }
        faults.extend(self.rng.random_bool(self.chaos.drop).then_some(Fault::Drop));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn dice(text: &str, worker: &str, now: Instant) -> Dice {
        Dice::new(text.parse().unwrap(), &WorkerId::new(worker).unwrap(), now)
    }

    /// What falls in these seconds, without the seconds' faults that come right again.
    fn falls(dice: &mut Dice, begin: Instant, seconds: u32, up: &[bool]) -> Vec<(u32, Fault)> {
        (1..=seconds)
            .flat_map(|second| dice.cast(begin + SECOND * second, up).into_iter().map(move |f| (second, f)))
            .filter(|(_, fault)| !matches!(fault, Fault::Wake(_)))
            .collect()
    }

    #[test]
    fn faults_fall_about_as_often_as_asked_for() {
        let begin = Instant::now();
        let mut dice = dice("kill=0.1,drop=0.05", "w", begin);
        let fallen = falls(&mut dice, begin, 10_000, &[true, true]);
        let kills = fallen.iter().filter(|(_, fault)| matches!(fault, Fault::Kill(_))).count();
        let drops = fallen.iter().filter(|(_, fault)| *fault == Fault::Drop).count();
        // Five standard deviations.
        assert!((1_790..2_210).contains(&kills), "{kills} of 2000");
        assert!((390..610).contains(&drops), "{drops} of 500");
        assert_eq!(kills + drops, fallen.len(), "what is off does not fall");
    }

    #[test]
    fn the_same_seed_and_name_give_the_same_faults_whatever_the_slots_do() {
        let begin = Instant::now();
        let fallen =
            |text: &str, worker: &str, up: &[bool]| falls(&mut dice(text, worker, begin), begin, 200, up);
        let some = "kill=0.1,hang=0.1,seed=1";
        let first = fallen(some, "w", &[true, true]);
        assert_eq!(fallen(some, "w", &[true, true]), first);
        assert_ne!(fallen("kill=0.1,hang=0.1,seed=2", "w", &[true, true]), first);
        assert_ne!(fallen(some, "v", &[true, true]), first);
        assert_ne!(fallen(some, &"ab".repeat(16), &[true]), fallen(some, &"cd".repeat(16), &[true]));
        let of_slot_1 = |fallen: &[(u32, Fault)]| -> Vec<(u32, Fault)> {
            let of_1 = |fault: &Fault| matches!(fault, Fault::Kill(at) | Fault::Hang(at, _) if at.0 == 1);
            fallen.iter().filter(|(_, fault)| of_1(fault)).copied().collect()
        };
        let halves = fallen(some, "w", &[false, true]);
        assert_eq!(of_slot_1(&halves), of_slot_1(&first));
        assert_eq!(of_slot_1(&halves), halves, "nothing befalls a slot without an executor");
    }

    #[test]
    fn what_hangs_goes_on_after_three_to_ten_seconds_unless_it_has_ended() {
        let begin = Instant::now();
        let slot = SlotIndex(0);
        let mut dice = dice("hang=1", "w", begin);
        assert_eq!(dice.cast(begin, &[true]), []);
        assert_eq!(dice.next_deadline(), begin + SECOND);
        let hangs = dice.cast(begin + SECOND, &[true]);
        let [Fault::Hang(at, time)] = hangs[..] else { panic!("{hangs:?}") };
        assert!(at == slot && (SECOND * 3..=SECOND * 10).contains(&time), "{time:?}");
        assert_eq!(dice.cast(begin + SECOND * 2, &[true]), [], "it hangs already");
        let end = begin + SECOND + time;
        assert_eq!(dice.cast(end, &[false]), [Fault::Wake(slot)]);
        dice.cast(end + SECOND, &[true]);
        dice.gone(slot);
        assert_eq!(dice.cast(end + SECOND * 30, &[false]), []);
    }
}
