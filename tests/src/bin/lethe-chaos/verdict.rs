//! What must hold at the end: the bits of an undisturbed run, free slots, whole checkpoints, no process left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lethe_client::Client;
use lethe_domain::{JobId, JobState};

use crate::cluster::Cluster;

/// What a job gives, whatever happened meanwhile.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Essence {
    target_sha256: String,
    generator_sha256: String,
}

/// The essence of a job that has ended.
pub(crate) async fn essence(client: &Client, id: &JobId) -> Result<Essence> {
    let (status, _) = client.get(id).await?;
    if status.state != JobState::Succeeded {
        bail!("job {id} is {}: {:?}, survived before: {:?}", status.state, status.failure, status.retried);
    }
    let result = status.result.context("a job that succeeded has a result")?;
    let target_sha256 = result.artifacts.target_sha256.context("a result names its target vector")?;
    let generator = client.download(id, "generator", &mut tokio::io::sink()).await?;
    Ok(Essence { target_sha256, generator_sha256: generator.sha256 })
}

/// No slot holds a lease, and every checkpoint has a manifest.
pub(crate) async fn nothing_left(client: &Client, cluster: &Cluster) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let workers = client.workers().await?;
        let held: Vec<String> = workers
            .iter()
            .flat_map(|worker| &worker.slots)
            .filter_map(|slot| slot.lease.as_ref())
            .map(ToString::to_string)
            .collect();
        if held.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            bail!("leases are left over: {held:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut checkpoints: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for key in cluster.objects().await? {
        if let Some((folder, name)) = key.rsplit_once('/')
            && folder.contains("/checkpoints/")
        {
            checkpoints.entry(folder.to_owned()).or_default().insert(name.to_owned());
        }
    }
    let partial: Vec<&String> =
        checkpoints.iter().filter(|(_, names)| !names.contains("manifest.json")).map(|(at, _)| at).collect();
    if checkpoints.is_empty() || !partial.is_empty() {
        bail!("of {} checkpoints these are partial: {partial:?}", checkpoints.len());
    }
    Ok(())
}

/// None of these processes is alive.
pub(crate) fn no_orphans(pids: &[u32]) -> Result<()> {
    let alive: Vec<&u32> = pids.iter().filter(|pid| lethe_tests::is_alive(**pid)).collect();
    if !alive.is_empty() {
        bail!("processes are left over: {alive:?}");
    }
    Ok(())
}
