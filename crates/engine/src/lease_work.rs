//! Work that is cut into shards and leased: which shards are done, open, or to be tried again, and when it is enough.
//!
//! The results that count are a prefix of the shards, whatever order they come in: the same job gives the same target
//! vector with 1 or 100 slots. A lease covers one shard or several in a row; each is open, done and tried by itself.
//! Not here: who gets a lease (planner), what a lease is (state).

use std::collections::{BTreeMap, BTreeSet};

use lethe_domain::{Attempt, Epoch, JobSpec, Phase, Portions, SampleRange, ShardIndex, SlotRef, TaskOutput};

use crate::done::DoneShards;

/// The shards of one phase.
#[derive(Debug)]
pub(crate) struct LeaseWork {
    pub(crate) phase: Phase,
    /// Shards in all; with `until.positives`, the most there can be.
    pub(crate) limit: u32,
    portions: Portions,
    done: DoneShards,
    samples_done: u64,
    /// Shards before this one are all done.
    prefix: u32,
    prefix_positives: u64,
    /// No shard from here on was ever granted.
    next: u32,
    /// Shards from `next` on that are done all the same (after a restart).
    done_ahead: u32,
    /// Shards at work.
    open: BTreeMap<ShardIndex, Open>,
    /// Those of them that one lease covers, the one that is out longest first.
    single: BTreeSet<(u64, ShardIndex)>,
    /// Shards to be granted again, not before the given time.
    again: BTreeMap<ShardIndex, u64>,
    /// Grants and failures so far of shards that are not done.
    tries: BTreeMap<ShardIndex, Tries>,
    /// What a shard takes usually, in milliseconds: a moving average; 0 before the first.
    usual_ms: f64,
    /// Attempts count on from here, so that no lease id is used twice, not even by the leader after a restart.
    attempts_before: u32,
}

/// A shard at work.
#[derive(Debug, Clone, Copy)]
struct Open {
    since_ms: u64,
    /// Leases that cover it.
    leases: u32,
}

/// What was tried with a shard.
#[derive(Debug, Default, Clone)]
struct Tries {
    granted: u32,
    failed: u32,
    /// Failures of storage.
    unstored: u32,
    /// Slots it failed on.
    failed_on: Vec<SlotRef>,
}

/// What a lease is to cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) first: ShardIndex,
    pub(crate) shards: u32,
    pub(crate) attempt: Attempt,
    /// Another lease covers it too.
    pub(crate) twin: bool,
}

/// Room for attempts of one leader. A shard fails long before it is used up.
const ATTEMPTS_PER_EPOCH: u32 = 1 << 10;

/// How much the newest lease counts in the usual time of a shard.
const NEWEST: f64 = 0.2;

impl LeaseWork {
    /// The shards of a phase that is leased.
    pub(crate) fn new(phase: Phase, spec: &JobSpec, epoch: Epoch) -> Self {
        let portions = phase.portions(spec);
        Self {
            phase,
            limit: portions.shards(),
            portions,
            done: DoneShards::default(),
            samples_done: 0,
            prefix: 0,
            prefix_positives: 0,
            next: 0,
            done_ahead: 0,
            open: BTreeMap::new(),
            single: BTreeSet::new(),
            again: BTreeMap::new(),
            tries: BTreeMap::new(),
            usual_ms: 0.0,
            attempts_before: (epoch.0.saturating_sub(1) as u32).wrapping_mul(ATTEMPTS_PER_EPOCH),
        }
    }

    /// The sample indices of some shards in a row.
    pub(crate) fn range(&self, first: ShardIndex, shards: u32) -> SampleRange {
        self.portions.range(first, shards)
    }

    /// How many shards of this size so many samples are, at least one.
    pub(crate) fn shards_in(&self, samples: f64) -> u32 {
        (samples / self.portions.shard_size as f64).clamp(1.0, f64::from(u32::MAX)) as u32
    }

