//! The coordinator's state: a small, ordered, transactional map with leases and resumable watches.
//!
//! [`StateStore`] is the port. Behind it: [`memory`] for tests and throw-away runs, [`redb()`], one file in a
//! folder, the default of a single machine, and [`etcd()`], a cluster that several coordinators share. All pass the
//! suite in `conformance` (feature of the same name), and so must every store added later. [`connect`] picks one from a
//! URI. Feature `etcd-cluster` starts a real cluster for tests.
//!
//! Not here: what the values mean. They are bytes; whoever writes them gives them a format version. Big things
//! (models, checkpoints, reports) are artifacts and live in `lethe-artifacts`.

mod connect;
mod embedded;
mod error;
mod etcd;
mod folder;
mod history;
mod leases;
mod local;
mod memory;
mod port;
mod txn;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "etcd-cluster")]
pub mod etcd_cluster;

pub use connect::{check, connect};
pub use embedded::redb;
pub use error::{Error, Result};
pub use etcd::{EtcdConfig, etcd};
pub use memory::memory;
pub use port::{Change, Changes, Entry, LeaseId, Listing, Revision, StateStore, Watch};
pub use txn::{Expectation, Precondition, Txn, Write, limits};
