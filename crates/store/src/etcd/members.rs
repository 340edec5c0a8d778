//! The cluster's members and the one way every request takes: to one member at a time, on to the next when it does not
//! serve, and never longer than a deadline.
//!
//! One connection per member instead of a balanced channel: a member that hangs (a stopped process, a cut wire) then
//! costs one short wait and not one in three requests. A request that may have arrived is repeated only if that is
//! harmless. Not here: what is asked.

use std::{
    fs,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use etcd_client::{Certificate, Client, ConnectOptions, Error as Raw, GetOptions, Identity, TlsOptions};
use tokio::time::{Instant, sleep, timeout};

use super::{
    EtcdConfig,
    verdict::{Verdict, verdict},
};
use crate::{Error, Result};

/// For one operation, whatever happens: longer than etcd takes to elect a leader.
const DEADLINE: Duration = Duration::from_secs(5);
/// For a member to greet, and for the first try of what may be repeated. Each further try gets twice as long.
const FIRST_TRY: Duration = Duration::from_millis(800);
/// After every member was asked in vain.
const PAUSE: Duration = Duration::from_millis(100);
/// etcd closes connections on which it is pinged more often than every 5 s.
const PING_EVERY: Duration = Duration::from_secs(6);
const PING_PATIENCE: Duration = Duration::from_secs(2);

/// Whether a request that may have arrived is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is the same as once.
    Harmless,
    /// The caller has to learn that it is open what happened.
    Never,
}

/// What an operation came to, beside its answer: an error to pass on, or one for the caller to put into words.
#[derive(Debug)]
pub(super) enum Failure {
    Error(Error),
    Compacted,
    Future,
    NoLease,
}

#[derive(Debug)]
pub(super) struct Members {
    pub(super) config: EtcdConfig,
    members: Vec<Member>,
    /// The place of the one that serves.
    current: AtomicUsize,
}

#[derive(Default)]
struct Member {
    /// Made when first asked, and anew after every failure: certificates may have changed.
    client: Mutex<Option<Client>>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Member")
    }
}

impl Members {
    /// # Errors
    /// [`Error::Credentials`] when a file cannot be read.
    pub(super) fn new(config: EtcdConfig) -> Result<Self> {
        options(&config)?;
        let members = config.endpoints.iter().map(|_| Member::default()).collect();
        Ok(Self { config, members, current: AtomicUsize::new(0) })
    }

