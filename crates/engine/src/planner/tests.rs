//! The planner's properties, on examples and on random problems.

use proptest::prelude::*;

use super::{Answer, Demand, Kind, Owner, Problem, Slots, Wants, post_condition};

const NOBODY: Owner = Owner { holds: 0, quota: None };

/// What each demand gets.
fn plan(problem: &Problem) -> Vec<Answer> {
    super::plan(problem).answers
}

fn leases(ready: u32) -> Demand {
    Demand { kind: Kind::Leases { ready }, wants: Wants::Any, priority: 0, owner: 0 }
}

fn gang(min: u32, max: u32) -> Demand {
    Demand { kind: Kind::Gang { min, max }, ..leases(0) }
}

fn cpus(cpu: u32) -> Slots {
    Slots { cpu, cuda: 0 }
}

fn problem(free: u32, fleet: u32, demands: Vec<Demand>) -> Problem {
    Problem { free: cpus(free), fleet: cpus(fleet), owners: vec![NOBODY; 3], demands }
}

#[test]
fn the_oldest_job_comes_first_and_the_rest_is_left_to_others() {
    let answers = plan(&problem(4, 4, vec![leases(3), leases(9)]));
    assert_eq!(answers, [Answer::Slots(cpus(3)), Answer::Slots(cpus(1))]);
}

#[test]
fn a_higher_priority_comes_before_an_older_job() {
    let urgent = Demand { priority: 5, ..leases(9) };
    assert_eq!(plan(&problem(4, 4, vec![leases(3), urgent])), [Answer::NoneFree, Answer::Slots(cpus(4))]);
}

#[test]
fn owners_share_evenly_whatever_they_hold_already() {
    let of = |owner| Demand { owner, ..leases(100) };
    let mut shared = problem(6, 10, vec![of(0), of(0), of(1)]);
    assert_eq!(
        plan(&shared),
        [Answer::Slots(cpus(3)), Answer::NoneFree, Answer::Slots(cpus(3))],
        "an owner's second job does not count twice"
    );
    shared.owners[0].holds = 4;
    assert_eq!(plan(&shared)[2], Answer::Slots(cpus(5)));
}

#[test]
fn a_quota_is_not_exceeded_and_told() {
    let mut bounded = problem(6, 6, vec![leases(9), gang(2, 4)]);
    bounded.owners[0] = Owner { holds: 1, quota: Some(3) };
    assert_eq!(plan(&bounded), [Answer::Slots(cpus(2)), Answer::OverQuota { holds: 3 }]);
    bounded.demands.remove(0);
    assert_eq!(plan(&bounded), [Answer::Slots(cpus(2))], "a gang takes what is left of it");
}

#[test]
fn a_gang_that_can_form_later_keeps_its_slots_and_one_that_cannot_blocks_nobody() {
    let waiting = problem(2, 3, vec![gang(3, 4), leases(1)]);
    assert_eq!(plan(&waiting), [Answer::GangWaits { free: 2, held: true }, Answer::NoneFree]);
    let hopeless = Problem { fleet: cpus(2), ..waiting };
    assert_eq!(plan(&hopeless), [Answer::GangWaits { free: 2, held: false }, Answer::Slots(cpus(1))]);
}

#[test]
fn two_gangs_that_each_hold_half_do_not_block_each_other() {
    let answers = plan(&problem(3, 4, vec![gang(4, 4), gang(4, 4)]));
    assert_eq!(answers[0], Answer::GangWaits { free: 3, held: true });
    assert_eq!(answers[1], Answer::GangWaits { free: 0, held: true }, "only the first holds any");
}

