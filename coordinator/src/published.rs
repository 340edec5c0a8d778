//! Files that a job has published, by name: nobody outside ever says a path.

use lethe_artifacts::ArtifactRef;
use lethe_domain::{ErrorCode, Failure, JobId, PublishOutput};
use lethe_engine::JobRecord;
use lethe_proto::status::Refusal;

use crate::driver::DriverHandle;

/// The contact sheet's name.
pub(crate) const BEFORE_AFTER: &str = "before_after_png";

/// The published file with this name, by its recorded digest.
///
/// # Errors
/// There is no such job or name; the job has published nothing (yet).
pub(crate) async fn find(driver: &DriverHandle, id: &JobId, name: &str) -> Result<ArtifactRef, Refusal> {
    let record = driver.job(id).await?.record;
    let choose: fn(&PublishOutput) -> &lethe_domain::ArtifactRef = match name {
        "generator" => |published| &published.generator,
        "sidecar" => |published| &published.sidecar,
        BEFORE_AFTER => |published| &published.before_after_png,
        _ => return Err(Refusal::NotFound { kind: "artifact".to_owned(), id: name.to_owned() }),
    };
    match record.outputs.publish() {
        Some(published) => as_stored(&record, choose(published)),
        None => Err(Refusal::Conflict {
            message: format!("job {id} has published nothing: it is {}", record.state),
        }),
    }
}

/// The reference as the artifact store wants it. A worker said it, so it is believed only inside the job's own folder.
pub(crate) fn as_stored(
    record: &JobRecord,
    artifact: &lethe_domain::ArtifactRef,
) -> Result<ArtifactRef, Refusal> {
    let damaged = |reason: String| {
        let message = format!("what job {} says it published cannot be right: {reason}", record.id);
        Refusal::Failure(Failure::new(ErrorCode::Damaged, message, "run the job again"))
    };
    if !artifact.path.starts_with(&format!("jobs/{}/", record.id)) {
        return Err(damaged(format!("{} is not in its folder", artifact.path)));
    }
    let sha256 = artifact.sha256.parse().map_err(|error| damaged(format!("{error}")))?;
    Ok(ArtifactRef { path: artifact.path.clone(), sha256, size: artifact.size })
}

/// What an artifact store's error means to whoever asked.
pub(crate) fn refusal(error: &lethe_artifacts::Error) -> Refusal {
    let (code, hint) = match error {
        lethe_artifacts::Error::Damaged { .. } => (ErrorCode::Damaged, "run the job again"),
        lethe_artifacts::Error::NotFound { .. } => {
            (ErrorCode::Damaged, "put the file back where it was, or run the job again")
        }
        _ => (ErrorCode::Storage, ""),
    };
    Refusal::Failure(Failure::new(code, error.to_string(), hint))
}
