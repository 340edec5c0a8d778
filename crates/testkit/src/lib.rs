//! What the tests of several crates need: an S3 server, a small disk, and skips that nobody overlooks.
//!
//! Not here: anything that a product depends on, the harness of multi-process scenarios (`tests`), the etcd cluster
//! (`lethe-store`, feature `etcd-cluster`).

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what the tests stand on fails by panicking")]

pub mod moto;
mod skip;
pub mod small_disk;

pub use moto::Moto;
pub use skip::skip;
