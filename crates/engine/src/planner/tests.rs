//! The planner's properties, on examples and on random problems.

use proptest::prelude::*;

use super::*;

const NOBODY: Owner = Owner { holds: 0, quota: None };

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
        // P-E: no slot idles while a demand of leases that it suits goes without, unless a gang holds it back.
        let used: u32 = answers.iter().map(|a| if let Answer::Slots(s) = a { s.sum() } else { 0 }).sum();
        let held = answers.iter().any(|a| matches!(a, Answer::GangWaits { held: true, .. }));
        let hungry = problem.demands.iter().zip(&answers)
            .any(|(d, a)| d.wants != Wants::Cuda && *a == Answer::NoneFree);
        prop_assert!(!(hungry && !held && used < problem.free.sum()));
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
