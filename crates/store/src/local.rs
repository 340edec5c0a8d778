//! What the stores of one process share: transactions, leases, history and watches over a set of [`Rows`].
//!
//! Leases end when somebody looks: every operation first ends what is due, and every watch sleeps no longer than
//! until the next deadline. So there is no background task, and nobody can see a key whose time is over.
//!
//! Not here: where the rows live (`memory`, `embedded`).

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    Change, Changes, Entry, Error, LeaseId, Listing, Result, Revision, StateStore, Txn, Watch, Write,
    history::{History, Next},
    leases::Leases,
    txn::lease_ttl,
};

/// Where the entries, the revision and the leases are kept.
pub(crate) trait Rows: fmt::Debug + Send + 'static {
    /// Whether an operation waits for a disk, and so must leave the async threads alone.
    const BLOCKING: bool;

    /// What was last applied. Called once at the start, and again after a failed [`apply`](Rows::apply).
    fn load(&mut self) -> Result<Loaded>;
    fn get(&self, key: &str) -> Result<Option<Entry>>;
    /// Entries whose key starts with `prefix`, ordered by key.
    fn scan(&self, prefix: &str) -> Result<Vec<Entry>>;
    /// All of the batch, durably, or an error.
    fn apply(&mut self, batch: &Batch) -> Result<()>;
}

/// What [`Rows`] remember beside the entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) revision: Revision,
    pub(crate) leases: Vec<(LeaseId, Duration)>,
    /// Leases are numbered from 1; a number is never used twice.
    pub(crate) last_lease: u64,
}

/// One durable step.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The revision after the step.
    pub(crate) revision: Revision,
    pub(crate) changes: Vec<Change>,
    pub(crate) granted: Option<(LeaseId, Duration)>,
    pub(crate) ended: Option<LeaseId>,
}

/// What watches wait for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Progress {
    revision: Revision,
    next_deadline: Option<Instant>,
}

#[derive(Debug)]
struct Shared<R> {
    core: Mutex<Core<R>>,
    /// Written under the lock of `core`, read by watches without it.
    history: Mutex<History>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct Core<R> {
    rows: R,
    revision: Revision,
    leases: Leases,
    last_lease: u64,
    /// The last step failed, so what is in memory may differ from what is in the rows.
    stale: bool,
}

/// A store over `R`.
pub(crate) struct Local<R> {
    shared: Arc<Shared<R>>,
}

impl<R: Rows> fmt::Debug for Local<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore").field("rows", &lock(&self.shared.core).rows).finish()
    }
}

impl<R: Rows> Local<R> {
    /// A store over rows that are empty, or about to be loaded by [`load`](Self::load).
    pub(crate) fn new(rows: R) -> Self {
        let core =
            Core { rows, revision: Revision(0), leases: Leases::default(), last_lease: 0, stale: true };
        let progress = watch::Sender::new(Progress { revision: Revision(0), next_deadline: None });
        let history = Mutex::new(History::starting_at(Revision(0)));
        Self { shared: Arc::new(Shared { core: Mutex::new(core), history, progress }) }
    }

    /// Loads what the rows hold, waiting for the disk here and now when `R` does.
    pub(crate) fn load(self) -> Result<Self> {
        self.shared.with_core(|_| Ok(()))?;
        Ok(self)
    }

    fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Step<'_, R>) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        run(Arc::clone(&self.shared), operation)
    }
}

fn run<R: Rows, T: Send + 'static>(
    shared: Arc<Shared<R>>,
    operation: impl FnOnce(&mut Step<'_, R>) -> Result<T> + Send + 'static,
) -> BoxFuture<'static, Result<T>> {
    async move {
        if !R::BLOCKING {
            return shared.with_core(operation);
        }
        let interrupted = |error: tokio::task::JoinError| Error::Interrupted { reason: error.to_string() };
        tokio::task::spawn_blocking(move || shared.with_core(operation)).await.map_err(interrupted)?
    }
    .boxed()
}

impl<R: Rows> Shared<R> {
    /// Runs one operation alone, on rows that are up to date and free of leases that are due.
    fn with_core<T>(&self, operation: impl FnOnce(&mut Step<'_, R>) -> Result<T>) -> Result<T> {
        let mut core = self.core.lock().unwrap_or_else(|poisoned| {
            // A panic between the rows and the memory of them: believe the rows.
            self.core.clear_poison();
            let mut core = poisoned.into_inner();
            core.stale = true;
            core
        });
        let mut step = Step { core: &mut core, history: &self.history };
        let result =
            step.reload_if_stale().and_then(|()| step.end_due_leases()).and_then(|()| operation(&mut step));
        let now = Progress { revision: core.revision, next_deadline: core.leases.next_deadline() };
        self.progress.send_if_modified(|before| std::mem::replace(before, now) != now);
        result
    }
}

/// One operation in progress.
struct Step<'a, R> {
    core: &'a mut Core<R>,
    history: &'a Mutex<History>,
}

