//! How the samples of a phase are cut into shards, and a shard into batches. Everybody who asks which indices a shard has,
//! or how many shards a range is, asks here.

use crate::{SampleRange, ShardIndex};

/// The samples of a phase, cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portions {
    /// Samples in all; with `enough`, the most there can be. The last shard may be shorter.
    pub samples: u64,
    /// Samples of one shard, the unit that is leased, retried and counted.
    pub shard_size: u64,
    /// Images generated at once.
    pub batch: u64,
    /// Positives after which it is enough, whatever is left.
    pub enough: Option<u64>,
}

impl Portions {
    /// Work that is not cut: one shard of one sample.
    pub const WHOLE: Portions = Portions { samples: 1, shard_size: 1, batch: 1, enough: None };

    fn size(self) -> u64 {
        self.shard_size.max(1)
    }

    /// Shards in all.
    pub fn shards(self) -> u32 {
        self.shards_of(self.samples)
    }

    /// Shards that so many samples make.
    pub fn shards_of(self, samples: u64) -> u32 {
        u32::try_from(samples.div_ceil(self.size())).unwrap_or(u32::MAX)
    }

    /// The sample indices of some shards in a row.
    pub fn range(self, first: ShardIndex, shards: u32) -> SampleRange {
        let start = u64::from(first.0).saturating_mul(self.size());
        let count = u64::from(shards).saturating_mul(self.size()).min(self.samples.saturating_sub(start));
        SampleRange { start, count }
    }

    /// The shards of a range that begins with one, each with its own samples.
    pub fn cut(self, range: SampleRange) -> impl Iterator<Item = (ShardIndex, SampleRange)> {
        let first = u32::try_from(range.start / self.size()).unwrap_or(u32::MAX);
        (first..).map(ShardIndex).zip(range.in_steps_of(self.size()))
    }
}

impl SampleRange {
    /// The range in pieces of this size, the last one shorter if need be: a piece always holds the same samples, whoever
    /// works on it.
    pub fn in_steps_of(self, size: u64) -> impl Iterator<Item = SampleRange> {
        let size = size.max(1);
        (0..self.count.div_ceil(size)).map(move |place| {
            let done = place * size;
            SampleRange { start: self.start + done, count: size.min(self.count - done) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_IN_FOURS: Portions = Portions { samples: 10, shard_size: 4, batch: 2, enough: None };

    fn range(start: u64, count: u64) -> SampleRange {
        SampleRange { start, count }
    }

    #[test]
    fn the_last_shard_may_be_shorter() {
        assert_eq!(TEN_IN_FOURS.shards(), 3);
        assert_eq!(TEN_IN_FOURS.range(ShardIndex(1), 1), range(4, 4));
        assert_eq!(TEN_IN_FOURS.range(ShardIndex(1), 2), range(4, 6));
        assert_eq!(TEN_IN_FOURS.range(ShardIndex(2), 7), range(8, 2));
        assert_eq!(TEN_IN_FOURS.range(ShardIndex(3), 1).count, 0);
        assert_eq!((Portions::WHOLE.shards(), Portions::WHOLE.range(ShardIndex(0), 1)), (1, range(0, 1)));
    }

    #[test]
    fn a_range_is_cut_into_the_shards_it_was_made_of() {
        let cut: Vec<_> = TEN_IN_FOURS.cut(TEN_IN_FOURS.range(ShardIndex(1), 2)).collect();
        assert_eq!(cut, [(ShardIndex(1), range(4, 4)), (ShardIndex(2), range(8, 2))]);
        assert_eq!(TEN_IN_FOURS.shards_of(6), 2);
    }

    #[test]
    fn steps_cover_a_range_once() {
        let steps = |range: SampleRange, size| range.in_steps_of(size).collect::<Vec<_>>();
        assert_eq!(steps(range(100, 7), 3), [range(100, 3), range(103, 3), range(106, 1)]);
        assert_eq!(steps(range(0, 6), 6), [range(0, 6)]);
        assert_eq!(steps(range(5, 0), 3), []);
    }
}
