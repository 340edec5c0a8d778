//! What the coordinator hears of executors.

use super::*;

fn changed(slot: u32, report: Option<SlotReport>) -> Effect {
    Effect::Send(WorkerEvent::SlotChanged { slot: SlotIndex(slot), report })
}

/// Without heartbeats.
fn step(bench: &mut Bench, event: Event) -> Vec<Effect> {
    let mut effects = bench.step_in_full(event);
    effects.retain(|effect| !matches!(effect, Effect::Send(WorkerEvent::Heartbeat(_))));
    effects
}

#[test]
fn a_worker_introduces_itself_with_the_executors_that_are_ready() {
    let mut bench = Bench::joined(2);
    bench.step(Event::Parted);
    assert_eq!(bench.introduce().reports, [(SLOT, report(0.5)), (SlotIndex(1), report(0.5))]);
    bench.dies(0);
    assert_eq!(bench.introduce().reports, [(SlotIndex(1), report(0.5))]);
    bench.step(ready(0, 0.25));
    assert_eq!(bench.introduce().reports, [(SLOT, report(0.25)), (SlotIndex(1), report(0.5))]);
}

#[test]
fn a_death_is_said_before_the_outcome_that_came_of_it_and_the_next_executor_when_it_is_ready() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    let effects = step(&mut bench, Event::Died(SLOT, death()));
    assert_eq!(effects[..2], [Effect::Start(SLOT), changed(0, None)], "{effects:?}");
    assert!(matches!(effects[2..], [Effect::Send(WorkerEvent::Finished { .. })]), "{effects:?}");
    assert_eq!(step(&mut bench, ready(0, 0.25)), [changed(0, Some(report(0.25)))]);
}

#[test]
fn what_is_killed_is_gone_at_once_and_only_once() {
    let mut bench = Bench::joined(1);
    bench.start(5, 0, 1);
    bench.stop(0, 1);
    bench.at += Duration::from_secs(5);
    assert_eq!(step(&mut bench, Event::Tick), [Effect::Kill(SLOT), changed(0, None)]);
    let effects = step(&mut bench, Event::Died(SLOT, death()));
    assert!(!effects.contains(&changed(0, None)), "{effects:?}");
}

#[test]
fn what_changes_between_introduction_and_answer_is_said_after_it() {
    let joined = || Event::Joined { epoch: Epoch(5), heartbeat: HEARTBEAT };
    let mut bench = Bench::joined(3);
    bench.step(Event::Parted);
    bench.dies(2);
    bench.introduce();
    bench.dies(0);
    bench.dies(1);
    bench.step(ready(1, 0.25));
    bench.step(ready(2, 0.75));
    let said = [
        changed(0, None),
        // It is another executor, with a canary of its own to show.
        changed(1, None),
        changed(1, Some(report(0.25))),
        changed(2, Some(report(0.75))),
    ];
    assert_eq!(step(&mut bench, joined()), said);
    bench.step(Event::Parted);
    bench.introduce();
    assert_eq!(step(&mut bench, joined()), [], "said by the introduction");
}
