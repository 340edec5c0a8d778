//! The probe: whether a place takes what artifacts need, found out before any work is done.
//!
//! Not here: anything about files; the probe is the same for every store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, path::Path};

use crate::{Error, Location, Result, answer::Answer, create::Pauses};

/// Creates one small object, creates it again in vain, reads it, and deletes it. What may pass is tried again for `bound`.
pub(crate) async fn probe(objects: &dyn ObjectStore, location: &Location, bound: Duration) -> Result<()> {
    let mut pauses = Pauses::within(bound);
    loop {
        match attempt(objects, location).await {
            // That it came from a network tells that trying again may help at all.
            Err(error @ (Error::Unreachable { .. } | Error::Refused { passing: true, .. })) => {
                if !pauses.wait().await {
                    return Err(error);
                }
            }
            result => return result,
        }
    }
}

async fn attempt(objects: &dyn ObjectStore, location: &Location) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = Path::from(format!(".probe-{}-{}", std::process::id(), now.as_nanos()));
    let result = create_and_read(objects, location, &name).await;
    match objects.delete(&name).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => result,
        Err(error) => result.and(Err(Error::from_store(location, error))),
    }
}

async fn create_and_read(objects: &dyn ObjectStore, location: &Location, name: &Path) -> Result<()> {
    // A page: a full file system may still take a few bytes.
    let bytes = Bytes::from_static(&[0x5a; 4096]);
    let create = || objects.put_opts(name, bytes.clone().into(), PutMode::Create.into());
    let no_create_only = |reason: String| Error::NoCreateOnly { object: location.to_string(), reason };
    if let Err(error) = create().await {
        let answer = Answer::of(&error);
        if answer.is_some_and(|answer| !answer.says("NotImplemented")) {
            return Err(Error::from_store(location, error));
        }
        // A file system without hard links takes the bytes, but not in this way.
        let plain = objects.put(name, bytes.clone().into()).await;
        return Err(match plain {
            Ok(_) => no_create_only(error.to_string()),
            Err(_) => Error::from_store(location, error),
        });
    }
    match create().await {
        Ok(_) => return Err(no_create_only("it replaced the file that was there".to_owned())),
        Err(error) => match Error::from_store(location, error) {
            Error::AlreadyExists { .. } => {}
            other => return Err(other),
        },
    }
    let got = objects.get(name).await.map_err(|error| Error::from_store(location, error))?;
    let read = got.bytes().await.map_err(|error| Error::from_store(location, error))?;
    if read != bytes {
        return Err(Error::Damaged {
            object: location.to_string(),
            expected: crate::Digest::of(&bytes),
            expected_size: bytes.len() as u64,
            found: crate::Digest::of(&read),
            found_size: read.len() as u64,
        });
    }
    Ok(())
}
