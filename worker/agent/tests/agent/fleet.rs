//! The agent as a library: leases, deaths, stops, lost sessions.

use std::time::Duration;

use lethe_agent::{Activity, Agent, AgentConfig, Error, Patience, Status};
use lethe_domain::{ErrorCode, Failure, HeldLease, SlotIndex, SlotReport, TaskOutput, WorkerId};
use lethe_proto::PROTOCOL;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status as Refusal;

use crate::coordinator::{Coordinator, End, Member};
use crate::executor::{CANARY, Program, all_gone, assignment, exists, lease, release};
use crate::soon;

/// An agent that runs.
struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
    status: watch::Receiver<Status>,
}

impl Running {
    async fn leave(self) {
        self.shutdown.cancel();
        soon("the agent to leave", self.task).await.unwrap().unwrap();
    }

    async fn failure(self) -> String {
        soon("the agent to fail", self.task).await.unwrap().unwrap_err().to_string()
    }

    async fn until(&mut self, what: &str, condition: impl FnMut(&Status) -> bool) {
        soon(what, self.status.wait_for(condition)).await.unwrap();
    }
}

fn config(program: &Program, coordinator: &str, slots: usize) -> AgentConfig {
    AgentConfig {
        coordinators: vec![coordinator.to_owned()],
        id: WorkerId::new("w").unwrap(),
        hostname: "host".to_owned(),
        executor: program.path(),
        devices: vec!["cpu".to_owned(); slots],
        threads: 3,
        logs: Some(program.path().with_file_name("logs")),
        chaos: None,
        patience: patient(),
    }
}

fn run(config: AgentConfig) -> Running {
    // Shown when a test fails; a second call finds it set.
    let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    let shutdown = CancellationToken::new();
    let agent = Agent::new(config).unwrap();
    let status = agent.status();
    let task = tokio::spawn(agent.run(shutdown.clone().cancelled_owned()));
    Running { shutdown, task, status }
}

/// An agent that has joined.
async fn joined(program: &Program, slots: usize, patience: Patience) -> (Coordinator, Member, Running) {
    let mut coordinator = Coordinator::start();
    let agent = run(AgentConfig { patience, ..config(program, &coordinator.url(), slots) });
    let member = coordinator.member(1).await;
    (coordinator, member, agent)
}

/// Nothing is said twice because a machine is busy, and few tests bother to acknowledge.
fn patient() -> Patience {
    Patience { acknowledge: crate::DEADLINE, farewell: Duration::from_millis(100), ..Patience::default() }
}

/// What does not stop is killed soon.
fn impatient() -> Patience {
    let stop = Duration::from_millis(300);
    Patience { stop, leave: stop, ..patient() }
}

/// What works is waited for when it leaves.
fn draining() -> Patience {
    Patience { drain: crate::DEADLINE, ..patient() }
}

async fn failed(member: &mut Member) -> Failure {
    member.finished().await.1.outcome.unwrap_err()
}

const DONE: Result<TaskOutput, Failure> = Ok(TaskOutput::FineTune(None));

#[tokio::test]
async fn a_worker_joins_works_and_leaves() {
    let program = Program::new();
    let ended = program.lifeline();
    let (_coordinator, mut member, agent) = joined(&program, 2, patient()).await;
    let registration = &member.registration;
    assert_eq!((registration.worker.as_str(), registration.hostname.as_str()), ("w", "host"));
    assert_eq!((registration.protocol, registration.devices.len()), (PROTOCOL, 2));
    assert_eq!(registration.held, []);
    assert_eq!(registration.chaos, None);
    let report = SlotReport { torch: "none".to_owned(), canary: CANARY.to_vec() };
    assert_eq!(registration.reports, [(SlotIndex(0), report.clone()), (SlotIndex(1), report)]);
    member.start(1, 1, assignment("succeed", "")).await;
    member.begun().await;
    let (slot, outcome) = member.finished().await;
    assert_eq!((slot, &outcome.lease, outcome.outcome), (SlotIndex(1), &lease("succeed"), DONE));
    member.acknowledge(lease("succeed")).await;
    agent.leave().await;
    assert_eq!(member.ended().await, End::Left);
    all_gone(ended).await;
    let log = std::fs::read_to_string(program.path().with_file_name("logs/slot-1.log")).unwrap();
    assert!(
        log.contains("\nstarted with --slot 1 --device cpu --threads 3 --coordinator 127.0.0.1:"),
        "{log}"
    );
    assert!(log.contains("\nworking on succeed/fine_tune/0#1\n"), "{log}");
}

