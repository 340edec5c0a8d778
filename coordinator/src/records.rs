//! What the state store holds of jobs: a record and finished shards, as JSON in a versioned envelope.
//!
//! | key | value |
//! |---|---|
//! | `jobs/ID/record` | `{"version": 2, "job": ...}` |
//! | `jobs/ID/shards/PHASE/INDEX` | `{"version": 2, "output": ...}` |
//! | `workers/ID` | `{"version": 2, "worker": ...}`: what is decided about a worker |
//!
//! Not here: who may write (`election`), when something is written (driver), the store itself (`lethe-store`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lethe_domain::{Epoch, JobId, Phase, ShardIndex, TaskOutput};
use lethe_engine::{JobRecord, WorkerRecord, Write};
use lethe_store::{Entry, StateStore, Txn, limits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::election::{EPOCH, Fence, read_epoch};
use crate::metrics::{Metrics, StoreOp};
use crate::{Error, Result};

/// Version of the envelopes this program writes and reads.
pub(crate) const VERSION: u32 = 2;
const JOBS: &str = "jobs/";
const WORKERS: &str = "workers/";
/// How the key of a job's record ends.
const RECORD: &str = "/record";

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
}

/// The way to the records.
#[derive(Debug)]
pub(crate) struct Records {
    store: Arc<dyn StateStore>,
    metrics: Arc<Metrics>,
}