#[test]
fn a_gpu_job_waits_for_a_gpu_and_a_cpu_job_leaves_it_free() {
    let cuda = Demand { wants: Wants::Cuda, ..leases(2) };
    let cpu = Demand { wants: Wants::Cpu, ..leases(1) };
    assert_eq!(plan(&problem(1, 1, vec![cuda.clone()])), [Answer::NoneSuits]);
    let mixed = Slots { cpu: 1, cuda: 1 };
    let mixed = Problem { free: mixed, fleet: mixed, ..problem(0, 0, vec![cpu, cuda]) };
    assert_eq!(plan(&mixed), [Answer::Slots(cpus(1)), Answer::Slots(Slots { cpu: 0, cuda: 1 })]);
}

#[test]
fn a_gang_is_of_one_kind() {
    let mixed = Slots { cpu: 3, cuda: 1 };
    let mixed = Problem { free: mixed, fleet: mixed, ..problem(0, 0, vec![gang(2, 4)]) };
    assert_eq!(plan(&mixed), [Answer::Slots(cpus(3))]);
}

#[test]
fn what_gets_some_is_told_why_it_gets_no_more() {
    let solution = super::plan(&problem(4, 4, vec![leases(3), leases(9), gang(1, 1)]));
    assert_eq!(solution.answers[1], Answer::Slots(cpus(1)));
    assert_eq!(solution.refusals[..2], [Answer::NothingAsked, Answer::NoneFree]);
    assert_eq!(solution.refusals[2], solution.answers[2]);
}

/// The rule said the plain way: again and again, of all demands of the highest priority, the one whose owner holds the fewest.
fn by_rule(problem: &Problem) -> Vec<Answer> {
    let mut left: Vec<usize> = (0..problem.demands.len()).collect();
    let mut holds: Vec<u32> = problem.owners.iter().map(|owner| owner.holds).collect();
    let mut free = problem.free;
    let mut answers = vec![Answer::NothingAsked; problem.demands.len()];
    loop {
        let next = left.iter().enumerate().min_by_key(|(_, place)| {
            let Demand { priority, owner, .. } = problem.demands[**place];
            (-priority, holds[owner], **place)
        });
        let Some((at, place)) = next.map(|(at, place)| (at, *place)) else { return answers };
        let demand = &problem.demands[place];
        // One demand alone, for one slot at most, beside what is left.
        let so_far = if let Answer::Slots(slots) = answers[place] { slots } else { Slots::default() };
        let ask = match demand.kind {
            Kind::Leases { ready } => Kind::Leases { ready: ready.saturating_sub(so_far.sum()).min(1) },
            Kind::Gang { .. } => demand.kind.clone(),
        };
        let owner = Owner { holds: holds[demand.owner], quota: problem.owners[demand.owner].quota };
        let demands = vec![Demand { kind: ask, owner: 0, ..demand.clone() }];
        let alone = Problem { free, fleet: problem.fleet, owners: vec![owner], demands };
        let answer = plan(&alone)[0];
        match answer {
            Answer::Slots(slots) => {
                holds[demand.owner] += slots.sum();
                free = Slots { cpu: free.cpu - slots.cpu, cuda: free.cuda - slots.cuda };
                answers[place] =
                    Answer::Slots(Slots { cpu: so_far.cpu + slots.cpu, cuda: so_far.cuda + slots.cuda });
            }
            Answer::GangWaits { free: kept, held: true } => {
                // Of the first kind that could hold it, as the gang prefers them.
                let kinds = problem.fleet.kinds(demand.wants).into_iter();
                let least = if let Kind::Gang { min, .. } = demand.kind { min } else { 0 };
                for (cuda, _) in kinds.filter(|(_, all)| *all >= least).take(1) {
                    assert_eq!(std::mem::take(free.kind_mut(cuda)), kept);
                }
                answers[place] = answer;
            }
            Answer::NothingAsked
            | Answer::NoneFree
            | Answer::OverQuota { .. }
            | Answer::NoneSuits
            | Answer::GangWaits { held: false, .. } => {
                if so_far.sum() == 0 {
                    answers[place] = answer;
                }
            }
        }
        let gang = matches!(demand.kind, Kind::Gang { .. });
        if gang || !matches!(answer, Answer::Slots(_)) {
            left.remove(at);
        }
    }
}

