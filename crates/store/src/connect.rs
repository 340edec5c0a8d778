//! From a URI to a store: the only place that knows which stores exist.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{Error, EtcdConfig, Result, StateStore, etcd, memory, redb};

/// What a URI names.
enum Kind {
    Memory,
    Redb(PathBuf),
    Etcd(EtcdConfig),
}

/// Opens the store that `uri` names: `memory://`, `redb:///absolute/folder` (created when missing; what follows
/// `redb://` is taken as it stands, without percent-decoding), or `etcd://host:2379,host:2379?prefix=/lethe` beside the
/// environment that [`EtcdConfig::from_uri`] describes.
///
/// # Errors
/// [`Error::InvalidUri`] lists what is allowed; [`redb()`] says what can go wrong with a folder. A cluster is not asked
/// anything yet: that it cannot be reached is what the first operation says.
pub async fn connect(uri: &str) -> Result<Arc<dyn StateStore>> {
    match kind(uri)? {
        Kind::Memory => Ok(memory()),
        Kind::Redb(folder) => redb(&folder).await,
        Kind::Etcd(config) => etcd(config),
    }
}

/// Checks what can be known about `uri` without opening anything.
///
/// # Errors
/// [`Error::InvalidUri`].
pub fn check(uri: &str) -> Result<()> {
    kind(uri).map(|_| ())
}

fn kind(uri: &str) -> Result<Kind> {
    let refuse = |reason: &str| Err(Error::InvalidUri { uri: uri.to_owned(), reason: reason.to_owned() });
    match uri.split_once("://") {
        Some(("memory", "")) => Ok(Kind::Memory),
        Some(("memory", _)) => refuse("nothing may follow memory://"),
        Some(("redb", folder)) if folder.starts_with('/') => Ok(Kind::Redb(Path::new(folder).to_owned())),
        Some(("redb", _)) => refuse("the folder must be an absolute path, so three slashes"),
        Some(("etcd", _)) => EtcdConfig::from_uri(uri, |name| std::env::var(name).ok()).map(Kind::Etcd),
        Some((scheme, _)) => refuse(&format!("unknown scheme {scheme:?}")),
        None => refuse("it has no scheme"),
    }
}
