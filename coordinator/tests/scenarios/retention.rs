//! What is left of jobs that are over: on request, by number, and after a kill in the middle of it.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use lethe_client::Error;
use lethe_coordinator::{Coordinator, KEEP_EDITS};
use lethe_domain::{JobId, JobResult, JobSpec, JobState, PoolSummary};
use lethe_store::{StateStore, Txn};
use serde_json::{Value, json};
use tokio::time::{Duration, sleep, timeout};

use crate::fake::{FREELY, FakeWorker, generator};
use crate::world::{DEADLINE, World, any_port, client, eventually, get, succeeded, url};

/// A file that a job has in artifact storage.
fn leave(world: &World, id: &JobId, file: &str) {
    let file = world.path(&format!("artifacts/jobs/{id}/{file}"));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, "x").unwrap();
}

async fn store(world: &World) -> Arc<dyn StateStore> {
    lethe_store::connect(&format!("redb://{}", world.text("state"))).await.unwrap()
}

/// What is written down about jobs.
async fn keys(world: &World) -> Vec<String> {
    let entries = store(world).await.list("").await.unwrap().entries;
    entries.into_iter().map(|entry| entry.key).filter(|key| key.contains('/')).collect()
}

fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_job_leaves_nothing_but_what_it_published() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let mut spec = world.spec();
    spec["publish"] = json!({"uri": world.text("published")});
    let id = client.submit(&JobSpec::from_value(spec).unwrap(), Some("r")).await.unwrap().id;
    let error = client.delete(&id).await.unwrap_err();
    assert!(
        matches!(&error, Error::Conflict { .. }) && error.to_string().contains("cancel it first"),
        "{error}"
    );
    leave(&world, &id, "sample/shard-00000-a1.safetensors");
    leave(&world, &id, "checkpoints/40/manifest.json");
    let _worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 2, FREELY);
    succeeded(&client, &id).await;

    let folder = world.path(&format!("artifacts/jobs/{id}"));
    eventually("the scores go", async || !is_there(&folder.join("sample"))).await;
    assert!(is_there(&folder.join("checkpoints/40/manifest.json")) && is_there(&folder.join("result")));
    let status = client.get(&id).await.unwrap().0;
    let sampled = &status.phases[1];
    assert_eq!((sampled.done, sampled.shards_done, sampled.shards), (2000, 40, 40), "the counts stay");

    client.delete(&id).await.unwrap();
    eventually("its files go", async || !is_there(&folder)).await;
    assert!(matches!(client.get(&id).await, Err(Error::NotFound { .. })));
    assert!(matches!(client.delete(&id).await, Err(Error::NotFound { .. })));
    assert_eq!(client.list(0, None).await.unwrap().jobs, vec![]);
    assert!(is_there(&world.path("published/result.json")));
    // The request is forgotten too: the same one is a new job now.
    assert_ne!(client.submit(&world.job(), Some("r")).await.unwrap().id, id);
    coordinator.shutdown().await;
    let left = keys(&world).await;
    assert!(left.iter().all(|key| !key.contains(id.as_str())), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_deleted_right_after_its_end_goes_when_its_files_are_in_order() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let _worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 2, FREELY);
    let id = client.submit(&world.job(), None).await.unwrap().id;
    succeeded(&client, &id).await;
    client.delete(&id).await.unwrap();
    let folder = world.path(&format!("artifacts/jobs/{id}"));
    eventually("its files go", async || !is_there(&folder)).await;
    assert!(matches!(client.get(&id).await, Err(Error::NotFound { .. })));
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_goes_when_there_are_too_many_and_its_shards_went_before() {
    let world = World::new();
    let mut config = world.config(any_port());
    config.engine.keep_jobs = Some(1);
    let coordinator = Coordinator::start(config).await.unwrap();
    let client = client(coordinator.grpc_address()).await;
    let _worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 2, FREELY);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let id = client.submit(&world.job(), None).await.unwrap().id;
        succeeded(&client, &id).await;
        ids.push(id);
    }
    eventually("the first goes", async || !is_there(&world.path(&format!("artifacts/jobs/{}", ids[0]))))
        .await;
    let jobs = client.list(0, None).await.unwrap().jobs;
    assert_eq!(jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), [&ids[1]]);
    assert!(is_there(&world.path(&format!("artifacts/jobs/{}/result/result.json", ids[1]))));
    coordinator.shutdown().await;
    let jobs: Vec<String> =
        keys(&world).await.into_iter().filter(|key| !key.starts_with("forgotten/")).collect();
    assert_eq!(jobs, [format!("jobs/{}", ids[1])], "no shard is left of either");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_leader_left_half_done_is_done_by_the_next() {
    let world = World::new();
    let coordinator = world.start().await;
    let client_ = client(coordinator.grpc_address()).await;
    let worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 2, FREELY);
    let id = client_.submit(&world.job(), None).await.unwrap().id;
    succeeded(&client_, &id).await;
    worker.leave().await;
    coordinator.shutdown().await;
    // As if the first leader had been killed right after it wrote down the end of this job, and of another its deletion.
    let key = format!("jobs/{id}");
    let other = JobId::new("other-123456").unwrap();
    {
        let store = store(&world).await;
        let mut record: Value =
            serde_json::from_slice(&store.get(&key).await.unwrap().unwrap().value).unwrap();
        record["job"]["tidy"] = json!(false);
        let txn = Txn::new().put(key.as_str(), record.to_string()).put(format!("forgotten/{other}"), "");
        store.commit(txn).await.unwrap();
    }
    let result = world.path(&format!("artifacts/jobs/{id}/result/result.json"));
    let before = std::fs::read(&result).unwrap();
    std::fs::remove_file(&result).unwrap();
    leave(&world, &id, "evaluate/shard-00000-a1.safetensors");
    leave(&world, &other, "result/generator.pt");

    let coordinator = world.start().await;
    let folder = |id: &JobId| world.path(&format!("artifacts/jobs/{id}"));
    eventually("the other's files go", async || !is_there(&folder(&other))).await;
    eventually("the moments go", async || !is_there(&folder(&id).join("evaluate"))).await;
    assert_eq!(std::fs::read(&result).unwrap(), before, "the result is written again");
    coordinator.shutdown().await;
    // That it is done is written down too, by this one or, where it ended too soon, by one after it.
    let written = async {
        loop {
            let left = keys(&world).await;
            let tidy = async {
                let store = store(&world).await;
                let record = store.get(&key).await.unwrap().unwrap();
                serde_json::from_slice::<Value>(&record.value).unwrap()["job"]["tidy"] == json!(true)
            };
            if left == [key.clone()] && tidy.await {
                return;
            }
            let coordinator = world.start().await;
            sleep(Duration::from_millis(100)).await;
            coordinator.shutdown().await;
        }
    };
    timeout(DEADLINE, written).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_over_is_read_where_it_is_written_down() {
    let world = World::new();
    let coordinator = world.start().await;
    let worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 2, FREELY);
    let id = client(coordinator.grpc_address()).await.submit(&world.job(), Some("r")).await.unwrap().id;
    let before = succeeded(&client(coordinator.grpc_address()).await, &id).await;
    drop(worker);
    coordinator.shutdown().await;

    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let (after, spec) = client.get(&id).await.unwrap();
    assert_eq!((&after.result, &after.phases, &spec), (&before.result, &before.phases, &world.job()));
    let brief = client.list(0, None).await.unwrap().jobs.remove(0);
    assert_eq!(brief.result, before.result.map(JobResult::brief));
    let mut bytes = Vec::new();
    client.download(&id, "generator", &mut bytes).await.unwrap();
    assert_eq!(bytes, generator());
    let page = get(&coordinator, &format!("/jobs/{id}")).await;
    assert!(page.status == 200 && page.text().contains("What was asked for"));
    let states: Vec<JobState> = client.watch(&id).map(|status| status.unwrap().state).collect().await;
    assert_eq!(states, [JobState::Succeeded]);
    assert_eq!(client.explain(&id).await.unwrap(), []);

    assert_eq!(client.submit(&world.job(), Some("r")).await.unwrap().id, id, "the request is known still");
    let mut other = world.spec();
    other["sample"]["seed"] = 77.into();
    let error = client.submit(&JobSpec::from_value(other).unwrap(), Some("r")).await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { .. }), "{error}");
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_goes_on_where_the_one_before_ended_though_that_job_is_deleted() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    for _ in 0..3 {
        let id = client.submit(&world.job(), None).await.unwrap().id;
        client.cancel(&id, "").await.unwrap();
    }
    let all = client.list(0, None).await.unwrap().jobs;
    let page = client.list(1, None).await.unwrap();
    assert_eq!(page.jobs[0].id, all[0].id);
    client.delete(&all[0].id).await.unwrap();
    eventually("it is deleted", async || client.get(&all[0].id).await.is_err()).await;
    let page = client.list(1, page.next.as_deref()).await.unwrap();
    assert_eq!(page.jobs[0].id, all[1].id);
    let error = client.list(1, Some("nonsense")).await.unwrap_err().to_string();
    assert!(error.contains("next_page_token of the page before"), "{error}");
    coordinator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_edits_go_and_who_keeps_none_lets_no_job_use_any() {
    for (keep_edits, reused) in [(KEEP_EDITS, 10), (Duration::ZERO, 0)] {
        let world = World::new();
        let entries = [("old", 8), ("new", 1)].map(|(name, days)| {
            let file = world.path(&format!("artifacts/edits/{name}/1.safetensors"));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            let put = std::time::SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
            std::fs::File::create(&file).unwrap().set_modified(put).unwrap();
            file
        });
        let mut config = world.config(any_port());
        config.keep_edits = keep_edits;
        let coordinator = Coordinator::start(config).await.unwrap();
        let client = client(coordinator.grpc_address()).await;
        let _worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 2, FREELY);
        let id = client.submit(&world.job(), None).await.unwrap().id;
        // The fake worker finds every shard that it may look for.
        let result = succeeded(&client, &id).await.result.unwrap();
        assert_eq!(result.pool, Some(PoolSummary { latents: 500, shards: 10, reused }));
        assert!(result.spec.is_none_or(|spec| spec.pool.reuse), "as it was asked for");
        let gone = [&entries[..1], &entries][usize::from(keep_edits.is_zero())];
        eventually("old edits go", async || !gone.iter().any(|file| is_there(file))).await;
        assert_eq!(is_there(&entries[1]), !keep_edits.is_zero());
        coordinator.shutdown().await;
    }
}
