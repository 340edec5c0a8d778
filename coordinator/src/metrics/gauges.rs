//! Gauges, read off the state at each scrape: what is no longer there (a job that ended, a state nobody is in) cannot
//! linger.

use std::collections::BTreeMap;

use lethe_domain::{Epoch, JobState, JobStatus, Phase, PhaseState, WorkerState, WorkerStatus};
use metrics::{Key, KeyName, Label, Recorder, SharedString};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::METADATA;
use crate::driver::View;

const GAUGES: [(&str, &str); 8] = [
    ("lethe_build_info", "1, with the version of this program."),
    ("lethe_coordinator_epoch", "Fencing token of this leader; rises with every start."),
    ("lethe_jobs", "Jobs, by state."),
    ("lethe_leases", "Leases at work, by phase."),
    ("lethe_workers", "Workers that have joined, by state."),
    ("lethe_slots", "Slots of living workers, by state; only a free one gets work."),
    ("lethe_job_progress_ratio", "Share of its current phase that a running job has done."),
    ("lethe_job_loss", "Loss of the last training step of a job that is being trained."),
];

/// What the gauges are read off.
#[derive(Debug)]
pub(crate) struct Gauges {
    epoch: Epoch,
    jobs: BTreeMap<JobState, u64>,
    running: Vec<JobStatus>,
    workers: Vec<WorkerStatus>,
}

/// Whether this coordinator leads, in Prometheus' text format: there whatever else is not known.
pub(crate) fn leadership(leads: bool) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let (name, help) = ("lethe_leader", "1 while this coordinator leads, 0 otherwise.");
    recorder.describe_gauge(KeyName::from_const_str(name), None, help.into());
    recorder.register_gauge(&Key::from_name(name), &METADATA).set(f64::from(u8::from(leads)));
    recorder.handle().render()
}

impl Gauges {
    pub(crate) fn of(view: &View) -> Self {
        let jobs = JobState::ALL.into_iter().map(|state| (state, view.jobs_in(state))).collect();
        Self { epoch: view.epoch(), jobs, running: view.running().collect(), workers: view.workers() }
    }

    /// In Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        for (name, help) in GAUGES {
            recorder.describe_gauge(KeyName::from_const_str(name), None, help.into());
        }
        let set = |name: &'static str, labels: Vec<Label>, value: f64| {
            recorder.register_gauge(&Key::from_parts(name, labels), &METADATA).set(value);
        };
        set("lethe_build_info", vec![label("version", env!("CARGO_PKG_VERSION"))], 1.0);
        set("lethe_coordinator_epoch", vec![], self.epoch.0 as f64);
        for (state, count) in &self.jobs {
            set("lethe_jobs", vec![label("state", state.name())], *count as f64);
        }
        for (phase, count) in self.leases() {
            set("lethe_leases", vec![label("phase", phase.name())], count as f64);
        }
        for state in WorkerState::ALL {
            let count = self.workers.iter().filter(|worker| worker.state == state).count();
            set("lethe_workers", vec![label("state", state.name())], count as f64);
        }
        for (state, count) in self.slots() {
            set("lethe_slots", vec![label("state", state)], count as f64);
        }
        for job in &self.running {
            let Some(phase) = job.phases.iter().find(|phase| phase.state == PhaseState::Running) else {
                continue;
            };
            if phase.total > 0 {
                let labels =
                    vec![label("job", job.id.as_str().to_owned()), label("phase", phase.phase.name())];
                set("lethe_job_progress_ratio", labels, phase.done as f64 / phase.total as f64);
            }
            if let Some(loss) = phase.loss {
                set("lethe_job_loss", vec![label("job", job.id.as_str().to_owned())], loss);
            }
        }
        recorder.handle().render()
    }

    /// Slots of living workers, each in one state. Only a free one gets work.
    fn slots(&self) -> BTreeMap<&'static str, u64> {
        let states = ["busy", "free", "quarantined", "draining", "suspect", "starting"];
        let mut slots: BTreeMap<&'static str, u64> = states.into_iter().map(|state| (state, 0)).collect();
        for worker in self.workers.iter().filter(|worker| worker.state != WorkerState::Dead) {
            for slot in &worker.slots {
                let state = match worker.state {
                    _ if slot.lease.is_some() => "busy",
                    _ if slot.quarantine.is_some() => "quarantined",
                    WorkerState::Draining => "draining",
                    WorkerState::Suspect => "suspect",
                    _ if !slot.proven => "starting",
                    _ => "free",
                };
                *slots.entry(state).or_default() += 1;
            }
        }
        slots
    }

    fn leases(&self) -> BTreeMap<Phase, u64> {
        let mut leases: BTreeMap<Phase, u64> = Phase::ALL.into_iter().map(|phase| (phase, 0)).collect();
        for lease in
            self.workers.iter().flat_map(|worker| &worker.slots).filter_map(|slot| slot.lease.as_ref())
        {
            *leases.entry(lease.phase).or_default() += 1;
        }
        leases
    }
}

fn label(name: &'static str, value: impl Into<SharedString>) -> Label {
    Label::new(name, value.into())
}
