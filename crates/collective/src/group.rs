//! A group: the ranks of one generation, connected, and the collectives among them.
//!
//! Not here: who is in the group. That is planned elsewhere; a change of members is a new generation and a new group.

use std::ffi::c_int;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use crate::abort::{Abort, Target};
use crate::error::{Error, Place};
use crate::ffi::{self, Code, Failure, Owned};
use crate::store::{Store, milliseconds};
use crate::{nccl, rendezvous};

/// What carries the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// TCP between CPUs: tensors on the CPU.
    Gloo,
    /// NCCL between GPUs: tensors on this CUDA device. Needs [`load_cuda`](crate::load_cuda).
    Nccl {
        /// The CUDA device's index in this process.
        device: usize,
    },
}

/// Where Gloo listens, and from where it dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// A name or address of this machine that the peers can reach.
    Host(String),
    /// A network interface, such as `eth0`.
    Interface(String),
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host {host}"),
            Self::Interface(interface) => write!(f, "interface {interface}"),
        }
    }
}

/// Settings of a group.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// How long a collective waits for a peer. 30 s unless set.
    pub timeout: Duration,
    /// How long joining waits for the ranks that are not there yet. 60 s unless set.
    pub join_timeout: Duration,
    /// Gloo's side of the network; 127.0.0.1 unless set. NCCL has its own variables (`NCCL_SOCKET_IFNAME`).
    pub network: Network,
    /// The switch that ends this group; one per group.
    pub abort: Abort,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            join_timeout: Duration::from_secs(60),
            network: Network::Host("127.0.0.1".to_owned()),
            abort: Abort::new(),
        }
    }
}

/// A seat in a connected group. Every rank calls the same collectives in the same order; each blocks until it is
/// done. After the first error the group is over: the peers are let go, and every later call returns that first
/// error again. Call [`Group::barrier`] before dropping a group that ended well, so that no peer is cut off.
#[derive(Debug)]
pub struct Group {
    inner: Arc<Inner>,
}

/// What the group and its reducer share.
#[derive(Debug)]
pub(crate) struct Inner {
    place: Place,
    timeout: Duration,
    abort: Abort,
    /// The first error. Its lock is held during a collective: libtorch counts collectives without a lock of its own.
    failed: Mutex<Option<Error>>,
    /// `None`: a loopback.
    peers: Option<Peers>,
}

/// The connected side, absent in a loopback.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) group: Owned<ffi::Group>,
    backend: Arc<Owned<ffi::Backend>>,
    cuda: Option<Cuda>,
}

/// Whether an operation sends anything: only then is a GPU waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sends {
    Something,
    Nothing,
}

#[derive(Debug, Clone, Copy)]
struct Cuda {
    library: &'static nccl::Library,
    device: c_int,
}

impl Group {
    /// A group of one, without a store or a network. Collectives leave their tensors as they are.
    pub fn loopback() -> Self {
        let place = Place { rank: 0, world: 1, generation: 0 };
        Self::with(place, GroupOptions::default(), None)
    }

    /// Takes the seat `place` and connects to the other ranks, who find each other through `store`. Blocks until all
    /// are there.
    ///
    /// # Errors
    /// [`Error::Absent`] names the ranks that did not come, [`Error::Taken`] a seat that was used before,
    /// [`Error::NcclMissing`] a machine without CUDA; else [`Error::Store`], [`Error::PeerLost`],
    /// [`Error::Timeout`], [`Error::Aborted`] or [`Error::Invalid`].
    pub fn join(store: &Store, backend: Backend, place: Place, options: GroupOptions) -> Result<Self, Error> {
        let invalid = |reason| Error::Invalid { operation: "join", reason };
        let (Ok(rank), Ok(world)) = (c_int::try_from(place.rank), c_int::try_from(place.world)) else {
            return Err(invalid(format!("{place}: too many ranks")));
        };
        if rank >= world {
            return Err(invalid(format!("{place}: a rank is less than the number of ranks")));
        }
        let scope = store.scope(&format!("generation/{}", place.generation))?;
        let connected = match backend {
            Backend::Gloo => join_gloo(&scope, place, &options).map(|backend| (backend, None)),
            Backend::Nccl { device } => join_nccl(&scope, place, device, &options),
        };
        let peers = connected.and_then(|(backend, cuda)| {
            let group = Owned::create(|out, message| {
                let nccl = cuda.is_some();
                // SAFETY: store and backend outlive the call; the group takes its own shares.
                unsafe {
                    ffi::lethe_group_new(scope.as_ptr(), backend.as_ptr(), nccl, rank, world, out, message)
                }
            })
            .map_err(|failure| classify(failure, "join", place, options.timeout))?;
            Ok(Peers { group, backend, cuda })
        });
        match peers {
            _ if options.abort.is_aborted() => Err(Error::Aborted { operation: "join", place }),
            Ok(peers) => Ok(Self::with(place, options, Some(peers))),
            Err(error) => {
                options.abort.sever();
                Err(error)
            }
        }
    }