    /// Puts back a shard that was done before a restart.
    pub(crate) fn restore(&mut self, shard: ShardIndex, output: &TaskOutput) {
        self.keep(shard, output);
        self.advance();
    }

    /// A shard is done. False when it was done already.
    pub(crate) fn finish(&mut self, shard: ShardIndex, output: &TaskOutput) -> bool {
        self.close(shard);
        self.again.remove(&shard);
        self.tries.remove(&shard);
        if self.done.contains(shard) {
            return false;
        }
        self.keep(shard, output);
        self.advance();
        true
    }

    fn keep(&mut self, shard: ShardIndex, output: &TaskOutput) {
        self.samples_done += self.range(shard, 1).count;
        self.done_ahead += u32::from(shard.0 >= self.next);
        self.done.insert(shard, output);
    }

    /// Notes how long a lease over this many shards took.
    pub(crate) fn took(&mut self, ms: u64, shards: u32) {
        let each = ms as f64 / f64::from(shards.max(1));
        self.usual_ms =
            if self.usual_ms > 0.0 { self.usual_ms + NEWEST * (each - self.usual_ms) } else { each };
    }

    /// A lease over this shard came back without a result. True when no other lease covers it: try it again.
    pub(crate) fn give_back(&mut self, shard: ShardIndex) -> bool {
        let Some(open) = self.open.get_mut(&shard) else { return false };
        open.leases -= 1;
        match *open {
            Open { leases: 0, .. } => self.close(shard),
            Open { since_ms, .. } => {
                self.single.insert((since_ms, shard));
                return false;
            }
        }
        true
    }

    /// Counts a failure of this shard on this slot. Returns how often it has failed.
    pub(crate) fn blame(&mut self, shard: ShardIndex, slot: &SlotRef) -> u32 {
        let tries = self.tries.entry(shard).or_default();
        tries.failed += 1;
        if !tries.failed_on.contains(slot) {
            tries.failed_on.push(slot.clone());
        }
        tries.failed
    }

    /// Counts that storage failed this shard, which is no slot's fault. Returns how often it has.
    pub(crate) fn blame_storage(&mut self, shard: ShardIndex) -> u32 {
        let tries = self.tries.entry(shard).or_default();
        tries.unstored += 1;
        tries.unstored
    }

    /// Slots on which this shard has failed.
    pub(crate) fn failed_on(&self, shard: ShardIndex) -> &[SlotRef] {
        self.tries.get(&shard).map_or(&[], |tries| &tries.failed_on)
    }

    /// A shard that came back is to be granted again from `not_before_ms` on.
    pub(crate) fn try_again(&mut self, shard: ShardIndex, not_before_ms: u64) {
        if !self.done.contains(shard) && !self.open.contains_key(&shard) {
            self.again.insert(shard, not_before_ms);
        }
    }

    /// Shards that could be granted now and are not at work.
    pub(crate) fn ready(&self, now_ms: u64) -> u32 {
        if self.complete().is_some() {
            return 0;
        }
        let again = self.again.values().filter(|at| **at <= now_ms).count() as u32;
        again + self.fresh()
    }

    /// Shards that were never granted.
    fn fresh(&self) -> u32 {
        (self.limit - self.next).saturating_sub(self.done_ahead)
    }

    /// Shards left to do, as far as known.
    pub(crate) fn left(&self) -> u32 {
        let samples = self.samples_total().saturating_sub(self.samples_done);
        self.portions.shards_of(samples)
    }

