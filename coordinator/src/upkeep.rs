//! What is done in artifact storage for jobs that have ended: writing the result, removing what only the work needed, and
//! removing everything of those that are forgotten. In the background, and tried again until it is done; what a leader that
//! ends leaves half done, the next one begins anew.
//!
//! Not here: when that is so (`lethe-engine`).

use std::sync::Arc;
use std::time::Duration;

use lethe_artifacts::ArtifactStore;
use lethe_domain::{JobId, JobResult, Phase, Shape};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::results;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Jobs at whose files somebody is at work at the same time.
const AT_ONCE: usize = 4;

/// Something to do for a job.
#[derive(Debug)]
pub(crate) enum Chore {
    /// Write its result where there is one, and into the folder that its spec names; remove the files of its shards.
    TidyUp { job: JobId, result: Option<Box<JobResult>>, publish: Option<String> },
    /// Remove everything below its folder. What it published elsewhere is not there.
    Erase { job: JobId },
}

/// Who does it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    artifacts: ArtifactStore,
    tasks: TaskTracker,
    turns: Arc<Semaphore>,
}

impl Upkeep {
    pub(crate) fn new(artifacts: ArtifactStore) -> Self {
        Self { artifacts, tasks: TaskTracker::new(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Begins a chore, and has `told` run when it is done. It ends at the next pause once `end` says so.
    pub(crate) fn begin(
        &self,
        chore: Chore,
        end: &CancellationToken,
        told: impl Future<Output = ()> + Send + 'static,
    ) {
        let (artifacts, turns, end) = (self.artifacts.clone(), self.turns.clone(), end.clone());
        self.tasks.spawn(async move {
            let work = async {
                // Never closed.
                let _turn = turns.acquire().await;
                chore.run(&artifacts).await;
            };
            if end.run_until_cancelled(work).await.is_some() {
                told.await;
            }
        });
    }

    /// Waits for what is being done, for a while.
    pub(crate) async fn finish(&self, patience: Duration) {
        self.tasks.close();
        if timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "files of jobs that have ended are still being put in order: the next start goes on"
            );
        }
    }
}

impl Chore {
    async fn run(self, artifacts: &ArtifactStore) {
        match self {
            Chore::TidyUp { job, result, publish } => {
                if let Some(result) = result {
                    results::write(artifacts, *result, publish).await;
                }
                for phase in Phase::ALL.into_iter().filter(|phase| phase.shape() == Shape::Sharded) {
                    remove(artifacts, &format!("jobs/{job}/{phase}")).await;
                }
            }
            Chore::Erase { job } => {
                let objects = remove(artifacts, &format!("jobs/{job}")).await;
                tracing::info!(%job, objects, "a job is forgotten");
            }
        }
    }
}

/// Removes every object below a folder, however often it must be tried, and says how many the last try found.
async fn remove(artifacts: &ArtifactStore, folder: &str) -> usize {
    let mut pause = FIRST_PAUSE;
    loop {
        match artifacts.delete_prefix(folder).await {
            Ok(objects) => return objects,
            Err(error) => {
                tracing::warn!(folder, %error, retry_in_ms = pause.as_millis() as u64, "cannot remove files");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_of_a_job_and_what_goes() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = ArtifactStore::open(&format!("file://{}", folder.path().display())).await.unwrap();
        let put = async |path: &str| drop(artifacts.put(path, "x").await.unwrap());
        for path in ["sample/shard-00000-a1", "evaluate/shard-00000-a1", "checkpoints/40/m", "result/g.pt"] {
            put(&format!("jobs/a/{path}")).await;
        }
        put("jobs/ab/sample/shard-00000-a1").await;
        let paths = async || -> Vec<String> {
            artifacts.list("").await.unwrap().into_iter().map(|found| found.path).collect()
        };
        let job = JobId::new("a").unwrap();
        // Twice: a leader that was killed may have done it already.
        for _ in 0..2 {
            Chore::TidyUp { job: job.clone(), result: None, publish: None }.run(&artifacts).await;
            assert_eq!(
                paths().await,
                ["jobs/a/checkpoints/40/m", "jobs/a/result/g.pt", "jobs/ab/sample/shard-00000-a1"]
            );
        }
        for _ in 0..2 {
            Chore::Erase { job: job.clone() }.run(&artifacts).await;
            assert_eq!(paths().await, ["jobs/ab/sample/shard-00000-a1"]);
        }
    }
}