impl Records {
    pub(crate) fn new(store: Arc<dyn StateStore>, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    /// Reads everything, as of one moment.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Record`] names what cannot be read.
    pub(crate) async fn load(&self) -> Result<Loaded> {
        let listing = self.metrics.store_request(StoreOp::List, self.store.list("")).await?;
        let epoch = listing.entries.iter().find(|entry| entry.key == EPOCH);
        let epoch = epoch.map_or(Ok(0), |entry| read_epoch(&entry.value))?;
        let below =
            |folder: &'static str| listing.entries.iter().filter(move |entry| entry.key.starts_with(folder));
        let jobs = read_jobs(below(JOBS).map(|entry| (entry.key.as_str(), entry.value.as_ref())))?;
        let worker =
            |entry: &Entry| open::<WorkerEnvelope>(&entry.key, &entry.value).map(|found| found.worker);
        let workers = below(WORKERS).map(worker).collect::<Result<_>>()?;
        Ok(Loaded { epoch: Epoch(epoch), jobs, workers })
    }

    /// Writes everything down as the leader behind this fence: one transaction unless a store's limits ask for more.
    ///
    /// # Errors
    /// [`Error::Store`]: it is open which of the transactions happened.
    pub(crate) async fn save(&self, fence: Fence, writes: impl Iterator<Item = &Write>) -> Result<()> {
        // Of several writes of a key the last one counts.
        let mut values = BTreeMap::new();
        for write in writes {
            values.insert(key_of(write), value_of(write)?);
        }
        for txn in transactions(fence, values) {
            self.metrics.store_request(StoreOp::Commit, self.store.commit(txn)).await?;
        }
        Ok(())
    }
}

/// As few transactions as the store's limits allow. A job's shards come before its record: should a later transaction
/// fail, the record is at most behind its shards, as it is while they are at work.
fn transactions(fence: Fence, values: BTreeMap<String, Bytes>) -> Vec<Txn> {
    let (records, others): (Vec<_>, Vec<_>) = values.into_iter().partition(|(key, _)| key.ends_with(RECORD));
    let mut done = Vec::new();
    let (mut txn, mut bytes) = (fence.txn(), 0);
    for (key, value) in others.into_iter().chain(records) {
        let size = key.len() + value.len();
        if txn.writes.len() == limits::TXN_OPERATIONS || bytes + size > limits::TXN_BYTES {
            done.push(std::mem::replace(&mut txn, fence.txn()));
            bytes = 0;
        }
        txn = txn.put(key, value);
        bytes += size;
    }
    if !txn.writes.is_empty() {
        done.push(txn);
    }
    done
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
    content: Content<'a>,
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

fn key_of(write: &Write) -> String {
    match write {
        Write::Job(record) => format!("{JOBS}{}{RECORD}", record.id),
        Write::Shard { job, phase, shard, .. } => format!("{JOBS}{job}/shards/{phase}/{shard}"),
        Write::Worker(record) => format!("{WORKERS}{}", record.id),
    }
}

fn value_of(write: &Write) -> Result<Bytes> {
    let content = match write {
        Write::Job(record) => Content::Job(record),
        Write::Shard { output, .. } => Content::Output(output),
        Write::Worker(record) => Content::Worker(record),
    };
    let json = serde_json::to_vec(&Envelope { version: VERSION, content });
    let json = json.map_err(|error| Error::Record { key: key_of(write), reason: error.to_string() })?;
    Ok(json.into())
}

/// Jobs from the entries below `jobs/`.
fn read_jobs<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Vec<StoredJob>> {
    let mut records = BTreeMap::new();
    let mut shards: BTreeMap<JobId, Vec<(Phase, ShardIndex, TaskOutput)>> = BTreeMap::new();
    for (key, value) in entries {
        let (id, rest) = key.strip_prefix(JOBS).and_then(|key| key.split_once('/')).unwrap_or_default();
        let id = JobId::new(id).map_err(|error| unreadable(key, &error.to_string()))?;
        if rest == "record" {
            let JobEnvelope { job } = open(key, value)?;
            records.insert(id, job);
        } else {
            let (phase, shard) = shard_of(rest).ok_or_else(|| unreadable(key, "it is no key of a shard"))?;
            let OutputEnvelope { output } = open(key, value)?;
            shards.entry(id).or_default().push((phase, shard, output));
        }
    }
    let jobs = records.into_iter().map(|(id, record)| (record, shards.remove(&id).unwrap_or_default()));
    let jobs = jobs.collect();
    for id in shards.keys() {
        tracing::warn!(job = %id, "the state store holds shards of a job without a record: they are left alone");
    }
    Ok(jobs)
}

/// Phase and index in `shards/PHASE/INDEX`.
fn shard_of(rest: &str) -> Option<(Phase, ShardIndex)> {
    let (phase, index) = rest.strip_prefix("shards/")?.split_once('/')?;
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
mod tests {
    use lethe_domain::JobState;
    use lethe_engine::{Config, Now, State};
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::election::{Election, Leader, Outcome};

    /// What version 2 wrote: a job that succeeded, one in the middle of sampling, one that was cancelled.
    const V2: &str = include_str!("records_v2.json");

    fn v2() -> Map<String, Value> {
        serde_json::from_str(V2).unwrap()
    }

    fn read(entries: &Map<String, Value>) -> Result<Vec<StoredJob>> {
        let entries: Vec<(&String, String)> =
            entries.iter().map(|(key, value)| (key, value.to_string())).collect();
        let jobs = entries.iter().filter(|(key, _)| key.starts_with(JOBS));
        read_jobs(jobs.map(|(key, value)| (key.as_str(), value.as_bytes())))
    }

    #[test]
    fn what_version_2_wrote_is_read() {
        let entries = v2();
        assert_eq!(read_epoch(entries[EPOCH].to_string().as_bytes()).unwrap(), 1);
        let jobs = read(&entries).unwrap();
        let states: Vec<_> =
            jobs.iter().map(|(job, shards)| (job.id.as_str(), job.state, shards.len())).collect();
        assert_eq!(
            states,
            [
                ("digit-9f08bd", JobState::Cancelled, 0),
                ("slant-dcgan-ffe3b4", JobState::Running, 2),
                ("thick-vae-937989", JobState::Succeeded, 5),
            ]
        );
        let (done, _) = &jobs[2];
        assert_eq!((done.request_id.as_deref(), done.spec.sample.seed), (Some("r-1"), 7));
        assert_eq!(done.outputs.fine_tune().unwrap().loss_last, 0.025);
        assert_eq!(done.outputs.report().unwrap().figures[0].after, Some(0.04));
        assert_eq!(done.seconds.len(), Phase::ALL.len());
        assert_eq!(jobs[0].0.failure.as_ref().unwrap().message, "job digit-9f08bd was cancelled: not needed");
        let state = State::restore(Config::default(), Epoch(2), Now::default(), jobs, []);
        state.check_invariants().unwrap();
        let running = state.status(&JobId::new("slant-dcgan-ffe3b4").unwrap(), Now::default()).unwrap();
        assert_eq!((running.phases[1].shards_done, running.phases[1].done), (2, 100));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let key = "jobs/slant-dcgan-ffe3b4/shards/sample/1";
        for (value, reason) in [
            (
                json!({"version": 1, "output": {}}),
                "version 1, this program reads 2: use the lethe that wrote it",
            ),
            (
                json!({"version": 3, "output": {}}),
                "version 3, this program reads 2: use the lethe that wrote it",
            ),
            (json!({"output": {}}), "missing field `version`"),
            (json!({"version": 2, "output": {"Nap": {}}}), "unknown variant `Nap`"),
        ] {
            let mut entries = v2();
            entries.insert(key.to_owned(), value);
            let error = read(&entries).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(reason), "{error}");
        }
        let mut entries = v2();
        entries.insert("jobs/digit-9f08bd/shards/nap/0".to_owned(), json!({}));
        assert!(read(&entries).unwrap_err().to_string().contains("no key of a shard"));
    }

    fn records(store: &Arc<dyn StateStore>) -> Records {
        Records::new(store.clone(), Arc::new(Metrics::new().unwrap()))
    }

    /// The fence and the epoch of a new leader.
    async fn elected(store: &Arc<dyn StateStore>) -> (Fence, Epoch) {
        let me = Leader { address: "here:1".to_owned(), id: "a".to_owned(), started_unix_ms: 1 };
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut election = Election::new(store.clone(), metrics, me, std::time::Duration::from_secs(3));
        assert!(matches!(election.campaign().await.unwrap(), Outcome::Leads));
        (election.fence().unwrap(), records(store).load().await.unwrap().epoch)
    }

    fn all_writes(jobs: &[StoredJob]) -> Vec<Write> {
        let shards = jobs.iter().flat_map(|(job, shards)| {
            shards.iter().map(|(phase, shard, output)| Write::Shard {
                job: job.id.clone(),
                phase: *phase,
                shard: *shard,
                output: Box::new(output.clone()),
            })
        });
        shards.chain(jobs.iter().map(|(job, _)| Write::Job(Box::new(job.clone())))).collect()
    }

    #[tokio::test]
    async fn what_is_saved_is_loaded_and_the_last_write_of_a_key_counts() {
        let store: Arc<dyn StateStore> = lethe_store::memory();
        let (fence, epoch) = elected(&store).await;
        assert_eq!(epoch, Epoch(1));
        let jobs = read(&v2()).unwrap();
        let mut writes = all_writes(&jobs);
        let mut older = jobs[1].0.clone();
        older.state = JobState::Queued;
        writes.insert(0, Write::Job(Box::new(older)));
        records(&store).save(fence, writes.iter()).await.unwrap();
        assert_eq!(elected(&store).await.1, Epoch(2));
        let loaded = records(&store).load().await.unwrap();
        assert_eq!((loaded.epoch, loaded.jobs), (Epoch(2), jobs));
    }

    #[tokio::test]
    async fn a_leader_that_was_replaced_cannot_write() {
        let store: Arc<dyn StateStore> = lethe_store::memory();
        let ((old, _), (new, _)) = (elected(&store).await, elected(&store).await);
        let writes = all_writes(&read(&v2()).unwrap());
        let error = records(&store).save(old, writes.iter()).await.unwrap_err();
        assert!(
            matches!(&error, Error::Store(lethe_store::Error::Conflict { key, .. }) if key == EPOCH),
            "{error}"
        );
        assert_eq!(store.list(JOBS).await.unwrap().entries, vec![]);
        records(&store).save(new, writes.iter()).await.unwrap();
    }

    #[tokio::test]
    async fn more_than_a_transaction_takes_is_split_and_no_record_is_ahead_of_its_shards() {
        let store: Arc<dyn StateStore> = lethe_store::memory();
        let (fence, _) = elected(&store).await;
        let (record, shards) = read(&v2()).unwrap().remove(1);
        let jobs: Vec<StoredJob> = (0..limits::TXN_OPERATIONS)
            .map(|number| {
                let id = JobId::new(format!("job-{number:04}")).unwrap();
                (JobRecord { id, ..record.clone() }, shards.clone())
            })
            .collect();
        let before = store.list("").await.unwrap().revision.0;
        records(&store).save(fence, all_writes(&jobs).iter()).await.unwrap();
        let listing = store.list(JOBS).await.unwrap();
        assert_eq!(listing.entries.len(), 3 * limits::TXN_OPERATIONS);
        assert_eq!(listing.revision.0 - before, 3);
        let mut commits: BTreeMap<&str, Vec<(bool, lethe_store::Revision)>> = BTreeMap::new();
        for entry in &listing.entries {
            let of_job = commits.entry(entry.key.split('/').nth(1).unwrap()).or_default();
            of_job.push((entry.key.ends_with(RECORD), entry.version));
        }
        for of_job in commits.values() {
            let record = of_job.iter().find(|(is_record, _)| *is_record).unwrap().1;
            assert!(of_job.iter().all(|(_, version)| *version <= record), "{of_job:?}");
        }
    }
}