#[test]
fn ten_times_the_demands_take_about_ten_times_as_long() {
    let took = |count: usize| {
        let demands = (0..count).map(|place| Demand { owner: place % 3, ..leases(1) }).collect();
        let problem = problem(count as u32 / 2, count as u32, demands);
        let once = || {
            let begin = std::time::Instant::now();
            assert_eq!(plan(&problem).len(), count);
            begin.elapsed()
        };
        (0..3).map(|_| once()).min().unwrap_or_default()
    };
    // A hundred times as long, if it were quadratic.
    let (few, many) = (took(2_000), took(20_000));
    assert!(many < few * 40, "{few:?} for 2,000, {many:?} for 20,000");
}

fn any_demand() -> impl Strategy<Value = Demand> {
    let kind = prop_oneof![
        (0u32..6).prop_map(|ready| Kind::Leases { ready }),
        (1u32..5, 0u32..4).prop_map(|(min, more)| Kind::Gang { min, max: min + more }),
    ];
    let wants = prop_oneof![Just(Wants::Any), Just(Wants::Cpu), Just(Wants::Cuda)];
    (kind, wants, -2i32..3, 0usize..3).prop_map(|(kind, wants, priority, owner)| Demand {
        kind,
        wants,
        priority,
        owner,
    })
}

fn any_slots(most: u32) -> impl Strategy<Value = Slots> {
    (0..most, 0..most).prop_map(|(cpu, cuda)| Slots { cpu, cuda })
}

proptest! {
    #[test]
    fn properties_hold_for_any_problem(
        free in any_slots(8),
        busy in any_slots(4),
        owners in prop::collection::vec((0u32..5, prop::option::of(0u32..9)), 3),
        demands in prop::collection::vec(any_demand(), 0..8),
    ) {
        let fleet = Slots { cpu: free.cpu + busy.cpu, cuda: free.cuda + busy.cuda };
        let owners = owners.into_iter().map(|(holds, quota)| Owner { holds, quota }).collect();
        let problem = Problem { free, fleet, owners, demands };
        let answers = plan(&problem);
        prop_assert_eq!(post_condition(&problem, &answers), Ok(()));
        prop_assert_eq!(&answers, &by_rule(&problem));
        // P-E: no slot idles while a demand of leases that it suits goes without, unless a gang holds it back.
        let used: u32 = answers.iter().map(|a| if let Answer::Slots(s) = a { s.sum() } else { 0 }).sum();
        let held = answers.iter().any(|a| matches!(a, Answer::GangWaits { held: true, .. }));
        let schedulable = problem.demands.iter().zip(&answers)
            .any(|(d, a)| d.wants != Wants::Cuda && *a == Answer::NoneFree);
        prop_assert!(!(schedulable && !held && used < problem.free.sum()));
        // P-G: within a priority, an owner that goes without holds no more than one that was given a slot, plus one.
        let mut holds: Vec<u32> = problem.owners.iter().map(|owner| owner.holds).collect();
        for (demand, answer) in problem.demands.iter().zip(&answers) {
            if let Answer::Slots(slots) = answer { holds[demand.owner] += slots.sum(); }
        }
        let plain = problem.demands.iter().all(|d| matches!(d.kind, Kind::Leases { .. }) && d.wants == Wants::Any);
        if plain {
            for (poor, lacks) in problem.demands.iter().zip(&answers) {
                for (rich, got) in problem.demands.iter().zip(&answers) {
                    if *lacks == Answer::NoneFree && poor.priority >= rich.priority && matches!(got, Answer::Slots(_)) {
                        prop_assert!(
                            rich.owner == poor.owner || poor.priority > rich.priority
                                || holds[rich.owner] <= holds[poor.owner] + 1
                                || holds[rich.owner] == problem.owners[rich.owner].holds
                        );
                        prop_assert!(poor.priority == rich.priority);
                    }
                }
            }
        }
    }
}