#[tokio::test]
async fn heartbeats_carry_the_progress_of_busy_slots() {
    let program = Program::new();
    let (_coordinator, mut member, agent) = joined(&program, 2, patient()).await;
    member.start(1, 1, assignment("hang", "")).await;
    let progress = member.progress().await;
    assert_eq!(progress.len(), 1);
    assert_eq!((progress[0].0, progress[0].1.done, progress[0].1.loss), (SlotIndex(1), 3, Some(0.5)));
    agent.leave().await;
}

#[tokio::test]
async fn kill_nine_of_an_executor_at_work_fails_its_lease_and_the_slot_goes_on() {
    let program = Program::new();
    let (_coordinator, mut member, agent) = joined(&program, 1, patient()).await;
    member.start(1, 0, assignment("deaf", "")).await;
    let pid = member.begun().await;
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    let failure = failed(&mut member).await;
    assert_eq!(failure.code, ErrorCode::ExecutorDied);
    assert!(
        failure.message.contains("signal 9 (killed: often the kernel's out-of-memory killer, see dmesg)")
    );
    assert!(failure.message.ends_with("\n  working on deaf/fine_tune/0#1"), "{}", failure.message);
    assert!(failure.hint.ends_with("logs/slot-0.log"), "{}", failure.hint);
    assert!(failure.at_unix_ms > 0);
    member.start(1, 0, assignment("succeed", "")).await;
    member.begun().await;
    assert_eq!(member.finished().await.1.outcome, DONE);
    agent.leave().await;
}

#[tokio::test]
async fn every_way_to_break_is_a_failure_of_the_lease_and_never_of_the_agent() {
    let program = Program::new();
    let (_coordinator, mut member, agent) = joined(&program, 1, patient()).await;
    for (job, says) in [
        ("crash", "signal 6 (aborted"),
        ("garble", "it was killed for what it said: a frame of 4294967295 bytes"),
        ("hang-up", "it was killed because it closed its socket"),
    ] {
        member.start(1, 0, assignment(job, "")).await;
        member.begun().await;
        let failure = failed(&mut member).await;
        assert_eq!(failure.code, ErrorCode::ExecutorDied, "{job}");
        assert!(failure.message.contains(says), "{job}: {}", failure.message);
    }
    agent.leave().await;
}

#[tokio::test]
async fn an_outcome_said_with_the_last_breath_counts() {
    let program = Program::new();
    let (_coordinator, mut member, agent) = joined(&program, 1, patient()).await;
    member.start(1, 0, assignment("finish-and-exit", "")).await;
    member.begun().await;
    assert_eq!(member.finished().await.1.outcome, DONE);
    agent.leave().await;
}

#[tokio::test]
async fn a_lease_that_does_not_stop_is_killed_and_then_its_slot_is_free() {
    let program = Program::new();
    let (_coordinator, mut member, agent) = joined(&program, 1, impatient()).await;
    member.start(1, 0, assignment("deaf", "")).await;
    let pid = member.begun().await;
    member.stop(1, 0, lease("deaf")).await;
    let failure = failed(&mut member).await;
    assert!(!exists(&pid), "it says that the slot is free while the process is there");
    assert_eq!(failure.code, ErrorCode::Cancelled);
    assert!(failure.message.contains("within 0.3 s and was killed"), "{}", failure.message);
    member.start(1, 0, assignment("succeed", "")).await;
    member.begun().await;
    assert_eq!(member.finished().await.1.outcome, DONE);
    agent.leave().await;
}

