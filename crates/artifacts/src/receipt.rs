//! What Lethe has written into a folder that is not its own, so that it replaces nothing else there.
//!
//! A receipt lies in the folder and is written *before* the files it names: whatever dies in between, each of them is
//! absent, or has one of the digests written down, or is somebody else's. Not here: writing the files (`publication`; the
//! command line for folders of this machine).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

const VERSION: u32 = 1;

/// The files of a job's result in a folder, by name and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    version: u32,
    /// The job whose result it is.
    job: String,
    /// What each may be: as it was found when it was ours, and as it is to become.
    files: BTreeMap<String, Vec<Digest>>,
}

impl Receipt {
    /// Where it lies in the folder.
    pub const NAME: &'static str = ".lethe/files.json";

    /// One that names no file yet.
    pub fn new(job: &str) -> Self {
        Self { version: VERSION, job: job.to_owned(), files: BTreeMap::new() }
    }

    /// Reads one; none when it is not one of this version: then nothing there is known to be ours.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|receipt: &Self| receipt.version == VERSION)
    }

    /// The bytes that [`decode`](Self::decode) reads.
    pub fn encode(&self) -> Vec<u8> {
        // Strings and numbers always have a JSON form.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// The job whose result it is.
    pub fn job(&self) -> &str {
        &self.job
    }

    /// Whether a file found there is one that Lethe wrote, and nobody changed.
    pub fn wrote(&self, name: &str, found: Digest) -> bool {
        self.files.get(name).is_some_and(|digests| digests.contains(&found))
    }

    /// Notes that a file is about to become `after`; it is `before` until then, if it is there.
    pub fn note(&mut self, name: &str, before: Option<Digest>, after: Digest) {
        let digests = before.into_iter().filter(|before| *before != after).chain([after]);
        self.files.insert(name.to_owned(), digests.collect());
    }

    /// The same files, from now on of another job.
    pub fn pass_on(&mut self, job: &str) {
        job.clone_into(&mut self.job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_down_is_ours_and_nothing_else() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let mut receipt = Receipt::new("j-1");
        assert!(!receipt.wrote("generator.pt", digest("a")));
        receipt.note("generator.pt", None, digest("a"));
        receipt.note("generator.pt", Some(digest("a")), digest("b"));
        let read = Receipt::decode(&receipt.encode()).unwrap();
        assert_eq!(read, receipt);
        assert!(read.wrote("generator.pt", digest("a")) && read.wrote("generator.pt", digest("b")));
        assert!(!read.wrote("generator.pt", digest("c")) && !read.wrote("result.json", digest("a")));
        for other in ["", "{}", "{\"version\": 2, \"job\": \"j\", \"files\": {}}"] {
            assert_eq!(Receipt::decode(other.as_bytes()), None);
        }
    }
}
