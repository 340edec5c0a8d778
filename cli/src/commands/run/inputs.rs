//! The files that a job reads, by digest (objects of other stores by the store's mark): a run that goes on must read what it
//! began with.

use std::collections::BTreeMap;
use std::path::Path;

use lethe_artifacts::{Environment, Remote, digest_file, resolve};
use lethe_domain::JobSpec;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The key of each file in the spec, and its SHA-256, or size and mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inputs(BTreeMap<String, String>);

impl Inputs {
    /// As the files are now. The spec's paths are absolute.
    pub(crate) async fn of(spec: &JobSpec) -> Result<Self, Error> {
        let environment = Environment::of_process();
        let mut inputs = BTreeMap::new();
        for (key, uri) in spec.files() {
            let state = state(uri, &environment).await.map_err(|error| Error::Other(error.into()))?;
            inputs.insert(key.to_owned(), state);
        }
        Ok(Self(inputs))
    }

    /// The key of a file that is another one than it was `before`.
    pub(crate) fn changed(&self, before: &Self) -> Option<&str> {
        self.0.iter().find(|(key, digest)| before.0.get(*key) != Some(digest)).map(|(key, _)| key.as_str())
    }
}

async fn state(uri: &str, environment: &Environment) -> lethe_artifacts::Result<String> {
    match Remote::at(&resolve(uri, Path::new("/"))?, environment)? {
        Some(remote) => {
            let version = remote.version().await?;
            Ok(format!("{} bytes, {}", version.size, version.tag))
        }
        None => Ok(digest_file(Path::new(uri)).await?.0.to_string()),
    }
}