    /// Takes what to grant next, over at most so many shards: what failed before comes first and alone, then the lowest
    /// indices.
    pub(crate) fn grant(&mut self, now_ms: u64, most: u32) -> Option<Grant> {
        let due = self.again.iter().find(|(_, at)| **at <= now_ms).map(|(shard, _)| *shard);
        let (first, shards) = match due {
            Some(shard) => (shard, 1),
            None => {
                while self.next < self.limit && self.done.contains(ShardIndex(self.next)) {
                    self.next += 1;
                    self.done_ahead -= 1;
                }
                let end = self.limit.min(self.next.saturating_add(most.max(1)));
                let fresh = (self.next..end).take_while(|shard| !self.done.contains(ShardIndex(*shard)));
                let (first, shards) = (self.next, fresh.count() as u32);
                if shards == 0 {
                    return None;
                }
                self.next += shards;
                (ShardIndex(first), shards)
            }
        };
        let attempt = self.count_grant(first, shards);
        for shard in (first.0..first.0 + shards).map(ShardIndex) {
            self.again.remove(&shard);
            self.opened(shard, now_ms);
        }
        Some(Grant { first, shards, attempt, twin: false })
    }

    /// The shard that has been out longest, when nothing else is left to grant and it is out for much longer than usual.
    pub(crate) fn straggler(&self, now_ms: u64, after_ms: u64, factor: u64) -> Option<ShardIndex> {
        let (_, shard) = self.single.first().filter(|_| {
            self.straggler_due(after_ms, factor).is_some_and(|due| due <= now_ms) && self.ready(now_ms) == 0
        })?;
        Some(*shard)
    }

    /// When the shard that has been out longest will have been out for too long.
    pub(crate) fn straggler_due(&self, after_ms: u64, factor: u64) -> Option<u64> {
        let (since, _) = self.single.first().filter(|_| self.fresh() == 0 && self.complete().is_none())?;
        Some(since + after_ms.max((self.usual_ms * factor as f64) as u64))
    }

    /// Grants a shard that is at work to a second slot.
    pub(crate) fn duplicate(&mut self, shard: ShardIndex) -> Option<Grant> {
        let open = self.open.get_mut(&shard)?;
        open.leases += 1;
        self.single.remove(&(open.since_ms, shard));
        let attempt = self.count_grant(shard, 1);
        Some(Grant { first: shard, shards: 1, attempt, twin: true })
    }

    /// The attempt of a lease over these shards: no lease that begins with one of them has had it.
    fn count_grant(&mut self, first: ShardIndex, shards: u32) -> Attempt {
        let before = self.tries.get(&first).map_or(0, |tries| tries.granted);
        let attempt = before.max(self.attempts_before) + 1;
        for shard in (first.0..first.0 + shards).map(ShardIndex) {
            let tries = self.tries.entry(shard).or_default();
            tries.granted = tries.granted.max(attempt);
        }
        Attempt(attempt)
    }

    fn opened(&mut self, shard: ShardIndex, now_ms: u64) {
        self.open.insert(shard, Open { since_ms: now_ms, leases: 1 });
        self.single.insert((now_ms, shard));
    }

    fn close(&mut self, shard: ShardIndex) {
        if let Some(open) = self.open.remove(&shard) {
            self.single.remove(&(open.since_ms, shard));
        }
    }

    /// A worker still works on these shards after a restart. How many of them the lease covers: none when nobody needs it to.
    pub(crate) fn adopt(&mut self, first: ShardIndex, shards: u32, attempt: Attempt, now_ms: u64) -> u32 {
        let end = self.limit.min(first.0.saturating_add(shards));
        let covered = move || (first.0..end).map(ShardIndex);
        if !covered().any(|shard| !self.done.contains(shard) && !self.open.contains_key(&shard)) {
            return 0;
        }
        // Shards that are skipped over become grantable through `again`.
        for skipped in (self.next..first.0).map(ShardIndex) {
            if !self.done.contains(skipped) && !self.open.contains_key(&skipped) {
                self.again.entry(skipped).or_insert(0);
            }
        }
        let passed = (self.next..end).filter(|shard| self.done.contains(ShardIndex(*shard))).count();
        self.done_ahead -= passed as u32;
        self.next = self.next.max(end);
        for shard in covered() {
            if self.done.contains(shard) {
                continue;
            }
            self.again.remove(&shard);
            let tries = self.tries.entry(shard).or_default();
            tries.granted = tries.granted.max(attempt.0);
            match self.open.get_mut(&shard) {
                Some(open) => {
                    open.leases += 1;
                    self.single.remove(&(open.since_ms, shard));
                }
                None => self.opened(shard, now_ms),
            }
        }
        end - first.0
    }

