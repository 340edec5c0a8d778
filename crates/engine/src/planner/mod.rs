//! Who gets which free slot: a small assignment problem in integers. README.md beside this file states it.
//!
//! Not here: jobs, workers, time. `grant.rs` translates between those and this model.

/// What a slot can be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A processor.
    Cpu,
    /// A GPU.
    Cuda,
}

/// One job's wish, in order of priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// What it asks for.
    pub kind: Kind,
    /// Whether only GPUs will do.
    pub cuda_only: bool,
}

/// What a job asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Up to `ready` slots, each useful by itself.
    Leases {
        /// Shards that could be granted.
        ready: u32,
    },
    /// Between `min` and `max` slots, all at once or none.
    Gang {
        /// Fewest.
        min: u32,
        /// Most.
        max: u32,
    },
}

/// The problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Free slots.
    pub free: Vec<Device>,
    /// Slots of the whole fleet, busy ones included: (all, GPUs among them).
    pub fleet: (u32, u32),
    /// Wishes, the most urgent first.
    pub demands: Vec<Demand>,
}

/// The answer for one demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These free slots, by position in [`Problem::free`].
    Slots(Vec<usize>),
    /// Nothing was asked for.
    NothingAsked,
    /// Nothing free that suits.
    NoneFree,
    /// The gang waits: this many suit and are free; they are held back from less urgent demands if `held`.
    GangWaits {
        /// Free slots that suit.
        free: u32,
        /// Whether they are kept for it, because the fleet is large enough for it to form.
        held: bool,
    },
    /// The fleet has no slot at all that suits.
    NoneSuits,
}

/// Solves the problem: greedy in the order of the demands. One answer per demand, in order.
pub fn plan(problem: &Problem) -> Vec<Answer> {
    let mut taken = vec![false; problem.free.len()];
    let answers: Vec<Answer> =
        problem.demands.iter().map(|demand| answer(problem, demand, &mut taken)).collect();
    debug_assert!(post_condition(problem, &answers).is_ok(), "{:?}", post_condition(problem, &answers));
    answers
}

fn answer(problem: &Problem, demand: &Demand, taken: &mut [bool]) -> Answer {
    let fleet = if demand.cuda_only { problem.fleet.1 } else { problem.fleet.0 };
    let suits = |slot: &usize| !demand.cuda_only || problem.free[*slot] == Device::Cuda;
    let free: Vec<usize> = (0..problem.free.len()).filter(|slot| !taken[*slot]).filter(suits).collect();
    let (fewest, most) = match demand.kind {
        Kind::Leases { ready } => (ready.min(1), ready),
        Kind::Gang { min, max } => (min, max),
    };
    if most == 0 {
        return Answer::NothingAsked;
    }
    if fleet == 0 {
        return Answer::NoneSuits;
    }
    let count = free.len() as u32;
    if count < fewest {
        if let Kind::Leases { .. } = demand.kind {
            return Answer::NoneFree;
        }
        // Keep what there is for this gang only if it can ever form; a gang too large for the fleet blocks nobody.
        let held = fleet >= fewest;
        if held {
            free.iter().for_each(|slot| taken[*slot] = true);
        }
        return Answer::GangWaits { free: count, held };
    }
    let granted: Vec<usize> = free.into_iter().take(most as usize).collect();
    granted.iter().for_each(|slot| taken[*slot] = true);
    Answer::Slots(granted)
}

