//! What is forgotten, and when: jobs that have ended, on request or by number and age, and cordons of workers that never
//! came back.
//!
//! A job that has ended keeps its record and what it published. Its shards go from the store at once; what only its work
//! needed goes from artifact storage next, and its record says so when that is done. A job that is forgotten loses its
//! record at once, and its artifacts next; until they are gone its name stays written down. So whatever a leader that is
//! killed leaves half done, the next one does again. Not here: removing artifacts (the driver's).

use lethe_domain::{JobId, WorkerId};

use crate::{Chore, Effect, State, Write};

/// Jobs forgotten in one step: what is written down at once stays small, and the others wait for the next tick.
const AT_ONCE: usize = 64;

impl State {
    /// Somebody wants a job to be forgotten.
    pub(crate) fn on_delete(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        if self.past.contains_key(id) {
            return self.forget_job(id, effects);
        }
        // It has only just ended: its files are put in order first.
        let Some(job) = self.jobs.get_mut(id).filter(|job| job.record.state.is_final()) else { return };
        job.record.unwanted = true;
        effects.push(Effect::Persist(Write::Job(Box::new(job.record.clone()))));
    }

    fn forget_job(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        let Some(past) = self.past.remove(id) else { return };
        self.finished.remove(&past.end());
        self.order.retain(|other| other != id);
        if let Some(request) = &past.request {
            self.requests.remove(request);
        }
        self.erasing.insert(id.clone());
        self.changed.jobs.insert(id.clone());
        effects.push(Effect::Persist(Write::ForgetJob { job: id.clone() }));
        effects.push(Effect::Notify { job: id.clone() });
        effects.push(Effect::Chore(Chore::Erase { job: id.clone() }));
    }

    /// When a job has ended and holds no slot any more: have its files put in order, once; when they are, it is over.
    pub(crate) fn settle_end(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        if self.leases_of(id).next().is_some() {
            return;
        }
        let Some(job) = self.jobs.get(id).filter(|job| job.record.state.is_final()) else { return };
        let unwanted = job.record.unwanted;
        if job.record.tidy {
            self.put_away(id);
            if unwanted {
                self.forget_job(id, effects);
            }
        } else {
            effects.extend(self.tidy_up(id).map(Effect::Chore));
        }
    }

    fn tidy_up(&mut self, id: &JobId) -> Option<Chore> {
        let job = self.jobs.get_mut(id).filter(|job| !job.record.tidy)?;
        (!std::mem::replace(&mut job.tidying, true)).then(|| Chore::TidyUp { job: id.clone() })
    }

    /// The files of a job that has ended are in order.
    pub(crate) fn on_tidied(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(id).filter(|job| job.record.state.is_final()) else { return };
        job.record.tidy = true;
        effects.push(Effect::Persist(Write::Job(Box::new(job.record.clone()))));
        // A leader that was killed in between may have left them.
        effects.push(Effect::Persist(Write::ForgetShards { job: id.clone() }));
        self.settle_end(id, effects);
        self.forget_old(effects);
    }

    /// Nothing is left of a job that was forgotten.
    pub(crate) fn on_erased(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        if self.erasing.remove(id) {
            effects.push(Effect::Persist(Write::Erased { job: id.clone() }));
        }
    }

    /// What a leader before this one may have left half done, given the names that it wrote down of forgotten jobs.
    pub fn left_undone(&mut self, forgotten: impl IntoIterator<Item = JobId>) -> Vec<Chore> {
        self.erasing.extend(forgotten);
        let mut chores: Vec<Chore> =
            self.erasing.iter().map(|job| Chore::Erase { job: job.clone() }).collect();
        // Nobody has joined: none of them holds a slot, as far as is known.
        let ended = self.jobs.values().filter(|job| job.record.state.is_final());
        let ended: Vec<JobId> = ended.map(|job| job.record.id.clone()).collect();
        chores.extend(ended.iter().filter_map(|id| self.tidy_up(id)));
        chores
    }

    /// Forgets jobs that ended too long ago, or before too many others.
    pub(crate) fn forget_old(&mut self, effects: &mut Vec<Effect>) {
        let old = self.too_old().filter(|id| self.past.contains_key(*id)).take(AT_ONCE);
        let old: Vec<JobId> = old.cloned().collect();
        old.iter().for_each(|id| self.forget_job(id, effects));
    }

    /// Jobs that are to be forgotten by their number or their age, as soon as that is possible.
    fn too_old(&self) -> impl Iterator<Item = &JobId> {
        let keep = self.config.keep_jobs.map_or(usize::MAX, |keep| keep as usize);
        let before = self.config.keep_ms.and_then(|keep| self.now.unix_ms.checked_sub(keep));
        let surplus = self.finished.len().saturating_sub(keep);
        let old = self.finished.iter().enumerate().take_while(move |(place, (ended, _))| {
            *place < surplus || before.is_some_and(|before| *ended <= before)
        });
        old.map(|(_, (_, id))| id)
    }

    /// When the next job is to be forgotten, on the monotonic clock. One that is not yet in order does not count: its turn
    /// comes when it is.
    pub(crate) fn next_to_forget(&self) -> Option<u64> {
        let now = self.now;
        if self.too_old().any(|id| self.past.contains_key(id)) {
            return Some(now.mono_ms + 1);
        }
        let keep = self.config.keep_ms?;
        let next = self.finished.iter().map(|(ended, _)| ended + keep).find(|at| *at > now.unix_ms)?;
        Some(now.mono_ms + (next - now.unix_ms))
    }

    /// Forgets cordons of workers that have been away for too long, and notes that the others are here.
    pub(crate) fn forget_cordons(&mut self, effects: &mut Vec<Effect>) {
        let (now, keep) = (self.now.unix_ms, self.config.keep_cordons_ms);
        let mut gone: Vec<WorkerId> = Vec::new();
        for (id, mark) in &mut self.cordons {
            let age = now.saturating_sub(mark.seen_unix_ms);
            if self.workers.contains_key(id) {
                // Seldom: the time only has to be about right when the worker goes.
                if age > keep / 2 {
                    mark.seen_unix_ms = now;
                    effects.push(Effect::Persist(Write::Worker(Box::new(mark.clone()))));
                }
            } else if age > keep {
                gone.push(id.clone());
            }
        }
        for worker in gone {
            self.cordons.remove(&worker);
            effects.push(Effect::Persist(Write::ForgetWorker { worker }));
        }
    }
}
