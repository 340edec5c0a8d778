//! What is done in artifact storage for jobs that have ended: writing the result, removing what only the work needed, and
//! removing everything of those that are forgotten. In the background, and tried again until it is done; what a leader that
//! ends leaves half done, the next one begins anew. And edits that are kept for other jobs are removed when they are old.
//!
//! Not here: when that is so (`lethe-engine`).

use std::sync::Arc;
use std::time::Duration;

use lethe_artifacts::ArtifactStore;
use lethe_domain::{EDITS_FOLDER, JobId, JobResult, Phase, Shape};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::clock::unix_ms;
use crate::results;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Jobs at whose files somebody is at work at the same time.
const AT_ONCE: usize = 4;

/// Between two looks for old edits: an entry may stay that much longer than it is to be kept.
const LOOKS_FOR_EDITS: Duration = Duration::from_secs(60 * 60);

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
    keep_edits: Duration,
    tasks: TaskTracker,
    turns: Arc<Semaphore>,
}

impl Upkeep {
    /// In this store, where edits are kept for so long after they were put.
    pub(crate) fn new(artifacts: ArtifactStore, keep_edits: Duration) -> Self {
        let (tasks, turns) = (TaskTracker::new(), Arc::new(Semaphore::new(AT_ONCE)));
        Self { artifacts, keep_edits, tasks, turns }
    }

    /// Whether jobs may keep edits for others. What nobody keeps, nobody removes either.
    pub(crate) fn keeps_edits(&self) -> bool {
        !self.keep_edits.is_zero()
    }

    /// Removes edits that are too old, now and every hour, until the handle is dropped.
    pub(crate) fn forget_edits(&self) -> AbortOnDropHandle<()> {
        let (artifacts, keep) = (self.artifacts.clone(), self.keep_edits);
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
                match remove_edits(&artifacts, unix_ms().saturating_sub(keep_ms)).await {
                    Ok(0) => {}
                    Ok(shards) => tracing::info!(shards, "old edits are removed"),
                    Err(error) => tracing::warn!(%error, "cannot remove old edits: tried again in an hour"),
                }
                sleep(LOOKS_FOR_EDITS).await;
            }
        }))
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

/// Removes the edits that were put before this moment, and says how many. A job that is about to read one makes its own.
async fn remove_edits(artifacts: &ArtifactStore, before_unix_ms: u64) -> lethe_artifacts::Result<usize> {
    let mut found = artifacts.list(EDITS_FOLDER).await?;
    found.retain(|entry| entry.put_unix_ms < before_unix_ms);
    for entry in &found {
        artifacts.delete(&entry.path).await?;
    }
    Ok(found.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn edits_go_when_they_are_old_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = ArtifactStore::open(&format!("file://{}", folder.path().display())).await.unwrap();
        assert_eq!(remove_edits(&artifacts, u64::MAX).await.unwrap(), 0, "there is not even a folder");
        for path in ["edits/a/1.safetensors", "edits/b/2.safetensors", "edits-of-mine/3", "jobs/a/edit/4"] {
            artifacts.put(path, "x").await.unwrap();
        }
        let at = |path: &str| folder.path().join(path);
        let day = Duration::from_secs(24 * 60 * 60);
        let old = std::fs::File::options().write(true).open(at("edits/a/1.safetensors")).unwrap();
        old.set_modified(std::time::SystemTime::now() - 8 * day).unwrap();
        let week_ago = unix_ms() - 7 * day.as_millis() as u64;
        assert_eq!(remove_edits(&artifacts, week_ago).await.unwrap(), 1);
        assert!(!at("edits/a").exists() && at("edits/b/2.safetensors").exists());
        assert_eq!(remove_edits(&artifacts, u64::MAX).await.unwrap(), 1);
        assert!(!at("edits/b").exists() && at("edits-of-mine/3").exists() && at("jobs/a/edit/4").exists());
    }

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
