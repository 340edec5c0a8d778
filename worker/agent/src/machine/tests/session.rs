//! The coordinator's side.

use super::*;

#[test]
fn a_lease_goes_to_its_executor_and_its_outcome_back_until_it_is_acknowledged() {
    let mut bench = Bench::joined(1);
    assert_eq!(bench.start(5, 0, 1), [told(0, 1)]);
    assert_eq!(bench.activity(0), Activity::Busy);
    assert_eq!(bench.ends(0, 1, DONE), [finished(0, 1, DONE)]);
    assert_eq!(bench.activity(0), Activity::Idle);
    assert_eq!(bench.later(Duration::from_secs(4)), []);
    assert_eq!(bench.later(Duration::from_secs(1)), [finished(0, 1, DONE)], "not acknowledged for 5 s");
    assert_eq!(bench.step(Event::Command(WorkerCommand::Ack(lease(1)))), []);
    assert_eq!(bench.later(Duration::from_secs(60)), []);
    assert_eq!(bench.held(), []);
}

#[test]
fn a_repeated_start_is_not_worked_on_twice() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    assert_eq!(bench.start(5, 0, 1), [], "at work");
    bench.ends(0, 1, DONE);
    assert_eq!(bench.start(5, 0, 1), [finished(0, 1, DONE)], "done: said again");
}

#[test]
fn outcomes_survive_any_number_of_sessions() {
    let mut bench = Bench::joined(2);
    bench.start(5, 0, 1);
    bench.start(5, 1, 2);
    bench.step(Event::Parted);
    assert_eq!(bench.ends(0, 1, DONE), [], "nobody to tell");
    assert_eq!(bench.held(), [(SlotIndex(1), lease(2)), (SLOT, lease(1))]);
    assert_eq!(bench.join(6), [finished(0, 1, DONE)]);
    bench.step(Event::Parted);
    assert_eq!(bench.join(6), [finished(0, 1, DONE)]);
    bench.step(Event::Command(WorkerCommand::Ack(lease(1))));
    bench.step(Event::Parted);
    assert_eq!(bench.join(6), []);
    assert_eq!(bench.held(), [(SlotIndex(1), lease(2))], "the other one is still at work");
}

#[test]
fn a_lease_over_several_shards_is_announced_with_all_of_them_even_when_it_failed() {
    let mut bench = Bench::joined(2);
    for slot in 0..2 {
        let range = SampleRange { start: 0, count: 30 };
        let assignment = Box::new(Assignment { task: Task::Sample { range }, ..assignment(slot) });
        let command = WorkerCommand::Start { epoch: Epoch(5), slot: SlotIndex(slot), assignment };
        bench.step(Event::Command(command));
    }
    bench.ends(0, 0, Err(Failure::new(ErrorCode::Storage, "full", "")));
    let held: Vec<u32> = bench.machine.held().iter().map(|held| held.shards).collect();
    assert_eq!(held, [3, 3], "one at work, one that failed");
}

#[test]
fn an_hour_without_a_coordinator_loses_nothing() {
    let mut bench = Bench::joined(3);
    for slot in 0..3 {
        bench.start(5, slot, slot);
    }
    bench.step(Event::Parted);
    let half = Duration::from_secs(1_800);
    assert_eq!(bench.later(half), [], "whatever works goes on");
    assert_eq!(bench.ends(0, 0, DONE), []);
    assert_eq!(bench.dies(1), [Effect::Start(SlotIndex(1))]);
    assert_eq!(bench.ready(1), []);
    assert_eq!(bench.later(half), []);
    let effects = bench.join(6);
    assert!(effects.contains(&finished(0, 0, DONE)), "{effects:?}");
    assert_eq!(bench.acknowledge(0), []);
    assert_eq!(bench.held(), [(SlotIndex(2), lease(2)), (SlotIndex(1), lease(1))]);
    assert_eq!(bench.ends(2, 2, DONE), [finished(2, 2, DONE)]);
}

