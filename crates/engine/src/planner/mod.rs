//! Who gets which free slots: a small assignment problem in integers. README.md beside this file states it.
//!
//! Not here: jobs, workers, time. `grant.rs` translates between those and this model.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[cfg(test)]
mod tests;

/// Slots by what they can be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slots {
    /// Processors.
    pub cpu: u32,
    /// GPUs.
    pub cuda: u32,
}

/// Which slots suit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// Any; GPUs first.
    Any,
    /// Any, since a cpu is beside every GPU; slots without one first.
    Cpu,
    /// Only GPUs.
    Cuda,
}

/// One job's wish. Among those of one priority, the earlier comes first where shares are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// What it asks for.
    pub kind: Kind,
    /// Which slots suit.
    pub wants: Wants,
    /// Higher comes first.
    pub priority: i32,
    /// Whose it is: an index into [`Problem::owners`].
    pub owner: usize,
}

/// What a job asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Up to `ready` slots, each useful by itself.
    Leases {
        /// Leases that could be granted.
        ready: u32,
    },
    /// Between `min` and `max` slots of one kind, all at once or none.
    Gang {
        /// Fewest.
        min: u32,
        /// Most.
        max: u32,
    },
}

/// Somebody whose jobs share slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    /// Slots its jobs hold.
    pub holds: u32,
    /// Slots they may hold.
    pub quota: Option<u32>,
}

/// The problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Free slots.
    pub free: Slots,
    /// Slots of the whole fleet that may get work, busy ones included.
    pub fleet: Slots,
    /// Owners of the demands.
    pub owners: Vec<Owner>,
    /// Wishes; of equal priority, the oldest first.
    pub demands: Vec<Demand>,
}

/// The answer for one demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// So many free slots.
    Slots(Slots),
    /// Nothing was asked for.
    NothingAsked,
    /// Nothing free that suits.
    NoneFree,
    /// The owner's quota is used up: it holds this many.
    OverQuota {
        /// Slots the owner's jobs hold.
        holds: u32,
    },
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

impl Slots {
    /// Of both kinds.
    pub fn sum(self) -> u32 {
        self.cpu + self.cuda
    }

    fn of(self, wants: Wants) -> u32 {
        match wants {
            Wants::Any | Wants::Cpu => self.sum(),
            Wants::Cuda => self.cuda,
        }
    }

    /// Takes one that suits.
    fn take(&mut self, wants: Wants) -> Option<Slots> {
        let cpu_first = wants == Wants::Cpu;
        if self.cuda > 0 && !(cpu_first && self.cpu > 0) {
            self.cuda -= 1;
            return Some(Slots { cpu: 0, cuda: 1 });
        }
        if self.cpu > 0 && wants != Wants::Cuda {
            self.cpu -= 1;
            return Some(Slots { cpu: 1, cuda: 0 });
        }
        None
    }

    /// The two kinds in the order in which a gang prefers them, each with how many there are.
    fn kinds(self, wants: Wants) -> Vec<(bool, u32)> {
        match wants {
            Wants::Any => vec![(true, self.cuda), (false, self.cpu)],
            Wants::Cpu => vec![(false, self.cpu), (true, self.cuda)],
            Wants::Cuda => vec![(true, self.cuda)],
        }
    }

    fn kind_mut(&mut self, cuda: bool) -> &mut u32 {
        if cuda { &mut self.cuda } else { &mut self.cpu }
    }
}

/// The solution: for each demand, in order, what it gets, and what it would be told if it asked for one slot more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What each demand gets.
    pub answers: Vec<Answer>,
    /// Why it gets no more than that.
    pub refusals: Vec<Answer>,
}

/// Solves the problem, in n log n steps for n demands and slots.
pub fn plan(problem: &Problem) -> Plan {
    let mut planning = Planning {
        problem,
        left: problem.free,
        holds: problem.owners.iter().map(|owner| owner.holds).collect(),
        given: vec![Slots::default(); problem.demands.len()],
        refusals: vec![Answer::NothingAsked; problem.demands.len()],
    };
    let mut classes: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (place, demand) in problem.demands.iter().enumerate() {
        classes.entry(demand.priority).or_default().push(place);
    }
    classes.into_values().rev().for_each(|class| planning.serve(class));
    let Planning { given, refusals, .. } = planning;
    let answer = |(given, refusal): (&Slots, &Answer)| match given.sum() {
        0 => *refusal,
        _ => Answer::Slots(*given),
    };
    let answers: Vec<Answer> = given.iter().zip(&refusals).map(answer).collect();
    debug_assert!(post_condition(problem, &answers).is_ok(), "{:?}", post_condition(problem, &answers));
    Plan { answers, refusals }
}

struct Planning<'a> {
    problem: &'a Problem,
    left: Slots,
    /// Slots each owner holds, with what was given so far.
    holds: Vec<u32>,
    given: Vec<Slots>,
    refusals: Vec<Answer>,
}

