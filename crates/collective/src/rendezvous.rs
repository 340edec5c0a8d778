//! How the ranks of a generation find each other: each takes its seat in the store, writes down where it listens,
//! and waits for the others to have done so.
//!
//! Not here: connecting. libtorch does that, through keys of its own under the same prefix.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::abort::Abort;
use crate::error::{Error, Place};
use crate::ffi::{self, Owned};
use crate::group::Network;
use crate::sockets;
use crate::store::{Store, c_string};

/// Takes `place` in `scope` and returns what every rank has written there, by rank; `mine` is this rank's text.
/// Waits for absent ranks until `timeout`, or until `abort`.
pub(crate) fn gather(
    scope: &Store,
    place: Place,
    mine: &str,
    timeout: Duration,
    abort: &Abort,
) -> Result<Vec<String>, Error> {
    if scope.add(&format!("seat/{}", place.rank), 1)? != 1 {
        return Err(Error::Taken { place });
    }
    scope.set(&format!("listens/{}", place.rank), mine)?;

    let deadline = Instant::now() + timeout;
    let mut texts: Vec<Option<String>> = vec![None; place.world];
    loop {
        for (rank, text) in texts.iter_mut().enumerate().filter(|(_, text)| text.is_none()) {
            *text = scope.find(&format!("listens/{rank}"))?;
        }
        let missing: Vec<usize> = (0..place.world).filter(|&rank| texts[rank].is_none()).collect();
        if missing.is_empty() {
            return Ok(texts.into_iter().flatten().collect());
        }
        if abort.is_aborted() {
            return Err(Error::Aborted { operation: "join", place });
        }
        if Instant::now() >= deadline {
            return Err(Error::Absent { place, missing, timeout });
        }
        // The store's own wait cannot be interrupted, so the store is asked again and again.
        thread::sleep(Duration::from_millis(10));
    }
}

/// A Gloo device on `network`, and the address it listens on. Gloo does not tell; the address is that of the one
/// listening socket which is there after the device was made and was not before.
pub(crate) fn listen(network: &Network) -> Result<(Owned<ffi::Device>, SocketAddr), Error> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let invalid = |reason: String| Error::Invalid { operation: "join", reason };
    let listeners = || sockets::listeners().map_err(|e| invalid(format!("cannot read /proc/self/fd: {e}")));
    let (name, is_interface) = match network {
        Network::Host(host) => (host, false),
        Network::Interface(interface) => (interface, true),
    };
    let c_name = c_string(name, "join")?;

    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // Another thread may open a listener at the same moment; then there are two new ones, and it is tried again.
    for _ in 0..10 {
        let before = listeners()?;
        let device = Owned::create(|out, message| {
            // SAFETY: `c_name` outlives the call.
            unsafe { ffi::lethe_gloo_device(c_name.as_ptr(), is_interface, out, message) }
        })
        .map_err(|failure| invalid(format!("cannot listen on {network}: {}", failure.detail)))?;
        let mut fresh = listeners()?.into_iter().filter(|(identity, _)| !before.contains_key(identity));
        if let (Some((_, address)), None) = (fresh.next(), fresh.next()) {
            return Ok((device, address));
        }
    }
    Err(invalid(format!(
        "cannot tell which socket Gloo listens on at {network}: is GLOO_DEVICE_TRANSPORT set?"
    )))
}
