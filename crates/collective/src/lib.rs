//! Collectives for a gang's fine-tuning: libtorch's c10d (Gloo on CPUs, NCCL on GPUs) behind a small safe API.
//!
//! ```no_run
//! # fn main() -> Result<(), lethe_collective::Error> {
//! # use lethe_collective::*; use std::time::Duration;
//! # let (rank, world, generation, mut params) = (0, 2, 1, vec![tch::Tensor::from(0.0).set_requires_grad(true)]);
//! let store = Store::serve("127.0.0.1", Duration::from_secs(30))?; // rank 0; the others: Store::connect(address, timeout, &abort)
//! let place = Place { rank, world, generation };
//! let group = Group::join(&store, Backend::Gloo, place, GroupOptions::default())?;
//! group.broadcast(&mut params, 0)?;
//! let mut reducer = Reducer::new(&group, &params, ReducerOptions::default())?;
//! # let loss = &params[0] * 2.0;
//! reducer.finish(&loss)?; // the gradients are now the sum over the ranks, everywhere the same
//! # Ok(()) }
//! ```
//!
//! A group of one is [`Group::loopback`]; the code around it is the same. For the number of intra-op threads use
//! `tch::set_num_threads`.
//!
//! Not here: membership, leases, checkpoints, models. No algorithm of our own either: libtorch does the work, and
//! the README beside this crate says how it is bound.

mod abort;
mod error;
mod ffi;
mod group;
mod nccl;
mod reducer;
mod rendezvous;
mod sockets;
mod store;

pub use abort::Abort;
pub use error::{Error, Place};
pub use group::{Backend, Group, GroupOptions, Network};
pub use nccl::load_cuda;
pub use reducer::{Reducer, ReducerOptions};
pub use sockets::interface_address;
pub use store::Store;