impl Planning<'_> {
    /// Serves the demands of one priority: a slot, or a gang, at a time, to whose owner holds the fewest.
    fn serve(&mut self, class: Vec<usize>) {
        // Of an owner's demands only the first is ever next: so the owners stand in line, each with its first demand.
        let mut waiting: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
        for place in class {
            waiting.entry(self.problem.demands[place].owner).or_default().push_back(place);
        }
        let mut line: BTreeSet<(u32, usize, usize)> = waiting
            .iter()
            .filter_map(|(owner, places)| Some((self.holds[*owner], *places.front()?, *owner)))
            .collect();
        while self.left != Slots::default()
            && let Some((_, place, owner)) = line.pop_first()
        {
            let Some(places) = waiting.get_mut(&owner) else { continue };
            if !self.give(place) {
                places.pop_front();
            }
            line.extend(places.front().map(|next| (self.holds[owner], *next, owner)));
        }
        // Nobody gets anything any more, and in no order: the rest only learns why.
        let rest: Vec<usize> = waiting.into_values().flatten().collect();
        for place in rest {
            self.give(place);
        }
    }

    /// Gives a demand its next slot, or its gang. False when that was the last.
    fn give(&mut self, place: usize) -> bool {
        let Demand { kind, wants, owner, .. } = &self.problem.demands[place];
        let suits = self.problem.fleet.of(*wants);
        let room = self.problem.owners[*owner].quota.map(|quota| quota.saturating_sub(self.holds[*owner]));
        let over = Answer::OverQuota { holds: self.holds[*owner] };
        self.refusals[place] = match *kind {
            Kind::Leases { ready } if self.given[place].sum() == ready => Answer::NothingAsked,
            Kind::Leases { .. } | Kind::Gang { .. } if suits == 0 => Answer::NoneSuits,
            Kind::Leases { .. } if room == Some(0) => over,
            Kind::Leases { .. } => match self.left.take(*wants) {
                Some(slot) => {
                    self.holds[*owner] += 1;
                    let so_far = &mut self.given[place];
                    *so_far = Slots { cpu: so_far.cpu + slot.cpu, cuda: so_far.cuda + slot.cuda };
                    return true;
                }
                None => Answer::NoneFree,
            },
            Kind::Gang { min, max } => match room.map_or(max, |room| max.min(room)) {
                max if max < min => over,
                max => self.gang(place, min, max),
            },
        };
        false
    }

    fn gang(&mut self, place: usize, min: u32, max: u32) -> Answer {
        let Demand { wants, owner, .. } = self.problem.demands[place];
        let kinds = self.left.kinds(wants);
        if let Some((cuda, free)) = kinds.iter().find(|(_, free)| *free >= min) {
            let count = max.min(*free);
            *self.left.kind_mut(*cuda) -= count;
            self.holds[owner] += count;
            let (cpu, cuda) = if *cuda { (0, count) } else { (count, 0) };
            self.given[place] = Slots { cpu, cuda };
            return Answer::NothingAsked;
        }
        // Keep what there is for this gang only if it can ever form; a gang too large for the fleet blocks nobody.
        let could = self.problem.fleet.kinds(wants).into_iter().find(|(_, all)| *all >= min);
        if let Some((cuda, _)) = could {
            let free = std::mem::take(self.left.kind_mut(cuda));
            return Answer::GangWaits { free, held: true };
        }
        Answer::GangWaits { free: kinds.iter().map(|(_, free)| *free).max().unwrap_or(0), held: false }
    }
}

/// The properties of README.md, as far as one answer shows them.
///
/// # Errors
/// The property that does not hold.
pub fn post_condition(problem: &Problem, answers: &[Answer]) -> Result<(), String> {
    let mut given = Slots::default();
    let mut holds: Vec<u32> = problem.owners.iter().map(|owner| owner.holds).collect();
    for (demand, answer) in problem.demands.iter().zip(answers) {
        let Answer::Slots(slots) = answer else { continue };
        given = Slots { cpu: given.cpu + slots.cpu, cuda: given.cuda + slots.cuda };
        holds[demand.owner] += slots.sum();
        if demand.wants == Wants::Cuda && slots.cpu > 0 {
            return Err("P-B: a slot does not suit".to_owned());
        }
        let count = slots.sum();
        match demand.kind {
            Kind::Leases { ready } if count == 0 || count > ready => {
                return Err(format!("P-C: {count} slots for {ready} leases"));
            }
            Kind::Gang { min, max } if count < min || count > max => {
                return Err(format!("P-C: {count} slots for a gang of {min} to {max}"));
            }
            Kind::Gang { .. } if slots.cpu > 0 && slots.cuda > 0 => {
                return Err("P-C: a gang of two kinds".to_owned());
            }
            Kind::Leases { .. } | Kind::Gang { .. } => {}
        }
    }
    if given.cpu > problem.free.cpu || given.cuda > problem.free.cuda {
        return Err(format!("P-A: {given:?} given of {:?}", problem.free));
    }
    let over = problem
        .owners
        .iter()
        .zip(&holds)
        .find(|(owner, holds)| **holds > owner.holds && owner.quota.is_some_and(|quota| **holds > quota));
    if let Some((owner, holds)) = over {
        return Err(format!("P-F: an owner holds {holds}, its quota is {:?}", owner.quota));
    }
    Ok(())
}
