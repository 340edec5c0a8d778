//! The time between the wish to leave and leaving.

use super::*;

const DRAINING: Effect = Effect::Send(WorkerEvent::Draining);

#[test]
fn a_worker_without_work_leaves_at_once() {
    let mut bench = Bench::joined(1);
    assert_eq!(bench.step(Event::Drain), [DRAINING, Effect::Kill(SLOT)]);
    assert_eq!(bench.dies(0), [Effect::End]);

    let mut bench = Bench::new(1);
    bench.step(Event::Tick);
    assert_eq!(bench.step(Event::Drain), [Effect::Kill(SLOT)], "it never joined");
}

#[test]
fn leases_at_work_end_in_peace_and_their_outcomes_are_waited_for() {
    let mut bench = Bench::joined(2);
    bench.start(5, 0, 1);
    assert_eq!(bench.step(Event::Drain), [DRAINING]);
    assert!(bench.machine.status().draining);
    assert_eq!(bench.step(Event::Drain), [], "once");
    assert_eq!(bench.later(Duration::from_secs(20)), []);
    assert_eq!(bench.ends(0, 1, DONE), [finished(0, 1, DONE)]);
    assert_eq!(bench.acknowledge(1), [Effect::Kill(SLOT), Effect::Kill(SlotIndex(1))]);
    bench.dies(0);
    assert_eq!(bench.dies(1), [Effect::End]);
}

#[test]
fn leases_are_taken_back_while_it_drains() {
    let mut bench = Bench::joined(2);
    bench.start(5, 0, 1);
    bench.start(5, 1, 2);
    bench.step(Event::Drain);
    assert_eq!(bench.asked_to_yield(5, 0, 1, true), [told_to_yield(0, 1, true)]);
    assert_eq!(bench.stop(1, 2), [told_to_stop(1, 2)]);
    let yielded = Err(Failure { at_unix_ms: 5, ..Failure::new(ErrorCode::Yielded, "at step 3", "") });
    assert_eq!(bench.ends(0, 1, yielded.clone()), [finished(0, 1, yielded)]);
    assert_eq!(bench.later(Duration::from_secs(5))[0], Effect::Kill(SlotIndex(1)));
    assert_eq!(failure(&bench.dies(1)[..1]).code, ErrorCode::Cancelled, "no executor is started again");
    assert_eq!(bench.acknowledge(1), []);
    assert_eq!(bench.acknowledge(2), [Effect::Kill(SLOT)]);
    assert_eq!(bench.dies(0), [Effect::End]);
}

#[test]
fn new_work_is_handed_back_and_what_is_known_is_not() {
    let mut bench = Bench::joined(2);
    bench.start(5, 0, 1);
    bench.step(Event::Drain);
    assert_eq!(bench.start(5, 0, 1), [], "at work");
    assert_eq!(failure(&bench.start(5, 1, 2)).code, ErrorCode::Yielded);
    assert_eq!(failure(&bench.start(5, 1, 2)).code, ErrorCode::Yielded, "said again until acknowledged");
    assert_eq!(bench.acknowledge(2), []);
    assert_eq!(bench.held(), [(SLOT, lease(1))]);
}

#[test]
fn work_that_waits_for_an_executor_is_handed_back() {
    let mut bench = Bench::joined(2);
    bench.start(5, 1, 1);
    bench.dies(0);
    bench.start(5, 0, 2);
    let effects = bench.step(Event::Drain);
    assert_eq!(effects[0], DRAINING);
    assert_eq!(failure(&effects).code, ErrorCode::Yielded);
    assert_eq!(bench.ready(0), [], "nothing to tell it");
    assert_eq!(bench.dies(0), [], "and no other one is started");
    let next = bench.machine.next_deadline();
    assert!(next.is_some_and(|next| next > bench.at), "{next:?}");
}

#[test]
fn when_patience_is_over_it_leaves_as_if_it_had_none() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.step(Event::Drain);
    assert_eq!(bench.later(Duration::from_millis(29_999)), []);
    assert_eq!(bench.later(Duration::from_millis(1)), [told_to_stop(0, 1)]);
    assert_eq!(bench.later(Duration::from_secs(5)), [Effect::Kill(SLOT)]);
    assert_eq!(bench.dies(0), [Effect::End]);

    let mut bench = Bench::joined(1);
    bench.machine.patience.drain = Duration::ZERO;
    bench.start(5, 0, 1);
    assert_eq!(bench.step(Event::Drain), [told_to_stop(0, 1)], "not even said");
}

#[test]
fn each_session_hears_of_it_and_without_one_it_waits_no_longer() {
    let mut bench = Bench::joined(2);
    bench.start(5, 0, 1);
    bench.step(Event::Drain);
    bench.step(Event::Parted);
    assert_eq!(bench.join(6), [DRAINING]);
    bench.step(Event::Parted);
    assert_eq!(bench.ends(0, 1, DONE), [], "kept for the next session");
    assert_eq!(bench.machine.next_deadline(), Some(bench.at + Duration::from_secs(30)));
    let killed = [Effect::Kill(SLOT), Effect::Kill(SlotIndex(1))];
    assert_eq!(bench.later(Duration::from_secs(30)), killed);
    bench.dies(0);
    assert_eq!(bench.dies(1), [Effect::End], "nobody to wait for");
}

#[test]
fn a_wish_to_leave_at_once_outdoes_it() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.step(Event::Drain);
    assert_eq!(bench.step(Event::Leave), [told_to_stop(0, 1)]);
}
