//! The files that a job reads, by digest: a run that goes on must read what it began with.

use std::collections::BTreeMap;
use std::path::Path;

use lethe_artifacts::digest_file_blocking;
use lethe_domain::JobSpec;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The key of each file in the spec, and its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inputs(BTreeMap<String, String>);

impl Inputs {
    /// As the files are now. The spec's paths are absolute.
    pub(crate) fn of(spec: &JobSpec) -> Result<Self, Error> {
        let digest = |(key, file): (&str, &str)| {
            let (digest, _) =
                digest_file_blocking(Path::new(file)).map_err(|error| Error::Other(error.into()))?;
            Ok((key.to_owned(), digest.to_string()))
        };
        spec.files().into_iter().map(digest).collect::<Result<_, Error>>().map(Self)
    }

    /// The key of a file that is another one than it was `before`.
    pub(crate) fn changed(&self, before: &Self) -> Option<&str> {
        self.0.iter().find(|(key, digest)| before.0.get(*key) != Some(digest)).map(|(key, _)| key.as_str())
    }
}