#[tokio::test]
async fn a_lease_that_stops_keeps_its_executor() {
    let program = Program::new();
    let (_coordinator, mut member, agent) = joined(&program, 1, patient()).await;
    member.start(1, 0, assignment("hang", "")).await;
    let first = member.begun().await;
    member.stop(1, 0, lease("hang")).await;
    assert_eq!(failed(&mut member).await.message, "as told");
    member.start(1, 0, assignment("succeed", "")).await;
    assert_eq!(member.begun().await, first);
    agent.leave().await;
}

#[tokio::test]
async fn stopping_an_unknown_lease_is_answered_at_once() {
    let program = Program::new();
    let (_coordinator, mut member, agent) = joined(&program, 1, patient()).await;
    member.stop(1, 0, lease("never-heard-of")).await;
    let (_, outcome) = member.finished().await;
    assert_eq!(outcome.lease, lease("never-heard-of"));
    assert_eq!(outcome.outcome.unwrap_err().code, ErrorCode::Cancelled);
    agent.leave().await;
}

#[tokio::test]
async fn a_repeated_start_is_done_once() {
    let program = Program::new();
    let fifo = program.fifo("go");
    let wait = || assignment("wait", &fifo.display().to_string());
    let (_coordinator, mut member, agent) = joined(&program, 1, patient()).await;
    member.start(1, 0, wait()).await;
    member.begun().await;
    member.start(1, 0, wait()).await;
    // Commands are taken in order: with this answer the repeated start has been taken.
    member.stop(1, 0, lease("never-heard-of")).await;
    assert_eq!(member.finished().await.1.lease, lease("never-heard-of"));
    release(&fifo).await;
    assert_eq!(member.finished().await.1.outcome, DONE);
    member.acknowledge(lease("wait")).await;
    // Were it done again, the executor would wait for the pipe now.
    member.start(1, 0, assignment("succeed", "")).await;
    member.begun().await;
    assert_eq!(member.finished().await.1.lease, lease("succeed"));
    agent.leave().await;
}

#[tokio::test]
async fn an_outcome_outlives_the_coordinator_and_arrives_once() {
    let program = Program::new();
    let fifo = program.fifo("go");
    let (coordinator, mut member, mut agent) = joined(&program, 1, patient()).await;
    member.start(1, 0, assignment("wait", &fifo.display().to_string())).await;
    member.begun().await;
    let address = coordinator.kill().await;
    agent.until("the loss of the session", |status| !status.joined).await;
    release(&fifo).await;
    agent.until("the outcome", |status| status.unacknowledged == 1).await;

    let mut coordinator = Coordinator::start_at(address);
    let mut member = coordinator.member(2).await;
    assert_eq!(member.registration.held, [HeldLease::from((SlotIndex(0), lease("wait")))]);
    let (_, outcome) = member.finished().await;
    assert_eq!((outcome.lease, outcome.outcome), (lease("wait"), DONE));
    member.acknowledge(lease("wait")).await;
    member.start(2, 0, assignment("succeed", "")).await;
    member.begun().await;
    assert_eq!(member.finished().await.1.lease, lease("succeed"), "and not the other one again");
    agent.leave().await;
}

#[tokio::test]
async fn what_happens_without_a_coordinator_is_told_to_the_next_one() {
    let program = Program::new();
    let fifo = program.fifo("go");
    let (coordinator, mut member, mut agent) = joined(&program, 2, patient()).await;
    member.start(1, 0, assignment("wait", &fifo.display().to_string())).await;
    member.begun().await;
    member.start(1, 1, assignment("deaf", "")).await;
    let pid = member.begun().await;
    let address = coordinator.kill().await;
    agent.until("the loss of the session", |status| !status.joined).await;
    release(&fifo).await;
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    agent.until("both outcomes", |status| status.unacknowledged == 2).await;
    agent
        .until("the next executor", |status| status.slots.iter().all(|s| s.activity == Activity::Idle))
        .await;

    let mut coordinator = Coordinator::start_at(address);
    let mut member = coordinator.member(2).await;
    assert_eq!(member.registration.reports.len(), 2, "the second one's is that of its new executor");
    let mut outcomes = [member.finished().await, member.finished().await];
    outcomes.sort_by_key(|(slot, _)| *slot);
    assert_eq!(outcomes[0].1.outcome, DONE);
    assert_eq!(outcomes[1].1.outcome.as_ref().unwrap_err().code, ErrorCode::ExecutorDied);
    agent.leave().await;
}

