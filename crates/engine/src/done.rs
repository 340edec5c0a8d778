//! Finished shards in little room: a job may have a hundred thousand of them, each a few numbers and a reference.
//!
//! Not here: what is counted (lease_work).

use lethe_domain::{
    ArtifactRef, EvaluateOutput, SampleOutput, ShardIndex, TaskOutput, sha256_bytes, sha256_text,
};

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

/// One output. Those of single tasks, of which there is one, stay as they are.
#[derive(Debug)]
enum Done {
    Sample { samples: u32, positives: Option<u32>, scores: Stored },
    Evaluate { samples: u32, before: Option<u32>, after: Option<u32>, moments: Stored },
    Other(Box<TaskOutput>),
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
    pub(crate) fn insert(&mut self, shard: ShardIndex, output: TaskOutput) {
        let (block, place) = split(shard);
        if self.blocks.len() <= block {
            self.blocks.resize_with(block + 1, Vec::new);
        }
        let block = &mut self.blocks[block];
        if block.is_empty() {
            block.reserve_exact(BLOCK);
            block.resize_with(BLOCK, || None);
        }
        self.count += usize::from(block[place].replace(Done::of(output, &mut self.frame)).is_none());
    }

    pub(crate) fn contains(&self, shard: ShardIndex) -> bool {
        self.at(shard).is_some()
    }

    pub(crate) fn get(&self, shard: ShardIndex) -> Option<TaskOutput> {
        self.at(shard).map(|done| done.output(&self.frame))
    }

    fn at(&self, shard: ShardIndex) -> Option<&Done> {
        let (block, place) = split(shard);
        self.blocks.get(block)?.get(place)?.as_ref()
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The shards before this one, in order.
    pub(crate) fn before(&self, end: ShardIndex) -> impl Iterator<Item = TaskOutput> {
        let places = self.blocks.iter().enumerate().flat_map(|(block, places)| {
            places.iter().enumerate().map(move |(place, done)| (block * BLOCK + place, done))
        });
        places
            .take_while(move |(index, _)| *index < end.0 as usize)
            .filter_map(|(_, done)| done.as_ref().map(|done| done.output(&self.frame)))
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

impl Done {
    fn of(output: TaskOutput, frame: &mut Frame) -> Self {
        let small = |number: u64| u32::try_from(number).ok();
        match &output {
            TaskOutput::Sample(SampleOutput { samples, positives, scores }) => {
                if let (Some(samples), Ok(positives)) =
                    (small(*samples), positives.map(u32::try_from).transpose())
                {
                    return Self::Sample { samples, positives, scores: Stored::of(scores, frame) };
                }
            }
            TaskOutput::Evaluate(EvaluateOutput { samples, before, after, moments }) => {
                if let (Some(samples), Ok(before), Ok(after)) = (
                    small(*samples),
                    before.map(u32::try_from).transpose(),
                    after.map(u32::try_from).transpose(),
                ) {
                    return Self::Evaluate { samples, before, after, moments: Stored::of(moments, frame) };
                }
            }
            _ => {}
        }
        Self::Other(Box::new(output))
    }

    fn output(&self, frame: &Frame) -> TaskOutput {
        match self {
            Self::Sample { samples, positives, scores } => TaskOutput::Sample(SampleOutput {
                samples: u64::from(*samples),
                positives: positives.map(u64::from),
                scores: scores.artifact(frame),
            }),
            Self::Evaluate { samples, before, after, moments } => TaskOutput::Evaluate(EvaluateOutput {
                samples: u64::from(*samples),
                before: before.map(u64::from),
                after: after.map(u64::from),
                moments: moments.artifact(frame),
            }),
            Self::Other(output) => (**output).clone(),
        }
    }
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
            _ => Path::Text(path.into()),
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
    use super::*;

    #[test]
    fn an_output_comes_back_as_it_was() {
        let artifact = |sha256: &str| ArtifactRef {
            path: "jobs/a/sample/shard-00001-a1.safetensors".to_owned(),
            sha256: sha256.to_owned(),
            size: 1 << 40,
        };
        let hex = "00ff".repeat(16);
        let other = || {
            let path = "jobs/a/sample/shard-00003-a12-of-00001.safetensors".to_owned();
            let scores = ArtifactRef { path, sha256: hex.clone(), size: 3 };
            TaskOutput::Sample(SampleOutput { samples: 1, positives: None, scores })
        };
        for (samples, positives, sha256) in [
            (500, Some(7), hex.as_str()),
            (500, None, "scores-0"),
            (1 << 40, Some(1), &hex),
            (5, Some(1 << 40), &hex),
            (5, Some(1), &hex.to_uppercase()),
            (5, Some(2), "é"),
        ] {
            let sample = TaskOutput::Sample(SampleOutput { samples, positives, scores: artifact(sha256) });
            let evaluate = TaskOutput::Evaluate(EvaluateOutput {
                samples,
                before: positives,
                after: Some(0),
                moments: artifact(sha256),
            });
            for output in [sample, evaluate, TaskOutput::FineTune(None)] {
                let mut done = DoneShards::default();
                done.insert(ShardIndex(1), other());
                done.insert(ShardIndex(3), output.clone());
                assert_eq!(done.get(ShardIndex(3)), Some(output));
                assert_eq!(done.get(ShardIndex(1)), Some(other()));
            }
        }
    }

    #[test]
    fn shards_come_back_in_order_whatever_order_they_came_in() {
        let sample = |samples: u64| {
            let scores = ArtifactRef { path: "p".to_owned(), sha256: "s".to_owned(), size: 1 };
            TaskOutput::Sample(SampleOutput { samples, positives: None, scores })
        };
        let mut done = DoneShards::default();
        assert_eq!(done.before(ShardIndex(u32::MAX)).count(), 0);
        for shard in [700, 3, 256, 255, 3] {
            done.insert(ShardIndex(shard), sample(u64::from(shard)));
        }
        assert_eq!(done.len(), 4);
        assert!(done.contains(ShardIndex(255)) && !done.contains(ShardIndex(4)));
        let before = |done: &DoneShards, end| done.before(ShardIndex(end)).collect::<Vec<_>>();
        assert_eq!(before(&done, 256), [sample(3), sample(255)]);
        assert_eq!(before(&done, u32::MAX), [3, 255, 256, 700].map(sample));
        done.truncate(ShardIndex(256));
        assert_eq!((before(&done, u32::MAX), done.len()), (vec![sample(3), sample(255)], 2));
    }

    #[test]
    fn a_shard_takes_little_room() {
        assert!(size_of::<Option<Done>>() <= 96, "{}", size_of::<Option<Done>>());
    }
}
