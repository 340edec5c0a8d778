//! What a folder already holds of a job: nothing, a part, all of it.

use lethe_client::Client;
use lethe_domain::{JobId, JobSpec, JobState, JobStatus};

use crate::error::Error;

/// How a job stands in this folder.
pub(crate) enum Standing {
    /// It was never run here, or failed.
    New,
    /// It was interrupted.
    Unfinished(JobId),
    /// It is done.
    Done(Box<JobStatus>),
}

/// Looks through the folder's jobs.
pub(crate) async fn standing(client: &Client, spec: &JobSpec) -> Result<Standing, Error> {
    let mut after: Option<String> = None;
    let mut standing = Standing::New;
    loop {
        let page = client.list(0, after.as_deref()).await?;
        for status in page.jobs {
            // A list holds summaries only.
            let (status, its) = client.get(&status.id).await?;
            match (status.state.is_final(), &its == spec) {
                (false, true) => return Ok(Standing::Unfinished(status.id)),
                (false, false) => {
                    return Err(Error::Usage(format!(
                        "the folder holds the unfinished job {} of another spec: choose another --out, or discard it with --fresh",
                        status.id
                    )));
                }
                (true, true) if status.state == JobState::Succeeded => {
                    if let Standing::New = standing {
                        standing = Standing::Done(Box::new(status));
                    }
                }
                (true, _) => {}
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(standing),
        }
    }
}
