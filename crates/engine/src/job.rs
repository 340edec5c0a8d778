//! A job's way through its phases: opening, finishing, failing, cancelling.

use lethe_domain::{
    Epoch, ErrorCode, Failure, Inputs, JobId, JobSpec, JobState, LeaseId, Phase, Principal, Shape,
    ShardIndex, TaskOutput, spec::Until,
};

use crate::lease_work::LeaseWork;
use crate::record::Reached;
use crate::state::{Job, Lease, Work};
use crate::{Command, Effect, JobRecord, Metric, Now, State, Write};

impl Job {
    /// Sets up the work of the phase the record is in.
    pub(crate) fn open_phase(&mut self, epoch: Epoch) {
        self.work = match self.record.state {
            JobState::Queued | JobState::Running => match self.record.phase.shape() {
                Shape::Single | Shape::Sharded => {
                    Work::Leases(Box::new(LeaseWork::new(self.record.phase, &self.record.spec, epoch)))
                }
                Shape::Gang => Work::Gang(Box::default()),
            },
            JobState::Cancelling | JobState::Succeeded | JobState::Failed | JobState::Cancelled => Work::None,
        };
    }

    /// Seconds since the current phase began, under this leader or another.
    pub(crate) fn phase_seconds(&self, now: Now) -> f64 {
        now.unix_ms.saturating_sub(self.record.phase_began_unix_ms) as f64 / 1000.0
    }

    /// Writes down how long the current phase took.
    fn close_phase(&mut self, now: Now) -> f64 {
        let seconds = self.phase_seconds(now);
        *self.record.seconds.entry(self.record.phase).or_default() += seconds;
        self.record.phase_began_unix_ms = now.unix_ms;
        seconds
    }

    /// Why the job ends before its time, and how far it was if it had begun, for its record.
    fn end_with(&mut self, failure: Option<Failure>, reached: Option<Reached>, now: Now) {
        if let Some(reached) = reached {
            self.close_phase(now);
            self.record.reached.insert(self.record.phase, reached);
        }
        self.record.failure = failure;
        self.work = Work::None;
    }
}

impl State {
    /// Accepts a job.
    pub(crate) fn on_submit(
        &mut self,
        by: Principal,
        id: JobId,
        spec: JobSpec,
        inputs: Inputs,
        request_id: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        if request_id.as_deref().is_some_and(|request| self.job_of_request(&by, request).is_some()) {
            return;
        }
        let record = JobRecord::new(by, id.clone(), spec, inputs, request_id, self.now.unix_ms);
        effects.push(Effect::Persist(Write::Job(Box::new(record.clone()))));
        effects.push(Effect::Metric(Metric::JobSubmitted));
        effects.push(Effect::Notify { job: id.clone() });
        self.insert(Job::new(record, self.now, self.epoch));
    }

    /// Begins to end a job; it is cancelled when its last slot is free.
    pub(crate) fn on_cancel(&mut self, id: &JobId, reason: &str, effects: &mut Vec<Effect>) {
        let now = self.now;
        let reached = self.reached(id);
        let Some(job) = self.jobs.get_mut(id) else { return };
        if job.record.state.is_final() || job.record.state == JobState::Cancelling {
            return;
        }
        job.record.state = JobState::Cancelling;
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let mut failure = Failure::new(ErrorCode::Cancelled, format!("job {id} was cancelled{why}"), "");
        failure.at_unix_ms = now.unix_ms;
        job.end_with(Some(failure), reached, now);
        job.touch();
        effects.push(Effect::Persist(Write::Job(Box::new(job.record.clone()))));
        effects.push(Effect::Notify { job: id.clone() });
        self.dirty.insert(id.clone());
        self.stop_leases(id, |_, _| true, effects);
        self.settle_cancel(id, effects);
    }

    /// A job being cancelled is cancelled once it holds no slot.
    pub(crate) fn settle_cancel(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        let now = self.now.mono_ms;
        let due = |job: &Job| job.record.state == JobState::Cancelling && job.settle_after_ms <= now;
        if self.jobs.get(id).is_some_and(due) && self.leases_of(id).next().is_none() {
            self.end_job(id, JobState::Cancelled, effects);
        }
    }

    /// Ends a job by a failure.
    pub(crate) fn fail_job(&mut self, id: &JobId, mut failure: Failure, effects: &mut Vec<Effect>) {
        if failure.at_unix_ms == 0 {
            failure.at_unix_ms = self.now.unix_ms;
        }
        let (now, reached) = (self.now, self.reached(id));
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.end_with(Some(failure), reached, now);
        self.end_job(id, JobState::Failed, effects);
        self.stop_leases(id, |_, _| true, effects);
    }

