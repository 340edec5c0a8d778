//! Tests with a store that fails on purpose: an outage must not look like damage, and a place without create-only
//! must not be used.

use std::{
    fmt,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};

use crate::{ArtifactStore, Checkpoints, Error, Header, Location, NewFile, probe::probe};

/// A store in memory of whose reads one fails, when `reads_left` is used up, and that may lack create-only.
#[derive(Debug)]
struct Failing {
    inner: InMemory,
    reads_left: AtomicUsize,
    create: Create,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Create {
    Works,
    Refused,
    Overwrites,
}

impl Failing {
    fn new(create: Create) -> Arc<Self> {
        Arc::new(Self { inner: InMemory::new(), reads_left: AtomicUsize::new(usize::MAX), create })
    }

    fn outage(&self) -> Result<()> {
        // Wraps around after the one that fails.
        match self.reads_left.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(object_store::Error::Generic { store: "failing", source: "the cable".into() }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failing")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match (self.create, &options.mode) {
            (Create::Refused, PutMode::Create) => Err(object_store::Error::Generic {
                store: "failing",
                source: "operation not permitted".into(),
            }),
            (Create::Overwrites, _) => self.inner.put_opts(path, payload, PutMode::Overwrite.into()).await,
            _ => self.inner.put_opts(path, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.outage()?;
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.outage()?;
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn nowhere() -> Location {
    Location::File(PathBuf::from("/nowhere"))
}

#[tokio::test]
async fn an_outage_is_not_damage() {
    let failing = Failing::new(Create::Works);
    let checkpoints = Checkpoints::new(ArtifactStore::over(failing.clone(), nowhere()), "checkpoints", "job");
    for step in [100, 200] {
        let files = vec![NewFile::new("a", vec![1; 100]), NewFile::new("b", vec![2; 100])];
        checkpoints.save(Header { step, ..Header::default() }, files).await.unwrap();
    }
    let mut reads = 0;
    let latest = loop {
        failing.reads_left.store(reads, Ordering::SeqCst);
        match checkpoints.latest_valid().await {
            Ok(latest) => break latest,
            Err(error) => {
                assert!(matches!(error, Error::Store { .. }) && error.retryable(), "{error:?}");
                assert!(error.to_string().contains("the cable"), "{error}");
            }
        }
        reads += 1;
    };
    assert!(reads >= 3, "the manifest and two files were read: {reads}");
    assert_eq!(latest.skipped, []);
    assert_eq!(latest.checkpoint.unwrap().manifest.header.step, 200);
}

#[tokio::test]
async fn a_place_without_create_only_is_refused() {
    probe(Failing::new(Create::Works).as_ref(), &nowhere(), Duration::ZERO).await.unwrap();
    for create in [Create::Refused, Create::Overwrites] {
        let failing = Failing::new(create);
        let error = probe(failing.as_ref(), &nowhere(), Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, Error::NoCreateOnly { .. }), "{create:?}: {error:?}");
        let store = ArtifactStore::over(failing, nowhere());
        assert_eq!(store.list("").await.unwrap(), [], "the probe is gone");
    }
}
