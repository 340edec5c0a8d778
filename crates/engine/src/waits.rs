//! Why a job waits, as facts, and the words for them: one for its status, a line each for everything of it that waits.
//!
//! The facts are the planner's own answers and the times that the engine keeps, so what is said cannot differ from what is
//! done. Not here: where they come from (`explain`).

use std::collections::BTreeMap;

use lethe_domain::{Explanation, Waiting, WorkerState, WorkerStatus, counted_slots};

use crate::planner::Answer;
use crate::{FleetSnapshot, Now};

/// Slots that get no work, named one by one; of more, only the number is said.
const SLOTS_NAMED: usize = 5;

/// Why a job waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waits {
    /// Why the job as a whole does nothing.
    pub(crate) still: Option<Still>,
    /// What of it waits.
    pub(crate) lines: Vec<Wait>,
    pub(crate) wish: Wish,
}

/// Why a job does nothing.
#[derive(Debug, Clone)]
pub(crate) enum Still {
    /// A failed lease is tried again then.
    Until(u64),
    /// The planner gave it nothing.
    Refused(Answer),
}

/// What a job asks for, as far as words need it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub(crate) owner: String,
    pub(crate) quota: Option<u32>,
    /// Slots that it needs at once.
    pub(crate) needs: u32,
    pub(crate) gpu: bool,
}

/// One thing that waits.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    pub(crate) what: String,
    pub(crate) why: Why,
}

#[derive(Debug, Clone)]
pub(crate) enum Why {
    Said(String),
    /// It goes on by itself then.
    Until {
        at_ms: u64,
        before: &'static str,
        after: String,
    },
    /// It has taken since then; worth a word after a while.
    Since {
        began_ms: u64,
        worth_ms: u64,
        before: &'static str,
        after: String,
    },
    /// The planner gave no slot.
    NoSlot(Answer),
}

impl Waits {
    pub(crate) fn in_a_word(&self, now: Now, fleet: FleetSnapshot) -> Option<Waiting> {
        let slots = fleet.slots;
        match self.still.as_ref()? {
            Still::Until(at) if *at > now.mono_ms => Some(Waiting::Backoff { ms: at - now.mono_ms }),
            Still::Until(_) => None,
            Still::Refused(answer) if let Some(over) = self.wish.over_quota(*answer) => Some(over),
            Still::Refused(_) if slots == 0 => Some(Waiting::NoWorkers),
            Still::Refused(answer) => match *answer {
                Answer::Slots(_) | Answer::NothingAsked | Answer::OverQuota { .. } => None,
                Answer::NoneFree => Some(Waiting::NoFreeSlot { slots }),
                Answer::NoneSuits if fleet.usable == 0 => Some(Waiting::NoUsableSlot { slots }),
                Answer::NoneSuits => Some(Waiting::NoSuitableSlot { slots }),
                Answer::GangWaits { free, .. } => {
                    Some(Waiting::GangTooSmall { needs: self.wish.needs, free })
                }
            },
        }
    }

    pub(crate) fn in_words<'a>(
        &self,
        now: Now,
        workers: impl IntoIterator<Item = &'a WorkerStatus>,
    ) -> Vec<Explanation> {
        let mut lines = Vec::new();
        let mut workers = Some(workers);
        for Wait { what, why } in &self.lines {
            let why = match why {
                Why::Said(why) => why.clone(),
                Why::Until { at_ms, .. } if *at_ms <= now.mono_ms => continue,
                Why::Until { at_ms, before, after } => {
                    format!("{before} {:.1} s{after}", (at_ms - now.mono_ms) as f64 / 1000.0)
                }
                Why::Since { began_ms, worth_ms, before, after } => {
                    match now.mono_ms.saturating_sub(*began_ms) {
                        ms if ms > *worth_ms => format!("{before} {} s{after}", ms / 1000),
                        _ => continue,
                    }
                }
                // A job waits for slots in one place.
                Why::NoSlot(answer) => match workers.take() {
                    Some(workers) => self.wish.why_no_slot(*answer, workers),
                    None => continue,
                },
            };
            lines.push(Explanation { what: what.clone(), why });
        }
        lines
    }
}

