//! What the state store holds: jobs, finished shards of those that are not over, what is decided about workers, as JSON in
//! a versioned envelope; and the names of jobs that are forgotten, until their artifacts are gone.
//!
//! | key | value |
//! |---|---|
//! | `jobs/ID` | `{"version": 2, "job": ...}` |
//! | `shards/ID/PHASE/INDEX` | `{"version": 2, "output": ...}` |
//! | `workers/ID` | `{"version": 2, "worker": ...}`: what is decided about a worker |
//! | `forgotten/ID` | nothing |
//!
//! Not here: who may write (`election`), when something is written (driver), the store itself (`lethe-store`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use lethe_domain::{Epoch, JobId, Phase, ShardIndex, TaskOutput, WorkerId};
use lethe_engine::{JobRecord, WorkerRecord, Write};
use lethe_store::{Entry, Revision, StateStore, Txn, limits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::election::{EPOCH, Fence, read_epoch};
use crate::history::History;
use crate::metrics::{Metrics, StoreOp};
use crate::{Error, Result};

/// Version of the envelopes this program writes and reads.
pub(crate) const VERSION: u32 = 2;
const JOBS: &str = "jobs/";
const SHARDS: &str = "shards/";
const WORKERS: &str = "workers/";
const FORGOTTEN: &str = "forgotten/";

/// Jobs whose shards are read at the same time.
const READ_AT_ONCE: usize = 8;

/// The largest job record: what a transaction takes, less room for its shards.
pub(crate) const RECORD_BYTES: usize = limits::TXN_BYTES / 4;

/// A job and its finished shards.
pub(crate) type StoredJob = (JobRecord, Vec<(Phase, ShardIndex, TaskOutput)>);

/// Everything that was written down, and the epoch at that moment.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) epoch: Epoch,
    pub(crate) jobs: Vec<StoredJob>,
    pub(crate) workers: Vec<WorkerRecord>,
    /// Jobs that are forgotten, whose artifacts are not gone yet.
    pub(crate) forgotten: Vec<JobId>,
}

/// The way to the records.
#[derive(Debug)]
pub(crate) struct Records {
    store: Arc<dyn StateStore>,
    metrics: Arc<Metrics>,
    history: History,
}

/// What is written down of single jobs, for whoever reads. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    store: Arc<dyn StateStore>,
    metrics: Arc<Metrics>,
}

impl Archive {
    /// The record of a job; none when there is no such job.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Record`].
    pub(crate) async fn record(&self, job: &JobId) -> Result<Option<JobRecord>> {
        let entry = self.metrics.store_request(StoreOp::Get, self.store.get(&job_key(job))).await?;
        entry.as_ref().map(read_record).transpose()
    }
}

impl Records {
    pub(crate) fn new(store: Arc<dyn StateStore>, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics, history: History::default() }
    }

    /// The way to single jobs.
    pub(crate) fn archive(&self) -> Archive {
        Archive { store: self.store.clone(), metrics: self.metrics.clone() }
    }

    /// Reads everything. Nobody else writes once a leader is elected; whoever only follows one may see shards that the
    /// record does not know of yet, or no longer those it knows of.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Record`] names what cannot be read.
    pub(crate) async fn load(&self) -> Result<Loaded> {
        let epoch = self.metrics.store_request(StoreOp::Get, self.store.get(EPOCH)).await?;
        let epoch = epoch.map_or(Ok(0), |entry| read_epoch(&entry.value))?;
        let (records, workers, forgotten) =
            futures::try_join!(self.list(JOBS), self.list(WORKERS), self.list(FORGOTTEN))?;
        let records = records.iter().map(read_record).collect::<Result<Vec<_>>>()?;
        // Jobs that are over have none that anybody needs.
        let shards = |record: JobRecord| async move {
            let shards = if record.state.is_final() { Vec::new() } else { self.shards(&record.id).await? };
            Ok::<StoredJob, Error>((record, shards))
        };
        let jobs = stream::iter(records).map(shards).buffered(READ_AT_ONCE).try_collect().await?;
        let worker =
            |entry: &Entry| open::<WorkerEnvelope>(&entry.key, &entry.value).map(|found| found.worker);
        let workers = workers.iter().map(worker).collect::<Result<_>>()?;
        let forgotten = forgotten.iter().map(|entry| id_in(&entry.key, FORGOTTEN)).collect::<Result<_>>()?;
        Ok(Loaded { epoch: Epoch(epoch), jobs, workers, forgotten })
    }

    async fn shards(&self, job: &JobId) -> Result<Vec<(Phase, ShardIndex, TaskOutput)>> {
        let folder = format!("{SHARDS}{job}/");
        let entries = self.list(&folder).await?;
        let shard = |entry: &Entry| {
            let unknown = || unreadable(&entry.key, "it is no key of a shard");
            let (phase, shard) = shard_of(&entry.key[folder.len()..]).ok_or_else(unknown)?;
            let OutputEnvelope { output } = open(&entry.key, &entry.value)?;
            Ok((phase, shard, output))
        };
        entries.iter().map(shard).collect()
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        Ok(self.metrics.store_request(StoreOp::List, self.store.list(prefix)).await?.entries)
    }

    /// Writes everything down as the leader behind this fence: one transaction unless a store's limits ask for more.
    ///
    /// # Errors
    /// [`Error::Store`]: it is open which of the transactions happened.
    pub(crate) async fn save(&self, fence: Fence, writes: impl Iterator<Item = &Write>) -> Result<()> {
        let mut changes = Changes::default();
        for write in writes {
            changes.add(write)?;
        }
        for txn in changes.transactions(fence) {
            let revision = self.metrics.store_request(StoreOp::Commit, self.store.commit(txn)).await?;
            if let Some(old) = self.history.past(revision) {
                self.compact(old);
            }
        }
        Ok(())
    }

    /// Has the store forget its history up to a revision, in the background: nothing depends on it.
    fn compact(&self, through: Revision) {
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.compact(through).await {
                tracing::debug!(%error, "the store's history is not compacted");
            }
        });
    }
}