    /// When the next failed shard may be tried again.
    pub(crate) fn next_try_ms(&self) -> Option<u64> {
        self.again.values().min().copied()
    }

    /// How many shards count, once it is enough: the shortest prefix with enough positives, or all of them.
    pub(crate) fn complete(&self) -> Option<u32> {
        let enough = self.portions.enough.is_some_and(|wanted| self.prefix_positives >= wanted);
        (enough || self.prefix == self.limit).then_some(self.prefix)
    }

    /// Samples of the shards that count, and the positives among them where each shard knows its own: at the phase's end.
    pub(crate) fn counted(&self) -> (u64, Option<u64>) {
        let shards = self.complete().unwrap_or(self.prefix);
        let positives = (0..shards).map(|shard| self.done.positives(ShardIndex(shard))).sum();
        (self.range(ShardIndex(0), shards).count, positives)
    }

    /// Samples of the shards that are done.
    pub(crate) fn samples_done(&self) -> u64 {
        self.samples_done
    }

    /// Samples in all, as far as known.
    pub(crate) fn samples_total(&self) -> u64 {
        match self.portions.enough {
            Some(wanted) if self.prefix_positives > 0 => {
                let seen = u64::from(self.prefix) * self.portions.shard_size;
                (seen * wanted).div_ceil(self.prefix_positives).max(seen).min(self.portions.samples)
            }
            Some(_) | None => self.portions.samples,
        }
    }

    /// Shards that are done.
    pub(crate) fn shards_done(&self) -> u32 {
        self.done.len() as u32
    }

    /// Shards that are done because another job had made them before.
    pub(crate) fn shards_reused(&self) -> u32 {
        self.done.reused()
    }

    /// Whether this shard is done.
    pub(crate) fn is_done(&self, shard: ShardIndex) -> bool {
        self.done.contains(shard)
    }

    /// Leases that cover this shard.
    pub(crate) fn leases_over(&self, shard: ShardIndex) -> u32 {
        self.open.get(&shard).map_or(0, |open| open.leases)
    }

    /// Shards at work, and how many leases cover each.
    pub(crate) fn at_work(&self) -> impl Iterator<Item = (ShardIndex, u32)> {
        self.open.iter().map(|(shard, open)| (*shard, open.leases))
    }

    /// Shards that wait for another try: when it may be, and how many have failed, by the shard's fault or by storage's.
    pub(crate) fn waiting(&self, storage: bool) -> impl Iterator<Item = (ShardIndex, u64, u32)> {
        let failed = move |tries: &Tries| if storage { tries.unstored } else { tries.failed };
        self.again.iter().map(move |(shard, at)| (*shard, *at, self.tries.get(shard).map_or(0, failed)))
    }

    /// Shards that were never granted and are still wanted.
    pub(crate) fn never_granted(&self) -> u32 {
        if self.complete().is_some() { 0 } else { self.fresh() }
    }

    /// The outputs that count, taken out: the end of the phase.
    pub(crate) fn take_done(&mut self) -> DoneShards {
        let mut done = std::mem::take(&mut self.done);
        done.truncate(ShardIndex(self.complete().unwrap_or(self.limit)));
        done
    }

    /// Moves the prefix on, but not beyond the point where it is enough.
    fn advance(&mut self) {
        while self.complete().is_none() && self.done.contains(ShardIndex(self.prefix)) {
            if self.portions.enough.is_some() {
                self.prefix_positives += self.done.positives(ShardIndex(self.prefix)).unwrap_or(0);
            }
            self.prefix += 1;
        }
    }
}