    fn end_job(&mut self, id: &JobId, state: JobState, effects: &mut Vec<Effect>) {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.record.state = state;
        job.record.finished_unix_ms = Some(now.unix_ms);
        job.work = Work::None;
        // Nobody asks for them any more.
        job.done.clear();
        job.touch();
        self.live.remove(&job.place());
        self.finished.insert(job.end());
        self.dirty.insert(id.clone());
        effects.push(Effect::Persist(Write::Job(Box::new(job.record.clone()))));
        effects.push(Effect::Persist(Write::ForgetShards { job: id.clone() }));
        effects.push(Effect::Metric(Metric::JobFinished { state }));
        effects.push(Effect::Notify { job: id.clone() });
        self.settle_end(id, effects);
        let due = self.next_to_forget();
        due.into_iter().for_each(|at| self.wake(at));
    }

    /// Tells the slots of a job to stop, those whose lease the filter names.
    pub(crate) fn stop_leases(
        &mut self,
        id: &JobId,
        filter: impl Fn(&LeaseId, &Lease) -> bool,
        effects: &mut Vec<Effect>,
    ) {
        for (lease, held) in self.leases_of_mut(id).filter(|(lease, held)| filter(lease, held)) {
            if std::mem::replace(&mut held.stopping, true) {
                continue;
            }
            let command = Command::Stop { slot: held.slot.slot, lease: lease.clone() };
            effects.push(Effect::Send { worker: held.slot.worker.clone(), command });
        }
    }

    /// A result. `held` is the lease it came under, unless a leader before this one granted it.
    pub(crate) fn on_output(
        &mut self,
        lease: &LeaseId,
        held: Option<&Lease>,
        output: TaskOutput,
        effects: &mut Vec<Effect>,
    ) {
        let late = Effect::Metric(Metric::LateResult { phase: lease.phase });
        let Some(job) = self.jobs.get_mut(&lease.job) else { return effects.push(late) };
        if job.record.phase != lease.phase || output.phase() != lease.phase {
            return effects.push(late);
        }
        match &mut job.work {
            Work::None => return effects.push(late),
            Work::Leases(_) => {
                if !self.keep_outputs(lease, held, output, effects) {
                    return effects.push(late);
                }
            }
            Work::Gang(work) => {
                let current = work.gang.as_ref().is_some_and(|gang| gang.generation.0 == lease.attempt.0);
                if !current {
                    return effects.push(late);
                }
                // Ranks other than 0 have nothing to say.
                if matches!(output, TaskOutput::FineTune(None)) {
                    return;
                }
                job.record.outputs.keep(output);
            }
        }
        self.finish_phase_if_complete(&lease.job, effects);
    }

    /// Keeps the outputs of a lease's shards. False when none of them was wanted.
    fn keep_outputs(
        &mut self,
        lease: &LeaseId,
        held: Option<&Lease>,
        output: TaskOutput,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let outputs = output.each();
        let Some(job) = self.jobs.get_mut(&lease.job) else { return false };
        let Work::Leases(work) = &mut job.work else { return false };
        let mut done = Vec::new();
        let mut failed_on = Vec::new();
        let mut twins = false;
        for (shard, output) in (lease.shard.0..work.limit).map(ShardIndex).zip(outputs) {
            let failed = work.failed_on(shard).to_vec();
            twins |= work.leases_over(shard) > u32::from(held.is_some());
            if !work.finish(shard, &output) {
                continue;
            }
            failed_on.extend(failed);
            done.push(shard);
            if lease.phase.shape() == Shape::Sharded {
                effects.push(Effect::Persist(Write::Shard {
                    job: lease.job.clone(),
                    phase: lease.phase,
                    shard,
                    output: Box::new(output),
                }));
            } else {
                job.record.outputs.keep(output);
            }
        }
        // A lease that gave fewer outputs than it has shards gives the others back.
        let rest: Vec<ShardIndex> = held.map_or_else(Vec::new, |held| {
            held.shards(lease).filter(|shard| !done.contains(shard) && work.give_back(*shard)).collect()
        });
        let now = self.now.mono_ms;
        rest.into_iter().for_each(|shard| work.try_again(shard, now));
        // Twins have nothing left to do once every shard of theirs is done. Few leases have any: do not look for nothing.
        let idle: Vec<LeaseId> = self
            .leases_of(&lease.job)
            .take_while(|_| twins)
            .filter(|(id, twin)| id.phase == lease.phase && done.iter().any(|shard| twin.covers(id, *shard)))
            .filter(|(id, twin)| twin.shards(id).all(|shard| self.is_done(&lease.job, shard)))
            .map(|(id, _)| id.clone())
            .collect();
        if !idle.is_empty() {
            self.stop_leases(&lease.job, |id, _| idle.contains(id), effects);
        }
        if let Some(held) = held {
            self.clear_blame(&held.slot, &failed_on, effects);
        }
        !done.is_empty()
    }

