//! Calls about jobs.

use lethe_domain::{Explanation, Inputs, JobFilter, JobId, JobSpec, JobStatus, SpecError, SpecProblem};
use lethe_proto::v1::job_service_client::JobServiceClient;
use lethe_proto::{ConversionError, MAX_MESSAGE_BYTES, v1};
use tonic::Streaming;
use tonic::transport::Channel;

use crate::{Client, Error};

/// The job service at the other end.
pub(crate) fn jobs(channel: Channel) -> JobServiceClient<Channel> {
    JobServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// Jobs of one page, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<JobStatus>,
    /// What to ask the next page with; none after the last.
    pub next: Option<String>,
}

impl Client {
    /// Submits a job. The same `request_id` twice is the same job, so a try that was not answered may be repeated;
    /// without one, one is made up for this call.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything wrong with the spec; [`Error::Conflict`] for a `request_id` that was used for
    /// another spec.
    pub async fn submit(&self, spec: &JobSpec, request_id: Option<&str>) -> Result<JobStatus, Error> {
        spec.check().map_err(Error::Invalid)?;
        let request_id = request_id.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        let source = Some(v1::submit_job_request::Source::Spec(spec.clone().into()));
        let request = v1::SubmitJobRequest { source, request_id, validate_only: false };
        let answer =
            self.call(request, async |channel, request| jobs(channel).submit_job(request).await).await?;
        self.understood(answer.job, "job")
    }

    /// Looks for everything that can be known to be wrong with a spec, here and at the coordinator, and runs nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything found.
    pub async fn validate(&self, spec: &JobSpec) -> Result<(), Error> {
        spec.check().map_err(Error::Invalid)?;
        let source = Some(v1::validate_job_request::Source::Spec(spec.clone().into()));
        let request = v1::ValidateJobRequest { source };
        let answer =
            self.call(request, async |channel, request| jobs(channel).validate_job(request).await).await?;
        let problems: Vec<SpecProblem> = answer.problems.into_iter().map(Into::into).collect();
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(SpecError { problems })) }
    }

    /// One job as it stands, and what was asked for.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get(&self, id: &JobId) -> Result<(JobStatus, JobSpec), Error> {
        let request = v1::GetJobRequest { job_id: id.to_string() };
        let answer =
            self.call(request, async |channel, request| jobs(channel).get_job(request).await).await?;
        Ok((self.understood(answer.job, "job")?, self.understood(answer.spec, "spec")?))
    }

    /// The files a job reads, as they were when it was accepted.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn inputs(&self, id: &JobId) -> Result<Inputs, Error> {
        let request = v1::GetJobRequest { job_id: id.to_string() };
        let answer =
            self.call(request, async |channel, request| jobs(channel).get_job(request).await).await?;
        self.understood(answer.inputs, "inputs")
    }

    /// One page of all jobs, as [`Client::list_fitting`].
    ///
    /// # Errors
    /// As every call.
    pub async fn list(&self, size: u16, after: Option<&str>) -> Result<Page, Error> {
        self.list_fitting(&JobFilter::default(), size, after).await
    }

    /// One page of the jobs that fit, newest first. `size` 0 leaves it to the coordinator; `after` is the `next` of the page before.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_fitting(
        &self,
        filter: &JobFilter,
        size: u16,
        after: Option<&str>,
    ) -> Result<Page, Error> {
        let page_token = after.unwrap_or_default().to_owned();
        let filter = Some(filter.clone().into());
        let request = v1::ListJobsRequest { page_size: size.into(), page_token, filter };
        let answer =
            self.call(request, async |channel, request| jobs(channel).list_jobs(request).await).await?;
        Ok(Page {
            jobs: self.all_understood(answer.jobs, "jobs")?,
            next: Some(answer.next_page_token).filter(|token| !token.is_empty()),
        })
    }

    /// Asks for a job to end. It has ended when its state says so: watch it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it ended otherwise before.
    pub async fn cancel(&self, id: &JobId, reason: &str) -> Result<JobStatus, Error> {
        let request = v1::CancelJobRequest { job_id: id.to_string(), reason: reason.to_owned() };
        let answer =
            self.call(request, async |channel, request| jobs(channel).cancel_job(request).await).await?;
        self.understood(answer.job, "job")
    }

    /// Has a job that has ended forgotten, with its files. What it published elsewhere stays.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it has not ended, or only just.
    pub async fn delete(&self, id: &JobId) -> Result<(), Error> {
        let request = v1::DeleteJobRequest { job_id: id.to_string() };
        self.call(request, async |channel, request| jobs(channel).delete_job(request).await).await?;
        Ok(())
    }

    /// Opens the stream of a job's states.
    pub(crate) async fn open_watch(&self, id: &JobId) -> Result<Streaming<v1::WatchJobResponse>, Error> {
        let request = v1::WatchJobRequest { job_id: id.to_string() };
        self.call(request, async |channel, request| jobs(channel).watch_job(request).await).await
    }

    /// What of a job waits, and why; empty when nothing does.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn explain(&self, id: &JobId) -> Result<Vec<Explanation>, Error> {
        let request = v1::ExplainJobRequest { job_id: id.to_string() };
        let answer =
            self.call(request, async |channel, request| jobs(channel).explain_job(request).await).await?;
        Ok(answer.explanations.into_iter().map(Into::into).collect())
    }

    /// Reads an answer that must be there.
    pub(crate) fn understood<W, T>(&self, wire: Option<W>, field: &str) -> Result<T, Error>
    where
        T: TryFrom<W, Error = ConversionError>,
    {
        let read = |wire| T::try_from(wire).map_err(|error| error.within(field));
        let value = wire.ok_or_else(|| ConversionError::missing(field)).and_then(read);
        value.map_err(|error| Error::misunderstood(&self.address(), error))
    }

    pub(crate) fn all_understood<W, T>(&self, wires: Vec<W>, field: &str) -> Result<Vec<T>, Error>
    where
        T: TryFrom<W, Error = ConversionError>,
    {
        wires.into_iter().map(|wire| self.understood(Some(wire), field)).collect()
    }
}
