//! The executors' side, and the end.

use super::*;

#[test]
fn executors_start_at_once_and_the_worker_joins_when_all_are_ready() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.step(Event::Tick), [Effect::Start(SLOT), Effect::Start(SlotIndex(1))]);
    assert_eq!(bench.ready(0), []);
    assert_eq!(bench.ready(1), [Effect::Join]);
    assert_eq!(bench.join(1), []);
    assert!(bench.machine.status().joined);
}

#[test]
fn a_lease_that_does_not_stop_is_killed_and_only_then_over() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    assert_eq!(bench.stop(0, 1), [told_to_stop(0, 1)]);
    assert_eq!(bench.stop(0, 1), [], "told already");
    assert_eq!(bench.later(Duration::from_millis(4_999)), []);
    assert_eq!(bench.later(Duration::from_millis(1)), [Effect::Kill(SLOT)]);
    assert_eq!(bench.later(Duration::from_secs(9)), [], "killed once; not over before it is dead");
    let effects = bench.dies(0);
    let failure = failure(&effects);
    assert_eq!((failure.code, failure.at_unix_ms), (ErrorCode::Cancelled, 77));
    assert!(failure.message.contains("did not end within 5.0 s and was killed"), "{}", failure.message);
    assert!(effects.contains(&Effect::Start(SLOT)), "the next executor starts at once: {effects:?}");
    assert_eq!(bench.machine.status().counts.did_not_stop, 1);
}

#[test]
fn a_lease_that_stops_is_over_when_its_executor_says_so() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.stop(0, 1);
    let stopped = Err(Failure { at_unix_ms: 5, ..Failure::new(ErrorCode::Cancelled, "stopped", "") });
    assert_eq!(bench.ends(0, 1, stopped.clone()), [finished(0, 1, stopped)]);
    bench.start(5, 0, 2);
    bench.stop(0, 2);
    assert_eq!(bench.ends(0, 2, DONE), [finished(0, 2, DONE)], "it was done just before");
    assert_eq!(bench.later(Duration::from_secs(4)), []);
}

#[test]
fn an_executor_that_dies_at_work_fails_its_lease_and_is_started_again() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    let effects = bench.dies(0);
    let failure = failure(&effects);
    assert_eq!(failure.code, ErrorCode::ExecutorDied);
    assert_eq!(
        failure.message,
        "the executor of slot 0 (cpu) died while it worked on j/fine_tune/1#1: signal 9; its log ends:\n  last words"
    );
    assert_eq!(failure.hint, "see the log");
    assert!(effects.contains(&Effect::Start(SLOT)));
    assert_eq!(bench.start(5, 0, 2), [], "granted before the next one is up: it waits");
    assert_eq!(bench.ready(0), [told(0, 2)]);
}

#[test]
fn restarts_in_a_row_are_further_and_further_apart_until_a_lease_ends() {
    let mut bench = Bench::joined(1);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let begun = bench.at;
        let mut effects = bench.dies(0);
        while !effects.contains(&Effect::Start(SLOT)) {
            bench.step(Event::Parted); // Only the slot has deadlines then.
            let next = bench.machine.next_deadline().unwrap();
            effects = bench.later(next - bench.at);
        }
        pauses.push((bench.at - begun).as_millis());
        bench.ready(0);
    }
    assert_eq!(pauses, [0, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000]);
    bench.join(5);
    bench.start(5, 0, 1);
    bench.ends(0, 1, DONE);
    assert_eq!(bench.dies(0), [Effect::Start(SLOT)], "forgiven");
}

#[test]
fn a_first_executor_that_does_not_start_ends_the_agent() {
    let mut bench = Bench::new(2);
    bench.step(Event::Tick);
    bench.ready(1);
    assert_eq!(bench.dies(0), [Effect::Start(SLOT)]);
    bench.dies(0);
    assert_eq!(bench.later(Duration::from_millis(250)), [Effect::Start(SLOT)]);
    assert_eq!(bench.dies(0), [Effect::GiveUp(SLOT, death()), Effect::Kill(SlotIndex(1))]);
    assert_eq!(bench.dies(1), [Effect::End]);
}

#[test]
fn an_executor_that_is_never_ready_is_killed() {
    let mut bench = Bench::new(1);
    bench.step(Event::Tick);
    assert_eq!(bench.later(Duration::from_secs(59)), []);
    assert_eq!(bench.later(Duration::from_secs(1)), [Effect::Kill(SLOT)]);
    let late = Death { how: "it was not ready within 60.0 s and was killed".to_owned(), ..death() };
    assert_eq!(bench.dies(0), [Effect::GiveUp(SLOT, late), Effect::End]);

    let mut bench = Bench::joined(1);
    bench.dies(0);
    bench.start(5, 0, 1);
    assert!(bench.later(Duration::from_secs(60)).contains(&Effect::Kill(SLOT)));
    let effects = bench.dies(0);
    let failure = failure(&effects);
    assert!(failure.message.contains("did not start, and so did not work on"), "{}", failure.message);
    assert!(!effects.contains(&Effect::End), "it had worked once: the agent goes on");
}

#[test]
fn a_lease_granted_while_the_last_executor_is_still_dying_waits_for_the_next() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.stop(0, 1);
    bench.later(Duration::from_secs(5));
    assert_eq!(bench.ends(0, 1, DONE), [finished(0, 1, DONE)], "it made it just before the kill");
    assert_eq!(bench.start(5, 0, 2), []);
    assert_eq!(bench.dies(0), [Effect::Start(SLOT)]);
    assert_eq!(bench.ready(0), [told(0, 2)]);
}

#[test]
fn leaving_stops_what_works_kills_what_waits_and_delivers_what_is_done() {
    let mut bench = Bench::joined(4);
    bench.start(5, 0, 1);
    bench.start(5, 1, 2);
    bench.dies(3);
    bench.start(5, 3, 4);
    let begun =
        [told_to_stop(0, 1), told_to_stop(1, 2), Effect::Kill(SlotIndex(2)), Effect::Kill(SlotIndex(3))];
    assert_eq!(bench.step(Event::Leave), begun);
    assert_eq!(bench.step(Event::Leave), [], "once");
    assert_eq!(bench.start(5, 2, 3), [], "takes nothing new");
    assert_eq!(bench.ends(0, 1, DONE), [Effect::Kill(SLOT), finished(0, 1, DONE)], "done in time");
    bench.dies(0);
    bench.dies(2);
    bench.dies(3);
    assert_eq!(bench.later(Duration::from_secs(5)), [Effect::Kill(SlotIndex(1)), finished(0, 1, DONE)]);
    assert_eq!(bench.dies(1), [], "the lease is given back by leaving, not by a failure that counts");
    assert_eq!(bench.step(Event::Command(WorkerCommand::Ack(lease(1)))), [Effect::End]);
    assert_eq!(bench.later(Duration::from_secs(60)), []);
}

#[test]
fn leaving_does_not_wait_for_ever_for_an_acknowledgement() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.ends(0, 1, DONE);
    bench.step(Event::Leave);
    assert_eq!(bench.dies(0), []);
    assert_eq!(bench.later(Duration::from_millis(1_999)), []);
    assert_eq!(bench.later(Duration::from_millis(1)), [Effect::End]);

    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.ends(0, 1, DONE);
    bench.step(Event::Parted);
    bench.step(Event::Leave);
    assert_eq!(bench.dies(0), [Effect::End], "nobody to wait for");
}
