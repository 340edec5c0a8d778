//! A tiny file system of its own for one test, seen by this thread and the processes it starts; needs root.

use std::path::Path;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::skip;

/// Mounts `size` (such as `1m`) of memory at `at`. `None`, and a skip on record, where this user may not.
pub fn mounted(at: &Path, size: &str) -> Option<()> {
    let none = None::<&str>;
    let private = || mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none);
    let tmpfs =
        || mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(format!("size={size}").as_str()));
    match unshare(CloneFlags::CLONE_NEWNS).and_then(|()| private()).and_then(|()| tmpfs()) {
        Ok(()) => Some(()),
        Err(error) => {
            skip(&format!("a disk of its own needs root (CAP_SYS_ADMIN): {error}"));
            None
        }
    }
}

/// Makes what `mounted` mounted read-only.
pub fn read_only(at: &Path) {
    let none = None::<&str>;
    mount(none, at, none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
}

/// A runtime whose threads see this thread's mounts.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