    /// Asks one member after another until one answers.
    pub(super) async fn call<T, F>(&self, repeat: Repeat, ask: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Raw>>,
    {
        let begun = Instant::now();
        let (mut patience, mut tried) = (FIRST_TRY, 0);
        loop {
            let left = DEADLINE.saturating_sub(begun.elapsed());
            let place = self.current.load(Ordering::Relaxed);
            let verdict = match self.client(place, patience.min(left)).await {
                Ok(client) => {
                    let wait = if repeat == Repeat::Harmless { patience.min(left) } else { left };
                    match timeout(wait, ask(client)).await {
                        Ok(Ok(answer)) => return Ok(answer),
                        Ok(Err(error)) => verdict(&error),
                        Err(_) => {
                            Verdict::Elsewhere { reason: format!("no answer within {wait:?}"), arrived: true }
                        }
                    }
                }
                Err(verdict) => verdict,
            };
            let Verdict::Elsewhere { reason, arrived } = verdict else { return Err(self.failure(verdict)) };
            self.leave(place);
            tracing::debug!(member = self.endpoint(place), %reason, "another member is asked");
            let over = begun.elapsed() + PAUSE >= DEADLINE;
            if over || (arrived && repeat == Repeat::Never) {
                let reason = format!("{reason} (said {})", self.endpoint(place));
                return Err(Failure::Error(Error::Unreachable { endpoints: self.config.names(), reason }));
            }
            tried += 1;
            if tried % self.members.len() == 0 {
                sleep(PAUSE).await;
                patience *= 2;
            }
        }
    }

    /// The place of the member that serves, and its connection: for a stream that stays with it.
    pub(super) async fn serving(&self) -> Result<(usize, Client), Failure> {
        let place = AtomicUsize::new(0);
        let client = self
            .call(Repeat::Harmless, |client| {
                place.store(self.current.load(Ordering::Relaxed), Ordering::Relaxed);
                std::future::ready(Ok(client))
            })
            .await?;
        Ok((place.into_inner(), client))
    }

    /// This member does not serve any more.
    pub(super) fn leave(&self, place: usize) {
        *self.members[place].client.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let next = (place + 1) % self.members.len();
        // Somebody else may have left it already.
        let _ = self.current.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The connection to a member that has greeted.
    async fn client(&self, place: usize, patience: Duration) -> Result<Client, Verdict> {
        let member = &self.members[place];
        if let Some(client) = member.client.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(client);
        }
        let options = options(&self.config).map_err(|error| Verdict::Denied(error.to_string()))?;
        let greet = async {
            let client = Client::connect([self.endpoint(place)], Some(options)).await?;
            // Any key will do: the answer shows that the connection is there and that we may read.
            let any = GetOptions::new().with_serializable().with_count_only();
            client.kv_client().get(self.config.root.as_str(), Some(any)).await?;
            Ok(client)
        };
        match timeout(patience, greet).await {
            Ok(Ok(client)) => {
                *member.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
                Ok(client)
            }
            Ok(Err(error)) => match verdict(&error) {
                Verdict::Elsewhere { reason, .. } => Err(Verdict::Elsewhere { reason, arrived: false }),
                other => Err(other),
            },
            Err(_) => {
                Err(Verdict::Elsewhere { reason: format!("no greeting within {patience:?}"), arrived: false })
            }
        }
    }

    fn endpoint(&self, place: usize) -> &str {
        &self.config.endpoints[place]
    }

    pub(super) fn denied(&self, reason: String) -> Error {
        let user = match (&self.config.user, &self.config.identity) {
            (Some((name, _)), _) => format!("user {name}"),
            (None, Some((certificate, _))) => format!("the certificate {}", certificate.display()),
            (None, None) => "a client without user and certificate".to_owned(),
        };
        let prefix = self.config.root.clone();
        Error::Denied { endpoints: self.config.names(), user, prefix, reason }
    }

    fn failure(&self, verdict: Verdict) -> Failure {
        Failure::Error(match verdict {
            Verdict::Compacted => return Failure::Compacted,
            Verdict::Future => return Failure::Future,
            Verdict::NoLease => return Failure::NoLease,
            Verdict::Denied(reason) => self.denied(reason),
            Verdict::Full => Error::SpaceExceeded { endpoints: self.config.names() },
            Verdict::TooLarge(said) => Error::InvalidTxn {
                reason: format!(
                    "{said}: etcd needs its default --max-txn-ops and --max-request-bytes, or more"
                ),
            },
            Verdict::Elsewhere { reason, .. } => {
                Error::Unreachable { endpoints: self.config.names(), reason }
            }
        })
    }
}

impl Failure {
    /// The error of an operation that names neither a revision nor a lease.
    pub(super) fn plain(self, members: &Members) -> Error {
        let reason = match self {
            Failure::Error(error) => return error,
            Failure::Compacted => "it speaks of a compaction where no revision was asked for",
            Failure::Future => "it speaks of a revision where none was asked for",
            Failure::NoLease => "it speaks of a lease where none was asked for",
        };
        Error::Unreachable { endpoints: members.config.names(), reason: reason.to_owned() }
    }
}

fn options(config: &EtcdConfig) -> Result<ConnectOptions> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(FIRST_TRY)
        .with_keep_alive(PING_EVERY, PING_PATIENCE)
        .with_keep_alive_while_idle(false)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some((name, password)) = &config.user {
        options = options.with_user(name, password);
    }
    if config.ca.is_some() || config.identity.is_some() {
        let mut tls = TlsOptions::new();
        if let Some(ca) = &config.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read("ETCD_AUTH_CA", ca)?));
        }
        if let Some((certificate, key)) = &config.identity {
            let certificate = read("ETCD_AUTH_CLIENT_CERT", certificate)?;
            tls = tls.identity(Identity::from_pem(certificate, read("ETCD_AUTH_CLIENT_KEY", key)?));
        }
        options = options.with_tls(tls);
    }
    Ok(options)
}

fn read(variable: &'static str, file: &Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|source| Error::Credentials { variable, file: file.to_owned(), source })
}