    fn with(place: Place, options: GroupOptions, peers: Option<Peers>) -> Self {
        let GroupOptions { timeout, abort, .. } = options;
        Self { inner: Arc::new(Inner { place, timeout, abort, failed: Mutex::new(None), peers }) }
    }

    /// This process's rank, 0-based.
    pub fn rank(&self) -> usize {
        self.inner.place.rank
    }

    /// The number of ranks.
    pub fn world(&self) -> usize {
        self.inner.place.world
    }

    /// Whether this is [`Group::loopback`]: no backend, nothing is sent. A joined group may have one rank too.
    pub fn is_loopback(&self) -> bool {
        self.inner.peers.is_none()
    }

    /// This group's seat, with its generation.
    pub fn place(&self) -> Place {
        self.inner.place
    }

    /// The switch that ends this group from any thread.
    pub fn abort_handle(&self) -> Abort {
        self.inner.abort.clone()
    }

    /// Overwrites the tensors of every rank with those of rank `root`. Shapes and types must agree across ranks;
    /// tensors that require gradients are fine.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a `root` that does not exist; else see [`Group`].
    pub fn broadcast(&self, tensors: &mut [Tensor], root: usize) -> Result<(), Error> {
        let place = self.inner.place;
        let root = c_int::try_from(root).ok().filter(|_| root < place.world).ok_or_else(|| {
            Error::Invalid { operation: "broadcast", reason: format!("{place}: there is no rank {root}") }
        })?;
        let pointers = pointers(tensors);
        self.inner.collective("broadcast", |peers| {
            let Some(peers) = peers else { return Ok(()) };
            ffi::call(|message| {
                // SAFETY: the group and the tensors, borrowed by this function, outlive the call.
                unsafe {
                    let group = peers.group.as_ptr();
                    ffi::lethe_group_broadcast(group, pointers.as_ptr(), pointers.len(), root, message)
                }
            })
        })
    }

    /// Replaces the tensor, on every rank, by the sum over the ranks. Shapes and types must agree across ranks. The
    /// result has the same bits everywhere.
    ///
    /// # Errors
    /// See [`Group`].
    pub fn all_reduce_sum(&self, tensor: &mut Tensor) -> Result<(), Error> {
        self.sum(tensor, "all_reduce_sum")
    }

    /// Returns once every rank has called it.
    ///
    /// # Errors
    /// See [`Group`].
    pub fn barrier(&self) -> Result<(), Error> {
        let cuda = self.inner.peers.as_ref().and_then(|peers| peers.cuda);
        let device = cuda.map_or(Device::Cpu, |cuda| Device::Cuda(usize::try_from(cuda.device).unwrap_or(0)));
        self.sum(&mut Tensor::zeros([1], (Kind::Float, device)), "barrier")
    }

