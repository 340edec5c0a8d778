//! What is counted and timed, under `lethe_*`: base units, closed sets of labels, never a job in a histogram.
//!
//! Each coordinator has its own recorder, so that several can live in one process. Counters and histograms are here;
//! gauges are read off the state at each scrape (`gauges`). Not here: when something is counted (driver, `rpc`).

pub(crate) mod gauges;
pub(crate) mod rpc;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lethe_domain::{JobState, Phase};
use lethe_engine::Metric;
use metrics::{Counter, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::{Error, Result};

/// Milliseconds to seconds: rpcs and store requests.
const FAST: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Parts of a second to hours: leases and phases.
const SLOW: &[f64] =
    &[0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 10_800.0, 36_000.0];

/// Observations after which histograms are folded, so that they do not grow when nobody scrapes.
const FOLD_AFTER: u64 = 4096;

const PHASE_SECONDS: &str = "lethe_phase_duration_seconds";
const RECOVERY_SECONDS: &str = "lethe_gang_recovery_seconds";
const LEASE_SECONDS: &str = "lethe_lease_duration_seconds";
const RPC_SECONDS: &str = "lethe_rpc_duration_seconds";
const LOST_LINES: &str = "lethe_log_lines_lost_total";
const STORE_SECONDS: &str = "lethe_store_request_duration_seconds";

const COUNTERS: [(&str, &str); 14] = [
    (LOST_LINES, "Lines of the log that nobody read, or that could not be written."),
    ("lethe_jobs_submitted_total", "Jobs accepted."),
    ("lethe_jobs_finished_total", "Jobs ended, by how they ended."),
    ("lethe_leases_granted_total", "Leases granted, by phase."),
    ("lethe_leases_finished_total", "Leases that came back, by phase and result."),
    ("lethe_leases_expired_total", "Leases taken back for want of progress, by phase."),
    ("lethe_results_late_total", "Results for a shard that was done already, by phase."),
    (
        "lethe_leases_duplicated_total",
        "Shards given to a second slot because they were out for long, by phase.",
    ),
    ("lethe_workers_lost_total", "Workers that fell silent."),
    (
        "lethe_slots_quarantined_total",
        "Slots taken out of service by their failures, their canary or an operator.",
    ),
    ("lethe_gangs_formed_total", "Generations of gangs formed."),
    ("lethe_leader_transitions_total", "Times this coordinator became the leader."),
    ("lethe_gangs_yielded_total", "Generations of gangs asked to end at a step boundary."),
    (
        "lethe_state_restores_total",
        "Times the state was read again from the store after a write that failed.",
    ),
];

const HISTOGRAMS: [(&str, &str, &[f64]); 5] = [
    (PHASE_SECONDS, "Seconds a phase took, by phase.", SLOW),
    (RECOVERY_SECONDS, "Seconds from the end of a gang's generation to the next one's first step.", SLOW),
    (LEASE_SECONDS, "Seconds from grant to return of a lease, by phase.", SLOW),
    (
        RPC_SECONDS,
        "Seconds until an rpc was answered; of a stream, until it ended. By method and code.",
        FAST,
    ),
    (STORE_SECONDS, "Seconds a request to the state store took, by operation and result.", FAST),
];

/// A request to the state store.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StoreOp {
    Get,
    List,
    Commit,
}

impl StoreOp {
    fn name(self) -> &'static str {
        match self {
            StoreOp::Get => "get",
            StoreOp::List => "list",
            StoreOp::Commit => "commit",
        }
    }
}

