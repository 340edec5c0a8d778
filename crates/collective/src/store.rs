//! The rendezvous store: a small key-value server (c10d's TCPStore) where the ranks of a gang find each other.
//!
//! Not here: what is written into it. Joining a group does that, under a prefix per generation.

use std::ffi::CString;
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::abort::Abort;
use crate::error::Error;
use crate::ffi::{self, Failure, Owned};

/// How long one attempt to connect may take: libtorch does not look at an [`Abort`] meanwhile.
const ATTEMPT: Duration = Duration::from_millis(500);

/// A connection to the store, and in the process that serves it, the server too. The server lives as long as this
/// value and the groups that joined through it. Cheap to clone; usable from any thread.
#[derive(Debug, Clone)]
pub struct Store {
    handle: Arc<Owned<ffi::Store>>,
    address: String,
    timeout: Duration,
}

impl Store {
    /// Serves a store on a free port of `host`, a name or address of this machine that the peers can reach. Only
    /// that address is bound. `timeout` bounds connecting, here and for waiting inside libtorch.
    ///
    /// # Errors
    /// [`Error::Store`] when the address cannot be bound.
    pub fn serve(host: &str, timeout: Duration) -> Result<Self, Error> {
        let bound =
            TcpListener::bind((host, 0)).and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
        let (port, listener) = bound.map_err(|e| Error::Store {
            address: host.to_owned(),
            operation: "serve",
            timeout,
            detail: e.to_string(),
        })?;
        // From here on the server owns the socket: libtorch closes it.
        Self::open(host, port, listener.into_raw_fd(), timeout, timeout, "serve")
    }

    /// Connects to a store that another process serves; retries until `timeout`, or until `abort`, which it notices within
    /// half a second.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `address` is not `host:port`, [`Error::Store`] when nobody answers there in time or before the
    /// abort.
    pub fn connect(address: &str, timeout: Duration, abort: &Abort) -> Result<Self, Error> {
        let parsed = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse::<u16>().ok()?)));
        let (host, port) = parsed.ok_or_else(|| Error::Invalid {
            operation: "connect",
            reason: format!("the store's address must be host:port, not {address:?}"),
        })?;
        let begun = Instant::now();
        loop {
            let left = timeout.saturating_sub(begun.elapsed());
            match Self::open(host, port, -1, left.min(ATTEMPT), timeout, "connect") {
                Err(Error::Store { .. }) if left > ATTEMPT && !abort.is_aborted() => {}
                ended => return ended,
            }
        }
    }

    /// `host:port`, for the peers' [`Store::connect`].
    pub fn address(&self) -> &str {
        &self.address
    }

    fn open(
        host: &str,
        port: u16,
        listener: i32,
        connect: Duration,
        timeout: Duration,
        operation: &'static str,
    ) -> Result<Self, Error> {
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let name = c_string(host, operation)?;
        let made = Owned::create(|out, message| {
            // SAFETY: `name` outlives the call; `listener` is ours to give, or negative.
            unsafe {
                let (connect, timeout) = (milliseconds(connect), milliseconds(timeout));
                ffi::lethe_store_new(name.as_ptr(), port, listener, connect, timeout, out, message)
            }
        });
        match made {
            Ok(handle) => Ok(Self { handle: Arc::new(handle), address, timeout }),
            Err(Failure { detail, .. }) => Err(Error::Store { address, operation, timeout, detail }),
        }
    }

    /// The same store, seen through a prefix: keys of one generation cannot meet those of another.
    pub(crate) fn scope(&self, prefix: &str) -> Result<Self, Error> {
        let prefix = c_string(prefix, "scope")?;
        let handle = Owned::create(|out, message| {
            // SAFETY: both pointers outlive the call; the new view holds its own share of the store.
            unsafe { ffi::lethe_store_scope(self.as_ptr(), prefix.as_ptr(), out, message) }
        })
        .map_err(|failure| self.error("scope", failure))?;
        Ok(Self { handle: Arc::new(handle), ..self.clone() })
    }

    /// Adds to a counter, which starts at 0; returns the sum.
    pub(crate) fn add(&self, key: &str, delta: i64) -> Result<i64, Error> {
        let key = c_string(key, "add")?;
        let mut sum = 0;
        ffi::call(|message| {
            // SAFETY: all pointers outlive the call.
            unsafe { ffi::lethe_store_add(self.as_ptr(), key.as_ptr(), delta, &mut sum, message) }
        })
        .map_err(|failure| self.error("add", failure))?;
        Ok(sum)
    }

    pub(crate) fn set(&self, key: &str, value: &str) -> Result<(), Error> {
        let (key, value) = (c_string(key, "set")?, c_string(value, "set")?);
        ffi::call(|message| {
            // SAFETY: all pointers outlive the call.
            unsafe { ffi::lethe_store_set(self.as_ptr(), key.as_ptr(), value.as_ptr(), message) }
        })
        .map_err(|failure| self.error("set", failure))
    }

    /// The value of `key`, or `None` when nobody has set it yet. Does not wait for it.
    pub(crate) fn find(&self, key: &str) -> Result<Option<String>, Error> {
        let key = c_string(key, "find")?;
        let mut value = ptr::null_mut();
        ffi::call(|message| {
            // SAFETY: all pointers outlive the call; `value` receives a string that is ours to free.
            unsafe { ffi::lethe_store_find(self.as_ptr(), key.as_ptr(), &mut value, message) }
        })
        .map_err(|failure| self.error("find", failure))?;
        Ok(ffi::take_string(value))
    }

    pub(crate) fn as_ptr(&self) -> *const ffi::Store {
        self.handle.as_ptr()
    }

    fn error(&self, operation: &'static str, failure: Failure) -> Error {
        Error::Store {
            address: self.address.clone(),
            operation,
            timeout: self.timeout,
            detail: failure.detail,
        }
    }
}

/// A C string, or [`Error::Invalid`] for text with a NUL inside.
pub(crate) fn c_string(text: &str, operation: &'static str) -> Result<CString, Error> {
    CString::new(text)
        .map_err(|_| Error::Invalid { operation, reason: format!("{text:?} contains a NUL character") })
}

/// Whole milliseconds, at least one: libtorch reads 0 as "for ever".
pub(crate) fn milliseconds(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX).max(1)
}
