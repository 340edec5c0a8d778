//! Records through a store: what was written by this version, what cannot be read, and the order of writes.

use lethe_domain::JobState;
use lethe_engine::{Config, Now, State};
use serde_json::{Map, Value, json};

use super::*;
use crate::election::{Election, Leader, Outcome};

/// What version 2 wrote: a job that succeeded, one in the middle of sampling, one that was cancelled, the name of one
/// that is forgotten, and a worker about which something is decided.
const V2: &str = include_str!("v2.json");

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
    let then = Phase::ALL.len() - 4;
    assert_eq!((done.seconds.len(), done.reached.len()), (then, then), "without phases that came later");
    assert_eq!(jobs[0].0.failure.as_ref().unwrap().message, "job digit-9f08bd was cancelled: not needed");
    let state = State::restore(Config::default(), Epoch(2), Now::default(), jobs, []);
    state.check_invariants().unwrap();
    let status = |id| state.status(&JobId::new(id).unwrap(), Now::default()).unwrap();
    let running = status("slant-dcgan-ffe3b4");
    assert_eq!((running.phases[1].shards_done, running.phases[1].done), (2, 100));
    let over = status("thick-vae-937989");
    assert_eq!((over.phases[1].shards_done, over.phases[1].done), (3, 150), "the counts outlast the shards");
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let key = "shards/slant-dcgan-ffe3b4/sample/1";
    for (value, reason) in [
        (json!({"version": 1, "output": {}}), "version 1, this program reads 2: use the lethe that wrote it"),
        (json!({"version": 3, "output": {}}), "version 3, this program reads 2: use the lethe that wrote it"),
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
