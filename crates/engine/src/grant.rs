//! From jobs and slots to the planner's integers and back: granting leases, forming gangs, saying why something waits.

use lethe_domain::spec::Device as Wanted;
use lethe_domain::{
    ArtifactRef, Assignment, Epoch, JobId, JobSpec, JobState, LeaseId, Phase, SampleRange, ShardIndex,
    SlotRef, Task, TaskOutput, Waiting,
};

use crate::job::outputs_in_order;
use crate::lease_work::LeaseWork;
use crate::planner::{self, Answer, Demand, Device, Kind, Problem};
use crate::state::{Job, Work};
use crate::{Command, Effect, Metric, State, Write};

impl State {
    /// Gives free slots to whoever needs them, oldest job first.
    pub(crate) fn grant(&mut self, effects: &mut Vec<Effect>) {
        self.note_patience();
        let ids: Vec<JobId> = self.order.iter().filter(|id| self.is_live(id)).cloned().collect();
        let slots: Vec<SlotRef> = self.free_slots().map(|(slot, _)| slot).collect();
        if ids.is_empty() || slots.is_empty() {
            return;
        }
        let answers = planner::plan(&self.problem(&ids));
        for (id, answer) in ids.iter().zip(answers) {
            let Answer::Slots(chosen) = answer else { continue };
            let chosen: Vec<SlotRef> =
                chosen.into_iter().filter_map(|slot| slots.get(slot).cloned()).collect();
            self.mark_running(id, effects);
            if self.jobs.get(id).is_some_and(|job| matches!(job.work, Work::Gang(_))) {
                self.form_gang(id, chosen, effects);
            } else {
                chosen.into_iter().for_each(|slot| self.grant_shard(id, slot, effects));
            }
        }
    }

    /// Why a job does nothing at the moment.
    pub fn waiting(&self, id: &JobId) -> Option<Waiting> {
        if !self.is_live(id) || self.leases_of(id).next().is_some() {
            return None;
        }
        let now = self.now.mono_ms;
        let job = self.jobs.get(id)?;
        let not_before = match &job.work {
            Work::None => None,
            Work::Leases(work) => {
                if work.ready(now) == 0 {
                    work.next_try_ms()
                } else {
                    None
                }
            }
            Work::Gang(work) => Some(work.not_before_ms),
        };
        if let Some(at) = not_before.filter(|at| *at > now) {
            return Some(Waiting::Backoff { ms: at - now });
        }
        let slots: u32 = self.workers.values().map(|worker| worker.slots.len() as u32).sum();
        if slots == 0 {
            return Some(Waiting::NoWorkers);
        }
        let ids: Vec<JobId> = self.order.iter().filter(|id| self.is_live(id)).cloned().collect();
        let place = ids.iter().position(|other| other == id)?;
        match planner::plan(&self.problem(&ids)).into_iter().nth(place)? {
            Answer::Slots(_) | Answer::NothingAsked => None,
            Answer::NoneFree => Some(Waiting::NoFreeSlot { slots }),
            Answer::NoneSuits => Some(Waiting::NoSuitableSlot { slots }),
            Answer::GangWaits { free, .. } => {
                Some(Waiting::GangTooSmall { needs: job.record.spec.resources.slots.min, free })
            }
        }
    }

    fn is_live(&self, id: &JobId) -> bool {
        self.jobs.get(id).is_some_and(|job| match job.record.state {
            JobState::Queued | JobState::Running => true,
            JobState::Cancelling | JobState::Succeeded | JobState::Failed | JobState::Cancelled => false,
        })
    }

    fn problem(&self, ids: &[JobId]) -> Problem {
        let class = |device: &str| if device.starts_with("cuda") { Device::Cuda } else { Device::Cpu };
        let fleet = self.fleet();
        Problem {
            free: self.free_slots().map(|(_, device)| class(device)).collect(),
            fleet,
            demands: ids
                .iter()
                .filter_map(|id| self.jobs.get(id))
                .map(|job| self.demand(job, fleet))
                .collect(),
        }
    }

    /// Slots of the fleet, and GPUs among them.
    fn fleet(&self) -> (u32, u32) {
        let devices = self.workers.values().flat_map(|worker| &worker.slots).map(|slot| slot.device.as_str());
        devices.fold((0, 0), |(all, gpus), device| (all + 1, gpus + u32::from(device.starts_with("cuda"))))
    }

    fn demand(&self, job: &Job, fleet: (u32, u32)) -> Demand {
        let cuda_only = job.record.spec.resources.device == Wanted::Cuda;
        let now = self.now.mono_ms;
        let kind = match &job.work {
            Work::None => Kind::Leases { ready: 0 },
            Work::Leases(work) => Kind::Leases { ready: work.ready(now) },
            Work::Gang(work) if work.gang.is_some() || work.not_before_ms > now => Kind::Leases { ready: 0 },
            Work::Gang(work) => {
                let slots = job.record.spec.resources.slots;
                let parts = u32::try_from(job.record.spec.unlearn.parts()).unwrap_or(u32::MAX);
                let max = slots.max.min(parts);
                let suits = if cuda_only { fleet.1 } else { fleet.0 };
                let patient =
                    work.enough_since_ms.is_none_or(|since| now < since + self.config.gang_patience_ms);
                let min = if patient { max.min(suits).max(slots.min) } else { slots.min };
                Kind::Gang { min, max }
            }
        };
        Demand { kind, cuda_only }
    }

