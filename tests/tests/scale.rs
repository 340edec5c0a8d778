//! The benchmarks of the coordinator's sizes, small: they run, and what they say is of the right kind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lethe_tests::Running;
use serde_json::Value;

/// The one line that it prints; none where there is no etcd.
fn measured(arguments: &[&str]) -> Option<Value> {
    let folder = tempfile::tempdir().unwrap();
    let finished = Running::start("lethe-bench-scale", arguments, folder.path()).finish().expect(0);
    if finished.stdout.is_empty() {
        lethe_testkit::skip("there is no program etcd (Debian: etcd-server)");
        return None;
    }
    Some(serde_json::from_str(&finished.stdout).unwrap())
}

#[test]
fn nobody_is_suspected_under_load_and_every_page_is_shown() {
    let load = [
        "load",
        "--jobs",
        "40",
        "--workers",
        "20",
        "--pages",
        "3",
        "--watchers",
        "3",
        "--lease-seconds",
        "1",
        "--seconds",
        "3",
    ];
    let found = measured(&load).unwrap();
    for zero in ["suspect_or_dead_seen", "workers_lost", "sessions_lost", "pages_failed"] {
        assert_eq!(found[zero].as_f64(), Some(0.0), "{zero}: {found}");
    }
    for positive in ["pages_shown", "shards_back", "looks_at_workers", "resident_mb"] {
        assert!(found[positive].as_f64() > Some(0.0), "{positive}: {found}");
    }
    assert!(found["get_job_ms"]["p99"].as_f64() > Some(0.0), "{found}");
    assert!(found["driver_thread_share_of_a_core"].as_f64() < Some(1.0), "{found}");
}

#[test]
fn a_store_holds_no_more_than_twice_the_records_of_finished_jobs_and_another_takes_it_over() {
    let sizes = ["takeover", "--finished", "20", "--shards", "90", "--live", "2000", "--live-jobs", "2"];
    let Some(found) = measured(&sizes) else { return };
    assert!(found["times_their_records"].as_f64() <= Some(2.0), "{found}");
    assert!(found["seconds_from_kill_to_leading"].as_f64() < Some(20.0), "{found}");
    assert!(found["keys"].as_f64() > Some(2_020.0), "{found}");
}
