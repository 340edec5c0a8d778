//! The job service.

use futures::stream::BoxStream;
use lethe_artifacts::ArtifactStore;
use lethe_domain::{JobFilter, JobId, JobSpec, Principal, SpecError};
use lethe_proto::status::Refusal;
use lethe_proto::v1::job_service_server::JobService;
use lethe_proto::{ConversionError, LEADER_HEADER, v1};
use tonic::{Request, Response, Status};

use super::caller::caller;
use super::reason::one_line;
use super::{download, watch};
use crate::admission;
use crate::driver::{DriverHandle, Place, WholeJob, no_such_job};

/// Jobs of a page unless the client asks for another number, and the most it gets.
const PAGE: usize = 50;
const LARGEST_PAGE: usize = 1000;

/// The job service of one coordinator.
pub(super) struct Jobs {
    driver: DriverHandle,
    artifacts: ArtifactStore,
}

impl Jobs {
    pub(super) fn new(driver: DriverHandle, artifacts: ArtifactStore) -> Self {
        Self { driver, artifacts }
    }

    /// Whether this request was accepted before: then its files need not be looked at again, and may even be gone.
    async fn is_known(&self, by: &Principal, request_id: &Option<String>) -> Result<bool, Refusal> {
        let Some(id) = request_id else { return Ok(false) };
        Ok(self.driver.view().await?.knows_request(&(by.clone(), id.clone())))
    }
}

/// An answer, and who would know better.
fn seen<T>(message: T, leader: Option<&str>) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(leader) = leader.and_then(|leader| leader.parse().ok()) {
        response.metadata_mut().insert(LEADER_HEADER, leader);
    }
    response
}

/// A spec in one of the forms that it may come in.
enum Source {
    Message(Box<v1::JobSpec>),
    Text(String),
}

fn read_spec(source: Option<Source>) -> Result<JobSpec, SpecError> {
    match source.ok_or_else(|| ConversionError::missing("spec"))? {
        Source::Message(spec) => Ok(JobSpec::try_from(*spec)?),
        Source::Text(text) => JobSpec::parse(&text),
    }
}

impl From<v1::submit_job_request::Source> for Source {
    fn from(source: v1::submit_job_request::Source) -> Self {
        match source {
            v1::submit_job_request::Source::Spec(spec) => Self::Message(Box::new(spec)),
            v1::submit_job_request::Source::SpecText(text) => Self::Text(text),
        }
    }
}

impl From<v1::validate_job_request::Source> for Source {
    fn from(source: v1::validate_job_request::Source) -> Self {
        match source {
            v1::validate_job_request::Source::Spec(spec) => Self::Message(Box::new(spec)),
            v1::validate_job_request::Source::SpecText(text) => Self::Text(text),
        }
    }
}

pub(super) fn read_id(id: String) -> Result<JobId, Refusal> {
    JobId::new(id).map_err(|error| Refusal::Malformed(ConversionError::from(error).within("job_id")))
}

