//! The artifact store: objects by path, put whole or not at all, read back only if the digest agrees.
//!
//! Everything here goes through the `ObjectStore` trait, so that a store beyond this machine needs only another way
//! of opening. Not here: opening a folder (`local`), the probe, cutting and
//! assembling (`transfer`), checkpoints.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path as ObjectPath};
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt,
    task::{JoinError, JoinSet},
};

use crate::{
    Digest, Environment, Error, Location, Result,
    answer::Answer,
    create::{Pauses, create},
    digest::Hasher,
    error::interrupted,
    local,
    probe::probe,
    remote::Version,
    resolve,
    s3::{self, Clients},
    transfer::{LocalFile, PIECE, pieces},
};

/// An artifact: where it is, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArtifactRef {
    /// The path within the store.
    pub path: String,
    /// The digest of its bytes.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// An object found by [`ArtifactStore::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The path within the store.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was put, by the store's clock: milliseconds since 1970.
    pub put_unix_ms: u64,
}

/// A place for artifacts. Cheap to clone.
///
/// A put that returns is durable, and replaces what was there in one moment: a reader sees the old bytes or the new.
#[derive(Clone)]
pub struct ArtifactStore {
    objects: Arc<dyn ObjectStore>,
    /// The same place, by a client that never tries again by itself: for creating.
    once: Arc<dyn ObjectStore>,
    /// How long creating may be tried.
    bound: Duration,
    location: Arc<Location>,
    /// The proxy by way of which it is asked, for people.
    proxy: Option<Arc<str>>,
}

impl fmt::Debug for ArtifactStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ArtifactStore").field(&self.location.to_string()).finish()
    }
}

impl ArtifactStore {
    /// Opens the store at `uri` (see [`resolve`]; relative to the current folder), makes its folder when missing,
    /// and writes a probe, so that a place that cannot be used is found out now and not after an hour of training.
    /// How to reach a store beyond this machine is said by this process's environment.
    ///
    /// # Errors
    /// [`Error::InvalidUri`], [`Error::NoAccess`], [`Error::DiskFull`] and [`Error::NoCreateOnly`] name the place, and so
    /// do [`Error::NoBucket`], [`Error::Denied`], [`Error::NoCredentials`] and [`Error::Unreachable`].
    pub async fn open(uri: &str) -> Result<Self> {
        Self::open_in(uri, &Environment::of_process()).await
    }

