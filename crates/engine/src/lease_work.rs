//! Work that is cut into shards and leased: which shards are done, open, or to be tried again, and when it is enough.
//!
//! The results that count are a prefix of the shards, whatever order they come in: the same job gives the same target
//! vector with 1 or 100 slots. Not here: who gets a shard (planner), what a lease is (state).

use std::collections::{BTreeMap, BTreeSet};

use lethe_domain::spec::{Positive, Until};
use lethe_domain::{Attempt, Epoch, JobSpec, Phase, SampleRange, Shape, ShardIndex, TaskOutput};

/// The shards of one phase.
#[derive(Debug)]
pub(crate) struct LeaseWork {
    pub(crate) phase: Phase,
    /// Shards in all; with `until.positives`, the most there can be.
    pub(crate) limit: u32,
    /// Samples in all; the last shard may be shorter.
    samples: u64,
    shard_size: u64,
    /// Enough when the prefix has this many positives.
    wanted_positives: Option<u64>,
    pub(crate) done: BTreeMap<ShardIndex, TaskOutput>,
    /// Shards before this one are all done.
    prefix: u32,
    prefix_positives: u64,
    /// No shard from here on was ever granted.
    next: u32,
    /// Shards at work.
    pub(crate) open: BTreeSet<ShardIndex>,
    /// Shards to be granted again, not before the given time.
    again: BTreeMap<ShardIndex, u64>,
    /// Grants and failures so far of shards that are not done.
    tries: BTreeMap<ShardIndex, Tries>,
    /// Attempts count on from here, so that no lease id is used twice, not even by the leader after a restart.
    attempts_before: u32,
}

/// Room for attempts of one leader. A shard fails long before it is used up.
const ATTEMPTS_PER_EPOCH: u32 = 1 << 10;

#[derive(Debug, Default, Clone, Copy)]
struct Tries {
    granted: u32,
    failed: u32,
}

/// Samples after which sampling gives up, per wanted positive.
const AT_MOST_PER_POSITIVE: u64 = 100;

impl LeaseWork {
    /// The shards of a phase that is leased.
    pub(crate) fn new(phase: Phase, spec: &JobSpec, epoch: Epoch) -> Self {
        let (samples, wanted_positives) = match phase.shape() {
            Shape::Single | Shape::Gang => (1, None),
            Shape::Sharded if phase == Phase::Sample => sample_goal(spec),
            Shape::Sharded => (spec.evaluate.samples, None),
        };
        let shard_size = match phase.shape() {
            Shape::Sharded => spec.sample.shard_size,
            Shape::Single | Shape::Gang => 1,
        };
        Self {
            phase,
            limit: u32::try_from(samples.div_ceil(shard_size)).unwrap_or(u32::MAX),
            samples,
            shard_size,
            wanted_positives,
            done: BTreeMap::new(),
            prefix: 0,
            prefix_positives: 0,
            next: 0,
            open: BTreeSet::new(),
            again: BTreeMap::new(),
            tries: BTreeMap::new(),
            attempts_before: (epoch.0.saturating_sub(1) as u32).wrapping_mul(ATTEMPTS_PER_EPOCH),
        }
    }

    /// The sample indices of a shard.
    pub(crate) fn range(&self, shard: ShardIndex) -> SampleRange {
        let start = u64::from(shard.0) * self.shard_size;
        SampleRange { start, count: self.shard_size.min(self.samples.saturating_sub(start)) }
    }

    /// Puts back a shard that was done before a restart.
    pub(crate) fn restore(&mut self, shard: ShardIndex, output: TaskOutput) {
        self.done.insert(shard, output);
        self.advance();
    }

    /// A shard is done. False when it was done already.
    pub(crate) fn finish(&mut self, shard: ShardIndex, output: TaskOutput) -> bool {
        self.open.remove(&shard);
        self.again.remove(&shard);
        self.tries.remove(&shard);
        if self.done.contains_key(&shard) {
            return false;
        }
        self.done.insert(shard, output);
        self.advance();
        true
    }

    /// A shard came back without a result. Returns how often it has failed, counting this time if it `counts`.
    pub(crate) fn give_back(&mut self, shard: ShardIndex, counts: bool) -> u32 {
        self.open.remove(&shard);
        let tries = self.tries.entry(shard).or_default();
        tries.failed += u32::from(counts);
        tries.failed
    }

    /// A shard that came back is to be granted again from `not_before_ms` on.
    pub(crate) fn try_again(&mut self, shard: ShardIndex, not_before_ms: u64) {
        if !self.done.contains_key(&shard) {
            self.again.insert(shard, not_before_ms);
        }
    }