#[tonic::async_trait]
impl JobService for Jobs {
    type WatchJobStream = BoxStream<'static, Result<v1::WatchJobResponse, Status>>;
    type DownloadArtifactStream = BoxStream<'static, Result<v1::DownloadArtifactResponse, Status>>;

    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        let by = caller(&request);
        let v1::SubmitJobRequest { source, request_id, validate_only } = request.into_inner();
        let spec = read_spec(source.map(Into::into)).map_err(Refusal::from)?;
        let request_id = Some(request_id).filter(|id| !id.is_empty());
        self.driver.refuse_unless_leading()?;
        let inputs = if validate_only || !self.is_known(&by, &request_id).await? {
            Some(admission::check(&spec, &self.artifacts).await?)
        } else {
            None
        };
        if validate_only {
            return Ok(Response::new(v1::SubmitJobResponse { job: None }));
        }
        let job = self.driver.submit(by, spec, inputs, request_id).await?;
        Ok(Response::new(v1::SubmitJobResponse { job: Some(job.into()) }))
    }

    async fn validate_job(
        &self,
        request: Request<v1::ValidateJobRequest>,
    ) -> Result<Response<v1::ValidateJobResponse>, Status> {
        let checked = match read_spec(request.into_inner().source.map(Into::into)) {
            Ok(spec) => admission::check(&spec, &self.artifacts).await,
            Err(error) => Err(error.into()),
        };
        let problems = match checked {
            Ok(_) => Vec::new(),
            Err(Refusal::Spec(error)) => error.problems,
            Err(refusal) => return Err(refusal.into()),
        };
        let problems = problems.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ValidateJobResponse { problems }))
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        let id = read_id(request.into_inner().job_id)?;
        let WholeJob { status, record, leader } = self.driver.job(&id).await?;
        let (spec, inputs) = (record.spec.clone(), record.inputs.clone());
        let response = v1::GetJobResponse {
            job: Some(status.into()),
            spec: Some(spec.into()),
            inputs: Some(inputs.into()),
        };
        Ok(seen(response, leader.as_deref()))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let v1::ListJobsRequest { page_size, page_token, filter } = request.into_inner();
        let filter = JobFilter::try_from(filter.unwrap_or_default())
            .map_err(|error| Refusal::Malformed(error.within("filter")))?;
        let malformed = |field, found| Refusal::Malformed(ConversionError::bad(field, found));
        let size = match usize::try_from(page_size) {
            Ok(0) => PAGE,
            Ok(size) => size.min(LARGEST_PAGE),
            Err(_) => {
                return Err(malformed("page_size", format!("found {page_size}, expected 0 or more")).into());
            }
        };
        let before = match page_token.as_str() {
            "" => None,
            token => Some(token.parse::<Place>().map_err(|()| {
                malformed(
                    "page_token",
                    format!("found '{token}', expected next_page_token of the page before"),
                )
            })?),
        };
        let view = self.driver.view().await?;
        let (jobs, next) = view.page(&filter, before.as_ref(), size);
        let jobs = jobs.into_iter().map(|job| job.brief().into()).collect();
        let next_page_token = next.map(|place| place.to_string()).unwrap_or_default();
        Ok(seen(v1::ListJobsResponse { jobs, next_page_token }, view.leader()))
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let id = read_id(request.into_inner().job_id)?;
        Ok(Response::new(watch::watch(self.driver.clone(), id).await?))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let by = caller(&request);
        let v1::CancelJobRequest { job_id, reason } = request.into_inner();
        let reason = one_line(&reason);
        let job = self.driver.cancel(by, read_id(job_id)?, reason).await?;
        Ok(Response::new(v1::CancelJobResponse { job: Some(job.into()) }))
    }

    async fn delete_job(
        &self,
        request: Request<v1::DeleteJobRequest>,
    ) -> Result<Response<v1::DeleteJobResponse>, Status> {
        let by = caller(&request);
        self.driver.delete(by, read_id(request.into_inner().job_id)?).await?;
        Ok(Response::new(v1::DeleteJobResponse {}))
    }

    async fn download_artifact(
        &self,
        request: Request<v1::DownloadArtifactRequest>,
    ) -> Result<Response<Self::DownloadArtifactStream>, Status> {
        let v1::DownloadArtifactRequest { job_id, name } = request.into_inner();
        let id = read_id(job_id)?;
        Ok(Response::new(download::download(&self.driver, &self.artifacts, id, name).await?))
    }

    async fn explain_job(
        &self,
        request: Request<v1::ExplainJobRequest>,
    ) -> Result<Response<v1::ExplainJobResponse>, Status> {
        let id = read_id(request.into_inner().job_id)?;
        let lines = self.driver.live_view()?.explain(&id).ok_or_else(|| no_such_job(&id))?;
        let explanations = lines.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ExplainJobResponse { explanations }))
    }
}
