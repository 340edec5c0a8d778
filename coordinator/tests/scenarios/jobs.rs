//! Jobs from submission to their end.

use std::time::Instant;

use futures::StreamExt;
use lethe_client::Error;
use lethe_domain::{JobFilter, JobId, JobSpec, JobState, Phase};
use serde_json::{Value, json};

use crate::fake::{FREELY, FakeWorker, generator, picture};
use crate::world::{World, client, get, metric, succeeded, until, until_final, url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_through_every_phase_and_its_files_can_be_fetched() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let mut spec = world.spec();
    spec["publish"] = json!({"uri": world.text("published")});
    let job = client.submit(&JobSpec::from_value(spec).unwrap(), None).await.unwrap();
    assert_eq!(job.state, JobState::Queued);
    assert!(job.id.as_str().starts_with("thick-vae-") && job.id.as_str().len() == "thick-vae-".len() + 6);
    let waiting = until(&client, &job.id, |status| status.waiting.is_some()).await;
    assert!(waiting.waiting.unwrap().to_string().contains("no worker has joined"));

    let address = url(coordinator.grpc_address());
    let one = FakeWorker::start(&address, "one", 2, FREELY);
    let two = FakeWorker::start(&address, "two", 1, FREELY);
    let mut versions = vec![];
    let mut states = client.watch(&job.id);
    while let Some(status) = states.next().await {
        versions.push(status.unwrap().version);
    }
    assert!(versions.is_sorted_by(|one, two| one < two), "{versions:?}");

    let status = succeeded(&client, &job.id).await;
    let result = status.result.unwrap();
    let direction = result.direction.unwrap();
    assert_eq!((direction.samples, direction.positives), (2000, 200));
    assert_eq!(result.train.unwrap().world_size, 2);
    assert_eq!(result.seconds.len(), Phase::ALL.len() - 3, "nothing is searched for");
    let started = one.started.borrow().len() + two.started.borrow().len();
    assert_eq!(started, 1 + 40 + 1 + 10 + 2 + 10 + 1 + 1, "each piece of work once");

    let mut bytes = Vec::new();
    client.download(&job.id, "generator", &mut bytes).await.unwrap();
    assert_eq!(bytes, generator());
    let sheet = get(&coordinator, &format!("/jobs/{}/before_after.png", job.id)).await;
    assert_eq!((sheet.status, sheet.body), (200, picture()));
    assert!(sheet.head.contains("image/png"));

    let (found, spec) = client.get(&job.id).await.unwrap();
    assert_eq!((found.state, spec.name.as_str()), (JobState::Succeeded, "thick-vae"));
    // The shutdown waits for results that are being written.
    coordinator.shutdown().await;
    let beside = world.path(&format!("artifacts/jobs/{}/result/result.json", job.id));
    for file in [beside, world.path("published/result.json")] {
        let result: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(result["state"], "succeeded");
        assert_eq!(result["artifacts"]["generator"], "generator.pt");
        let checkpoint = result["artifacts"]["checkpoint"].as_str().unwrap();
        let root = std::fs::canonicalize(world.path("artifacts")).unwrap();
        assert_eq!(checkpoint, format!("file://{}/jobs/{}/checkpoints/40", root.display(), job.id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_cancelled_when_its_slots_are_free() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let job = client.submit(&world.job(), None).await.unwrap();
    // A probe and three shards; then it holds two slots.
    let mut worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 2, 4);
    worker.started(6).await;
    let cancelling = client.cancel(&job.id, "changed my mind").await.unwrap();
    assert!(matches!(cancelling.state, JobState::Cancelling | JobState::Cancelled));
    let status = until_final(&client, &job.id).await;
    assert_eq!((status.state, status.slots), (JobState::Cancelled, 0));
    assert!(status.failure.unwrap().message.ends_with("was cancelled: changed my mind"));
    let again = client.cancel(&job.id, "").await.unwrap();
    assert_eq!(again.state, JobState::Cancelled, "cancelling twice is no error");
    let free = client.workers().await.unwrap();
    assert!(free[0].slots.iter().all(|slot| slot.lease.is_none()));
    assert_eq!(metric(&coordinator, "lethe_jobs_finished_total{state=\"cancelled\"}").await, Some(1.0));

    worker.permits.add_permits(FREELY);
    let next = client.submit(&world.job(), None).await.unwrap();
    succeeded(&client, &next.id).await;
    let error = client.cancel(&next.id, "").await.unwrap_err();
    assert!(
        matches!(&error, Error::Conflict { message } if message.contains("succeeded already")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_is_the_same_job() {
    let world = World::new();
    let coordinator = world.start().await;
    let client_ = client(coordinator.grpc_address()).await;
    let first = client_.submit(&world.job(), Some("r-1")).await.unwrap();
    let second = client_.submit(&world.job(), Some("r-1")).await.unwrap();
    let other = client_.submit(&world.job(), Some("r-2")).await.unwrap();
    assert!(first.id == second.id && first.id != other.id);
    let mut changed = world.spec();
    changed["sample"]["seed"] = json!(7);
    let changed = JobSpec::from_value(changed).unwrap();
    let error = client_.submit(&changed, Some("r-1")).await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { message } if message.contains(first.id.as_str())), "{error}");
    coordinator.shutdown().await;

    // Also after a restart, and when the files are gone.
    std::fs::remove_file(world.path("generator.pt")).unwrap();
    let coordinator = world.start().await;
    let client_ = client(coordinator.grpc_address()).await;
    assert_eq!(client_.submit(&world.job(), Some("r-1")).await.unwrap().id, first.id);
    assert!(matches!(client_.submit(&world.job(), Some("r-3")).await, Err(Error::Invalid(_))));
    assert_eq!(client_.list(0, None).await.unwrap().jobs.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_listed_newest_first_in_pages() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let mut submitted: Vec<JobId> = vec![];
    for _ in 0..5 {
        submitted.push(client.submit(&world.job(), None).await.unwrap().id);
    }
    let (mut listed, mut sizes, mut next) = (vec![], vec![], None);
    loop {
        let page = client.list(2, next.as_deref()).await.unwrap();
        sizes.push(page.jobs.len());
        listed.extend(page.jobs.into_iter().map(|job| job.id));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [2, 2, 1]);
    let time = |id: &JobId| submitted.iter().position(|other| other == id).unwrap();
    let places: Vec<usize> = listed.iter().map(time).collect();
    assert_eq!(listed.len(), 5);
    // Two jobs of the same millisecond are ordered by id.
    let (first, rest) = places.split_first().unwrap();
    assert!(*first > 0 || rest.is_sorted_by(|one, two| one > two), "{places:?}");
    let fitting = async |filter: JobFilter| client.list_fitting(&filter, 2, None).await.unwrap();
    let running = JobFilter { states: vec![JobState::Running], ..Default::default() };
    assert_eq!(fitting(running).await.jobs, vec![]);
    let name = Some(world.job().name);
    let page =
        fitting(JobFilter { name: name.clone(), owner: Some("default".to_owned()), ..Default::default() })
            .await;
    assert!(page.jobs.len() == 2 && page.next.is_some(), "{page:?}");
    assert_eq!(page.jobs[0].owner, "default");
    for nobody in [
        JobFilter { name: Some("another".to_owned()), ..Default::default() },
        JobFilter { owner: Some("ann".to_owned()), ..Default::default() },
        JobFilter { since_unix_ms: Some(u64::MAX / 2_000_000), name, ..Default::default() },
    ] {
        assert_eq!(fitting(nobody.clone()).await.jobs, vec![], "{nobody:?}");
    }
    assert!(matches!(client.list(2, Some("nobody")).await, Err(Error::Misunderstood { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_is_told_at_most_five_times_a_second() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let job = client.submit(&world.job(), None).await.unwrap();
    let worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 2, 0);
    let begin = Instant::now();
    let feed = async {
        // Sixty changes in a good second.
        for _ in 0..40 {
            worker.permits.add_permits(1);
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        worker.permits.add_permits(FREELY);
    };
    let watch = async {
        let mut seen = 0;
        let mut states = client.watch(&job.id);
        while let Some(status) = states.next().await {
            status.unwrap();
            seen += 1;
        }
        seen
    };
    let ((), seen) = tokio::join!(feed, watch);
    let most = begin.elapsed().as_secs_f64() * 5.0 + 2.0;
    assert!(seen >= 4 && f64::from(seen) <= most, "{seen} states, at most {most}");
}