#[tokio::test]
async fn work_goes_on_while_there_is_no_coordinator() {
    let program = Program::new();
    let (coordinator, mut member, agent) = joined(&program, 1, patient()).await;
    member.start(1, 0, assignment("hang", "")).await;
    let pid = member.begun().await;
    let mut coordinator = Coordinator::start_at(coordinator.kill().await);
    let mut member = coordinator.member(1).await;
    assert_eq!(member.registration.held, [HeldLease::from((SlotIndex(0), lease("hang")))]);
    assert_eq!(member.begun().await, pid, "the store is announced again");
    member.stop(1, 0, lease("hang")).await;
    assert_eq!(failed(&mut member).await.message, "as told");
    agent.leave().await;
}

#[tokio::test]
async fn a_leader_of_the_past_is_not_obeyed() {
    let program = Program::new();
    let mut coordinator = Coordinator::start();
    let mut agent = run(config(&program, &coordinator.url(), 1));
    let _present = coordinator.member(5).await;
    agent.until("the session", |status| status.joined).await;
    let mut coordinator = Coordinator::start_at(coordinator.kill().await);
    let past = coordinator.member(4).await;
    past.start(4, 0, assignment("succeed", "")).await;
    let mut member = coordinator.member(5).await;
    assert_eq!(member.registration.held, [], "the command of epoch 4 was not taken");
    member.start(4, 0, assignment("succeed", "")).await;
    member.start(5, 0, assignment("hang", "")).await;
    member.begun().await;
    member.stop(5, 0, lease("hang")).await;
    assert_eq!(member.finished().await.1.lease, lease("hang"));
    agent.leave().await;
}

#[tokio::test]
async fn a_lease_that_yields_keeps_its_executor() {
    let program = Program::new();
    let (_coordinator, mut member, agent) = joined(&program, 1, patient()).await;
    member.start(1, 0, assignment("hang", "")).await;
    let first = member.begun().await;
    member.ask_to_yield(1, 0, lease("hang"), true).await;
    let failure = failed(&mut member).await;
    assert_eq!((failure.code, failure.message.as_str()), (ErrorCode::Yielded, "saved: true"));
    member.start(1, 0, assignment("succeed", "")).await;
    assert_eq!(member.begun().await, first);
    agent.leave().await;
}

#[tokio::test]
async fn a_slot_says_when_its_executor_is_gone_and_when_the_next_one_is_up() {
    let program = Program::new();
    let (_coordinator, mut member, agent) = joined(&program, 2, patient()).await;
    member.start(1, 1, assignment("deaf", "")).await;
    let pid = member.begun().await;
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(member.changed().await, (SlotIndex(1), None), "before the outcome");
    assert_eq!(failed(&mut member).await.code, ErrorCode::ExecutorDied);
    let report = SlotReport { torch: "none".to_owned(), canary: CANARY.to_vec() };
    assert_eq!(member.changed().await, (SlotIndex(1), Some(report)));
    agent.leave().await;
}

#[tokio::test]
async fn a_worker_that_drains_takes_no_more_work_and_leaves_when_the_last_is_over() {
    let program = Program::new();
    let ended = program.lifeline();
    let (fifo, wait) = (program.fifo("go"), lease("wait"));
    let (_coordinator, mut member, mut agent) = joined(&program, 2, draining()).await;
    member.start(1, 0, assignment("wait", &fifo.display().to_string())).await;
    member.begun().await;
    agent.shutdown.cancel();
    member.draining().await;
    agent.until("that it drains", |status| status.draining).await;
    member.start(1, 1, assignment("succeed", "")).await;
    let refused = member.finished().await.1;
    assert_eq!((refused.lease, refused.outcome.unwrap_err().code), (lease("succeed"), ErrorCode::Yielded));
    member.acknowledge(lease("succeed")).await;
    release(&fifo).await;
    assert_eq!(member.finished().await.1.outcome, DONE);
    assert!(member.is_open(), "the outcome is not safe yet");
    member.acknowledge(wait).await;
    assert_eq!(member.ended().await, End::Left);
    agent.leave().await;
    all_gone(ended).await;
}

