//! A case that knows the right answer in general: random transactions against the plainest map there is.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Store, next};
use crate::{Change, Entry, Error, Expectation, Revision, Txn, Write};

/// SplitMix64 (Steele, Lea & Flood 2014): enough chance for choosing operations, the same on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn key(&mut self) -> String {
        ["a", "a/1", "a/10", "a/2", "ab", "b/x/y", "ü"][usize::try_from(self.below(7)).unwrap()].to_owned()
    }

    fn txn(&mut self, model: &BTreeMap<String, Entry>) -> Txn {
        let mut txn = Txn::new();
        for _ in 0..self.below(3) {
            let key = self.key();
            let entry = model.get(&key);
            let near = |revision: Revision, by: u64| Revision(revision.0.saturating_sub(by));
            // Mostly what holds, sometimes what held a moment ago.
            let expect = match (self.below(6), entry) {
                (0, _) => Expectation::Exists,
                (1, _) | (_, None) => Expectation::Absent,
                (2 | 3, Some(entry)) => Expectation::Version(near(entry.version, self.below(4) / 3)),
                (_, Some(entry)) => Expectation::Created(near(entry.created, self.below(4) / 3)),
            };
            txn = txn.expect(key, expect);
        }
        for _ in 0..self.below(4) {
            let key = self.key();
            if txn.writes.iter().all(|write| write.key() != key) {
                let beside = |write: &Write| !write.key().starts_with("a/");
                txn = match self.below(8) {
                    0 | 1 => txn.delete(key),
                    2 if txn.writes.iter().all(beside) => return txn.delete_folder("a"),
                    _ => txn.put(key, self.below(1000).to_string()),
                };
            }
        }
        txn
    }
}

fn holds(expect: Expectation, entry: Option<&Entry>) -> bool {
    match (expect, entry) {
        (Expectation::Absent, entry) => entry.is_none(),
        (_, None) => false,
        (Expectation::Exists, Some(_)) => true,
        (Expectation::Version(version), Some(entry)) => entry.version == version,
        (Expectation::Created(created), Some(entry)) => entry.created == created,
    }
}

fn apply(model: &mut BTreeMap<String, Entry>, writes: Vec<Write>, version: Revision) {
    for write in writes {
        match write {
            Write::Put { key, value, lease } => {
                let created = model.get(&key).map_or(version, |entry| entry.created);
                model.insert(key.clone(), Entry { key, value, version, created, lease });
            }
            Write::Delete { key } => {
                model.remove(&key);
            }
            Write::DeleteFolder { folder } => model.retain(|key, _| !key.starts_with(&format!("{folder}/"))),
        }
    }
}

/// 600 transactions, each accepted or refused as the map says; then lists, reads and the whole history agree.
pub async fn random_transactions_agree_with_a_plain_map(store: Store) {
    let mut chance = Chance(20_240_817);
    let mut model: BTreeMap<String, Entry> = BTreeMap::new();
    let start = store.list("").await.unwrap().revision;
    let (mut revision, mut accepted, mut refused) = (start, 0, 0);
    for number in 0..600 {
        let txn = chance.txn(&model);
        let wanted = txn.preconditions.iter().all(|p| holds(p.expect, model.get(&p.key)));
        match store.commit(txn.clone()).await {
            Ok(answer) => {
                assert!(wanted, "{number}: accepted {txn:?}");
                assert!(answer >= revision);
                revision = answer;
                apply(&mut model, txn.writes, answer);
                accepted += 1;
            }
            Err(Error::Conflict { .. }) => {
                assert!(!wanted, "{number}: refused {txn:?}");
                refused += 1;
            }
            Err(other) => panic!("{number}: {other}"),
        }
        let key = chance.key();
        assert_eq!(store.get(&key).await.unwrap().as_ref(), model.get(&key), "{number}: {key}");
    }
    assert!(accepted > 100 && refused > 100, "{accepted} accepted, {refused} refused");
    for prefix in ["", "a", "a/", "a/1", "b/", "none", "ü"] {
        let wanted: Vec<Entry> =
            model.values().filter(|entry| entry.key.starts_with(prefix)).cloned().collect();
        assert_eq!(store.list(prefix).await.unwrap().entries, wanted, "{prefix}");
    }
    assert_eq!(replay(&store, start).await, model.into_values().collect::<Vec<_>>());
}

/// What a watch from `start` makes of the story, up to a last mark.
async fn replay(store: &Store, start: Revision) -> Vec<Entry> {
    let end = store.commit(Txn::new().put("mark", Bytes::new())).await.unwrap();
    let mut replayed: BTreeMap<String, Entry> = BTreeMap::new();
    let mut watch = store.watch("", start);
    loop {
        let changes = next(&mut watch).await;
        for change in changes.changes {
            match change {
                Change::Put(entry) => replayed.insert(entry.key.clone(), entry),
                Change::Delete { key } => replayed.remove(&key),
            };
        }
        if changes.revision == end {
            replayed.remove("mark");
            return replayed.into_values().collect();
        }
    }
}
