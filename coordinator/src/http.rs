//! The HTTP edge: probes, metrics, and the page. Plain text and HTML, nothing that changes anything.
//!
//! Not here: what the page looks like (`page`).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use lethe_artifacts::ArtifactStore;
use lethe_domain::JobId;
use lethe_process::Incoming;
use lethe_proto::status::Refusal;
use lethe_store::StateStore;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::driver::{DriverHandle, Readiness};
use crate::metrics::Metrics;
use crate::metrics::gauges::{self, Gauges};
use crate::page::{JobPage, Overview, Page};
use crate::published::{BEFORE_AFTER, find, refusal};
use crate::{Error, Result};

/// How long /readyz waits for the store.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// What the routes work with.
#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) driver: DriverHandle,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) artifacts: ArtifactStore,
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves until `end`.
///
/// # Errors
/// [`Error::Ended`] when the listener fails.
pub(crate) async fn serve(
    web: Web,
    listener: TcpListener,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let routes = Router::new()
        .route("/", get(overview))
        .route("/jobs/{id}", get(job))
        .route("/jobs/{id}/before_after.png", get(before_after))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(async || html(StatusCode::NOT_FOUND, &Page::message("Not found", "There is no such page.")))
        .with_state(web);
    let served = axum::serve(Incoming::new(listener), routes).with_graceful_shutdown(end).await;
    served.map_err(|error| Error::Ended { part: "HTTP server", reason: error.to_string() })
}

/// Whether the process makes progress. It does while its store is down.
async fn livez(State(web): State<Web>) -> (StatusCode, &'static str) {
    if web.driver.is_alive() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the driver has ended\n")
    }
}

/// Whether clients should be sent here.
async fn readyz(State(web): State<Web>) -> (StatusCode, String) {
    let not_ready = |reason: String| (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
    let ready = match web.driver.readiness().borrow().clone() {
        Readiness::Ready => "ok\n".to_owned(),
        Readiness::Following(leader) => format!("ok: the coordinator at {leader} leads\n"),
        Readiness::StoreDown(reason) => return not_ready(format!("the state store is down: {reason}")),
        Readiness::Draining => return not_ready("shutting down".to_owned()),
    };
    // Any key will do: what counts is that the store answers.
    match timeout(STORE_PATIENCE, web.store.get("epoch")).await {
        Ok(Ok(_)) => (StatusCode::OK, ready),
        Ok(Err(error)) => not_ready(format!("the state store is down: {error}")),
        Err(_) => not_ready(format!("the state store does not answer within {STORE_PATIENCE:?}")),
    }
}

async fn metrics(State(web): State<Web>) -> Response {
    let mut text = web.metrics.render();
    let leads = *web.driver.readiness().borrow() == Readiness::Ready;
    text.push_str(&gauges::leadership(leads));
    // Without an answer (another one leads, or the store is down) there are no gauges of jobs and workers.
    if let Ok(view) = web.driver.live_view() {
        text.push_str(&Gauges::of(&view).render());
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn overview(State(web): State<Web>) -> Response {
    match web.driver.view().await {
        Ok(view) => html(StatusCode::OK, &Overview::of(&view).render()),
        Err(refusal) => refused(&refusal),
    }
}

async fn job(State(web): State<Web>, Path(id): Path<String>) -> Response {
    let Ok(id) = JobId::new(id) else { return no_such_job() };
    match web.driver.job(&id).await.map(JobPage::of) {
        Ok(mut page) => {
            page.read_curve(&web.artifacts).await;
            html(StatusCode::OK, &page.render())
        }
        Err(Refusal::NotFound { .. }) => no_such_job(),
        Err(refusal) => refused(&refusal),
    }
}

async fn before_after(State(web): State<Web>, Path(id): Path<String>) -> Response {
    let Ok(id) = JobId::new(id) else { return no_such_job() };
    let artifact = match find(&web.driver, &id, BEFORE_AFTER).await {
        Ok(artifact) => artifact,
        Err(refusal) => return refused(&refusal),
    };
    match web.artifacts.get(&artifact).await {
        Ok(bytes) => {
            let headers = [
                (header::CONTENT_TYPE, "image/png"),
                (header::CACHE_CONTROL, "private, max-age=3600"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            (headers, Body::from(bytes)).into_response()
        }
        Err(error) => refused(&refusal(&error)),
    }
}

fn no_such_job() -> Response {
    html(StatusCode::NOT_FOUND, &Page::message("Not found", "There is no such job."))
}

/// Why there is nothing to show, as a page.
fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::NotFound { .. } => StatusCode::NOT_FOUND,
        Refusal::Conflict { .. } => StatusCode::CONFLICT,
        Refusal::Denied { .. } => StatusCode::FORBIDDEN,
        Refusal::Unavailable { .. } | Refusal::NotLeader { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Spec(_) | Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
        Refusal::Failure(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    html(status, &Page::message("Not now", &refusal.to_string()))
}

/// A page that may load nothing but its own style and the pictures of this server.
fn html(status: StatusCode, page: &Page) -> Response {
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (status, headers, page.render(&nonce)).into_response()
}