    fn sum(&self, tensor: &mut Tensor, operation: &'static str) -> Result<(), Error> {
        let pointer = tensor.as_ptr().cast();
        self.inner.collective(operation, |peers| {
            let Some(peers) = peers else { return Ok(()) };
            // SAFETY: the group and the tensor, borrowed by the caller, outlive the call.
            ffi::call(|message| unsafe {
                ffi::lethe_group_all_reduce_sum(peers.group.as_ptr(), pointer, message)
            })
        })
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Inner {
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Runs one collective, alone, and keeps the first error. `run` gets `None` in a loopback.
    pub(crate) fn collective<T>(
        &self,
        operation: &'static str,
        run: impl FnOnce(Option<&Peers>) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        self.run(operation, Sends::Something, run)
    }

    /// As [`Inner::collective`], for what need not send anything.
    pub(crate) fn run<T>(
        &self,
        operation: &'static str,
        sends: Sends,
        run: impl FnOnce(Option<&Peers>) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &*failed {
            return Err(error.clone());
        }
        let result = if self.abort.is_aborted() {
            Err(Error::Aborted { operation, place: self.place })
        } else {
            let waits = self.peers.as_ref().filter(|_| sends == Sends::Something);
            run(self.peers.as_ref())
                .and_then(|value| waits.map_or(Ok(()), |peers| peers.settle(self.timeout)).map(|()| value))
                .map_err(|failure| match self.abort.is_aborted() {
                    true => Error::Aborted { operation, place: self.place },
                    false => classify(failure, operation, self.place, self.timeout),
                })
        };
        if let Err(error) = &result {
            *failed = Some(error.clone());
            self.abort.sever();
        }
        result
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.abort.disarm();
        let failed = self.failed.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (None, false, Some(peers)) = (failed, self.abort.is_aborted(), &self.peers) {
            // SAFETY: the backend is alive, and nothing is in flight: collectives block, and this is the last share.
            // A failure here changes nothing; the destructor follows.
            let _ =
                ffi::call(|message| unsafe { ffi::lethe_backend_shutdown(peers.backend.as_ptr(), message) });
        }
    }
}

impl Peers {
    fn settle(&self, timeout: Duration) -> Result<(), Failure> {
        self.cuda.map_or(Ok(()), |cuda| cuda.library.settle(&self.backend, cuda.device, timeout))
    }
}

fn join_gloo(scope: &Store, place: Place, options: &GroupOptions) -> Result<Arc<Owned<ffi::Backend>>, Error> {
    let (device, address) = rendezvous::listen(&options.network)?;
    let listening =
        rendezvous::gather(scope, place, &address.to_string(), options.join_timeout, &options.abort)?;
    let addresses =
        listening.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(|_| Error::Invalid {
            operation: "join",
            reason: format!("{place}: not all ranks use Gloo: {listening:?}"),
        })?;
    options.abort.arm(Target::Connections(addresses));
    let backend = Owned::create(|out, message| {
        // SAFETY: store and device outlive the call; the backend takes its own shares. rank and world fit: checked.
        unsafe {
            let timeout = milliseconds(options.timeout);
            let (rank, world) = (place.rank as c_int, place.world as c_int);
            ffi::lethe_gloo_backend(scope.as_ptr(), device.as_ptr(), rank, world, timeout, out, message)
        }
    });
    backend.map(Arc::new).map_err(|failure| classify(failure, "join", place, options.timeout))
}

fn join_nccl(
    scope: &Store,
    place: Place,
    device: usize,
    options: &GroupOptions,
) -> Result<(Arc<Owned<ffi::Backend>>, Option<Cuda>), Error> {
    let library = nccl::library()?;
    let error = |failure| classify(failure, "join", place, options.timeout);
    let devices = library.devices().map_err(error)?;
    let device =
        c_int::try_from(device).ok().filter(|&device| device < devices).ok_or_else(|| Error::Invalid {
            operation: "join",
            reason: format!("{place}: there is no CUDA device {device}: this process sees {devices}"),
        })?;
    rendezvous::gather(scope, place, "nccl", options.join_timeout, &options.abort)?;
    let (rank, world) = (place.rank as c_int, place.world as c_int);
    let backend = library.new_backend(scope, device, rank, world, options.timeout).map_err(error)?;
    let backend = Arc::new(backend);
    options.abort.arm(Target::Backend(Arc::downgrade(&backend)));
    library.connect(&backend, device).map_err(error)?;
    Ok((backend, Some(Cuda { library, device })))
}

/// A failure with its place.
fn classify(failure: Failure, operation: &'static str, place: Place, timeout: Duration) -> Error {
    let Failure { code, detail } = failure;
    match code {
        Code::Timeout => Error::Timeout { operation, place, timeout, detail },
        Code::Network => Error::PeerLost { operation, place, detail },
        Code::Torch => Error::Torch { operation, place, detail },
    }
}

/// The C++ tensors behind tch's.
pub(crate) fn pointers(tensors: &[Tensor]) -> Vec<ffi::TensorPtr> {
    tensors.iter().map(|tensor| tensor.as_ptr().cast()).collect()
}
