//! A cache of models on a machine: each is fetched once, kept by digest, and goes when there is no room for others.
//!
//! Any number of processes share a folder. In it:
//!
//! - `DIGEST-SIDECAR/model` and `model.json`: an entry, by the digests of the model and of its description; made under
//!   another name and renamed, so whole or absent.
//! - `fetching-NUMBER/`: an entry in the making. Its file has its full length from the start, so that room is taken at once.
//! - `known/NAME`: the digest that an object had when it was read, by uri and version. A description is no proof: the object
//!   may have been replaced without it.
//! - `lock`: held for looking around and changing things, never while bytes move.
//! - `turns/NAME`: held by whoever fetches an object; another who wants it waits and finds it.
//!
//! Locks are `flock`s, which the kernel lets go of when a process dies. A model in use is locked too, and stays. Not here:
//! the room (`room`), loading models.

mod room;

use std::{
    fs::{self, File},
    io,
    ops::Deref,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    Digest, Environment, Error, Location, Remote, Result, digest_file, error::interrupted, remote::digest_in,
};

/// What the cache may hold when nobody says otherwise.
const DEFAULT_BYTES: u64 = 20 << 30;
const FOLDER: &str = "LETHE_CACHE";
const BYTES: &str = "LETHE_CACHE_BYTES";

/// A folder of cached models, and how much it may hold.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    bytes: u64,
}

/// A model of this machine. One of the cache is not removed before this is dropped.
#[derive(Debug)]
pub struct Cached {
    path: PathBuf,
    _in_use: Option<File>,
}

impl Cached {
    /// A file that is used where it is.
    pub fn in_place(path: PathBuf) -> Self {
        Self { path, _in_use: None }
    }
}

impl Deref for Cached {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Cached {
    fn as_ref(&self) -> &Path {
        self
    }
}

impl Cache {
    /// One that may hold so many bytes. Its folder is made when something is fetched.
    pub fn new(folder: impl Into<PathBuf>, bytes: u64) -> Self {
        Self { folder: folder.into(), bytes }
    }

    /// The one that the environment names: folder LETHE_CACHE, else `lethe` in XDG_CACHE_HOME, else in HOME/.cache, else
    /// /var/cache/lethe; LETHE_CACHE_BYTES, else 20 GiB.
    ///
    /// # Errors
    /// [`Error::Variable`].
    pub fn of(environment: &Environment) -> Result<Self> {
        let below = |name: &str, rest: &str| environment.get(name).map(|folder| Path::new(folder).join(rest));
        let named = environment.get(FOLDER).map(PathBuf::from);
        let folder = named
            .or_else(|| below("XDG_CACHE_HOME", "lethe"))
            .or_else(|| below("HOME", ".cache/lethe"))
            .unwrap_or_else(|| "/var/cache/lethe".into());
        let bytes = match environment.get(BYTES) {
            None => DEFAULT_BYTES,
            Some(text) => text.parse().map_err(|_| Error::Variable {
                name: BYTES,
                reason: format!("found {text:?}, expected a number of bytes, such as 21474836480"),
            })?,
        };
        Ok(Self::new(folder, bytes))
    }

    /// The model at `location` on this machine: itself if it is here, else from the cache, where it is put when it is not
    /// there yet. Its digest has been compared with its description, or with what it was when it came.
    ///
    /// # Errors
    /// Those of the store; [`Error::Damaged`] when the object is not what its description says; [`Error::CacheFull`];
    /// [`Error::NoAccess`], [`Error::DiskFull`] for the folder.
    pub async fn fetch(&self, location: &Location, environment: &Environment) -> Result<Cached> {
        let remote = match (location, Remote::at(location, environment)?) {
            (Location::File(path), _) => return Ok(Cached::in_place(path.clone())),
            (_, Some(remote)) => remote,
            (_, None) => return Err(Error::NotFound { object: location.to_string() }),
        };
        let (version, sidecar) = (remote.version().await?, remote.sidecar().await?);
        let described = sidecar.as_deref().and_then(digest_in);
        self.make_folders().await?;
        let source = Digest::of(format!("{}\n{}\n{}", remote.uri(), version.size, version.tag).as_bytes());
        let _turn = self.lock(format!("turns/{source}")).await?;
        let entry = |digest: Digest| match sidecar.as_deref() {
            Some(text) => format!("{digest}-{}", &Digest::of(text).to_string()[..16]),
            None => format!("{digest}-none"),
        };
        let known = self.folder.join(format!("known/{source}"));
        let remembered = || fs::read_to_string(&known).ok()?.trim().parse::<Digest>().ok();
        if let Some(digest) =
            remembered().filter(|digest| described.is_none_or(|described| described == *digest))
            && let Some(found) = self.find(&entry(digest)).await?
        {
            if digest_file(&found).await?.0 == digest {
                return Ok(found);
            }
            // Damaged here: let go of it, take it away, and fetch it again.
            drop(found);
            self.remove(self.folder.join(entry(digest))).await?;
        }
        let place = {
            let _lock = self.lock("lock".to_owned()).await?;
            room::take(&self.folder, self.bytes, version.size, &remote.uri())?
        };
        let digest = remote.copy_into(&version, &place.model()).await?;
        if let Some(expected) = described
            && expected != digest
        {
            return Err(remote.damaged(expected, digest, version.size));
        }
        {
            let _lock = self.lock("lock".to_owned()).await?;
            place.finish(sidecar.as_deref(), &self.folder.join(entry(digest)))?;
        }
        let failed = |source| Error::from_io(known.display(), source);
        fs::write(&known, digest.to_string()).map_err(failed)?;
        // It is gone again only if somebody needed the room at once.
        self.find(&entry(digest)).await?.ok_or_else(|| Error::CacheFull {
            object: remote.uri(),
            size: version.size,
            folder: self.folder.display().to_string(),
            bound: self.bytes,
            busy: 0,
        })
    }

    /// An entry, locked for use.
    async fn find(&self, name: &str) -> Result<Option<Cached>> {
        // Nobody removes what is looked at under this lock.
        let _lock = self.lock("lock".to_owned()).await?;
        let path = self.folder.join(name).join(room::MODEL);
        let failed = |source| Error::from_io(path.display(), source);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        file.lock_shared().map_err(failed)?;
        // For who comes after: least recently used goes first. A folder that cannot be changed keeps its order.
        let _best_effort = file.set_modified(SystemTime::now());
        Ok(Some(Cached { path, _in_use: Some(file) }))
    }

    async fn remove(&self, entry: PathBuf) -> Result<()> {
        let _lock = self.lock("lock".to_owned()).await?;
        match fs::remove_dir_all(&entry) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::from_io(entry.display(), error))
            }
            _ => Ok(()),
        }
    }

    async fn make_folders(&self) -> Result<()> {
        let folder = self.folder.clone();
        let make = move || {
            ["known", "turns"].iter().try_for_each(|name| {
                let folder = folder.join(name);
                fs::create_dir_all(&folder).map_err(|source| Error::from_io(folder.display(), source))
            })
        };
        tokio::task::spawn_blocking(make).await.map_err(interrupted)?
    }

    /// Waits for a lock of the folder, held until the file is dropped.
    async fn lock(&self, name: String) -> Result<File> {
        let path = self.folder.join(name);
        let lock = move || {
            let open = File::options().create(true).truncate(false).write(true).open(&path);
            let locked = open.and_then(|file| file.lock().map(|()| file));
            locked.map_err(|source| Error::from_io(path.display(), source))
        };
        tokio::task::spawn_blocking(lock).await.map_err(interrupted)?
    }
}
