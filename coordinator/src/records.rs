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

impl Records {
    pub(crate) fn new(store: Arc<dyn StateStore>, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics, history: History::default() }
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
mod tests {
    use lethe_domain::JobState;
    use lethe_engine::{Config, Now, State};
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::election::{Election, Leader, Outcome};

    /// What version 2 wrote: a job that succeeded, one in the middle of sampling, one that was cancelled, the name of one
    /// that is forgotten, and a worker about which something is decided.
    const V2: &str = include_str!("records_v2.json");

    fn v2() -> Map<String, Value> {
        serde_json::from_str(V2).unwrap()
    }

    /// A store that holds this.
    async fn holding(entries: &Map<String, Value>) -> Arc<dyn StateStore> {
        let store: Arc<dyn StateStore> = lethe_store::memory();
        let bytes = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let txn = entries.iter().fold(Txn::new(), |txn, (key, value)| txn.put(key, bytes(value)));
        store.commit(txn).await.unwrap();
        store
    }

    async fn read(entries: &Map<String, Value>) -> Result<Loaded> {
        records(&holding(entries).await).load().await
    }

    #[tokio::test]
    async fn what_version_2_wrote_is_read() {
        let Loaded { epoch, jobs, workers, forgotten } = read(&v2()).await.unwrap();
        assert_eq!(epoch, Epoch(1));
        let states: Vec<_> =
            jobs.iter().map(|(job, shards)| (job.id.as_str(), job.state, shards.len(), job.tidy)).collect();
        assert_eq!(
            states,
            [
                ("digit-9f08bd", JobState::Cancelled, 0, false),
                ("slant-dcgan-ffe3b4", JobState::Running, 2, false),
                ("thick-vae-937989", JobState::Succeeded, 0, true),
            ]
        );
        assert_eq!(forgotten.iter().map(JobId::as_str).collect::<Vec<_>>(), ["gone-123456"]);
        assert!(workers[0].draining && workers[0].slots.len() == 1);
        let (done, _) = &jobs[2];
        assert_eq!((done.request_id.as_deref(), done.spec.sample.seed), (Some("r-1"), 7));
        assert_eq!(done.outputs.fine_tune().unwrap().loss_last, 0.025);
        assert_eq!(done.outputs.report().unwrap().figures[0].after, Some(0.04));
        assert_eq!((done.seconds.len(), done.reached.len()), (Phase::ALL.len(), Phase::ALL.len()));
        assert_eq!(jobs[0].0.failure.as_ref().unwrap().message, "job digit-9f08bd was cancelled: not needed");
        let state = State::restore(Config::default(), Epoch(2), Now::default(), jobs, []);
        state.check_invariants().unwrap();
        let status = |id| state.status(&JobId::new(id).unwrap(), Now::default()).unwrap();
        let running = status("slant-dcgan-ffe3b4");
        assert_eq!((running.phases[1].shards_done, running.phases[1].done), (2, 100));
        let over = status("thick-vae-937989");
        assert_eq!(
            (over.phases[1].shards_done, over.phases[1].done),
            (3, 150),
            "the counts outlast the shards"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_named() {
        let key = "shards/slant-dcgan-ffe3b4/sample/1";
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
            let error = read(&entries).await.unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(reason), "{error}");
        }
        let mut entries = v2();
        entries.insert("shards/slant-dcgan-ffe3b4/nap/0".to_owned(), json!({}));
        assert!(read(&entries).await.unwrap_err().to_string().contains("no key of a shard"));
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

    async fn keys(store: &Arc<dyn StateStore>) -> Vec<String> {
        let entries = store.list("").await.unwrap().entries.into_iter().map(|entry| entry.key);
        entries.filter(|key| key.contains('/')).collect()
    }

    #[tokio::test]
    async fn what_is_saved_is_loaded_and_the_last_write_of_a_key_counts() {
        let store: Arc<dyn StateStore> = lethe_store::memory();
        let (fence, epoch) = elected(&store).await;
        assert_eq!(epoch, Epoch(1));
        let jobs = read(&v2()).await.unwrap().jobs;
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
        let writes = all_writes(&read(&v2()).await.unwrap().jobs);
        let error = records(&store).save(old, writes.iter()).await.unwrap_err();
        assert!(
            matches!(&error, Error::Store(lethe_store::Error::Conflict { key, .. }) if key == EPOCH),
            "{error}"
        );
        assert_eq!(store.list(JOBS).await.unwrap().entries, vec![]);
        records(&store).save(new, writes.iter()).await.unwrap();
    }

    #[tokio::test]
    async fn a_job_that_ends_leaves_its_record_and_one_that_is_forgotten_its_name_until_it_is_erased() {
        let store: Arc<dyn StateStore> = lethe_store::memory();
        let (fence, _) = elected(&store).await;
        let running = read(&v2()).await.unwrap().jobs.remove(1);
        let (record, job) = (running.0.clone(), running.0.id.clone());
        let records = records(&store);
        let save = async |writes: Vec<Write>| records.save(fence, writes.iter()).await.unwrap();
        save(all_writes(std::slice::from_ref(&running))).await;
        let shards = format!("shards/{job}/sample/");
        assert_eq!(keys(&store).await, [format!("jobs/{job}"), format!("{shards}0"), format!("{shards}1")]);

        // The last shard comes in the turn in which the job ends: it is not written.
        let last = all_writes(std::slice::from_ref(&running)).swap_remove(0);
        let ended = JobRecord { state: JobState::Failed, ..record };
        save(vec![last, Write::Job(Box::new(ended)), Write::ForgetShards { job: job.clone() }]).await;
        assert_eq!(keys(&store).await, [format!("jobs/{job}")]);

        save(vec![Write::ForgetJob { job: job.clone() }]).await;
        assert_eq!(keys(&store).await, [format!("forgotten/{job}")]);
        let loaded = records.load().await.unwrap();
        assert_eq!((loaded.jobs, loaded.forgotten), (vec![], vec![job.clone()]));

        for _ in 0..2 {
            save(vec![Write::Erased { job: job.clone() }]).await;
            assert_eq!(keys(&store).await, Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn more_than_a_transaction_takes_is_split_and_no_record_is_ahead_of_its_shards() {
        let store: Arc<dyn StateStore> = lethe_store::memory();
        let (fence, _) = elected(&store).await;
        let (record, shards) = read(&v2()).await.unwrap().jobs.remove(1);
        let jobs: Vec<StoredJob> = (0..limits::TXN_OPERATIONS)
            .map(|number| {
                let id = JobId::new(format!("job-{number:04}")).unwrap();
                (JobRecord { id, ..record.clone() }, shards.clone())
            })
            .collect();
        let before = store.list("").await.unwrap().revision.0;
        records(&store).save(fence, all_writes(&jobs).iter()).await.unwrap();
        let listing = store.list("").await.unwrap();
        assert_eq!(listing.revision.0 - before, 3);
        let mut commits: BTreeMap<&str, Vec<(bool, Revision)>> = BTreeMap::new();
        for entry in listing.entries.iter().filter(|entry| entry.key.contains('/')) {
            let of_job = commits.entry(entry.key.split('/').nth(1).unwrap()).or_default();
            of_job.push((entry.key.starts_with(JOBS), entry.version));
        }
        assert_eq!(commits.values().map(Vec::len).sum::<usize>(), 3 * limits::TXN_OPERATIONS);
        for of_job in commits.values() {
            let record = of_job.iter().find(|(is_record, _)| *is_record).unwrap().1;
            assert!(of_job.iter().all(|(_, version)| *version <= record), "{of_job:?}");
        }
    }
}