    /// [`open`](Self::open) in another environment.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_in(uri: &str, environment: &Environment) -> Result<Self> {
        let store = match resolve(uri, Path::new(""))? {
            Location::File(folder) => Self::over(local::open(&folder).await?, Location::File(folder)),
            location @ Location::S3 { .. } => Self::remote(location, environment)?,
        };
        let probed = probe(store.once.as_ref(), &store.location, environment.patience.open).await;
        probed.map_err(|error| error.through(store.proxy.as_deref()))?;
        Ok(store)
    }

    /// A place beyond this machine, which nobody has tried.
    pub(crate) fn remote(location: Location, environment: &Environment) -> Result<Self> {
        let Location::S3 { bucket, key } = &location else {
            let reason = "it is one of this machine".to_owned();
            return Err(Error::InvalidUri { uri: location.to_string(), reason });
        };
        let Clients { objects, once, proxy } = s3::open(bucket, key, environment)?;
        let (bound, proxy) = (environment.patience.operation, proxy.map(Arc::from));
        Ok(Self { objects, once, bound, location: Arc::new(location), proxy })
    }

    /// What answers at once, or not at all.
    pub(crate) fn over(objects: Arc<dyn ObjectStore>, location: Location) -> Self {
        let once = Arc::clone(&objects);
        Self { objects, once, bound: Duration::ZERO, location: Arc::new(location), proxy: None }
    }

    /// Where the store is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The name of a path of this store for people: errors use it.
    pub fn name_of(&self, path: &str) -> String {
        format!("{}/{path}", self.location)
    }

    /// Puts `bytes` at `path`, replacing what is there.
    ///
    /// # Errors
    /// [`Error::InvalidPath`], [`Error::DiskFull`], [`Error::NoAccess`], [`Error::Store`], and those of a store beyond
    /// this machine.
    pub async fn put(&self, path: &str, bytes: impl Into<Bytes>) -> Result<ArtifactRef> {
        let bytes = bytes.into();
        // Pieces share the bytes' storage.
        let starts = (0..bytes.len()).step_by(PIECE);
        let pieces = starts.map(|start| Ok(bytes.slice(start..bytes.len().min(start + PIECE))));
        self.put_pieces(path, stream::iter(pieces)).await
    }

    /// Puts `bytes` at `path` if nothing is there; of several at the same time, one succeeds.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], and as [`put`](Self::put).
    pub async fn create(&self, path: &str, bytes: impl Into<Bytes>) -> Result<ArtifactRef> {
        let (object, bytes) = (object_path(path)?, bytes.into());
        let (sha256, size) = Hasher::default().absorb(bytes.clone()).await?.finish();
        let created = create(self.objects.as_ref(), self.once.as_ref(), &object, &bytes, self.bound).await;
        created.map_err(|error| self.error(path, error))?;
        Ok(ArtifactRef { path: path.to_owned(), sha256, size })
    }

    async fn put_whole(&self, path: &str, bytes: Bytes) -> Result<ArtifactRef> {
        let object = object_path(path)?;
        let (sha256, size) = Hasher::default().absorb(bytes.clone()).await?.finish();
        let put = self.objects.put(&object, PutPayload::from(bytes)).await;
        put.map_err(|error| self.error(path, error))?;
        Ok(ArtifactRef { path: path.to_owned(), sha256, size })
    }

    /// Puts the bytes of a stream at `path`, a piece at a time, replacing what is there. When the stream fails, nothing
    /// is put.
    ///
    /// # Errors
    /// [`Error::Local`] and its kin for an error of the stream; otherwise as [`put`](Self::put).
    pub async fn put_stream(
        &self,
        path: &str,
        bytes: impl Stream<Item = std::io::Result<Bytes>> + Send,
    ) -> Result<ArtifactRef> {
        let bytes = bytes.map_err(|source| Error::from_io(format_args!("the source of {path}"), source));
        self.put_pieces(path, pieces(bytes)).await
    }

    /// Puts a local file at `path`, a piece at a time, replacing what is there.
    ///
    /// # Errors
    /// Those of reading the file, which they name; otherwise as [`put`](Self::put).
    pub async fn put_file(&self, path: &str, file: &Path) -> Result<ArtifactRef> {
        let failed = |source| Error::from_io(file.display(), source);
        let opened = tokio::fs::File::open(file).await.map_err(failed)?;
        let bytes = stream::try_unfold(opened, |mut opened| async move {
            let mut piece = BytesMut::with_capacity(PIECE);
            let count = opened.read_buf(&mut piece).await?;
            Ok::<_, std::io::Error>((count > 0).then(|| (piece.freeze(), opened)))
        });
        self.put_pieces(path, pieces(bytes.map_err(failed))).await
    }

    async fn put_pieces(&self, path: &str, bytes: impl Stream<Item = Result<Bytes>>) -> Result<ArtifactRef> {
        let object = object_path(path)?;
        let mut bytes = std::pin::pin!(bytes);
        let first = bytes.try_next().await?.unwrap_or_default();
        let Some(second) = bytes.try_next().await? else {
            return self.put_whole(path, first).await;
        };
        let rest = stream::iter([Ok(first), Ok(second)]).chain(bytes);
        let mut upload = self.begin(path, &object).await?;
        match self.upload(path, upload.as_mut(), rest).await {
            Ok(artifact) => Ok(artifact),
            Err(error) => {
                // The first error is the one to tell; what cannot be taken away now is swept later.
                let _best_effort = upload.abort().await;
                Err(error)
            }
        }
    }

    /// Begins an upload. Half of an answer is none, and one upload more that nobody goes on with does no harm.
    async fn begin(&self, path: &str, object: &ObjectPath) -> Result<Box<dyn MultipartUpload>> {
        let mut pauses = Pauses::within(self.bound);
        loop {
            match self.objects.put_multipart(object).await {
                Ok(upload) => return Ok(upload),
                Err(error) => {
                    let lost = matches!(Answer::of(&error), Some(Answer::Lost { .. }));
                    if !(lost && pauses.wait().await) {
                        return Err(self.error(path, error));
                    }
                }
            }
        }
    }

    async fn upload(
        &self,
        path: &str,
        upload: &mut dyn MultipartUpload,
        pieces: impl Stream<Item = Result<Bytes>>,
    ) -> Result<ArtifactRef> {
        let mut pieces = std::pin::pin!(pieces);
        let mut hasher = Hasher::default();
        let mut parts = JoinSet::new();
        let failed = |error| self.error(path, error);
        while let Some(piece) = pieces.try_next().await? {
            if parts.len() == PARTS {
                finished(parts.join_next().await)?.map_err(failed)?;
            }
            parts.spawn(upload.put_part(PutPayload::from(piece.clone())));
            hasher = hasher.absorb(piece).await?;
        }
        while !parts.is_empty() {
            finished(parts.join_next().await)?.map_err(failed)?;
        }
        let (sha256, size) = hasher.finish();
        let artifact = ArtifactRef { path: path.to_owned(), sha256, size };
        match upload.complete().await {
            Ok(_) => Ok(artifact),
            Err(error) => {
                // Completed by a try whose answer was lost, it is no upload any more: what is there tells.
                let answer = Answer::of(&error);
                let done = answer.is_some_and(|answer| answer.may_be_done() || answer.says("NoSuchUpload"));
                if done && self.verify(&artifact).await.is_ok() { Ok(artifact) } else { Err(failed(error)) }
            }
        }
    }

    /// The bytes of an artifact, if they are what they must be.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Damaged`], [`Error::NoAccess`], [`Error::Store`].
    pub async fn get(&self, artifact: &ArtifactRef) -> Result<Bytes> {
        let size = self.size(&artifact.path).await?;
        // Of an object that is too large, one byte too many is enough to know.
        let bytes = self.range(&artifact.path, 0..size.min(artifact.size.saturating_add(1))).await?;
        let hasher = Hasher::default().absorb(bytes.clone()).await?;
        self.check(artifact, size, hasher)?;
        Ok(bytes)
    }

    /// Reads an artifact, keeping nothing, to know whether it is what it must be.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn verify(&self, artifact: &ArtifactRef) -> Result<()> {
        let (size, mut pieces) = self.read(artifact).await?;
        let mut hasher = Hasher::default();
        while let Some(piece) = pieces.try_next().await? {
            hasher = hasher.absorb(piece).await?;
        }
        self.check(artifact, size, hasher)
    }

    /// The first `size` bytes of an object in pieces of at most 8 MiB, as they are found: who must know whether they are
    /// right calls [`verify`](Self::verify) before, or compares their digest.
    pub fn stream(&self, path: &str, size: u64) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        let (store, path) = (self.clone(), path.to_owned());
        let (starts, end) = ((0..size).step_by(PIECE), size);
        let read = move |start: u64| {
            let (store, path) = (store.clone(), path.clone());
            async move { store.range(&path, start..end.min(start + PIECE as u64)).await }
        };
        stream::iter(starts).map(read).buffered(2)
    }

    /// Copies an artifact to a local file, a piece at a time. The file appears, whole and durable, when every byte
    /// is there and the digest agrees; otherwise what was there before stays.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Error::DiskFull`], [`Error::NoAccess`] and [`Error::Local`] for the local file.
    pub async fn fetch_to(&self, artifact: &ArtifactRef, file: &Path) -> Result<()> {
        let (size, mut pieces) = self.read(artifact).await?;
        let mut local = LocalFile::new(file).await?;
        let mut hasher = Hasher::default();
        while let Some(piece) = pieces.try_next().await? {
            (local, hasher) = futures::try_join!(local.append(piece.clone()), hasher.absorb(piece))?;
        }
        self.check(artifact, size, hasher)?;
        local.finish().await
    }

    /// The objects below `prefix` (a folder, not text), ordered by path. An empty prefix finds everything.
    ///
    /// # Errors
    /// [`Error::InvalidPath`], [`Error::NoAccess`], [`Error::Store`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let folder = if prefix.is_empty() { None } else { Some(object_path(prefix)?) };
        let found = self.objects.list(folder.as_ref());
        let found = found.map_ok(|object| Listed {
            path: object.location.to_string(),
            size: object.size,
            put_unix_ms: u64::try_from(object.last_modified.timestamp_millis()).unwrap_or(0),
        });
        let mut found: Vec<Listed> = found.try_collect().await.map_err(|error| self.error(prefix, error))?;
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Deletes one object; that it is gone already is no error.
    ///
    /// # Errors
    /// [`Error::InvalidPath`], [`Error::NoAccess`], [`Error::Store`].
    pub async fn delete(&self, path: &str) -> Result<()> {
        match self.objects.delete(&object_path(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(path, error)),
        }
    }

    /// Deletes every object below `prefix` and says how many. An empty prefix is refused: it would be everything.
    ///
    /// # Errors
    /// [`Error::InvalidPath`], [`Error::NoAccess`], [`Error::Store`].
    pub async fn delete_prefix(&self, prefix: &str) -> Result<usize> {
        object_path(prefix)?;
        let found = self.list(prefix).await?;
        for object in &found {
            self.delete(&object.path).await?;
        }
        Ok(found.len())
    }

    /// The bytes at `path`, whatever they are: for manifests, which carry their own digest.
    pub(crate) async fn read_unchecked(&self, path: &str) -> Result<Bytes> {
        let got = self.objects.get(&object_path(path)?).await.map_err(|error| self.error(path, error))?;
        got.bytes().await.map_err(|error| self.error(path, error))
    }

    /// The size an object has, and its bytes in pieces, the next one read while the last is used.
    async fn read<'a>(&'a self, artifact: &'a ArtifactRef) -> Result<(u64, BoxStream<'a, Result<Bytes>>)> {
        let size = self.size(&artifact.path).await?;
        // Of an object that is too large, one byte too many is enough to know.
        let end = size.min(artifact.size.saturating_add(1));
        let starts = (0..end).step_by(PIECE);
        let read = move |start: u64| self.range(&artifact.path, start..end.min(start + PIECE as u64));
        Ok((size, stream::iter(starts).map(read).buffered(2).boxed()))
    }

    async fn size(&self, path: &str) -> Result<u64> {
        Ok(self.version(path).await?.size)
    }

    pub(crate) async fn version(&self, path: &str) -> Result<Version> {
        let head = self.objects.head(&object_path(path)?).await.map_err(|error| self.error(path, error))?;
        // Where there is no mark, the time of change has to do.
        let tag = head.e_tag.unwrap_or_else(|| head.last_modified.to_rfc3339());
        Ok(Version { size: head.size, tag })
    }

    pub(crate) async fn range(&self, path: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes = self.objects.get_range(&object_path(path)?, range).await;
        bytes.map_err(|error| self.error(path, error))
    }

    fn check(&self, artifact: &ArtifactRef, found_size: u64, hasher: Hasher) -> Result<()> {
        let (found, read) = hasher.finish();
        if (found, read) == (artifact.sha256, artifact.size) {
            return Ok(());
        }
        Err(Error::Damaged {
            object: self.name_of(&artifact.path),
            expected: artifact.sha256,
            expected_size: artifact.size,
            found,
            found_size,
        })
    }

    fn error(&self, path: &str, error: object_store::Error) -> Error {
        Error::from_store(self.name_of(path), error).through(self.proxy.as_deref())
    }
}

/// Parts of one object on their way at the same time: with what is being read, five pieces are in memory.
const PARTS: usize = 4;

/// A part's own result.
fn finished<T>(
    joined: Option<Result<object_store::Result<T>, JoinError>>,
) -> Result<object_store::Result<()>> {
    joined.map_or(Ok(Ok(())), |joined| joined.map(|part| part.map(drop)).map_err(interrupted))
}

/// Checks a path: parts joined by `/`, none of them empty, `.` or `..`, no control characters, and no `#`, which
/// marks a file store's hidden uploads.
pub(crate) fn object_path(path: &str) -> Result<ObjectPath> {
    let refuse = |reason: String| Error::InvalidPath { path: path.to_owned(), reason };
    if path.is_empty() {
        return Err(refuse("it is empty".to_owned()));
    }
    if path.starts_with('/') || path.ends_with('/') {
        return Err(refuse("it starts or ends with '/'".to_owned()));
    }
    if path.contains('#') {
        return Err(refuse("it contains '#'".to_owned()));
    }
    ObjectPath::parse(path).map_err(|error| refuse(error.to_string()))
}
