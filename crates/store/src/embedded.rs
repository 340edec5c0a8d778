//! The embedded store: redb, one file in a folder, every commit on disk before it is answered.
//!
//! The file is checked whole when it is opened: a damaged one is refused, never believed. It is created under
//! another name and renamed, so that it is there complete or not at all.
//! Not here: transactions, leases and watches (`local`).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{
    Change, Entry, Error, LeaseId, Result, Revision, StateStore,
    folder::{Folder, classify_io},
    local::{Batch, Loaded, Local, Rows},
};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
/// Lease id to its time to live in milliseconds.
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The format of the tables above and of an entry's bytes.
const FORMAT: u64 = 1;
/// redb's own page cache; the system caches the file too.
const CACHE_BYTES: usize = 8 << 20;

/// Opens the store in `folder`, which is created when missing and belongs to this handle until it is dropped.
///
/// # Errors
/// [`Error::InUse`] when another run has the folder; [`Error::Unwritable`], [`Error::DiskFull`],
/// [`Error::Corrupted`], [`Error::NewerFormat`] and [`Error::Io`] name the folder or its file and the remedy.
pub async fn redb(folder: &Path) -> Result<Arc<dyn StateStore>> {
    let folder = folder.to_owned();
    let open = move || Local::new(RedbRows::open(&folder)?).load();
    let opened = tokio::task::spawn_blocking(open).await;
    Ok(Arc::new(opened.map_err(|error| Error::Interrupted { reason: error.to_string() })??))
}

#[derive(Debug)]
pub(crate) struct RedbRows {
    folder: Folder,
    file: PathBuf,
    /// Closed after a failed write: redb wants the file opened again.
    database: Option<Database>,
}

impl RedbRows {
    fn open(folder: &Path) -> Result<Self> {
        let folder = Folder::take(folder)?;
        let file = folder.path().join("state.redb");
        let mut rows = Self { folder, file, database: None };
        if !rows.file.try_exists().map_err(|source| rows.io(source))? {
            rows.create()?;
        }
        Ok(rows)
    }

    /// Makes an empty store: whole under its name, or not there.
    fn create(&mut self) -> Result<()> {
        let unfinished = self.file.with_extension("new");
        let created =
            remove_if_there(&unfinished).map_err(redb::Error::Io).and_then(|()| fill_new(&unfinished));
        if let Err(error) = created {
            let _already_failed = remove_if_there(&unfinished);
            return Err(self.classify(error));
        }
        std::fs::rename(&unfinished, &self.file)
            .and_then(|()| self.folder.sync())
            .map_err(|source| self.io(source))
    }

    fn database(&self) -> Result<&Database> {
        let closed = || Error::Interrupted { reason: "the state file is closed".to_owned() };
        self.database.as_ref().ok_or_else(closed)
    }

