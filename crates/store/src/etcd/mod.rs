//! A store that several processes share: an etcd cluster, 3.4 or newer.
//!
//! A key is the prefix and the port's key, so everything Lethe writes is below one folder. A transaction is one etcd
//! transaction, and what refused it is read in the same one. Not here: the way to the members (`members`), watches
//! (`watch`).

mod config;
mod members;
mod verdict;
mod watch;

pub use config::EtcdConfig;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, KvClient, PutOptions, Txn as EtcdTxn,
    TxnOp, TxnOpResponse,
};
use futures::{FutureExt, future::BoxFuture};

use self::members::{Failure, Members, Repeat};
use crate::{
    Entry, Error, Expectation, LeaseId, Listing, Precondition, Result, Revision, StateStore, Txn, Watch,
    Write, txn::lease_ttl,
};

/// Keys of the first page of a list: the largest values fit below the largest message all the same.
const PAGE: i64 = 100;
/// Keys of the largest page, of small values.
const LARGEST_PAGE: i64 = 10_000;
/// Bytes that a page should have.
const PAGE_BYTES: usize = 4 << 20;
/// The largest answer: a page of the largest values.
const MESSAGE_BYTES: usize = 160 << 20;

/// A handle on a cluster. Nothing is asked before the first operation, which says when it cannot be reached.
///
/// # Errors
/// [`Error::Credentials`] when a certificate or a key cannot be read.
pub fn etcd(config: EtcdConfig) -> Result<Arc<dyn StateStore>> {
    Ok(Arc::new(Etcd { members: Arc::new(Members::new(config)?) }))
}

#[derive(Clone)]
struct Etcd {
    members: Arc<Members>,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore").field("etcd", &self.members.config).finish()
    }
}

fn kv(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(MESSAGE_BYTES)
}

