//! Writes result.json beside what a job published, and into the folder its spec names. Tried again for a while; that it
//! cannot be written is logged and does not change the job.

use std::time::Duration;

use bytes::Bytes;
use lethe_artifacts::{ArtifactStore, Publication};
use lethe_domain::result_files::RESULT;
use lethe_domain::{ArtifactPaths, JobResult};
use tokio::time::sleep;

const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Writes a result. Harmless to repeat.
pub(crate) async fn write(artifacts: &ArtifactStore, result: JobResult, publish: Option<String>) {
    let paths = below_folder(artifacts, &result);
    write_both(artifacts.clone(), JobResult { artifacts: paths, ..result }, publish).await;
}

/// The folder of a job's published files, below the artifact root.
fn folder_of(result: &JobResult) -> String {
    format!("jobs/{}/result", result.job)
}

/// Paths as result.json has them: relative to its own folder, or uris of what lies elsewhere.
fn below_folder(artifacts: &ArtifactStore, result: &JobResult) -> ArtifactPaths {
    let folder = format!("{}/", folder_of(result));
    let below =
        |path: &String| path.strip_prefix(&folder).map_or_else(|| artifacts.name_of(path), str::to_owned);
    let paths = &result.artifacts;
    ArtifactPaths {
        generator: paths.generator.as_ref().map(below),
        before_after_png: paths.before_after_png.as_ref().map(below),
        checkpoint: paths.checkpoint.as_ref().map(below),
        target_sha256: paths.target_sha256.clone(),
    }
}

async fn write_both(artifacts: ArtifactStore, result: JobResult, publish: Option<String>) {
    let json = match serde_json::to_vec_pretty(&result) {
        Ok(mut json) => {
            json.push(b'\n');
            Bytes::from(json)
        }
        Err(error) => {
            tracing::error!(job = %result.job, %error, "the result has no JSON form");
            return;
        }
    };
    Place::Job(artifacts, format!("{}/{RESULT}", folder_of(&result))).write(&json).await;
    if let Some(uri) = publish {
        Place::Published { uri, job: result.job.to_string() }.write(&json).await;
    }
}

/// A place for a result.
enum Place {
    /// Beside the job's published files: a path in the artifact store.
    Job(ArtifactStore, String),
    /// The folder that the spec names, by its uri, where nothing is replaced that the job did not write.
    Published { uri: String, job: String },
}

impl Place {
    fn name(&self) -> String {
        match self {
            Place::Job(artifacts, path) => artifacts.name_of(path),
            Place::Published { uri, .. } => format!("{uri}/{RESULT}"),
        }
    }

    async fn put(&self, json: Bytes) -> lethe_artifacts::Result<()> {
        match self {
            Place::Job(artifacts, path) => drop(artifacts.put(path, json).await?),
            Place::Published { uri, job } => {
                let publication = Publication::new(ArtifactStore::open(uri).await?, job);
                publication.put(vec![(RESULT.to_owned(), json)]).await?;
            }
        }
        Ok(())
    }

    async fn write(&self, json: &Bytes) {
        let file = self.name();
        let mut pause = FIRST_PAUSE;
        for tries in 1..=TRIES {
            match self.put(json.clone()).await {
                Ok(()) => return tracing::info!(file, "the result is written"),
                Err(error) if tries < TRIES && error.retryable() => {
                    tracing::warn!(file, %error, "the result is not written yet");
                    sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return tracing::error!(file, %error, "the result is not written"),
            }
        }
    }
}