impl<R: Rows> Step<'_, R> {
    fn reload_if_stale(&mut self) -> Result<()> {
        if !self.core.stale {
            return Ok(());
        }
        let loaded = self.core.rows.load()?;
        let now = Instant::now();
        let mut leases = Leases::default();
        loaded.leases.iter().for_each(|(id, ttl)| leases.grant(*id, *ttl, now));
        if !loaded.leases.is_empty() {
            self.core.rows.scan("")?.into_iter().for_each(|entry| leases.follow(&Change::Put(entry)));
        }
        *lock(self.history) = History::starting_at(loaded.revision);
        self.core.leases = leases;
        self.core.revision = loaded.revision;
        self.core.last_lease = loaded.last_lease;
        self.core.stale = false;
        Ok(())
    }

    fn end_due_leases(&mut self) -> Result<()> {
        while let Some(due) = self.core.leases.due(Instant::now()) {
            self.end_lease(due)?;
        }
        Ok(())
    }

    fn apply(&mut self, mut batch: Batch) -> Result<Revision> {
        if let Err(error) = self.core.rows.apply(&batch) {
            self.core.stale = true;
            return Err(error);
        }
        self.core.revision = batch.revision;
        batch.changes.iter().for_each(|change| self.core.leases.follow(change));
        if let Some((id, ttl)) = batch.granted {
            self.core.last_lease = id.0;
            self.core.leases.grant(id, ttl, Instant::now());
        }
        if let Some(ended) = batch.ended {
            self.core.leases.end(ended);
        }
        if !batch.changes.is_empty() {
            let changes = std::mem::take(&mut batch.changes);
            lock(self.history).push(Changes { revision: batch.revision, changes });
        }
        Ok(batch.revision)
    }

    /// The step that makes `changes`, which take a new revision unless there are none.
    fn batch(&self, changes: Vec<Change>) -> Batch {
        let revision = Revision(self.core.revision.0 + u64::from(!changes.is_empty()));
        Batch { revision, changes, granted: None, ended: None }
    }

    fn commit(&mut self, txn: Txn) -> Result<Revision> {
        txn.validate()?;
        for precondition in &txn.preconditions {
            precondition.check(self.core.rows.get(&precondition.key)?.as_ref())?;
        }
        let version = Revision(self.core.revision.0 + 1);
        let mut changes = Vec::with_capacity(txn.writes.len());
        for write in txn.writes {
            match write {
                Write::Put { key, value, lease } => {
                    lease.map_or(Ok(()), |id| self.core.leases.check(id))?;
                    let created = self.core.rows.get(&key)?.map_or(version, |entry| entry.created);
                    changes.push(Change::Put(Entry { key, value, version, created, lease }));
                }
                Write::Delete { key } if self.core.rows.get(&key)?.is_some() => {
                    changes.push(Change::Delete { key });
                }
                Write::Delete { .. } => {}
                Write::DeleteFolder { folder } => {
                    let inside = self.core.rows.scan(&format!("{folder}/"))?;
                    changes.extend(inside.into_iter().map(|entry| Change::Delete { key: entry.key }));
                }
            }
        }
        if changes.is_empty() {
            return Ok(self.core.revision);
        }
        self.apply(self.batch(changes))
    }

    fn grant(&mut self, ttl: Duration) -> Result<LeaseId> {
        let id = LeaseId(self.core.last_lease + 1);
        self.apply(Batch { granted: Some((id, ttl)), ..self.batch(Vec::new()) })?;
        Ok(id)
    }

    fn end_lease(&mut self, id: LeaseId) -> Result<()> {
        let deletes = self.core.leases.keys(id)?.into_iter().map(|key| Change::Delete { key }).collect();
        self.apply(Batch { ended: Some(id), ..self.batch(deletes) }).map(|_| ())
    }
}

impl<R: Rows> StateStore for Local<R> {
    fn is_exclusive(&self) -> bool {
        true
    }

    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>>> {
        let key = key.to_owned();
        self.run(move |step| step.core.rows.get(&key))
    }

    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Listing>> {
        let prefix = prefix.to_owned();
        self.run(move |step| {
            Ok(Listing { revision: step.core.revision, entries: step.core.rows.scan(&prefix)? })
        })
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Revision>> {
        self.run(move |step| step.commit(txn))
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        let watcher = Watcher {
            shared: Arc::downgrade(&self.shared),
            progress: self.shared.progress.subscribe(),
            prefix: prefix.to_owned(),
            after,
        };
        stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await? {
                Ok(changes) => Some((Ok(changes), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<()>> {
        self.run(move |step| {
            lock(step.history).compact(through);
            Ok(())
        })
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>> {
        self.run(move |step| step.grant(lease_ttl(ttl)))
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration>> {
        self.run(move |step| step.core.leases.keep_alive(lease, Instant::now()))
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        self.run(move |step| step.end_lease(lease))
    }
}

/// One watch and its place in the history. It does not keep the store alive, nor its folder taken.
struct Watcher<R> {
    shared: Weak<Shared<R>>,
    progress: watch::Receiver<Progress>,
    prefix: String,
    after: Revision,
}

impl<R: Rows> Watcher<R> {
    /// The next changes; `None` once the store is closed.
    async fn next(&mut self) -> Option<Result<Changes>> {
        loop {
            let next_deadline = self.progress.borrow_and_update().next_deadline;
            let found = lock(&self.shared.upgrade()?.history).next(&self.prefix, self.after);
            match found {
                Err(compacted) => return Some(Err(compacted)),
                Ok(Next::Changes(changes)) => {
                    self.after = changes.revision;
                    return Some(Ok(changes));
                }
                Ok(Next::Nothing { through }) => self.after = through,
            }
            let lease_due = async {
                match next_deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                progress = self.progress.changed() => progress.ok()?,
                () = lease_due => {
                    // Any operation ends what is due.
                    let ended = run(self.shared.upgrade()?, |_| Ok(())).await;
                    if let Err(error) = ended {
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}

/// Locks what no panic can leave half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