/// The properties of README.md, as far as one answer shows them.
///
/// # Errors
/// The property that does not hold.
pub fn post_condition(problem: &Problem, answers: &[Answer]) -> Result<(), String> {
    let mut used = vec![false; problem.free.len()];
    let mut held_everything = false;
    for (demand, answer) in problem.demands.iter().zip(answers) {
        if let Answer::GangWaits { held: true, .. } = answer {
            held_everything |= !demand.cuda_only;
        }
        let Answer::Slots(slots) = answer else { continue };
        for slot in slots {
            if std::mem::replace(&mut used[*slot], true) {
                return Err(format!("P-A: slot {slot} is granted twice"));
            }
            if demand.cuda_only && problem.free[*slot] != Device::Cuda {
                return Err(format!("P-B: slot {slot} does not suit"));
            }
        }
        let count = slots.len() as u32;
        let (fewest, most) = match demand.kind {
            Kind::Leases { ready } => (1, ready),
            Kind::Gang { min, max } => (min, max),
        };
        if count < fewest || count > most {
            return Err(format!("P-C: {count} slots for a demand of {fewest} to {most}"));
        }
        if held_everything {
            return Err("P-D: a less urgent demand took a slot that a waiting gang holds back".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leases(ready: u32) -> Demand {
        Demand { kind: Kind::Leases { ready }, cuda_only: false }
    }

    fn gang(min: u32, max: u32) -> Demand {
        Demand { kind: Kind::Gang { min, max }, cuda_only: false }
    }

    #[test]
    fn the_oldest_job_comes_first_and_the_rest_is_left_to_others() {
        let problem =
            Problem { free: vec![Device::Cpu; 4], fleet: (4, 0), demands: vec![leases(3), leases(9)] };
        assert_eq!(plan(&problem), [Answer::Slots(vec![0, 1, 2]), Answer::Slots(vec![3])]);
    }

    #[test]
    fn a_gang_that_can_form_later_keeps_its_slots_and_one_that_cannot_blocks_nobody() {
        let waiting =
            Problem { free: vec![Device::Cpu; 2], fleet: (3, 0), demands: vec![gang(3, 4), leases(1)] };
        assert_eq!(plan(&waiting), [Answer::GangWaits { free: 2, held: true }, Answer::NoneFree]);
        let hopeless = Problem { fleet: (2, 0), ..waiting };
        assert_eq!(plan(&hopeless), [Answer::GangWaits { free: 2, held: false }, Answer::Slots(vec![0])]);
    }

    #[test]
    fn a_gpu_job_waits_for_a_gpu() {
        let demands = vec![Demand { kind: Kind::Leases { ready: 2 }, cuda_only: true }];
        let none = Problem { free: vec![Device::Cpu], fleet: (1, 0), demands: demands.clone() };
        assert_eq!(plan(&none), [Answer::NoneSuits]);
        let mixed = Problem { free: vec![Device::Cpu, Device::Cuda], fleet: (2, 1), demands };
        assert_eq!(plan(&mixed), [Answer::Slots(vec![1])]);
    }

    fn any_demand() -> impl Strategy<Value = Demand> {
        let kind = prop_oneof![
            (0u32..6).prop_map(|ready| Kind::Leases { ready }),
            (1u32..5, 0u32..4).prop_map(|(min, more)| Kind::Gang { min, max: min + more }),
        ];
        (kind, any::<bool>()).prop_map(|(kind, cuda_only)| Demand { kind, cuda_only })
    }

    proptest! {
        #[test]
        fn properties_hold_for_any_problem(
            free in prop::collection::vec(prop_oneof![Just(Device::Cpu), Just(Device::Cuda)], 0..12),
            busy in (0u32..4, 0u32..4),
            demands in prop::collection::vec(any_demand(), 0..8),
        ) {
            let gpus = free.iter().filter(|device| **device == Device::Cuda).count() as u32;
            let fleet = (free.len() as u32 + busy.0 + busy.1, gpus + busy.1);
            let problem = Problem { free, fleet, demands };
            let answers = plan(&problem);
            prop_assert_eq!(post_condition(&problem, &answers), Ok(()));
            // P-E: no slot idles while a demand of leases that it suits goes without, unless a gang holds it back.
            let used: usize = answers.iter().map(|a| if let Answer::Slots(s) = a { s.len() } else { 0 }).sum();
            let held = answers.iter().any(|a| matches!(a, Answer::GangWaits { held: true, .. }));
            let hungry = problem.demands.iter().zip(&answers).any(|(d, a)| !d.cuda_only && *a == Answer::NoneFree);
            prop_assert!(!(hungry && !held && used < problem.free.len()));
        }
    }
}