/// What some writes come to: of several writes of a key the last one counts.
#[derive(Default)]
struct Changes {
    puts: BTreeMap<String, Bytes>,
    deletes: BTreeSet<String>,
    folders: BTreeSet<String>,
}

impl Changes {
    fn add(&mut self, write: &Write) -> Result<()> {
        match write {
            Write::Job(record) => self.put(job_key(&record.id), &Content::Job(record))?,
            Write::Shard { job, phase, shard, output } => {
                self.put(format!("{SHARDS}{job}/{phase}/{shard}"), &Content::Output(output))?;
            }
            Write::Worker(record) => self.put(worker_key(&record.id), &Content::Worker(record))?,
            Write::ForgetShards { job } => {
                let folder = format!("{SHARDS}{job}");
                self.puts
                    .retain(|key, _| !key.strip_prefix(&folder).is_some_and(|rest| rest.starts_with('/')));
                self.folders.insert(folder);
            }
            Write::ForgetJob { job } => {
                self.delete(job_key(job));
                self.puts.insert(forgotten_key(job), Bytes::new());
            }
            Write::Erased { job } => self.delete(forgotten_key(job)),
            Write::ForgetWorker { worker } => self.delete(worker_key(worker)),
        }
        Ok(())
    }

    fn put(&mut self, key: String, content: &Content<'_>) -> Result<()> {
        let json = serde_json::to_vec(&Envelope { version: VERSION, content });
        let json = json.map_err(|error| unreadable(&key, &error.to_string()))?;
        self.deletes.remove(&key);
        self.puts.insert(key, json.into());
        Ok(())
    }

    fn delete(&mut self, key: String) {
        self.puts.remove(&key);
        self.deletes.insert(key);
    }

    /// As few transactions as the store's limits allow. Should a later one fail, nothing is lost by the order: a job's shards
    /// are written before its record, so that the record is at most behind them, and whatever goes, goes last.
    fn transactions(self, fence: Fence) -> Vec<Txn> {
        let (records, others): (Vec<_>, Vec<_>) =
            self.puts.into_iter().partition(|(key, _)| key.starts_with(JOBS));
        let mut all = Splitter { fence, done: Vec::new(), txn: fence.txn(), bytes: 0 };
        for (key, value) in others.into_iter().chain(records) {
            all.room_for(key.len() + value.len());
            all.txn = all.txn.put(key, value);
        }
        for key in self.deletes {
            all.room_for(key.len());
            all.txn = all.txn.delete(key);
        }
        for folder in self.folders {
            all.room_for(folder.len());
            all.txn = all.txn.delete_folder(folder);
        }
        if !all.txn.writes.is_empty() {
            all.done.push(all.txn);
        }
        all.done
    }
}

/// Begins another transaction when one is full.
struct Splitter {
    fence: Fence,
    done: Vec<Txn>,
    txn: Txn,
    bytes: usize,
}

impl Splitter {
    fn room_for(&mut self, bytes: usize) {
        if self.txn.writes.len() == limits::TXN_OPERATIONS || self.bytes + bytes > limits::TXN_BYTES {
            self.done.push(std::mem::replace(&mut self.txn, self.fence.txn()));
            self.bytes = 0;
        }
        self.bytes += bytes;
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Content<'a> {
    Job(&'a JobRecord),
    Output(&'a TaskOutput),
    Worker(&'a WorkerRecord),
}

#[derive(Serialize)]
struct Envelope<'a> {
    version: u32,
    #[serde(flatten)]
    content: &'a Content<'a>,
}

#[derive(Deserialize)]
struct JobEnvelope {
    job: JobRecord,
}

#[derive(Deserialize)]
struct WorkerEnvelope {
    worker: WorkerRecord,
}

#[derive(Deserialize)]
struct OutputEnvelope {
    output: TaskOutput,
}

fn job_key(job: &JobId) -> String {
    format!("{JOBS}{job}")
}

fn worker_key(worker: &WorkerId) -> String {
    format!("{WORKERS}{worker}")
}

fn forgotten_key(job: &JobId) -> String {
    format!("{FORGOTTEN}{job}")
}

fn read_record(entry: &Entry) -> Result<JobRecord> {
    let JobEnvelope { job } = open(&entry.key, &entry.value)?;
    Ok(job)
}

/// The job that a key below this folder is about.
fn id_in(key: &str, folder: &str) -> Result<JobId> {
    let id = key.strip_prefix(folder).unwrap_or_default();
    JobId::new(id).map_err(|error| unreadable(key, &error.to_string()))
}

/// Phase and index in `PHASE/INDEX`.
fn shard_of(rest: &str) -> Option<(Phase, ShardIndex)> {
    let (phase, index) = rest.split_once('/')?;
    let phase = Phase::ALL.into_iter().find(|known| known.name() == phase)?;
    Some((phase, ShardIndex(index.parse().ok()?)))
}

pub(crate) fn open<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let refuse = |error: serde_json::Error| unreadable(key, &error.to_string());
    let Version { version } = serde_json::from_slice(value).map_err(refuse)?;
    if version != VERSION {
        return Err(unreadable(
            key,
            &format!("it has version {version}, this program reads {VERSION}: use the lethe that wrote it"),
        ));
    }
    serde_json::from_slice(value).map_err(refuse)
}

fn unreadable(key: &str, reason: &str) -> Error {
    Error::Record { key: key.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
