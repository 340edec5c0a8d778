//! What happened lately: a bounded record of commits from which every watch reads at its own pace.
//!
//! Watches pull, so a slow one costs nothing but its own place: when the record has moved past it, it is told so.
//! Not here: waiting for the next commit.

use std::{collections::VecDeque, sync::Arc};

use crate::{Change, Changes, Error, Result, Revision};

/// Commits kept for resuming watches.
const KEPT_COMMITS: usize = 10_000;
/// Bytes of keys and values kept for resuming watches.
const KEPT_BYTES: usize = 4 << 20;

/// The next thing a watch should know.
pub(crate) enum Next {
    /// A commit that touched the prefix.
    Changes(Changes),
    /// Nothing up to and including this revision.
    Nothing { through: Revision },
}

/// The record: all commits after `oldest`, up to `newest`.
#[derive(Debug)]
pub(crate) struct History {
    oldest: Revision,
    newest: Revision,
    commits: VecDeque<Arc<Changes>>,
    bytes: usize,
}

impl History {
    /// Nothing known before `revision`.
    pub(crate) fn starting_at(revision: Revision) -> Self {
        Self { oldest: revision, newest: revision, commits: VecDeque::new(), bytes: 0 }
    }

    pub(crate) fn push(&mut self, changes: Changes) {
        self.newest = changes.revision;
        self.bytes += size(&changes);
        self.commits.push_back(Arc::new(changes));
        while self.commits.len() > KEPT_COMMITS || self.bytes > KEPT_BYTES {
            self.forget_first();
        }
    }

    pub(crate) fn compact(&mut self, through: Revision) {
        while self.commits.front().is_some_and(|commit| commit.revision <= through) {
            self.forget_first();
        }
        self.oldest = self.oldest.max(through.min(self.newest));
    }

    fn forget_first(&mut self) {
        if let Some(commit) = self.commits.pop_front() {
            self.oldest = commit.revision;
            self.bytes -= size(&commit);
        }
    }

    /// The first commit after `after` that touches `prefix`.
    pub(crate) fn next(&self, prefix: &str, after: Revision) -> Result<Next> {
        if after < self.oldest || after > self.newest {
            return Err(Error::Compacted { after, oldest: self.oldest, newest: self.newest });
        }
        let first = self.commits.partition_point(|commit| commit.revision <= after);
        for commit in self.commits.range(first..) {
            let changes: Vec<Change> =
                commit.changes.iter().filter(|change| change.key().starts_with(prefix)).cloned().collect();
            if !changes.is_empty() {
                return Ok(Next::Changes(Changes { revision: commit.revision, changes }));
            }
        }
        Ok(Next::Nothing { through: self.newest })
    }
}

fn size(changes: &Changes) -> usize {
    let change_size = |change: &Change| match change {
        Change::Put(entry) => entry.key.len() + entry.value.len(),
        Change::Delete { key } => key.len(),
    };
    changes.changes.iter().map(change_size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;

    fn put(revision: u64, bytes: usize) -> Changes {
        let entry = Entry {
            key: "k".to_owned(),
            value: vec![0; bytes].into(),
            version: Revision(revision),
            created: Revision(1),
            lease: None,
        };
        Changes { revision: Revision(revision), changes: vec![Change::Put(entry)] }
    }

    #[test]
    fn the_record_is_bounded_in_commits_and_in_bytes() {
        let mut many = History::starting_at(Revision(0));
        (1..=KEPT_COMMITS as u64 + 5).for_each(|revision| many.push(put(revision, 1)));
        assert_eq!(many.commits.len(), KEPT_COMMITS);
        assert_eq!(many.oldest, Revision(5));
        assert!(matches!(many.next("", Revision(4)), Err(Error::Compacted { oldest: Revision(5), .. })));
        assert!(matches!(many.next("", Revision(5)), Ok(Next::Changes(c)) if c.revision == Revision(6)));

        let mut large = History::starting_at(Revision(0));
        (1..=10).for_each(|revision| large.push(put(revision, 1 << 20)));
        assert_eq!(large.commits.len(), 3, "each commit is a megabyte and a key of one byte");
        assert_eq!(large.oldest, Revision(7));
    }
}