#[test]
fn heartbeats_tell_what_busy_slots_have_done() {
    let mut bench = Bench::joined(2);
    bench.start(5, 1, 2);
    let progress = Progress { lease: lease(2), done: 3, total: 9, samples_per_second: 1.5, loss: None };
    bench.step(Event::Executor(SlotIndex(1), ExecutorEvent::Progress(progress.clone())));
    let stale = Progress { lease: lease(7), ..progress.clone() };
    bench.step(Event::Executor(SLOT, ExecutorEvent::Progress(stale)));
    assert_eq!(bench.machine.next_deadline(), Some(bench.at + HEARTBEAT));
    bench.at += HEARTBEAT;
    let heartbeat = Effect::Send(WorkerEvent::Heartbeat(vec![(SlotIndex(1), progress)]));
    assert_eq!(bench.step_in_full(Event::Tick), [heartbeat]);
    assert_eq!(bench.step_in_full(Event::Tick), [], "once per interval");
    bench.step(Event::Parted);
    assert_eq!(bench.machine.next_deadline(), None, "nobody to tell");
}

#[test]
fn stopping_what_is_not_known_or_not_begun_is_answered_at_once() {
    let mut bench = Bench::joined(1);
    assert_eq!(failure(&bench.stop(0, 9)).code, ErrorCode::Cancelled);
    assert_eq!(failure(&bench.stop(700, 8)).code, ErrorCode::Cancelled, "of a slot that does not exist");
    bench.dies(0);
    assert_eq!(bench.start(5, 0, 1), [], "waits for the executor");
    assert_eq!(failure(&bench.stop(0, 1)).code, ErrorCode::Cancelled);
    assert_eq!(bench.ready(0), [], "and is forgotten");
    bench.start(5, 0, 2);
    bench.ends(0, 2, DONE);
    assert_eq!(bench.stop(0, 2), [finished(0, 2, DONE)], "it is over: the true outcome stands");
}

#[test]
fn an_older_epoch_has_no_effect() {
    let mut bench = Bench::joined(1);
    assert_eq!(bench.start(4, 0, 1), []);
    bench.start(5, 0, 2);
    let stop = WorkerCommand::Stop { epoch: Epoch(4), slot: SLOT, lease: lease(2) };
    assert_eq!(bench.step(Event::Command(stop)), []);
    assert_eq!(bench.asked_to_yield(4, 0, 2, true), []);
    assert_eq!(bench.asked_to_yield(4, 0, 9, true), [], "not even an answer");
    assert_eq!(bench.held(), [(SLOT, lease(2))]);
    bench.step(Event::Parted);
    assert_eq!(bench.join(4), [Effect::Rejoin], "a leader of the past");
    assert_eq!(bench.start(6, 0, 3), [], "nothing it says is heard");
    bench.step(Event::Parted);
    assert_eq!(bench.join(6), []);
    assert_eq!(bench.start(5, 0, 3), [], "5 has become the past");
}

#[test]
fn a_contradiction_is_settled_by_another_session() {
    let mut bench = Bench::joined(2);
    bench.start(5, 0, 1);
    for (slot, shard) in [(0, 2), (1, 1), (9, 3)] {
        assert_eq!(bench.start(5, slot, shard), [Effect::Rejoin], "slot {slot} shard {shard}");
        assert_eq!(bench.start(5, 1, 4), [], "of the session that is over");
        bench.step(Event::Parted);
        bench.join(5);
    }
    assert_eq!(bench.held(), [(SLOT, lease(1))]);
}

#[test]
fn the_store_of_a_gang_is_announced_in_every_session_while_the_lease_lasts() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.step(Event::Parted);
    let open = ExecutorEvent::StoreOpen { lease: lease(1), address: "h:1".to_owned() };
    assert_eq!(bench.step(Event::Executor(SLOT, open)), []);
    let announced = Effect::Send(WorkerEvent::StoreOpen { lease: lease(1), address: "h:1".to_owned() });
    assert_eq!(bench.join(5), std::slice::from_ref(&announced));
    bench.step(Event::Parted);
    assert_eq!(bench.join(5), [announced]);
    bench.ends(0, 1, DONE);
    bench.step(Event::Parted);
    assert_eq!(bench.join(5), [finished(0, 1, DONE)]);
}
