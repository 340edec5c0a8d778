//! From a URI to a store: the only place that knows which stores exist.

use std::{path::Path, sync::Arc};

use crate::{Error, Result, StateStore, memory, redb};

/// Opens the store that `uri` names: `memory://`, or `redb:///absolute/folder` (created when missing; what follows
/// `redb://` is taken as it stands, without percent-decoding).
///
/// # Errors
/// [`Error::InvalidUri`] lists what is allowed; [`redb()`] says what can go wrong with a folder.
pub async fn connect(uri: &str) -> Result<Arc<dyn StateStore>> {
    let refuse = |reason: &str| Err(Error::InvalidUri { uri: uri.to_owned(), reason: reason.to_owned() });
    match uri.split_once("://") {
        Some(("memory", "")) => Ok(memory()),
        Some(("memory", _)) => refuse("nothing may follow memory://"),
        Some(("redb", folder)) if folder.starts_with('/') => redb(Path::new(folder)).await,
        Some(("redb", _)) => refuse("the folder must be an absolute path, so three slashes"),
        Some((scheme, _)) => refuse(&format!("unknown scheme {scheme:?}")),
        None => refuse("it has no scheme"),
    }
}
