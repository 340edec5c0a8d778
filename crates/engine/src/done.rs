//! Finished shards in little room: a job may have a hundred thousand of them, each a count and a reference.
//!
//! Kept is what later phases need, not the whole outputs: those are in the store. Not here: what is counted (lease_work).

use lethe_domain::{ArtifactRef, ShardIndex, TaskOutput, sha256_bytes, sha256_text};

/// Outputs of finished shards by index, in blocks: most shards of a phase are done, and nearly in order.
#[derive(Debug, Default)]
pub(crate) struct DoneShards {
    blocks: Vec<Block>,
    count: usize,
    frame: Frame,
}

/// [`BLOCK`] places, or none yet.
type Block = Vec<Option<Done>>;

const BLOCK: usize = 256;

/// What is kept of an output.
#[derive(Debug)]
struct Done {
    positives: Option<u64>,
    reused: bool,
    /// None for a single task: its output is in the job's record.
    artifact: Option<Stored>,
}

/// What the paths of a phase's artifacts have in common, before and after the part that differs.
#[derive(Debug, Default)]
struct Frame {
    before: Box<str>,
    after: Box<str>,
}

/// An artifact's reference: a digest takes half of what its text takes, and a path only what differs.
#[derive(Debug)]
struct Stored {
    path: Path,
    sha256: Digest,
    size: u64,
}

#[derive(Debug)]
enum Path {
    /// So many bytes of what is between the frame's two halves.
    Framed(u8, [u8; ROOM]),
    /// One that does not fit the frame.
    Text(Box<str>),
}

/// Room for `00042-a1-of-00040`.
const ROOM: usize = 22;

#[derive(Debug)]
enum Digest {
    Bytes([u8; 32]),
    /// Whatever else a worker called a digest.
    Text(Box<str>),
}

impl DoneShards {
    pub(crate) fn insert(&mut self, shard: ShardIndex, output: &TaskOutput) {
        let (block, place) = split(shard);
        if self.blocks.len() <= block {
            self.blocks.resize_with(block + 1, Vec::new);
        }
        let block = &mut self.blocks[block];
        if block.is_empty() {
            block.reserve_exact(BLOCK);
            block.resize_with(BLOCK, || None);
        }
        let kept = output.of_shard();
        let done = Done {
            positives: kept.and_then(|kept| kept.positives),
            reused: kept.is_some_and(|kept| kept.reused),
            artifact: kept.map(|kept| Stored::of(kept.artifact, &mut self.frame)),
        };
        self.count += usize::from(block[place].replace(done).is_none());
    }

    pub(crate) fn contains(&self, shard: ShardIndex) -> bool {
        self.at(shard).is_some()
    }

    /// The positives of a shard that is done, where they are known.
    pub(crate) fn positives(&self, shard: ShardIndex) -> Option<u64> {
        self.at(shard)?.positives
    }

    /// Shards that another job had made before.
    pub(crate) fn reused(&self) -> u32 {
        self.blocks.iter().flatten().flatten().filter(|done| done.reused).count() as u32
    }

    fn at(&self, shard: ShardIndex) -> Option<&Done> {
        let (block, place) = split(shard);
        self.blocks.get(block)?.get(place)?.as_ref()
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// What each shard gave, in order.
    pub(crate) fn artifacts(&self) -> impl Iterator<Item = ArtifactRef> {
        let done = self.blocks.iter().flatten().flatten();
        done.filter_map(|done| done.artifact.as_ref().map(|stored| stored.artifact(&self.frame)))
    }

    /// Forgets the shards from this one on.
    pub(crate) fn truncate(&mut self, end: ShardIndex) {
        let (block, place) = split(end);
        let beyond = self
            .blocks
            .iter_mut()
            .skip(block)
            .enumerate()
            .flat_map(|(distance, places)| places.iter_mut().skip(if distance == 0 { place } else { 0 }));
        self.count -= beyond.filter_map(Option::take).count();
    }
}

/// Which block a shard is in, and where.
fn split(shard: ShardIndex) -> (usize, usize) {
    (shard.0 as usize / BLOCK, shard.0 as usize % BLOCK)
}

impl Stored {
    fn of(artifact: &ArtifactRef, frame: &mut Frame) -> Self {
        Self { path: frame.take(&artifact.path), sha256: Digest::of(&artifact.sha256), size: artifact.size }
    }

