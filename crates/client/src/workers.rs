//! Calls about workers.
//!
//! Not here: a worker's own session (`session`).

use lethe_domain::{SlotIndex, WorkerId, WorkerStatus};
use lethe_proto::v1::fleet_service_client::FleetServiceClient;
use lethe_proto::{MAX_MESSAGE_BYTES, v1};
use tonic::transport::Channel;

use crate::{Client, Error};

/// The fleet service at the other end. A list of thousands of workers is long.
fn fleet(channel: Channel) -> FleetServiceClient<Channel> {
    FleetServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

impl Client {
    /// Workers that have joined, and those lost lately.
    ///
    /// # Errors
    /// As every call.
    pub async fn workers(&self) -> Result<Vec<WorkerStatus>, Error> {
        let request = v1::ListWorkersRequest {};
        let answer =
            self.call(request, async |channel, request| fleet(channel).list_workers(request).await).await?;
        self.all_understood(answer.workers, "workers")
    }

    /// One worker as it stands.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn worker(&self, id: &WorkerId) -> Result<WorkerStatus, Error> {
        let request = v1::GetWorkerRequest { worker_id: id.to_string() };
        let answer =
            self.call(request, async |channel, request| fleet(channel).get_worker(request).await).await?;
        self.understood(answer.worker, "worker")
    }

    /// Gives a worker no more work; it hands back what it has.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn drain(&self, id: &WorkerId) -> Result<WorkerStatus, Error> {
        let request = v1::DrainWorkerRequest { worker_id: id.to_string() };
        let answer =
            self.call(request, async |channel, request| fleet(channel).drain_worker(request).await).await?;
        self.understood(answer.worker, "worker")
    }

    /// Gives a worker, or one slot of it, no work until it is released.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] for a slot that the worker does not have.
    pub async fn quarantine(
        &self,
        id: &WorkerId,
        slot: Option<SlotIndex>,
        reason: &str,
    ) -> Result<WorkerStatus, Error> {
        let request = v1::QuarantineWorkerRequest {
            worker_id: id.to_string(),
            slot: slot.map(|slot| slot.0),
            reason: reason.to_owned(),
        };
        let answer = self
            .call(request, async |channel, request| fleet(channel).quarantine_worker(request).await)
            .await?;
        self.understood(answer.worker, "worker")
    }

    /// Gives a worker, or one slot of it, work again.
    ///
    /// # Errors
    /// As [`Client::quarantine`].
    pub async fn release(&self, id: &WorkerId, slot: Option<SlotIndex>) -> Result<WorkerStatus, Error> {
        let request = v1::ReleaseWorkerRequest { worker_id: id.to_string(), slot: slot.map(|slot| slot.0) };
        let answer =
            self.call(request, async |channel, request| fleet(channel).release_worker(request).await).await?;
        self.understood(answer.worker, "worker")
    }
}