#[tokio::test]
async fn a_coordinator_that_comes_while_a_worker_drains_hears_of_it_and_takes_its_work_back() {
    let program = Program::new();
    let (coordinator, mut member, mut agent) = joined(&program, 1, draining()).await;
    member.start(1, 0, assignment("hang", "")).await;
    let pid = member.begun().await;
    let address = coordinator.kill().await;
    agent.shutdown.cancel();
    agent.until("that it drains alone", |status| status.draining && !status.joined).await;
    let mut coordinator = Coordinator::start_at(address);
    let mut member = coordinator.member(2).await;
    assert_eq!(member.registration.held, [HeldLease::from((SlotIndex(0), lease("hang")))]);
    member.draining().await;
    assert_eq!(member.begun().await, pid, "the store is announced again");
    member.ask_to_yield(2, 0, lease("hang"), false).await;
    assert_eq!(failed(&mut member).await.message, "saved: false");
    member.acknowledge(lease("hang")).await;
    assert_eq!(member.ended().await, End::Left);
    agent.leave().await;
}

#[tokio::test]
async fn a_worker_that_drains_alone_leaves_when_its_patience_is_over() {
    let program = Program::new();
    let ended = program.lifeline();
    let patience = Patience { drain: Duration::from_millis(300), ..impatient() };
    let (coordinator, mut member, agent) = joined(&program, 1, patience).await;
    member.start(1, 0, assignment("deaf", "")).await;
    member.begun().await;
    coordinator.kill().await;
    agent.leave().await;
    all_gone(ended).await;
}

#[tokio::test]
async fn a_worker_whose_name_was_taken_meanwhile_keeps_its_work_and_tries_again() {
    let program = Program::new();
    let (mut coordinator, mut member, agent) = joined(&program, 1, patient()).await;
    member.start(1, 0, assignment("hang", "")).await;
    let pid = member.begun().await;
    member.refuse(tonic::Status::unavailable("the coordinator goes away")).await;
    for _ in 0..2 {
        let knock = coordinator.knock().await;
        assert_eq!(knock.registration.incarnation, member.registration.incarnation);
        let message = "another process has joined as this worker".to_owned();
        knock.refuse(lethe_proto::status::Refusal::Conflict { message }.into()).await;
    }
    let mut again = coordinator.member(1).await;
    assert_eq!(again.registration.held, [HeldLease::from((SlotIndex(0), lease("hang")))]);
    assert_eq!(again.begun().await, pid);
    agent.leave().await;
}

#[tokio::test]
async fn faults_on_purpose_befall_executors_and_sessions_and_are_counted() {
    let program = Program::new();
    let mut coordinator = Coordinator::start();
    let chaos = Some("kill=1,drop=1,slow=4,canary,seed=2".parse().unwrap());
    let mut agent = run(AgentConfig { chaos, ..config(&program, &coordinator.url(), 1) });
    let mut member = coordinator.member(1).await;
    assert_eq!(member.registration.chaos.as_deref(), Some("kill=1,drop=1,slow=4,canary,seed=2"));
    agent.until("a fault of each kind", |status| status.faults.kills > 0 && status.faults.drops > 0).await;
    let next = coordinator.knock().await;
    assert!(member.is_open(), "a session that is cut is not closed");
    next.register(1).await;
    assert_eq!(next.registration.worker, member.registration.worker);
    agent.leave().await;
    let log = std::fs::read_to_string(program.path().with_file_name("logs/slot-0.log")).unwrap();
    assert!(
        log.contains("started with --slot 0 --device cpu --threads 3 --coordinator 127.0.0.1:")
            && log.contains(" --chaos slow=4 --chaos canary\n"),
        "{log}"
    );
}

