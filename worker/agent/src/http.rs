//! Probes and metrics over HTTP: `/livez`, `/readyz`, `/metrics`.
//!
//! Everything is read off a copy of the agent's status at each request. Not here: anything that changes the agent.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use lethe_process::Incoming;
use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::{Activity, Error, Result, Status};

/// Answers until this future is dropped.
///
/// # Errors
/// [`Error::Listen`].
pub async fn serve(address: SocketAddr, status: watch::Receiver<Status>) -> Result<()> {
    let refuse = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(refuse)?;
    if let Ok(bound) = listener.local_addr() {
        tracing::info!("/livez, /readyz and /metrics are at http://{bound}");
    }
    let routes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(status);
    axum::serve(Incoming::new(listener), routes).await.map_err(refuse)
}

/// The driver lives as long as it may still change its status.
async fn livez(State(status): State<watch::Receiver<Status>>) -> impl IntoResponse {
    match status.has_changed() {
        Ok(_) => (StatusCode::OK, "ok\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the agent has ended\n"),
    }
}

async fn readyz(State(status): State<watch::Receiver<Status>>) -> impl IntoResponse {
    match obstacle(&status.borrow()) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// Why this worker cannot take work at the moment.
fn obstacle(status: &Status) -> Option<String> {
    if status.draining {
        return Some("draining: takes no more work".to_owned());
    }
    let starting = status.slots.iter().filter(|slot| slot.activity == Activity::Starting).count();
    if starting > 0 || status.slots.is_empty() {
        return Some(format!("{starting} of {} executors are not ready", status.slots.len()));
    }
    (!status.joined).then(|| "no coordinator: not joined".to_owned())
}

async fn metrics(State(status): State<watch::Receiver<Status>>) -> impl IntoResponse {
    let text = exposition(&status.borrow());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

const GAUGES: [(&str, &str); 4] = [
    ("lethe_worker_joined", "Whether a session with a coordinator is open."),
    ("lethe_worker_slots", "Slots, by what their executor does."),
    ("lethe_worker_outcomes_unacknowledged", "Outcomes of leases that no coordinator has acknowledged yet."),
    ("lethe_worker_draining", "Whether the worker takes no more work because it is about to leave."),
];

const COUNTERS: [(&str, &str); 5] = [
    ("lethe_worker_sessions_total", "Sessions begun with a coordinator."),
    ("lethe_worker_leases_finished_total", "Leases ended, by result."),
    ("lethe_worker_executor_deaths_total", "Executors that ended unasked or had to be killed, by reason."),
    ("lethe_worker_chaos_faults_total", "Faults made on purpose (--chaos), by kind."),
    ("lethe_worker_log_lines_lost_total", "Lines of the log that nobody read, or that could not be written."),
];

/// The status in Prometheus' text format.
fn exposition(status: &Status) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    for (name, help) in GAUGES {
        recorder.describe_gauge(KeyName::from_const_str(name), None, help.into());
    }
    for (name, help) in COUNTERS {
        recorder.describe_counter(KeyName::from_const_str(name), None, help.into());
    }
    let gauge = |name, label, value: usize| {
        recorder.register_gauge(&key(name, label), &METADATA).set(value as f64);
    };
    let counter = |name, label, value| {
        recorder.register_counter(&key(name, label), &METADATA).absolute(value);
    };
    gauge(GAUGES[0].0, None, status.joined.into());
    for activity in Activity::ALL {
        let slots = status.slots.iter().filter(|slot| slot.activity == activity).count();
        gauge(GAUGES[1].0, Some(("state", activity.name())), slots);
    }
    gauge(GAUGES[2].0, None, status.unacknowledged);
    gauge(GAUGES[3].0, None, status.draining.into());
    let counts = &status.counts;
    counter(COUNTERS[0].0, None, counts.sessions);
    for (result, count) in [
        ("success", counts.succeeded),
        ("failure", counts.failed),
        ("cancelled", counts.cancelled),
        ("yielded", counts.yielded),
    ] {
        counter(COUNTERS[1].0, Some(("result", result)), count);
    }
    for (reason, count) in [
        ("at_work", counts.died_at_work),
        ("idle", counts.died_idle),
        ("did_not_start", counts.did_not_start),
        ("did_not_stop", counts.did_not_stop),
    ] {
        counter(COUNTERS[2].0, Some(("reason", reason)), count);
    }
    let faults = &status.faults;
    for (fault, count) in [("kill", faults.kills), ("hang", faults.hangs), ("drop", faults.drops)] {
        counter(COUNTERS[3].0, Some(("fault", fault)), count);
    }
    counter(COUNTERS[4].0, None, lethe_process::lost_lines());
    recorder.handle().render()
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

fn key(name: &'static str, label: Option<(&'static str, &'static str)>) -> Key {
    let labels: Vec<Label> =
        label.into_iter().map(|(name, value)| Label::from_static_parts(name, value)).collect();
    Key::from_parts(name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counts, Faults, SlotView};

    fn status() -> Status {
        let slot = |activity| SlotView { device: "cpu".to_owned(), activity, lease: None };
        Status {
            joined: true,
            draining: false,
            slots: vec![slot(Activity::Idle), slot(Activity::Busy), slot(Activity::Busy)],
            unacknowledged: 1,
            counts: Counts { failed: 2, died_at_work: 2, yielded: 3, ..Counts::default() },
            faults: Faults { kills: 4, ..Faults::default() },
        }
    }

    #[test]
    fn every_series_is_there_with_help_from_the_beginning() {
        let text = exposition(&status());
        for line in [
            "lethe_worker_joined 1",
            "lethe_worker_slots{state=\"busy\"} 2",
            "lethe_worker_slots{state=\"starting\"} 0",
            "lethe_worker_outcomes_unacknowledged 1",
            "lethe_worker_leases_finished_total{result=\"failure\"} 2",
            "lethe_worker_leases_finished_total{result=\"success\"} 0",
            "lethe_worker_executor_deaths_total{reason=\"at_work\"} 2",
            "lethe_worker_draining 0",
            "lethe_worker_leases_finished_total{result=\"yielded\"} 3",
            "lethe_worker_chaos_faults_total{fault=\"kill\"} 4",
            "lethe_worker_chaos_faults_total{fault=\"drop\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        for (name, help) in GAUGES.into_iter().chain(COUNTERS) {
            assert!(text.contains(&format!("# HELP {name} {help}")), "{name}\n{text}");
        }
    }

    #[test]
    fn a_worker_is_ready_when_it_could_take_work() {
        let ready = status();
        assert_eq!(obstacle(&ready), None);
        let mut starting = ready.clone();
        starting.slots[0].activity = Activity::Starting;
        assert_eq!(obstacle(&starting).unwrap(), "1 of 3 executors are not ready");
        let draining = Status { draining: true, ..ready.clone() };
        assert_eq!(obstacle(&draining).unwrap(), "draining: takes no more work");
        assert!(obstacle(&Status { joined: false, ..ready }).unwrap().contains("not joined"));
        assert!(obstacle(&Status::default()).is_some());
    }
}