/// Revisions and leases are positive in etcd's signed numbers.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Etcd {
    fn root(&self) -> &str {
        &self.members.config.root
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.root())
    }

    /// The entry, unless the key is none of ours.
    fn entry(&self, found: &KeyValue) -> Option<Entry> {
        let key = found.key_str().ok()?.strip_prefix(self.root())?.to_owned();
        let lease = Some(LeaseId(unsigned(found.lease()))).filter(|lease| lease.0 > 0);
        Some(Entry {
            key,
            value: found.value().to_vec().into(),
            version: Revision(unsigned(found.mod_revision())),
            created: Revision(unsigned(found.create_revision())),
            lease,
        })
    }

    async fn read(&self, key: &str) -> Result<Option<Entry>> {
        let key = self.full(key);
        let answer = self.members.call(Repeat::Harmless, |client| {
            let key = key.clone();
            async move { kv(&client).get(key, None).await }
        });
        let answer = answer.await.map_err(|failure| failure.plain(&self.members))?;
        Ok(answer.kvs().first().and_then(|found| self.entry(found)))
    }

    /// The revision of the store now.
    async fn revision(&self) -> Result<Revision> {
        let answer = self.members.call(Repeat::Harmless, |client| {
            let (key, options) = (self.root().to_owned(), GetOptions::new().with_count_only());
            async move { kv(&client).get(key, Some(options)).await }
        });
        let answer = answer.await.map_err(|failure| failure.plain(&self.members))?;
        Ok(Revision(answer.header().map_or(0, |header| unsigned(header.revision()))))
    }

    /// All pages at the revision of the first; from the start when it was compacted in the middle.
    async fn read_all(&self, prefix: &str) -> Result<Listing> {
        let first = self.full(prefix);
        let end = after_prefix(&first);
        'again: loop {
            let mut listing = Listing { revision: Revision(0), entries: Vec::new() };
            let mut from = first.clone().into_bytes();
            let mut limit = PAGE;
            loop {
                let options = GetOptions::new()
                    .with_range(end.clone())
                    .with_limit(limit)
                    .with_revision(signed(listing.revision.0));
                let page = self.members.call(Repeat::Harmless, |client| {
                    let (from, options) = (from.clone(), options.clone());
                    async move { kv(&client).get(from, Some(options)).await }
                });
                let page = match page.await {
                    Ok(page) => page,
                    Err(Failure::Compacted) => continue 'again,
                    // The values may have grown beyond what a message holds.
                    Err(_) if limit > PAGE => {
                        limit = PAGE;
                        continue;
                    }
                    Err(failure) => return Err(failure.plain(&self.members)),
                };
                if listing.revision == Revision(0) {
                    listing.revision =
                        Revision(page.header().map_or(0, |header| unsigned(header.revision())));
                }
                limit = next_page(page.kvs());
                listing.entries.extend(page.kvs().iter().filter_map(|found| self.entry(found)));
                match page.kvs().last() {
                    Some(last) if page.more() => from = [last.key(), &[0]].concat(),
                    _ => return Ok(listing),
                }
            }
        }
    }

    async fn apply(&self, txn: Txn) -> Result<Revision> {
        txn.validate()?;
        let request = self.request(&txn);
        let answer = self.members.call(Repeat::Never, |client| {
            let request = request.clone();
            async move { kv(&client).txn(request).await }
        });
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(Failure::NoLease) => return Err(self.ended_lease(&txn).await),
            Err(failure) => return Err(failure.plain(&self.members)),
        };
        if answer.succeeded() {
            return Ok(Revision(answer.header().map_or(0, |header| unsigned(header.revision()))));
        }
        let mut found = BTreeMap::new();
        for read in answer.op_responses() {
            if let TxnOpResponse::Get(read) = read {
                let entries = read.kvs().iter().filter_map(|entry| self.entry(entry));
                found.extend(entries.map(|entry| (entry.key.clone(), entry)));
            }
        }
        for precondition in &txn.preconditions {
            precondition.check(found.get(&precondition.key))?;
        }
        let reason = "it refused a transaction whose preconditions hold".to_owned();
        Err(Error::Unreachable { endpoints: self.members.config.names(), reason })
    }

    fn request(&self, txn: &Txn) -> EtcdTxn {
        let compares = txn.preconditions.iter().map(|precondition| self.compare(precondition));
        let writes = txn.writes.iter().map(|write| match write {
            Write::Put { key, value, lease } => {
                let lease = lease.map(|lease| PutOptions::new().with_lease(signed(lease.0)));
                TxnOp::put(self.full(key), value.to_vec(), lease)
            }
            Write::Delete { key } => TxnOp::delete(self.full(key), None),
            Write::DeleteFolder { folder } => {
                let first = self.full(&format!("{folder}/"));
                let options = DeleteOptions::new().with_range(after_prefix(&first));
                TxnOp::delete(first, Some(options))
            }
        });
        let asked: BTreeSet<&str> = txn.preconditions.iter().map(|asked| asked.key.as_str()).collect();
        let reads = asked.into_iter().map(|key| TxnOp::get(self.full(key), None));
        EtcdTxn::new()
            .when(compares.collect::<Vec<_>>())
            .and_then(writes.collect::<Vec<_>>())
            .or_else(reads.collect::<Vec<_>>())
    }

    /// A key that does not exist has the revisions 0: asking for revision 0 must not find it.
    fn compare(&self, Precondition { key, expect }: &Precondition) -> Compare {
        let key = self.full(key);
        match *expect {
            Expectation::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
            Expectation::Exists => Compare::create_revision(key, CompareOp::Greater, 0),
            Expectation::Version(Revision(0)) | Expectation::Created(Revision(0)) => {
                Compare::create_revision(key, CompareOp::Less, 0)
            }
            Expectation::Version(revision) => {
                Compare::mod_revision(key, CompareOp::Equal, signed(revision.0))
            }
            Expectation::Created(revision) => {
                Compare::create_revision(key, CompareOp::Equal, signed(revision.0))
            }
        }
    }

    /// Which of a transaction's leases has ended: etcd does not say.
    async fn ended_lease(&self, txn: &Txn) -> Error {
        let leases: BTreeSet<LeaseId> = txn
            .writes
            .iter()
            .filter_map(|write| match write {
                Write::Put { lease, .. } => *lease,
                Write::Delete { .. } | Write::DeleteFolder { .. } => None,
            })
            .collect();
        for lease in leases {
            let answer = self.members.call(Repeat::Harmless, |client| async move {
                client.lease_client().time_to_live(signed(lease.0), None).await
            });
            match answer.await {
                Ok(answer) if answer.ttl() > 0 => {}
                Ok(_) | Err(Failure::NoLease) => return Error::LeaseNotFound { lease },
                Err(failure) => return failure.plain(&self.members),
            }
        }
        Failure::NoLease.plain(&self.members)
    }

    async fn renew(&self, lease: LeaseId) -> Result<Duration> {
        let answer = self.members.call(Repeat::Harmless, |client| async move {
            // The client keeps the first answer to itself.
            let (mut keeper, mut answers) = client.lease_client().keep_alive(signed(lease.0)).await?;
            keeper.keep_alive().await?;
            answers.message().await
        });
        match answer.await {
            Ok(Some(answer)) if answer.ttl() > 0 => Ok(Duration::from_secs(unsigned(answer.ttl()))),
            Ok(Some(_)) | Err(Failure::NoLease) => Err(Error::LeaseNotFound { lease }),
            Ok(None) => {
                let reason = "it ended the stream of a lease without an answer".to_owned();
                Err(Error::Unreachable { endpoints: self.members.config.names(), reason })
            }
            Err(failure) => Err(failure.plain(&self.members)),
        }
    }
}