/// The counters and histograms of one coordinator.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    observations: AtomicU64,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All counters at zero, with every label they can have.
    pub(crate) fn new() -> Result<Self> {
        let mut builder = PrometheusBuilder::new();
        for (name, _, buckets) in HISTOGRAMS {
            let set = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets);
            builder = set.map_err(|error| Error::Metrics { reason: error.to_string() })?;
        }
        let recorder = builder.build_recorder();
        for (name, help) in COUNTERS {
            recorder.describe_counter(KeyName::from_const_str(name), None, help.into());
        }
        for (name, help, _) in HISTOGRAMS {
            recorder.describe_histogram(KeyName::from_const_str(name), None, help.into());
        }
        let metrics = Self { handle: recorder.handle(), recorder, observations: AtomicU64::new(0) };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// A rate over a counter that appears only with its first event misses that event.
    fn begin_at_zero(&self) {
        for name in [
            "lethe_jobs_submitted_total",
            "lethe_workers_lost_total",
            "lethe_slots_quarantined_total",
            "lethe_gangs_formed_total",
            "lethe_leader_transitions_total",
            "lethe_gangs_yielded_total",
            "lethe_state_restores_total",
        ] {
            self.counter(name, []).increment(0);
        }
        for state in JobState::ALL.into_iter().filter(|state| state.is_final()) {
            self.counter("lethe_jobs_finished_total", [("state", state.name())]).increment(0);
        }
        for phase in Phase::ALL.map(Phase::name) {
            for name in [
                "lethe_leases_granted_total",
                "lethe_leases_expired_total",
                "lethe_leases_duplicated_total",
                "lethe_results_late_total",
            ] {
                self.counter(name, [("phase", phase)]).increment(0);
            }
            for result in ["success", "failure"] {
                self.counter("lethe_leases_finished_total", [("phase", phase), ("result", result)])
                    .increment(0);
            }
        }
    }

    /// Counts what the engine wants counted.
    pub(crate) fn count(&self, metric: &Metric) {
        let one = |name, phase: Phase| self.counter(name, [("phase", phase.name())]).increment(1);
        match metric {
            Metric::JobSubmitted => self.counter("lethe_jobs_submitted_total", []).increment(1),
            Metric::JobFinished { state } => {
                self.counter("lethe_jobs_finished_total", [("state", state.name())]).increment(1);
            }
            Metric::PhaseFinished { phase, seconds } => {
                self.observe(PHASE_SECONDS, [("phase", phase.name())], *seconds);
            }
            Metric::LeaseGranted { phase } => one("lethe_leases_granted_total", *phase),
            Metric::LeaseFinished { phase, seconds, success } => {
                let labels =
                    [("phase", phase.name()), ("result", if *success { "success" } else { "failure" })];
                self.counter("lethe_leases_finished_total", labels).increment(1);
                self.observe(LEASE_SECONDS, [("phase", phase.name())], *seconds);
            }
            Metric::LeaseExpired { phase } => one("lethe_leases_expired_total", *phase),
            Metric::LateResult { phase } => one("lethe_results_late_total", *phase),
            Metric::LeaseDuplicated { phase } => one("lethe_leases_duplicated_total", *phase),
            Metric::SlotQuarantined => self.counter("lethe_slots_quarantined_total", []).increment(1),
            Metric::GangYielded => self.counter("lethe_gangs_yielded_total", []).increment(1),
            Metric::GangRecovered { seconds } => self.observe(RECOVERY_SECONDS, [], *seconds),
            Metric::WorkerLost => self.counter("lethe_workers_lost_total", []).increment(1),
            Metric::GangFormed { world: _ } => self.counter("lethe_gangs_formed_total", []).increment(1),
        }
    }

    /// Counts that this coordinator became the leader.
    pub(crate) fn elected(&self) {
        self.counter("lethe_leader_transitions_total", []).increment(1);
    }

    /// Counts that the state was read again after a write that failed.
    pub(crate) fn restored(&self) {
        self.counter("lethe_state_restores_total", []).increment(1);
    }

    /// Times a request to the state store.
    pub(crate) async fn store_request<T>(
        &self,
        op: StoreOp,
        request: impl Future<Output = lethe_store::Result<T>>,
    ) -> lethe_store::Result<T> {
        let begin = Instant::now();
        let answer = request.await;
        let result = if answer.is_ok() { "success" } else { "failure" };
        let labels = [("op", op.name()), ("result", result)];
        self.observe(STORE_SECONDS, labels, begin.elapsed().as_secs_f64());
        answer
    }

    /// An rpc is over.
    pub(crate) fn rpc(&self, method: &'static str, code: &'static str, took: Duration) {
        self.observe(RPC_SECONDS, [("method", method), ("code", code)], took.as_secs_f64());
    }

    /// Counters and histograms in Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        self.counter(LOST_LINES, []).absolute(lethe_process::lost_lines());
        self.handle.render()
    }

    fn counter<const N: usize>(
        &self,
        name: &'static str,
        labels: [(&'static str, &'static str); N],
    ) -> Counter {
        self.recorder.register_counter(&key(name, labels), &METADATA)
    }

    fn observe<const N: usize>(
        &self,
        name: &'static str,
        labels: [(&'static str, &'static str); N],
        seconds: f64,
    ) {
        let histogram: Histogram = self.recorder.register_histogram(&key(name, labels), &METADATA);
        histogram.record(seconds);
        if self.observations.fetch_add(1, Ordering::Relaxed) % FOLD_AFTER == FOLD_AFTER - 1 {
            self.handle.run_upkeep();
        }
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

fn key<const N: usize>(name: &'static str, labels: [(&'static str, &'static str); N]) -> Key {
    let labels: Vec<Label> =
        labels.into_iter().map(|(name, value)| Label::from_static_parts(name, value)).collect();
    Key::from_parts(name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_help_and_counters_begin_at_zero() {
        let metrics = Metrics::new().unwrap();
        metrics.count(&Metric::PhaseFinished { phase: Phase::Sample, seconds: 2.0 });
        metrics.count(&Metric::LeaseFinished { phase: Phase::Sample, seconds: 0.2, success: true });
        metrics.rpc("GetJob", "ok", Duration::from_millis(3));
        let text = metrics.render();
        for line in [
            "lethe_jobs_finished_total{state=\"cancelled\"} 0",
            "lethe_leases_finished_total{phase=\"sample\",result=\"success\"} 1",
            "lethe_leases_finished_total{phase=\"sample\",result=\"failure\"} 0",
            "lethe_phase_duration_seconds_bucket{phase=\"sample\",le=\"1\"} 0",
            "lethe_phase_duration_seconds_bucket{phase=\"sample\",le=\"3\"} 1",
            "lethe_rpc_duration_seconds_sum{method=\"GetJob\",code=\"ok\"} 0.003",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        for (name, help) in COUNTERS {
            assert!(text.contains(&format!("# HELP {name} {help}")), "{name}\n{text}");
        }
    }
}
