//! A job's states as a stream: now, at each change, until it is final.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, unfold};
use lethe_domain::{JobId, JobStatus};
use lethe_proto::status::Refusal;
use lethe_proto::v1;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::driver::{DriverHandle, going_away};

/// At least so long between two states: five in a second are enough for people.
const PACE: Duration = Duration::from_millis(200);

struct Watch {
    driver: DriverHandle,
    id: JobId,
    changed: watch::Receiver<()>,
    /// When the last state was given.
    given: Option<Instant>,
    ended: bool,
}

/// Begins to watch.
///
/// # Errors
/// There is no such job, or the coordinator cannot answer.
pub(super) async fn watch(
    driver: DriverHandle,
    id: JobId,
) -> Result<BoxStream<'static, Result<v1::WatchJobResponse, Status>>, Refusal> {
    let changed = driver.watch(&id)?;
    let watch = Watch { driver, id, changed, given: None, ended: false };
    let states = unfold(watch, |mut watch| async move {
        if watch.ended {
            return None;
        }
        let state = watch.next().await;
        watch.ended = state.as_ref().map_or(true, |status| status.state.is_final());
        let response = state.map(|status| v1::WatchJobResponse { job: Some(status.into()) });
        Some((response.map_err(Status::from), watch))
    });
    Ok(states.boxed())
}

impl Watch {
    async fn next(&mut self) -> Result<JobStatus, Refusal> {
        if let Some(given) = self.given {
            self.changed.changed().await.map_err(|_| going_away())?;
            sleep_until(given + PACE).await;
        }
        // Changes from here on are news.
        self.changed.mark_unchanged();
        self.given = Some(Instant::now());
        Ok(self.driver.job(&self.id).await?.status)
    }
}
