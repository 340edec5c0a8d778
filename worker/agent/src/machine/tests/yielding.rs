//! Leases that end at a step boundary because the coordinator wants their slots back.

use super::*;

fn yielded() -> Result<TaskOutput, Failure> {
    Err(Failure { at_unix_ms: 5, ..Failure::new(ErrorCode::Yielded, "at step 3", "") })
}

#[test]
fn a_lease_at_work_is_told_to_yield_and_over_when_its_executor_says_so() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    assert_eq!(bench.asked_to_yield(5, 0, 1, false), [told_to_yield(0, 1, false)]);
    assert_eq!(bench.activity(0), Activity::Stopping);
    assert_eq!(bench.asked_to_yield(5, 0, 1, false), [], "told already");
    assert_eq!(bench.asked_to_yield(5, 0, 1, true), [told_to_yield(0, 1, true)], "a checkpoint after all");
    assert_eq!(bench.asked_to_yield(5, 0, 1, false), []);
    assert_eq!(bench.later(Duration::from_secs(600)), [], "no patience here: the coordinator has it");
    assert_eq!(bench.ends(0, 1, yielded()), [finished(0, 1, yielded())]);
    assert_eq!(bench.machine.status().counts.yielded, 1);
    assert_eq!(bench.asked_to_yield(5, 0, 1, false), [finished(0, 1, yielded())], "it is over: said again");
    assert_eq!(bench.activity(0), Activity::Idle);
    bench.start(5, 0, 2);
    assert_eq!(bench.asked_to_yield(5, 0, 2, true), [told_to_yield(0, 2, true)], "another lease");
    assert_eq!(bench.ends(0, 2, DONE), [finished(0, 2, DONE)], "it was done just before");
}

#[test]
fn the_slot_that_works_on_the_lease_is_asked_whatever_the_command_says() {
    let mut bench = Bench::joined(2);
    bench.start(5, 1, 1);
    assert_eq!(bench.asked_to_yield(5, 0, 1, false), [told_to_yield(1, 1, false)]);
}

#[test]
fn what_does_not_yield_is_stopped_with_the_usual_patience() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.asked_to_yield(5, 0, 1, true);
    assert_eq!(bench.stop(0, 1), [told_to_stop(0, 1)]);
    assert_eq!(bench.asked_to_yield(5, 0, 1, true), [], "it is being stopped");
    assert_eq!(bench.later(Duration::from_secs(5)), [Effect::Kill(SLOT)]);
    assert_eq!(failure(&bench.dies(0)).code, ErrorCode::Cancelled);
}

#[test]
fn what_has_not_begun_is_handed_back_at_once() {
    let mut bench = Bench::joined(1);
    assert_eq!(failure(&bench.asked_to_yield(5, 0, 9, true)).code, ErrorCode::Yielded, "not known");
    assert_eq!(failure(&bench.asked_to_yield(5, 700, 8, true)).code, ErrorCode::Yielded);
    bench.dies(0);
    bench.start(5, 0, 1);
    let failure = failure(&bench.asked_to_yield(5, 0, 1, true));
    assert_eq!((failure.code, failure.at_unix_ms), (ErrorCode::Yielded, 77));
    assert_eq!(failure.message, "j/fine_tune/1#1 was handed back before it began");
    assert_eq!(bench.ready(0), [], "and is forgotten");
}

#[test]
fn an_executor_that_dies_while_it_yields_has_died() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.asked_to_yield(5, 0, 1, true);
    assert_eq!(failure(&bench.dies(0)).code, ErrorCode::ExecutorDied);
}

#[test]
fn what_has_yielded_is_said_even_by_a_worker_that_leaves() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.asked_to_yield(5, 0, 1, true);
    assert_eq!(bench.step(Event::Leave), [told_to_stop(0, 1)]);
    assert_eq!(bench.ends(0, 1, yielded()), [Effect::Kill(SLOT), finished(0, 1, yielded())]);
}
