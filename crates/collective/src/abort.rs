//! Ending a group's collectives from another thread.
//!
//! Not here: telling the peers. They notice by themselves, since their connections to this process close.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::ffi::{self, Owned};
use crate::sockets;

/// The switch that ends one group. Make it, give it to [`GroupOptions`](crate::GroupOptions), keep a clone: it works
/// from before the group is joined until after it is dropped, from any thread, and more than once.
#[derive(Debug, Clone, Default)]
pub struct Abort {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    requested: AtomicBool,
    target: Mutex<Option<Target>>,
}

/// What has to be broken so that a waiting collective returns.
#[derive(Debug)]
pub(crate) enum Target {
    /// Gloo: the connections that touch these listening addresses.
    Connections(Vec<SocketAddr>),
    /// NCCL: the backend's own abort.
    Backend(Weak<Owned<ffi::Backend>>),
}

impl Abort {
    /// A switch for one group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the group: a collective that is blocked returns [`Error::Aborted`](crate::Error::Aborted), as does every
    /// later one, and joining. Returns at once with Gloo. Joining an NCCL group cannot be broken off while NCCL connects,
    /// and NCCL has been seen to hang in its own abort: whoever needs the device back ends the process after a grace period.
    pub fn abort(&self) {
        self.state.requested.store(true, Ordering::SeqCst);
        self.sever();
    }

    /// Whether [`Abort::abort`] was called.
    pub fn is_aborted(&self) -> bool {
        self.state.requested.load(Ordering::SeqCst)
    }

    /// Says what to break. To be followed by a look at [`Abort::is_aborted`]: the call may have come just before.
    pub(crate) fn arm(&self, target: Target) {
        *self.target() = Some(target);
    }

    /// From now on there is nothing to break: the addresses may be given to others.
    pub(crate) fn disarm(&self) {
        *self.target() = None;
    }

    /// Breaks the group's connections, once, without calling it aborted: a rank that met an error does this, so that
    /// the peers which wait for it hear of it now, and not at their timeout.
    pub(crate) fn sever(&self) {
        let target = self.target().take();
        match target {
            None => {}
            Some(Target::Connections(addresses)) => {
                // It fails only without /proc; then the peers' timeout ends their waiting.
                let _ = sockets::shut_connections(&addresses);
            }
            Some(Target::Backend(backend)) => {
                if let Some(backend) = backend.upgrade() {
                    // SAFETY: `backend` is alive for the call, and libtorch allows abort from any thread. A failure
                    // leaves the collective to its timeout.
                    let _ =
                        ffi::call(|message| unsafe { ffi::lethe_backend_abort(backend.as_ptr(), message) });
                }
            }
        }
    }

    fn target(&self) -> std::sync::MutexGuard<'_, Option<Target>> {
        self.state.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
