//! A place for artifacts, and a way behind the store's back to what is kept there.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt;
use lethe_artifacts::{ArtifactStore, Environment};
use object_store::{
    ObjectStore, ObjectStoreExt, aws::AmazonS3Builder, local::LocalFileSystem, path::Path as ObjectPath,
    prefix::PrefixStore,
};
use tempfile::TempDir;

/// Where one test keeps its artifacts.
pub(crate) struct Place {
    uri: String,
    environment: Environment,
    raw: Arc<dyn ObjectStore>,
    folder: TempDir,
}

/// The bucket of every test; each has a prefix of its own.
pub(crate) const BUCKET: &str = "artifacts";

impl Place {
    pub(crate) fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("artifacts");
        std::fs::create_dir(&root).unwrap();
        let raw = Arc::new(LocalFileSystem::new_with_prefix(&root).unwrap());
        let uri = format!("file://{}", root.display());
        Self { uri, environment: environment(vec![]), raw, folder }
    }

    /// Below `prefix` of [`BUCKET`] of the server that these variables lead to.
    pub(crate) fn s3(prefix: &str, variables: Vec<(String, String)>) -> Self {
        let mut builder = AmazonS3Builder::new().with_bucket_name(BUCKET);
        for (name, value) in &variables {
            builder = builder.with_config(name.to_ascii_lowercase().parse().unwrap(), value);
        }
        let raw = Arc::new(PrefixStore::new(builder.build().unwrap(), ObjectPath::from(prefix)));
        let uri = format!("s3://{BUCKET}/{prefix}");
        Self { uri, environment: environment(variables), raw, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    pub(crate) async fn store(&self) -> ArtifactStore {
        ArtifactStore::open_in(&self.uri, &self.environment).await.unwrap()
    }

    /// A folder of this machine, for what is not in the store.
    pub(crate) fn scratch(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn read(&self, path: &str) -> Bytes {
        self.raw.get(&object(path)).await.unwrap().bytes().await.unwrap()
    }

    pub(crate) async fn write(&self, path: &str, bytes: impl Into<Bytes>) {
        self.raw.put(&object(path), bytes.into().into()).await.unwrap();
    }

    pub(crate) async fn remove(&self, path: &str) {
        self.raw.delete(&object(path)).await.unwrap();
    }

    /// Every object below a folder, by its name below it, in order.
    pub(crate) async fn names(&self, folder: &str) -> Vec<String> {
        let below = (!folder.is_empty()).then(|| object(folder));
        let found: Vec<_> = self.raw.list(below.as_ref()).try_collect().await.unwrap();
        let strip = |path: String| match path.strip_prefix(folder) {
            Some(rest) => rest.trim_start_matches('/').to_owned(),
            None => path,
        };
        let mut names: Vec<String> =
            found.into_iter().map(|object| strip(object.location.to_string())).collect();
        names.sort();
        names
    }
}

fn object(path: &str) -> ObjectPath {
    ObjectPath::parse(path).unwrap()
}

/// One that is not patient for long: a test that fails should say so soon.
pub(crate) fn environment(variables: Vec<(String, String)>) -> Environment {
    Environment::new(variables).patience(Duration::from_secs(10), Duration::from_secs(20))
}
