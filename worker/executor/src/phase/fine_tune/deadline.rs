//! An end for what nobody can break off: something else is done when it takes too long.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

/// A limit that runs until this is dropped.
#[derive(Debug)]
pub(super) struct Deadline {
    /// The other end waits for this one to go.
    _running: SyncSender<()>,
}

impl Deadline {
    /// Calls `late` on another thread unless this is dropped within `limit`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(limit: Duration, late: impl FnOnce() + Send + 'static) -> Result<Self> {
        let (running, ended) = sync_channel(1);
        thread::Builder::new()
            .name("deadline".to_owned())
            .spawn(move || {
                if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    late();
                }
            })
            .map_err(|source| Error::System { what: "a thread cannot be started", source })?;
        Ok(Self { _running: running })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_late_only_when_it_is() {
        let (said, heard) = sync_channel(2);
        let say = |what| {
            let said = said.clone();
            move || said.send(what).unwrap()
        };
        let kept = Deadline::start(Duration::from_secs(3600), say("kept")).unwrap();
        let _missed = Deadline::start(Duration::from_millis(1), say("missed")).unwrap();
        assert_eq!(heard.recv_timeout(Duration::from_secs(30)), Ok("missed"));
        drop(kept);
        drop(said);
        // Both threads are gone, and only one said something.
        assert_eq!(heard.recv_timeout(Duration::from_secs(30)), Err(RecvTimeoutError::Disconnected));
    }
}
