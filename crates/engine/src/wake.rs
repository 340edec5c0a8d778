//! When something will happen by itself, and what then does.
//!
//! A tick looks at everything and is rare: until the next one, every new deadline only brings it forward, and a deadline
//! that is put off leaves it where it is. Not here: what is done about what is due.

use lethe_domain::{JobId, JobState};

use crate::state::{Job, Work};
use crate::{Effect, State};

impl State {
    /// When something will happen by itself: a lease runs out, a worker is silent, a pause is over. None when idle.
    pub fn next_deadline(&self) -> Option<u64> {
        self.wake_ms
    }

    /// A tick is needed at this time at the latest.
    pub(crate) fn wake(&mut self, at_ms: u64) {
        self.wake_ms = Some(self.wake_ms.map_or(at_ms, |wake| wake.min(at_ms)));
    }

    /// Time has passed.
    pub(crate) fn on_tick(&mut self, effects: &mut Vec<Effect>) {
        self.watch_heartbeats(effects);
        self.expire_leases(effects);
        self.watch_gangs(effects);
        self.forget_old(effects);
        self.forget_cordons(effects);
        let ids: Vec<JobId> = self.live.iter().map(|(_, id)| id.clone()).collect();
        for id in &ids {
            self.settle_cancel(id, effects);
        }
        self.refresh_dirty();
        // Pauses that are over make jobs schedulable.
        ids.iter().for_each(|id| self.refresh_demand(id));
        self.look_ahead();
    }

    /// At the end of a tick: the earliest deadline of all, in the future. What is planned then brings it forward.
    fn look_ahead(&mut self) {
        let now = self.now.mono_ms;
        let (late, silent) = (self.config.suspect_after_ms, self.config.dead_after_ms);
        let workers = self
            .workers
            .values()
            .map(|worker| worker.last_seen_ms + if worker.suspect { silent } else { late });
        let leases = self.leases.values().filter(|lease| !lease.stopping).map(|lease| lease.deadline_ms);
        let jobs = self.live.iter().filter_map(|(_, id)| self.jobs.get(id));
        let jobs = jobs.filter_map(|job| self.next_of(job));
        // What is due and could not be done must not spin the driver: only the future counts.
        let forget = self.next_to_forget();
        self.wake_ms = workers.chain(leases).chain(jobs).chain(forget).filter(|at| *at > now).min();
    }

    /// When a job needs attention if nothing else happens.
    pub(crate) fn next_of(&self, job: &Job) -> Option<u64> {
        let now = self.now.mono_ms;
        let config = &self.config;
        let soonest = |times: &[Option<u64>]| times.iter().flatten().copied().filter(|at| *at > now).min();
        match &job.work {
            Work::None if job.record.state == JobState::Cancelling => Some(job.settle_after_ms),
            Work::None => None,
            Work::Leases(work) => {
                soonest(&[work.next_try_ms(), work.straggler_due(config.tail_after_ms, config.tail_factor)])
            }
            Work::Gang(work) => match &work.gang {
                Some(gang) => {
                    let resize = gang.formed_ms + config.resize_after_ms;
                    soonest(&[gang.yield_by_ms, gang.claim_by_ms, Some(resize)])
                }
                None => {
                    let patience = work.enough_since_ms.map(|since| since + config.gang_patience_ms);
                    soonest(&[Some(work.not_before_ms), patience])
                }
            },
        }
    }

    /// Looks again at the jobs this step has touched: whether they are schedulable, and when they need attention.
    pub(crate) fn refresh_dirty(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            self.refresh_demand(&id);
            if let Some(at) = self.jobs.get(&id).and_then(|job| self.next_of(job)) {
                self.wake(at);
            }
            self.changed.jobs.insert(id);
        }
    }
}
