//! The process itself: how it starts, how it is stopped, how it ends.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lethe_domain::{ArtifactRef, Assignment, ErrorCode, SampleRange, Task, TaskOutput};
use lethe_proto::executor::ExecutorEvent;
use lethe_proto::frame::read_frame;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use crate::harness::{DEADLINE, Executor};
use crate::job::{Job, mnist, no_report};

/// Promised is one second; the rest is for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

fn endless(job: &Job) -> Assignment {
    job.assignment(0, Task::Sample { range: SampleRange { start: 0, count: 100_000_000 } })
}

#[test]
fn by_hand_it_says_what_it_is_for() {
    let binary = env!("CARGO_BIN_EXE_lethe-executor");
    let output = Command::new(binary).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("one slot of a worker") && text.contains("lethe run JOB.yaml"), "{text}");
    for (argument, expected) in [("--help", "--device"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let output = Command::new(binary).arg(argument).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains(expected));
    }
    let output = Command::new(binary).args(["--device", "tpu"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("expected cpu, cuda or cuda:N"));
}

#[test]
fn without_the_device_it_ends_before_it_is_ready() {
    if ["/proc/driver/nvidia/gpus", "/dev/nvidia0"].iter().any(|path| std::path::Path::new(path).exists()) {
        return;
    }
    let mut executor = Executor::spawn(&["--device", "cuda:0"]);
    let (status, _) = executor.wait_for_end();
    assert_eq!(status.code(), Some(1));
    assert!(executor.log().contains("device cuda:0: "), "{}", executor.log());
}

#[test]
fn the_end_of_the_agent_is_its_end_whatever_it_does() {
    let job = Job::tiny();
    let idle = Executor::start();
    let mut busy = Executor::start();
    busy.begin(&endless(&job));
    busy.wait_for_progress(1);
    let mut waiting = Executor::start();
    let target = job.target(&mut waiting);
    let rank = job.rank(&target, 1, 0, 2, None);
    waiting.begin(&rank);
    waiting.store_open(&rank.lease);
    for (what, mut executor) in [("idle", idle), ("busy", busy), ("in a rendezvous", waiting)] {
        executor.hang_up();
        let (status, took) = executor.wait_for_end();
        assert!(took < AT_ONCE, "{what}: {took:?}");
        assert_eq!(status.code(), Some(0), "{what}");
    }
    let mut idle = Executor::start();
    idle.send_raw(&[0, 0, 0, 3, 0xff, 0xff, 0xff]);
    assert_eq!(idle.wait_for_end().0.code(), Some(1), "what is no frame ends it too");
    assert!(idle.log().contains("cannot hear the agent"), "{}", idle.log());
}

#[test]
fn the_death_of_its_parent_is_its_end_though_the_socket_stays_open() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(DEADLINE)).unwrap();
    // With something to do afterwards, the shell stays as the parent.
    let script = format!("{} --threads 1; true", env!("CARGO_BIN_EXE_lethe-executor"));
    let mut shell = Command::new("sh").args(["-c", &script]).stdin(OwnedFd::from(theirs)).spawn().unwrap();
    let ready = read_frame::<ExecutorEvent>(&mut ours).unwrap();
    assert!(matches!(ready, Some(ExecutorEvent::Ready { .. })), "{ready:?}");
    let begun = Instant::now();
    kill(Pid::from_raw(shell.id() as i32), Signal::SIGKILL).unwrap();
    shell.wait().unwrap();
    // The last holder of the other end is gone.
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[test]
fn a_task_has_a_ceiling_of_memory_and_several_threads_do_not_spin_for_long() {
    let mut executor = Executor::with(&["--threads", "2"]);
    assert!(executor.proc("environ").contains("GOMP_SPINCOUNT=1000"));
    executor.run(&Job::tiny().probe());
    let limits = executor.proc("limits");
    let ceiling = limits.lines().find_map(|line| line.strip_prefix("Max data size")).unwrap();
    let bytes: u64 = ceiling.split_whitespace().next().unwrap().parse().unwrap();
    assert!(bytes > 512 << 20, "{ceiling}");
    let mut single = Executor::start();
    assert!(!single.proc("environ").contains("GOMP_SPINCOUNT"));
    assert!(matches!(single.run(&Job::tiny().probe()), TaskOutput::Probe(_)));
}