impl Wish {
    /// That the owner's quota is what it waits for: until others of the owner end, or for ever.
    fn over_quota(&self, answer: Answer) -> Option<Waiting> {
        let quota = self.quota?;
        let holds = if let Answer::OverQuota { holds } = answer { holds } else { 0 };
        if holds == 0 && quota >= self.needs {
            return None;
        }
        Some(Waiting::OverQuota { owner: self.owner.clone(), holds, quota, needs: self.needs })
    }

    /// Why a job that could use a slot has none: the planner's answer, and what the slots do instead.
    fn why_no_slot<'a>(&self, answer: Answer, workers: impl IntoIterator<Item = &'a WorkerStatus>) -> String {
        if let Some(over) = self.over_quota(answer) {
            return over.to_string();
        }
        let Self { needs, gpu, .. } = self;
        let fleet = slots_in_words(workers);
        match (answer, fleet) {
            (Answer::Slots(_) | Answer::NothingAsked | Answer::OverQuota { .. }, _) => {
                "a slot is about to be given".to_owned()
            }
            (Answer::NoneSuits, None) => {
                "no worker has joined: start lethe-worker --coordinator URL".to_owned()
            }
            (Answer::NoneSuits, Some(fleet)) if *gpu => {
                format!("no slot that may get work has a GPU: {fleet}")
            }
            (Answer::NoneSuits, Some(fleet)) => format!("no slot may get work: {fleet}"),
            (Answer::NoneFree, fleet) => format!("no slot is free: {}", fleet.unwrap_or_default()),
            (Answer::GangWaits { free, held }, fleet) => format!(
                "it needs {} at once, {free} {} free{}: {}",
                counted_slots(*needs),
                if free == 1 { "is" } else { "are" },
                if held {
                    " and kept for it"
                } else {
                    ", and the fleet is too small: add workers or lower resources.slots.min"
                },
                fleet.unwrap_or_default()
            ),
        }
    }
}

/// What the fleet's slots do: "5 slots: 2 at work for job a, w1/0 is quarantined (its canary is wrong)". None when there
/// are none.
fn slots_in_words<'a>(workers: impl IntoIterator<Item = &'a WorkerStatus>) -> Option<String> {
    let mut busy: BTreeMap<&str, u32> = BTreeMap::new();
    let mut others = Vec::new();
    let (mut all, mut free, mut more) = (0, 0, 0);
    for worker in workers.into_iter().filter(|worker| worker.state != WorkerState::Dead) {
        for (index, slot) in worker.slots.iter().enumerate() {
            all += 1;
            let why = match (&slot.lease, &slot.quarantine, worker.state) {
                (Some(lease), _, _) => {
                    *busy.entry(lease.job.as_str()).or_default() += 1;
                    continue;
                }
                (None, Some(reason), _) => format!("is quarantined ({reason})"),
                (None, None, WorkerState::Draining) => "is being drained".to_owned(),
                (None, None, WorkerState::Suspect) => "is suspect (its heartbeats are late)".to_owned(),
                (None, None, _) if !slot.proven => "has no executor that is up yet".to_owned(),
                (None, None, _) => {
                    free += 1;
                    continue;
                }
            };
            if others.len() < SLOTS_NAMED {
                others.push(format!("{}/{index} {why}", worker.id));
            } else {
                more += 1;
            }
        }
    }
    let mut words: Vec<String> =
        busy.into_iter().map(|(job, count)| format!("{count} at work for job {job}")).collect();
    if free > 0 {
        words.push(format!("{free} free"));
    }
    words.extend(others);
    if more > 0 {
        words.push(format!("{more} more that get no work"));
    }
    (all > 0).then(|| format!("{}: {}", counted_slots(all), words.join(", ")))
}