    fn is_done(&self, job: &JobId, shard: ShardIndex) -> bool {
        matches!(self.jobs.get(job), Some(Job { work: Work::Leases(work), .. }) if work.is_done(shard))
    }

    /// Moves a job on when its phase is done.
    pub(crate) fn finish_phase_if_complete(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        let (now, epoch) = (self.now, self.epoch);
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.touch();
        effects.push(Effect::Notify { job: id.clone() });
        let phase = job.record.phase;
        let done = match &job.work {
            Work::None => false,
            Work::Leases(work) => work.complete().is_some(),
            Work::Gang(_) => job.record.outputs.get(phase).is_some(),
        };
        if !done {
            return;
        }
        if let Some(failure) = job.phase_was_vain() {
            return self.fail_job(id, failure, effects);
        }
        job.record.reached.insert(phase, job.all_of_phase());
        if let Work::Leases(work) = &mut job.work
            && phase.shape() == Shape::Sharded
        {
            job.done.insert(phase, work.take_done());
        }
        let seconds = job.close_phase(now);
        effects.push(Effect::Metric(Metric::PhaseFinished { phase, seconds }));
        match phase.shape() {
            // Open leases of a sampling that has enough are of no more use.
            Shape::Sharded => self.stop_leases(id, |lease, _| lease.phase == phase, effects),
            // The other ranks end by themselves; those that stood by do not.
            Shape::Gang => self.stop_spares(id, effects),
            Shape::Single => {}
        }
        self.dirty.insert(id.clone());
        let Some(job) = self.jobs.get_mut(id) else { return };
        if phase == Phase::Direction {
            job.record.keep_to_budget();
        }
        match phase.next(&job.record.spec) {
            Some(next) => {
                job.record.phase = next;
                job.open_phase(epoch);
                effects.push(Effect::Persist(Write::Job(Box::new(job.record.clone()))));
            }
            None => self.end_job(id, JobState::Succeeded, effects),
        }
    }
}

impl Job {
    /// How far a phase is that has just ended: all of it, in the numbers that people see from now on.
    fn all_of_phase(&self) -> Reached {
        let (done, shards) = match &self.work {
            Work::Leases(work) => (work.counted().0, work.complete().unwrap_or(work.limit)),
            Work::Gang(work) => {
                let trained = self.record.outputs.fine_tune();
                (trained.map_or(work.best_step(), |trained| trained.steps), 1)
            }
            Work::None => (0, 0),
        };
        Reached { done, total: done, shards_done: shards, shards, reused: self.shards_reused() }
    }

    /// Shards of the current phase that another job had made before.
    pub(crate) fn shards_reused(&self) -> u32 {
        if let Work::Leases(work) = &self.work { work.shards_reused() } else { 0 }
    }

    /// Why the job cannot go on with what the phase that has just ended gave.
    fn phase_was_vain(&self) -> Option<Failure> {
        match (self.record.phase, &self.work) {
            (Phase::Sample, Work::Leases(work)) => feature_missing(&self.record.spec, work),
            _ => None,
        }
    }
}

/// Whether sampling showed that the feature cannot be located. Not known yet while the cut is not fixed (top q).
fn feature_missing(spec: &JobSpec, work: &LeaseWork) -> Option<Failure> {
    let (samples, positives) = work.counted();
    let positives = positives?;
    let feature = &spec.feature.name;
    if positives == 0 {
        return Some(Failure::new(
            ErrorCode::NoPositives,
            format!("none of {samples} samples shows the feature '{feature}'"),
            "check the classifier's class and threshold (or the scorer's positive rule) on images of the generator, or look at more samples with sample.until.total",
        ));
    }
    if positives == samples {
        return Some(Failure::new(
            ErrorCode::NoNegatives,
            format!("all {samples} samples show the feature '{feature}'"),
            "check the classifier's class and threshold (or the scorer's positive rule): there must be images without the feature to move to",
        ));
    }
    match spec.sample.until {
        Until::Positives(wanted) if positives < wanted => Some(Failure::new(
            ErrorCode::NoPositives,
            format!(
                "only {positives} of {samples} samples show the feature '{feature}', sample.until.positives asks for {wanted}"
            ),
            "lower sample.until.positives, or raise sample.at_most",
        )),
        Until::Positives(_) | Until::Total(_) => None,
    }
}