#[test]
fn one_lease_may_wait_and_a_third_is_turned_away() {
    let (job, mut executor) = (Job::tiny(), Executor::start());
    let (first, second, third) = (endless(&job), job.probe(), job.probe());
    executor.begin(&first);
    executor.wait_for_progress(1);
    executor.begin(&second);
    executor.begin(&third);
    let failure = executor.end(&third.lease).unwrap_err();
    assert!(failure.message.contains("works on one lease"), "{failure}");
    executor.stop(&first.lease);
    assert_eq!(executor.end(&first.lease).unwrap_err().code, ErrorCode::Cancelled);
    assert!(matches!(executor.end(&second.lease), Ok(TaskOutput::Probe(_))));
}

#[test]
fn a_lease_stopped_before_its_turn_is_not_begun_and_an_unknown_one_does_no_harm() {
    let (job, mut executor) = (Job::tiny(), Executor::start());
    let (first, second) = (endless(&job), endless(&job));
    executor.stop(&first.lease);
    executor.begin(&first);
    executor.wait_for_progress(1);
    executor.begin(&second);
    executor.stop(&second.lease);
    executor.stop(&first.lease);
    for lease in [&first.lease, &second.lease] {
        assert_eq!(executor.end(lease).unwrap_err().code, ErrorCode::Cancelled);
    }
    assert!(matches!(executor.run(&job.probe()), TaskOutput::Probe(_)));
}

#[test]
fn every_phase_is_left_soon_after_a_stop() {
    let job = Job::thick()
        .set("evaluate.samples", 20_000_000)
        .set("evaluate.reference.uri", mnist("data/test.safetensors"));
    let mut executors = [Executor::start()];
    let target = job.target(&mut executors[0]);
    let weights = job.train(&mut executors, &target, 1).weights;
    let [mut executor] = executors;
    let far = SampleRange { start: 0, count: 10_000_000 };
    let evaluate = |range| Task::Evaluate { range, target: target.clone(), weights: weights.clone() };
    let few = SampleRange { start: 0, count: 200 };
    let TaskOutput::Evaluate(shard) = executor.run(&job.assignment(0, evaluate(few))) else { panic!() };
    let unseen = store_with(&job, &target, "cut_threshold", 1e9);
    for task in [
        Task::Probe,
        Task::Sample { range: far },
        Task::Direction { scores: (0..4000).map(|index| store_score(&job, index)).collect() },
        Task::Edit { range: far, target: target.clone() },
        evaluate(far),
        Task::Report { moments: vec![shard.moments], target: target.clone() },
        Task::Publish { target: unseen, weights: weights.clone(), report: no_report() },
    ] {
        let assignment = job.assignment(0, task);
        let phase = assignment.lease.phase;
        executor.begin(&assignment);
        executor.wait_for_progress(0);
        let begun = Instant::now();
        executor.stop(&assignment.lease);
        let outcome = executor.end(&assignment.lease);
        assert!(begun.elapsed() < AT_ONCE, "{phase}: {:?}", begun.elapsed());
        assert_eq!(outcome.unwrap_err().code, ErrorCode::Cancelled, "{phase}");
    }
}

/// A shard of one score.
fn store_score(job: &Job, index: u32) -> ArtifactRef {
    let (start, score) = (f64::from(index).to_le_bytes(), 2.0_f64.to_le_bytes());
    let of = |shape, data| TensorView::new(Dtype::F64, shape, data).unwrap();
    let tensors = [("start", of(vec![], &start)), ("scores", of(vec![1], &score))];
    job.store(&format!("score-{index}"), serialize(tensors, None).unwrap())
}

/// The same file with another number.
fn store_with(job: &Job, artifact: &ArtifactRef, name: &str, value: f64) -> ArtifactRef {
    let bytes = std::fs::read(job.file(&artifact.path)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let value = value.to_le_bytes();
    let replaced = tensors.iter().map(|(each, view)| match each == name {
        true => (each, TensorView::new(Dtype::F64, vec![], &value).unwrap()),
        false => (each, view),
    });
    job.store(&format!("{}-with-{name}", artifact.path), serialize(replaced, None).unwrap())
}
