//! What operators look at: probes, metrics, the page.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use lethe_domain::{JobSpec, SlotIndex, WorkerId};
use serde_json::json;

use crate::fake::{FREELY, FakeWorker};
use crate::world::{DEADLINE, World, client, get, metric, succeeded, until, url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_answer() {
    let world = World::new();
    let coordinator = world.start().await;
    for path in ["/livez", "/readyz"] {
        let answer = get(&coordinator, path).await;
        assert_eq!((answer.status, answer.text()), (200, "ok\n"), "{path}");
    }
    assert_eq!(get(&coordinator, "/nowhere").await.status, 404);
    assert_eq!(get(&coordinator, "/jobs/nobody").await.status, 404);
    assert_eq!(get(&coordinator, "/jobs/..%2f..%2fetc").await.status, 404);
    assert_eq!(get(&coordinator, "/jobs/nobody/before_after.png").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_follow_a_job_and_forget_it() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    assert_eq!(metric(&coordinator, "lethe_jobs{state=\"running\"}").await, Some(0.0));
    assert_eq!(metric(&coordinator, "lethe_workers{state=\"ready\"}").await, Some(0.0));
    let job = client.submit(&world.job(), None).await.unwrap();
    // The probe, twenty of forty shards; two at work.
    let mut worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 3, 21);
    worker.started(24).await;
    until(&client, &job.id, |status| status.phases[1].shards_done == 20).await;
    let progress = format!("lethe_job_progress_ratio{{job=\"{}\",phase=\"sample\"}}", job.id);
    assert!(metric(&coordinator, &progress).await.unwrap() >= 0.5);
    for (series, value) in [
        ("lethe_jobs{state=\"running\"}", 1.0),
        ("lethe_slots{state=\"busy\"}", 3.0),
        ("lethe_slots{state=\"free\"}", 0.0),
        ("lethe_leases{phase=\"sample\"}", 3.0),
        ("lethe_leases_granted_total{phase=\"sample\"}", 23.0),
        ("lethe_leases_finished_total{phase=\"sample\",result=\"success\"}", 20.0),
        ("lethe_lease_duration_seconds_count{phase=\"sample\"}", 20.0),
        ("lethe_coordinator_epoch", 1.0),
        ("lethe_jobs_submitted_total", 1.0),
        ("lethe_rpc_duration_seconds_count{method=\"SubmitJob\",code=\"ok\"}", 1.0),
    ] {
        assert_eq!(metric(&coordinator, series).await, Some(value), "{series}");
    }
    let commits = "lethe_store_request_duration_seconds_count{op=\"commit\",result=\"success\"}";
    assert!(metric(&coordinator, commits).await.unwrap() >= 3.0);

    worker.permits.add_permits(FREELY);
    succeeded(&client, &job.id).await;
    let text = get(&coordinator, "/metrics").await;
    assert!(!text.text().contains(job.id.as_str()), "a job that has ended leaves no series behind");
    assert_eq!(
        metric(&coordinator, "lethe_phase_duration_seconds_count{phase=\"fine_tune\"}").await,
        Some(1.0)
    );
    assert_eq!(metric(&coordinator, "lethe_gangs_formed_total").await, Some(1.0));
    let version = format!("lethe_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(metric(&coordinator, &version).await, Some(1.0));
    // A refused call, and one of nobody's.
    let _ = client.get(&lethe_domain::JobId::new("nobody").unwrap()).await.unwrap_err();
    let refused = "lethe_rpc_duration_seconds_count{method=\"GetJob\",code=\"not_found\"}";
    assert_eq!(metric(&coordinator, refused).await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_finds_nothing_to_criticise() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let job = client.submit(&world.job(), None).await.unwrap();
    let mut worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 2, 10);
    worker.started(12).await;
    until(&client, &job.id, |status| status.phases[1].shards_done == 9).await;
    let text = get(&coordinator, "/metrics").await.body;
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        return lethe_testkit::skip("promtool is not installed (Debian: prometheus)");
    };
    promtool.stdin.take().unwrap().write_all(&text).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{}", String::from_utf8_lossy(&text));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_everything_and_escapes_what_is_hostile() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let empty = get(&coordinator, "/").await;
    assert!(empty.text().contains("No job yet") && empty.text().contains("No worker has joined"));
    assert!(!empty.text().contains("http-equiv=\"refresh\""), "nothing changes by itself");

    let hostile = "<script>alert('x')</script>\"&<img src=x>";
    let mut spec = world.spec();
    spec["feature"]["name"] = json!(hostile);
    let job = client.submit(&JobSpec::from_value(spec).unwrap(), None).await.unwrap();
    let worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 2, 5);
    until(&client, &job.id, |status| status.phases[1].shards_done == 4).await;
    let path = format!("/jobs/{}", job.id);
    for path in ["/", &path] {
        let page = get(&coordinator, path).await;
        assert_eq!(page.status, 200);
        let text = page.text();
        assert!(text.contains("&lt;script&gt;alert('x')&lt;/script&gt;"), "{text}");
        assert!(!text.contains("<script") && !text.contains("<img src=x"), "{text}");
        assert!(text.contains("http-equiv=\"refresh\""));
        let nonce = text.split("<style nonce=\"").nth(1).unwrap().split('"').next().unwrap();
        let policy = format!("default-src 'none'; style-src 'nonce-{nonce}'; img-src 'self'");
        assert!(page.head.contains(&policy), "{}", page.head);
        assert!(!text.contains(" style="), "the policy forbids it");
    }
    worker.permits.add_permits(FREELY);
    succeeded(&client, &job.id).await;
    let page = get(&coordinator, &path).await;
    let text = page.text();
    for part in [
        "10.0\u{a0}%",
        "0.40\u{a0}%",
        "<strong>4.00\u{a0}%</strong>",
        "distance",
        "1,280 samples/s",
        "<polyline points=\"0.0,",
        "before_after.png",
        "<b>Advice: </b>raise unlearn.steps",
        "fine-tune",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("http-equiv=\"refresh\""), "it is final");
    assert!(!text.contains("alert('x')</script>"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_counted_by_what_they_are_and_a_reason_is_one_line() {
    let world = World::new();
    let coordinator = world.start().await;
    let client = client(coordinator.grpc_address()).await;
    let _worker = FakeWorker::start(&url(coordinator.grpc_address()), "one", 3, FREELY);
    let deadline = Instant::now() + DEADLINE;
    while client.workers().await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the worker does not join");
    }
    let one = WorkerId::new("one").unwrap();
    let reason = "the\nfan \u{1b}[31mis loud";
    let worker = client.quarantine(&one, Some(SlotIndex(1)), reason).await.unwrap();
    assert_eq!(worker.slots[1].quarantine.as_deref(), Some("the fan [31mis loud"));
    for (series, value) in [
        ("lethe_slots{state=\"free\"}", 2.0),
        ("lethe_slots{state=\"quarantined\"}", 1.0),
        ("lethe_slots_quarantined_total", 1.0),
    ] {
        assert_eq!(metric(&coordinator, series).await, Some(value), "{series}");
    }
    client.drain(&one).await.unwrap();
    assert_eq!(metric(&coordinator, "lethe_slots{state=\"free\"}").await, Some(0.0));
    assert_eq!(metric(&coordinator, "lethe_slots{state=\"draining\"}").await, Some(2.0));
    client.release(&one, None).await.unwrap();
    assert_eq!(metric(&coordinator, "lethe_slots{state=\"free\"}").await, Some(3.0));
}
