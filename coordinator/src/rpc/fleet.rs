//! The fleet service: workers as people see them, and what operators want of them.
//!
//! Not here: the session of a worker (`workers`).

use lethe_domain::{SlotIndex, WorkerId, WorkerOrder};
use lethe_proto::status::Refusal;
use lethe_proto::v1::fleet_service_server::FleetService;
use lethe_proto::{ConversionError, v1};
use tonic::{Request, Response, Status};

use super::caller::caller;
use super::reason::one_line;
use crate::driver::{DriverHandle, no_such_worker};

/// The fleet service of one coordinator.
pub(super) struct Fleet {
    driver: DriverHandle,
}

impl Fleet {
    pub(super) fn new(driver: DriverHandle) -> Self {
        Self { driver }
    }
}

fn read_worker(id: String) -> Result<WorkerId, Refusal> {
    WorkerId::new(id).map_err(|error| Refusal::Malformed(ConversionError::from(error).within("worker_id")))
}

#[tonic::async_trait]
impl FleetService for Fleet {
    async fn get_worker(
        &self,
        request: Request<v1::GetWorkerRequest>,
    ) -> Result<Response<v1::GetWorkerResponse>, Status> {
        let id = read_worker(request.into_inner().worker_id)?;
        let worker = self.driver.live_view()?.worker(&id).ok_or_else(|| no_such_worker(&id))?;
        Ok(Response::new(v1::GetWorkerResponse { worker: Some(worker.into()) }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let by = caller(&request);
        let id = read_worker(request.into_inner().worker_id)?;
        let worker = self.driver.order(by, id, WorkerOrder::Drain).await?;
        Ok(Response::new(v1::DrainWorkerResponse { worker: Some(worker.into()) }))
    }

    async fn quarantine_worker(
        &self,
        request: Request<v1::QuarantineWorkerRequest>,
    ) -> Result<Response<v1::QuarantineWorkerResponse>, Status> {
        let by = caller(&request);
        let v1::QuarantineWorkerRequest { worker_id, slot, reason } = request.into_inner();
        let reason = match one_line(&reason) {
            reason if reason.is_empty() => "quarantined by an operator".to_owned(),
            reason => reason,
        };
        let order = WorkerOrder::Quarantine { slot: slot.map(SlotIndex), reason };
        let worker = self.driver.order(by, read_worker(worker_id)?, order).await?;
        Ok(Response::new(v1::QuarantineWorkerResponse { worker: Some(worker.into()) }))
    }

    async fn release_worker(
        &self,
        request: Request<v1::ReleaseWorkerRequest>,
    ) -> Result<Response<v1::ReleaseWorkerResponse>, Status> {
        let by = caller(&request);
        let v1::ReleaseWorkerRequest { worker_id, slot } = request.into_inner();
        let order = WorkerOrder::Release { slot: slot.map(SlotIndex) };
        let worker = self.driver.order(by, read_worker(worker_id)?, order).await?;
        Ok(Response::new(v1::ReleaseWorkerResponse { worker: Some(worker.into()) }))
    }

    async fn list_workers(
        &self,
        _request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let workers = self.driver.live_view()?.workers();
        Ok(Response::new(v1::ListWorkersResponse { workers: workers.into_iter().map(Into::into).collect() }))
    }
}