#[tokio::test]
async fn an_executor_that_is_halted_on_purpose_goes_on_after_a_while() {
    let program = Program::new();
    let fifo = program.fifo("go");
    let mut coordinator = Coordinator::start();
    let chaos = Some("hang=1".parse().unwrap());
    let mut agent = run(AgentConfig { chaos, ..config(&program, &coordinator.url(), 1) });
    let mut member = coordinator.member(1).await;
    member.start(1, 0, assignment("wait", &fifo.display().to_string())).await;
    member.begun().await;
    agent.until("a halt", |status| status.faults.hangs > 0).await;
    release(&fifo).await;
    assert_eq!(member.finished().await.1.outcome, DONE);
    agent.leave().await;
}

#[tokio::test]
async fn a_contradiction_is_settled_by_a_session_that_takes_over_from_the_last() {
    let program = Program::new();
    let (mut coordinator, mut member, agent) = joined(&program, 1, patient()).await;
    member.start(1, 0, assignment("hang", "")).await;
    member.begun().await;
    member.start(1, 0, assignment("succeed", "")).await;
    let next = coordinator.knock().await;
    assert_eq!(next.registration.held, [HeldLease::from((SlotIndex(0), lease("hang")))]);
    assert!(member.is_open(), "closing it would mean that the worker has left");
    next.register(1).await;
    member.ended().await;
    agent.leave().await;
}

#[tokio::test]
async fn an_executor_that_cannot_start_ends_the_agent_with_its_last_words() {
    let mut coordinator = Coordinator::start();
    let program = Program::script(
        "echo 'executor: error while loading shared libraries: libtorch_cpu.so: cannot open' >&2\nexit 127",
    );
    let failure = run(config(&program, &coordinator.url(), 1)).failure().await;
    for says in ["slot 0 (cpu) does not start: exit status 127", "libtorch_cpu.so: cannot open", "make build"]
    {
        assert!(failure.contains(says), "{failure}");
    }
    let program = Program::new();
    std::fs::write(program.path(), "#!/no/such/interpreter\n").unwrap();
    let failure = run(config(&program, &coordinator.url(), 1)).failure().await;
    assert!(failure.contains("it cannot be started"), "{failure}");
    assert!(coordinator.is_lonely(), "a worker that cannot work does not join");
}

#[tokio::test]
async fn an_executor_that_is_never_ready_is_killed() {
    let program = Program::script("echo thinking >&2\nexec sleep 1000");
    let ended = program.lifeline();
    let patience = Patience { start: Duration::from_millis(500), ..patient() };
    let agent = run(AgentConfig { patience, ..config(&program, "http://127.0.0.1:1", 1) });
    let failure = agent.failure().await;
    assert!(failure.contains("does not start: it was not ready within 0.5 s"), "{failure}");
    assert!(failure.contains("\n  thinking"), "{failure}");
    all_gone(ended).await;
}

#[tokio::test]
async fn leaving_ends_even_what_does_not_stop() {
    let program = Program::new();
    let ended = program.lifeline();
    let (_coordinator, mut member, agent) = joined(&program, 2, impatient()).await;
    member.start(1, 0, assignment("deaf", "")).await;
    member.begun().await;
    agent.leave().await;
    all_gone(ended).await;
    // No outcome: leaving gives the lease back, a failure would count as a try.
    assert_eq!(member.ended().await, End::Left);
}

#[tokio::test]
async fn an_agent_that_is_dropped_leaves_no_process_behind() {
    let program = Program::new();
    let ended = program.lifeline();
    let (_coordinator, mut member, agent) = joined(&program, 2, patient()).await;
    member.start(1, 0, assignment("deaf", "")).await;
    member.begun().await;
    agent.task.abort();
    all_gone(ended).await;
}

#[tokio::test]
async fn a_worker_that_is_not_taken_says_why() {
    let program = Program::new();
    let mut coordinator = Coordinator::start();
    let agent = run(config(&program, &coordinator.url(), 1));
    coordinator.knock().await.refuse(Refusal::unimplemented("no workers here")).await;
    let failure = agent.failure().await;
    assert!(failure.starts_with("cannot join: ") && failure.contains("no workers here"), "{failure}");
}