    /// Starts the clock of gangs that could form, but smaller than they might.
    fn note_patience(&mut self) {
        let now = self.now.mono_ms;
        let free = self.free_slots().count() as u32;
        for job in self.jobs.values_mut() {
            let min = job.record.spec.resources.slots.min;
            if let Work::Gang(work) = &mut job.work
                && work.gang.is_none()
            {
                work.enough_since_ms = if free >= min { work.enough_since_ms.or(Some(now)) } else { None };
            }
        }
    }

    fn mark_running(&mut self, id: &JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        if job.record.state == JobState::Queued {
            job.record.state = JobState::Running;
            // The time spent in the queue is not the probe's.
            job.phase_began_ms = self.now.mono_ms;
            effects.push(Effect::Persist(Write::Job(Box::new(job.record.clone()))));
        }
        job.touch();
        effects.push(Effect::Notify { job: id.clone() });
    }

    fn grant_shard(&mut self, id: &JobId, slot: SlotRef, effects: &mut Vec<Effect>) {
        let now = self.now.mono_ms;
        let Some(job) = self.jobs.get_mut(id) else { return };
        let phase = job.record.phase;
        let Work::Leases(work) = &mut job.work else { return };
        let Some((shard, attempt)) = work.grant(now) else { return };
        let range = work.range(shard);
        let Some(task) = task(job, phase, range) else { return };
        let lease = LeaseId { job: id.clone(), phase, shard, attempt };
        let send = self.start_for(id, &slot, lease.clone(), task);
        effects.extend(send);
        effects.push(Effect::Metric(Metric::LeaseGranted { phase }));
        self.occupy(lease, slot);
    }

    fn start_for(&self, id: &JobId, slot: &SlotRef, lease: LeaseId, task: Task) -> Option<Effect> {
        self.jobs.get(id).map(|job| self.start(slot, lease, &job.record.spec, task))
    }

    /// The command that starts a task. The driver fills in the artifact root.
    pub(crate) fn start(&self, slot: &SlotRef, lease: LeaseId, spec: &JobSpec, task: Task) -> Effect {
        let assignment = Box::new(Assignment { lease, spec: spec.clone(), artifacts: String::new(), task });
        Effect::Send { worker: slot.worker.clone(), command: Command::Start { slot: slot.slot, assignment } }
    }

    /// When something will happen by itself: a lease runs out, a worker is dead, a pause is over. None when idle.
    pub fn next_deadline(&self) -> Option<u64> {
        let leases = self.leases.values().filter(|lease| !lease.stopping).map(|lease| lease.deadline_ms);
        let workers = self.workers.values().map(|worker| worker.last_seen_ms + self.config.dead_after_ms);
        let jobs = self.jobs.values().filter_map(|job| match &job.work {
            Work::None if job.record.state == JobState::Cancelling => Some(job.settle_after_ms),
            Work::None => None,
            Work::Leases(work) => work.next_try_ms(),
            Work::Gang(work) if work.gang.is_some() => None,
            Work::Gang(work) => {
                let patience = work.enough_since_ms.map(|since| since + self.config.gang_patience_ms);
                [Some(work.not_before_ms), patience]
                    .into_iter()
                    .flatten()
                    .filter(|at| *at > self.now.mono_ms)
                    .min()
            }
        });
        // A pause that is over but finds no slot must not spin the driver: only the future counts.
        let now = self.now.mono_ms;
        leases.chain(workers).chain(jobs.filter(|at| *at > now)).min()
    }
}

/// The task of a shard, with the outputs of earlier phases it works on.
fn task(job: &Job, phase: Phase, range: SampleRange) -> Option<Task> {
    let outputs = &job.record.outputs;
    let target = || outputs.direction.as_ref().map(|direction| direction.target.clone());
    let weights = || outputs.fine_tune.as_ref().map(|trained| trained.weights.clone());
    Some(match phase {
        Phase::Probe => Task::Probe,
        Phase::Sample => Task::Sample { range },
        Phase::Direction => Task::Direction { scores: scores(job) },
        Phase::FineTune => return None,
        Phase::Evaluate => Task::Evaluate { range, target: target()?, weights: weights()? },
        Phase::Report => Task::Report { moments: moments(job), target: target()? },
        Phase::Publish => Task::Publish { target: target()?, weights: weights()? },
    })
}

fn scores(job: &Job) -> Vec<ArtifactRef> {
    let counted = job.record.outputs.sample_shards.unwrap_or(0);
    outputs_in_order(&job.sample_done, counted)
        .filter_map(
            |output| if let TaskOutput::Sample(sample) = output { Some(sample.scores.clone()) } else { None },
        )
        .collect()
}

fn moments(job: &Job) -> Vec<ArtifactRef> {
    let counted = LeaseWork::new(Phase::Evaluate, &job.record.spec, Epoch(1)).limit;
    outputs_in_order(&job.evaluate_done, counted)
        .filter_map(
            |output| {
                if let TaskOutput::Evaluate(shard) = output { Some(shard.moments.clone()) } else { None }
            },
        )
        .collect()
}

/// Used by the status to count shards of phases that are over.
pub(crate) fn shards_done(job: &Job, phase: Phase) -> u32 {
    match phase {
        Phase::Sample => job.sample_done.range(..ShardIndex(u32::MAX)).count() as u32,
        Phase::Evaluate => job.evaluate_done.len() as u32,
        Phase::Probe | Phase::Direction | Phase::FineTune | Phase::Report | Phase::Publish => 1,
    }
}
