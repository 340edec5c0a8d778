//! Artifacts: models, checkpoints and reports, kept by path on an object store and believed only by digest.
//!
//! [`ArtifactStore`] puts, gets, lists and deletes; [`Checkpoints`] keeps a training run's steps so that each is
//! whole or absent; [`Publication`] puts a result where other files may be, and replaces none of them; [`Digest`] and [`digest_file`] are SHA-256; [`resolve`] makes a location of a job's URI.
//!
//! The API is async and wants a tokio runtime. A thread that is not one of the runtime's own, such as an
//! executor's compute thread, calls it through a handle made where the runtime is:
//!
//! ```
//! # let runtime = tokio::runtime::Runtime::new().unwrap();
//! # let folder = std::env::temp_dir().join(format!("lethe-artifacts-doc-{}", std::process::id()));
//! # let uri = format!("file://{}", folder.display());
//! use lethe_artifacts::ArtifactStore;
//!
//! let handle = runtime.handle().clone(); // `tokio::runtime::Handle::current()` inside async code
//! std::thread::spawn(move || {
//!     let store = handle.block_on(ArtifactStore::open(&uri))?;
//!     let report = handle.block_on(store.put("reports/1.json", "{}"))?;
//!     assert_eq!(handle.block_on(store.get(&report))?, "{}");
//!     Ok::<_, lethe_artifacts::Error>(())
//! })
//! .join()
//! .unwrap()
//! .unwrap();
//! # std::fs::remove_dir_all(folder).unwrap();
//! ```
//!
//! Not here: what a model file means (`lethe-models`), and which checkpoint a job goes on from (the engine).

mod answer;
mod cache;
mod checkpoint;
mod create;
mod digest;
mod environment;
mod error;
mod local;
mod probe;
mod proxy;
mod publication;
mod receipt;
mod remote;
mod s3;
mod store;
mod transfer;
mod uri;

pub use cache::{Cache, Cached};
pub use checkpoint::{
    Checkpoint, Checkpoints, Content, Fault, FileDigest, Header, Keep, Latest, Manifest, NewFile, Removed,
    SCHEMA_VERSION, Skipped,
};
pub use digest::{Digest, InvalidDigest, digest_file, digest_file_blocking};
pub use environment::Environment;
pub use error::{Error, Result};
pub use publication::Publication;
pub use receipt::Receipt;
pub use remote::{Remote, Version};
pub use store::{ArtifactRef, ArtifactStore, Listed};
pub use uri::{Location, resolve};