    /// Shards that could be granted now.
    pub(crate) fn ready(&self, now_ms: u64) -> u32 {
        if self.complete().is_some() {
            return 0;
        }
        let again = self.again.values().filter(|at| **at <= now_ms).count();
        let fresh = (self.next..self.limit).filter(|shard| !self.done.contains_key(&ShardIndex(*shard)));
        // Nobody has more free slots than this; counting a million shards would be waste.
        (again + fresh.take(FRESH_COUNTED).count()) as u32
    }

    /// Takes the next shard to grant: what failed before comes first, then the lowest index.
    pub(crate) fn grant(&mut self, now_ms: u64) -> Option<(ShardIndex, Attempt)> {
        let due = self.again.iter().find(|(_, at)| **at <= now_ms).map(|(shard, _)| *shard);
        let shard = match due {
            Some(shard) => shard,
            None => {
                while self.next < self.limit && self.done.contains_key(&ShardIndex(self.next)) {
                    self.next += 1;
                }
                if self.next >= self.limit {
                    return None;
                }
                self.next += 1;
                ShardIndex(self.next - 1)
            }
        };
        self.again.remove(&shard);
        Some((shard, self.open(shard)))
    }

    /// Counts a grant of this shard.
    fn open(&mut self, shard: ShardIndex) -> Attempt {
        self.open.insert(shard);
        let tries = self.tries.entry(shard).or_default();
        tries.granted = tries.granted.max(self.attempts_before) + 1;
        Attempt(tries.granted)
    }

    /// A worker still works on this shard after a restart. False when nobody needs it to.
    pub(crate) fn adopt(&mut self, shard: ShardIndex, attempt: Attempt) -> bool {
        if shard.0 >= self.limit || self.done.contains_key(&shard) || self.open.contains(&shard) {
            return false;
        }
        self.again.remove(&shard);
        self.open.insert(shard);
        let tries = self.tries.entry(shard).or_default();
        tries.granted = tries.granted.max(attempt.0);
        if shard.0 >= self.next {
            // Shards that were skipped over become grantable through `again`.
            for skipped in self.next..shard.0 {
                let skipped = ShardIndex(skipped);
                if !self.done.contains_key(&skipped) && !self.open.contains(&skipped) {
                    self.again.entry(skipped).or_insert(0);
                }
            }
            self.next = shard.0 + 1;
        }
        true
    }

    /// When the next failed shard may be tried again.
    pub(crate) fn next_try_ms(&self) -> Option<u64> {
        self.again.values().min().copied()
    }

    /// How many shards count, once it is enough: the shortest prefix with enough positives, or all of them.
    pub(crate) fn complete(&self) -> Option<u32> {
        let enough = self.wanted_positives.is_some_and(|wanted| self.prefix_positives >= wanted);
        (enough || self.prefix == self.limit).then_some(self.prefix)
    }

    /// Samples done, positives among them, samples in all as far as known.
    pub(crate) fn samples_done(&self) -> u64 {
        self.done.keys().map(|shard| self.range(*shard).count).sum()
    }

    /// Samples in all, as far as known.
    pub(crate) fn samples_total(&self) -> u64 {
        match self.wanted_positives {
            Some(wanted) if self.prefix_positives > 0 => {
                let seen = u64::from(self.prefix) * self.shard_size;
                (seen * wanted).div_ceil(self.prefix_positives).max(seen).min(self.samples)
            }
            Some(_) | None => self.samples,
        }
    }

    /// Moves the prefix on, but not beyond the point where it is enough.
    fn advance(&mut self) {
        while self.complete().is_none() {
            let Some(output) = self.done.get(&ShardIndex(self.prefix)) else { return };
            if let TaskOutput::Sample(sample) = output {
                self.prefix_positives += sample.positives.unwrap_or(0);
            }
            self.prefix += 1;
        }
    }
}

const FRESH_COUNTED: usize = 4096;

/// Samples in all, and the positives after which it is enough.
pub(crate) fn sample_goal(spec: &JobSpec) -> (u64, Option<u64>) {
    match spec.sample.until {
        Until::Total(total) => (total, None),
        Until::Positives(wanted) => {
            // The top q of the scores are positive by definition: the number of samples follows.
            if let Some(scorer) = &spec.feature.scorer
                && let Positive::Top(share) = scorer.positive
            {
                return ((wanted as f64 / share).ceil() as u64, None);
            }
            (spec.sample.at_most.unwrap_or(wanted.saturating_mul(AT_MOST_PER_POSITIVE)), Some(wanted))
        }
    }
}
