//! A slot that waits with everything loaded, and faults made on purpose.

use std::fs;
use std::time::{Duration, Instant};

use lethe_domain::{ErrorCode, SampleRange, Task, canary};
use lethe_proto::executor::ExecutorEvent;

use crate::harness::Executor;
use crate::job::Job;

#[test]
fn a_standby_waits_and_then_replaces_a_lost_rank_without_storage() {
    let job = Job::thick().set("unlearn.steps", 120);
    let mut all = vec![Executor::start(), Executor::start()];
    let mut spare = Executor::start();
    let target = job.target(&mut all[0]);
    let waiting =
        job.assignment(9, Task::Standby { target: target.clone(), pool: job.pool.borrow().clone() });
    spare.begin(&waiting);
    spare.wait_for_progress(1);
    assert!(spare.progress.len() > 1, "it says more than once that it lives");

    let leases = job.begin_gang(&mut all, &target, 1);
    all[0].wait_for_progress(20);
    fs::rename(job.root(), job.folder().join("away")).unwrap();
    all[1].kill();
    let killed = Instant::now();
    assert_eq!(all[0].end(&leases[0].lease).unwrap_err().code, ErrorCode::GangAborted);
    spare.stop(&waiting.lease);
    assert_eq!(spare.end(&waiting.lease).unwrap_err().code, ErrorCode::Cancelled);
    assert!(killed.elapsed() < Duration::from_secs(2), "at once: {:?}", killed.elapsed());
    all[1] = spare;
    let leases = job.begin_gang(&mut all, &target, 2);
    all[1].wait_for_progress(40);
    fs::rename(job.folder().join("away"), job.root()).unwrap();
    assert_eq!(job.trained(&mut all, &leases).steps, 120);
}

#[test]
fn a_spoilt_canary_is_told_as_it_is() {
    let mut executor = Executor::spawn(&["--chaos", "canary"]);
    let ExecutorEvent::Ready { canary: found, .. } = executor.event() else { panic!("not ready") };
    assert!(canary::check(&found).unwrap_err().contains("entry 15"), "{found:?}");
}

#[test]
fn a_slow_slot_is_slow_and_stops_at_once_all_the_same() {
    let job = Job::tiny().set("sample.shard_size", 1_000_000);
    let speed = |executor: &mut Executor| {
        let range = SampleRange { start: 0, count: 64 * 40 };
        executor.run(&job.assignment(0, Task::Sample { range }));
        let begun = Instant::now();
        executor.run(&job.assignment(0, Task::Sample { range }));
        begun.elapsed()
    };
    let mut slow = Executor::with(&["--chaos", "slow=8"]);
    let (quick, slowly) = (speed(&mut Executor::start()), speed(&mut slow));
    assert!(slowly > 3 * quick, "{quick:?} {slowly:?}");
    assert!(Executor::with(&["--chaos", "slow=1000"]).stops_within(&job, Duration::from_secs(2)));
}

impl Executor {
    fn stops_within(&mut self, job: &Job, time: Duration) -> bool {
        let range = SampleRange { start: 0, count: 1_000_000 };
        let assignment = job.assignment(0, Task::Sample { range });
        self.begin(&assignment);
        self.wait_for_progress(64);
        let begun = Instant::now();
        self.stop(&assignment.lease);
        assert_eq!(self.end(&assignment.lease).unwrap_err().code, ErrorCode::Cancelled);
        begun.elapsed() < time
    }
}