    fn read<T>(&self, read: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T> {
        let transaction = self.database()?.begin_read().map_err(|error| self.classify(error.into()))?;
        read(&transaction).map_err(|error| self.classify(error))
    }

    fn io(&self, source: std::io::Error) -> Error {
        classify_io(self.folder.path(), &self.file, source)
    }

    fn classify(&self, error: redb::Error) -> Error {
        match error {
            redb::Error::Io(source) => self.io(source),
            redb::Error::Corrupted(detail) => Error::Corrupted { file: self.file.clone(), detail },
            redb::Error::TableDoesNotExist(_) | redb::Error::TableTypeMismatch { .. } => Error::Corrupted {
                file: self.file.clone(),
                detail: format!("not a state file of lethe: {error}"),
            },
            redb::Error::DatabaseAlreadyOpen => {
                Error::InUse { folder: self.folder.path().to_owned(), owner: None }
            }
            other => Error::Io { file: self.file.clone(), source: std::io::Error::other(other) },
        }
    }
}

fn remove_if_there(file: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn fill_new(file: &Path) -> Result<(), redb::Error> {
    let database = Builder::new().set_cache_size(CACHE_BYTES).create(file)?;
    let transaction = database.begin_write()?;
    transaction.open_table(ENTRIES)?;
    transaction.open_table(LEASES)?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.commit()?;
    Ok(database.close()?)
}

impl Rows for RedbRows {
    const BLOCKING: bool = true;

    fn load(&mut self) -> Result<Loaded> {
        self.database = None;
        let opened =
            Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).open(&self.file);
        self.database = Some(opened.map_err(|error| self.classify(error.into()))?);
        let (format, loaded) = self.read(|transaction| {
            let meta = transaction.open_table(META)?;
            let number = |name| meta.get(name).map(|found| found.map_or(0, |number| number.value()));
            let leases = transaction.open_table(LEASES)?;
            let leases = leases
                .iter()?
                .map(|row| row.map(|(id, ttl)| (LeaseId(id.value()), Duration::from_millis(ttl.value()))));
            let loaded = Loaded {
                revision: Revision(number("revision")?),
                leases: leases.collect::<Result<_, _>>()?,
                last_lease: number("last_lease")?,
            };
            Ok((number("format")?, loaded))
        })?;
        if format != FORMAT {
            return Err(Error::NewerFormat { file: self.file.clone(), found: format, supported: FORMAT });
        }
        Ok(loaded)
    }

    fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.read(|transaction| {
            let found = transaction.open_table(ENTRIES)?.get(key)?;
            found.map(|bytes| decode(key, bytes.value())).transpose()
        })
    }

    fn scan(&self, prefix: &str) -> Result<Vec<Entry>> {
        self.read(|transaction| {
            let mut entries = Vec::new();
            for row in transaction.open_table(ENTRIES)?.range(prefix..)? {
                let (key, bytes) = row?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                entries.push(decode(key.value(), bytes.value())?);
            }
            Ok(entries)
        })
    }

    fn apply(&mut self, batch: &Batch) -> Result<()> {
        // Taken out, so that it stays closed unless the whole step succeeds.
        let database = self.database.take();
        let closed = || Error::Interrupted { reason: "the state file is closed".to_owned() };
        let database = database.ok_or_else(closed)?;
        write(&database, batch).map_err(|error| self.classify(error))?;
        self.database = Some(database);
        Ok(())
    }
}

fn write(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for change in &batch.changes {
            match change {
                Change::Put(entry) => entries.insert(entry.key.as_str(), encode(entry).as_slice())?,
                Change::Delete { key } => entries.remove(key.as_str())?,
            };
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert("revision", batch.revision.0)?;
        let mut leases = transaction.open_table(LEASES)?;
        if let Some((id, ttl)) = batch.granted {
            // At most a day: `lease_ttl` saw to that.
            leases.insert(id.0, u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))?;
            meta.insert("last_lease", id.0)?;
        }
        if let Some(id) = batch.ended {
            leases.remove(id.0)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Version, created and lease (0 for none) as u64 little-endian, then the value.
fn encode(entry: &Entry) -> Vec<u8> {
    let lease = entry.lease.map_or(0, |id| id.0);
    let mut bytes = Vec::with_capacity(24 + entry.value.len());
    for number in [entry.version.0, entry.created.0, lease] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&entry.value);
    bytes
}

fn decode(key: &str, bytes: &[u8]) -> Result<Entry, redb::Error> {
    let short = || redb::Error::Corrupted(format!("the entry of {key:?} is too short"));
    let (version, rest) = bytes.split_first_chunk().ok_or_else(short)?;
    let (created, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (lease, value) = rest.split_first_chunk().ok_or_else(short)?;
    let lease = u64::from_le_bytes(*lease);
    Ok(Entry {
        key: key.to_owned(),
        value: bytes::Bytes::copy_from_slice(value),
        version: Revision(u64::from_le_bytes(*version)),
        created: Revision(u64::from_le_bytes(*created)),
        lease: (lease != 0).then_some(LeaseId(lease)),
    })
}
