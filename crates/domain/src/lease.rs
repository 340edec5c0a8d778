//! What a lease is about: the work with everything a slot needs for it, and what travels in it by reference.
//!
//! Not here: the work of each phase (`task`), granting leases (crate `engine`).

use serde::{Deserialize, Serialize};

use crate::{Generation, Inputs, JobSpec, LeaseId, Rank, SlotIndex, Task};

/// A stored object, by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRef {
    /// Path below the artifact root.
    pub path: String,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Consecutive sample indices of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRange {
    /// First index.
    pub start: u64,
    /// How many.
    pub count: u64,
}

/// A slot's place in a gang.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GangRole {
    /// The incarnation.
    pub generation: Generation,
    /// This slot's place.
    pub rank: Rank,
    /// Slots in the gang.
    pub world: u32,
    /// Where rank 0 serves the rendezvous store, host:port. None for rank 0, which opens it and says where.
    pub store: Option<String>,
    /// The furthest step that any rank of the job has reported. Memory that is more than a step behind it is stale.
    pub floor: u64,
}

/// A task with everything a slot needs to do it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The lease it is done under.
    pub lease: LeaseId,
    /// The whole job.
    pub spec: JobSpec,
    /// What the files it reads held when the job was accepted.
    pub inputs: Inputs,
    /// Artifact root, a uri. The job's own objects lie below `jobs/JOB/`.
    pub artifacts: String,
    /// The work.
    pub task: Task,
}

impl Assignment {
    /// Shards in a row that it covers, from the lease's own on.
    pub fn shards(&self) -> u32 {
        let portions = self.task.phase().portions(&self.spec);
        self.task.range().map_or(1, |range| portions.shards_of(range.count))
    }
}

/// A lease that a worker holds when it joins: at work, or over and not yet acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLease {
    /// Where.
    pub slot: SlotIndex,
    /// Which.
    pub lease: LeaseId,
    /// Shards in a row that it covers, at least one.
    pub shards: u32,
}

impl From<(SlotIndex, LeaseId)> for HeldLease {
    /// One over a single shard.
    fn from((slot, lease): (SlotIndex, LeaseId)) -> Self {
        Self { slot, lease, shards: 1 }
    }
}