    fn artifact(&self, frame: &Frame) -> ArtifactRef {
        let path = match &self.path {
            Path::Framed(length, bytes) => {
                let middle = std::str::from_utf8(&bytes[..usize::from(*length)]).unwrap_or_default();
                format!("{}{middle}{}", frame.before, frame.after)
            }
            Path::Text(text) => text.to_string(),
        };
        ArtifactRef { path, sha256: self.sha256.text(), size: self.size }
    }
}

impl Frame {
    /// Takes a path apart; the first one is the measure: up to the first digit of its name, and from its last '.' on.
    fn take(&mut self, path: &str) -> Path {
        if self.before.is_empty() {
            let name = path.rfind('/').map_or(0, |slash| slash + 1);
            let number = path[name..].find(|c: char| c.is_ascii_digit()).map_or(name, |digit| name + digit);
            let end = path.rfind('.').filter(|dot| *dot >= number).unwrap_or(path.len());
            (self.before, self.after) = (path[..number].into(), path[end..].into());
        }
        let middle = path.strip_prefix(&*self.before).and_then(|rest| rest.strip_suffix(&*self.after));
        match middle {
            Some(middle) if middle.len() <= ROOM => {
                let mut bytes = [0; ROOM];
                bytes[..middle.len()].copy_from_slice(middle.as_bytes());
                Path::Framed(middle.len() as u8, bytes)
            }
            Some(_) | None => Path::Text(path.into()),
        }
    }
}

impl Digest {
    fn of(text: &str) -> Self {
        sha256_bytes(text).map_or_else(|| Self::Text(text.into()), Self::Bytes)
    }

    fn text(&self) -> String {
        match self {
            Self::Bytes(bytes) => sha256_text(bytes),
            Self::Text(text) => text.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use lethe_domain::{EditOutput, EvaluateOutput, SampleOutput};

    use super::*;

    fn sample(positives: Option<u64>, scores: ArtifactRef) -> TaskOutput {
        TaskOutput::Sample(SampleOutput { samples: 1, positives, scores })
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let artifact = |sha256: &str| ArtifactRef {
            path: "jobs/a/sample/shard-00001-a1.safetensors".to_owned(),
            sha256: sha256.to_owned(),
            size: 1 << 40,
        };
        let hex = "00ff".repeat(16);
        let path = "jobs/a/sample/shard-00003-a12-of-00001.safetensors".to_owned();
        let other = ArtifactRef { path, sha256: hex.clone(), size: 3 };
        for sha256 in [hex.as_str(), "scores-0", &hex.to_uppercase(), "é"] {
            for positives in [Some(7), None, Some(1 << 40)] {
                let moments = artifact(sha256);
                let evaluate = EvaluateOutput {
                    samples: 1,
                    before: positives,
                    after: Some(0),
                    moments: moments.clone(),
                };
                let outputs = [sample(positives, moments.clone()), TaskOutput::Evaluate(evaluate)];
                for (output, counted) in outputs.iter().zip([positives, None]) {
                    let mut done = DoneShards::default();
                    done.insert(ShardIndex(1), &sample(None, other.clone()));
                    done.insert(ShardIndex(3), output);
                    assert_eq!(done.positives(ShardIndex(3)), counted);
                    assert_eq!(done.artifacts().collect::<Vec<_>>(), [other.clone(), moments.clone()]);
                }
            }
        }
        let mut single = DoneShards::default();
        single.insert(ShardIndex(0), &TaskOutput::FineTune(None));
        assert!(single.contains(ShardIndex(0)) && single.artifacts().next().is_none());
    }

    #[test]
    fn shards_come_back_in_order_whatever_order_they_came_in() {
        let scores = |size| ArtifactRef { path: "p".to_owned(), sha256: "s".to_owned(), size };
        let mut done = DoneShards::default();
        assert_eq!(done.artifacts().count(), 0);
        for shard in [700, 3, 256, 255, 3] {
            done.insert(ShardIndex(shard), &sample(None, scores(u64::from(shard))));
        }
        assert_eq!(done.len(), 4);
        assert!(done.contains(ShardIndex(255)) && !done.contains(ShardIndex(4)));
        let all = |done: &DoneShards| done.artifacts().collect::<Vec<_>>();
        assert_eq!(all(&done), [3, 255, 256, 700].map(scores));
        done.truncate(ShardIndex(256));
        assert_eq!((all(&done), done.len()), ([3, 255].map(scores).to_vec(), 2));
    }

    #[test]
    fn shards_of_other_jobs_are_counted_among_those_that_count() {
        let mut done = DoneShards::default();
        for shard in [0, 1, 300] {
            let pool = ArtifactRef { path: "p".to_owned(), sha256: "s".to_owned(), size: 1 };
            let output = TaskOutput::Edit(EditOutput { samples: 1, pool, reused: shard != 1 });
            assert_eq!(output.samples(), u64::from(shard == 1), "nobody worked for the others");
            done.insert(ShardIndex(shard), &output);
        }
        assert_eq!((done.len(), done.reused()), (3, 2));
        done.truncate(ShardIndex(300));
        assert_eq!((done.len(), done.reused()), (2, 1));
    }

    #[test]
    fn a_shard_takes_little_room() {
        assert!(size_of::<Option<Done>>() <= 96, "{}", size_of::<Option<Done>>());
    }
}
