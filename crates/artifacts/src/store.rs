//! The artifact store: objects by path, put whole or not at all, read back only if the digest agrees.
//!
//! Everything here goes through the `ObjectStore` trait, so that a store beyond this machine needs only another way
//! of opening. Not here: opening a folder (`local`), the probe, cutting and
//! assembling (`transfer`), checkpoints.

use std::{fmt, path::Path, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path as ObjectPath,
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::{
    Digest, Error, Location, Result,
    digest::Hasher,
    local,
    probe::probe,
    resolve,
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
}

/// A place for artifacts. Cheap to clone.
///
/// A put that returns is durable, and replaces what was there in one moment: a reader sees the old bytes or the new.
#[derive(Clone)]
pub struct ArtifactStore {
    objects: Arc<dyn ObjectStore>,
    location: Arc<Location>,
}

impl fmt::Debug for ArtifactStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ArtifactStore").field(&self.location.to_string()).finish()
    }
}

impl ArtifactStore {
    /// Opens the store at `uri` (see [`resolve`]; relative to the current folder), makes its folder when missing,
    /// and writes a probe, so that a place that cannot be used is found out now and not after an hour of training.
    ///
    /// # Errors
    /// [`Error::InvalidUri`], [`Error::NoAccess`], [`Error::DiskFull`] and [`Error::NoCreateOnly`] name the place.
    pub async fn open(uri: &str) -> Result<Self> {
        let location = resolve(uri, Path::new(""))?;
        let objects = match &location {
            Location::File(folder) => local::open(folder).await?,
        };
        probe(objects.as_ref(), &location).await?;
        Ok(Self::over(objects, location))
    }

    pub(crate) fn over(objects: Arc<dyn ObjectStore>, location: Location) -> Self {
        Self { objects, location: Arc::new(location) }
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
    /// [`Error::InvalidPath`], [`Error::DiskFull`], [`Error::NoAccess`], [`Error::Store`].
    pub async fn put(&self, path: &str, bytes: impl Into<Bytes>) -> Result<ArtifactRef> {
        self.put_mode(path, bytes.into(), PutMode::Overwrite).await
    }

    /// Puts `bytes` at `path` if nothing is there; of several at the same time, one succeeds.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], and as [`put`](Self::put).
    pub async fn create(&self, path: &str, bytes: impl Into<Bytes>) -> Result<ArtifactRef> {
        self.put_mode(path, bytes.into(), PutMode::Create).await
    }

    async fn put_mode(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<ArtifactRef> {
        let object = object_path(path)?;
        let (sha256, size) = Hasher::default().absorb(bytes.clone()).await?.finish();
        let put = self.objects.put_opts(&object, PutPayload::from(bytes), mode.into()).await;
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
            return self.put_mode(path, first, PutMode::Overwrite).await;
        };
        let rest = stream::iter([Ok(first), Ok(second)]).chain(bytes);
        let upload = self.objects.put_multipart(&object).await;
        let mut upload = upload.map_err(|error| self.error(path, error))?;
        match self.upload(path, upload.as_mut(), rest).await {
            Ok((sha256, size)) => Ok(ArtifactRef { path: path.to_owned(), sha256, size }),
            Err(error) => {
                // The first error is the one to tell; what cannot be taken away now is swept later.
                let _best_effort = upload.abort().await;
                Err(error)
            }
        }
    }

    async fn upload(
        &self,
        path: &str,
        upload: &mut dyn MultipartUpload,
        pieces: impl Stream<Item = Result<Bytes>>,
    ) -> Result<(Digest, u64)> {
        let mut pieces = std::pin::pin!(pieces);
        let mut hasher = Hasher::default();
        while let Some(piece) = pieces.try_next().await? {
            let part = upload.put_part(PutPayload::from(piece.clone()));
            let put = async { part.await.map_err(|error| self.error(path, error)) };
            let (absorbed, ()) = futures::try_join!(hasher.absorb(piece), put)?;
            hasher = absorbed;
        }
        upload.complete().await.map_err(|error| self.error(path, error))?;
        Ok(hasher.finish())
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
        let found = found.map_ok(|object| Listed { path: object.location.to_string(), size: object.size });
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
        let head = self.objects.head(&object_path(path)?).await;
        head.map(|object| object.size).map_err(|error| self.error(path, error))
    }

    async fn range(&self, path: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
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
        Error::from_store(self.name_of(path), error)
    }
}

/// Checks a path: parts joined by `/`, none of them empty, `.` or `..`, no control characters, and no `#`, which
/// marks a file store's hidden uploads.
fn object_path(path: &str) -> Result<ObjectPath> {
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