/// Keys of the page after this one, by the size of its entries.
fn next_page(page: &[KeyValue]) -> i64 {
    let bytes: usize = page.iter().map(|found| found.key().len() + found.value().len()).sum();
    let each = bytes.div_ceil(page.len().max(1)).max(1);
    i64::try_from(PAGE_BYTES / each).unwrap_or(PAGE).clamp(PAGE, LARGEST_PAGE)
}

/// The first key after all those that begin with `prefix`.
fn after_prefix(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // UTF-8 has no byte 0xff.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

impl StateStore for Etcd {
    fn is_exclusive(&self) -> bool {
        false
    }

    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>>> {
        let key = key.to_owned();
        async move { self.read(&key).await }.boxed()
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Listing>> {
        let prefix = prefix.to_owned();
        async move { self.read_all(&prefix).await }.boxed()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Revision>> {
        self.apply(txn).boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        watch::watch(self.clone(), prefix, after)
    }

    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<()>> {
        async move {
            let through = signed(through.min(self.revision().await?).0);
            let answer = self
                .members
                .call(Repeat::Harmless, |client| async move { kv(&client).compact(through, None).await });
            match answer.await {
                Ok(_) | Err(Failure::Compacted) => Ok(()),
                Err(failure) => Err(failure.plain(&self.members)),
            }
        }
        .boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>> {
        let seconds = signed(lease_ttl(ttl).as_secs());
        async move {
            // Granted twice, the first one ends by itself.
            let answer = self.members.call(Repeat::Harmless, |client| async move {
                client.lease_client().grant(seconds, None).await
            });
            let answer = answer.await.map_err(|failure| failure.plain(&self.members))?;
            Ok(LeaseId(unsigned(answer.id())))
        }
        .boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration>> {
        self.renew(lease).boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        async move {
            let answer = self.members.call(Repeat::Never, |client| async move {
                client.lease_client().revoke(signed(lease.0)).await
            });
            match answer.await {
                Ok(_) => Ok(()),
                Err(Failure::NoLease) => Err(Error::LeaseNotFound { lease }),
                Err(failure) => Err(failure.plain(&self.members)),
            }
        }
        .boxed()
    }
}
