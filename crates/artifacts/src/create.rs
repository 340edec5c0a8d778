//! Creating an object only if there is none, on a store whose answers can be lost.
//!
//! A commit must know whether it happened. A store that answers 412 says that somebody has created the object; after a
//! try whose answer was lost that somebody may be ourselves, so the object is looked at. 409 says that two met, and
//! nothing is written. Not here: when to create.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, Result, path::Path};
use tokio::time::sleep;

use crate::answer::Answer;

/// Creates `path`. `once` must not try again by itself; `objects` is the same store.
///
/// # Errors
/// [`Error::AlreadyExists`] when somebody else has created it; the last one when `bound` is over.
pub(crate) async fn create(
    objects: &dyn ObjectStore,
    once: &dyn ObjectStore,
    path: &Path,
    bytes: &Bytes,
    bound: Duration,
) -> Result<()> {
    let mut pauses = Pauses::within(bound);
    let mut may_be_ours = false;
    loop {
        let Err(error) = once.put_opts(path, bytes.clone().into(), PutMode::Create.into()).await else {
            return Ok(());
        };
        let answer = Answer::of(&error);
        let passing = answer.as_ref().is_some_and(Answer::may_pass);
        if !passing {
            let lost = matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. });
            let ours = lost && may_be_ours && objects.get(path).await?.bytes().await? == *bytes;
            return if ours { Ok(()) } else { Err(error) };
        }
        may_be_ours |= answer.as_ref().is_some_and(Answer::may_be_done);
        if !pauses.wait().await {
            return Err(error);
        }
    }
}

/// Growing pauses between tries, of uneven length, so that two who met do not meet again.
pub(crate) struct Pauses {
    end: Instant,
    next: Duration,
}

impl Pauses {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);

    pub(crate) fn within(bound: Duration) -> Self {
        Self { end: Instant::now() + bound, next: Self::FIRST }
    }

    /// Waits, unless there is no time left for it.
    pub(crate) async fn wait(&mut self) -> bool {
        let odd = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_micros();
        let pause = self.next.mul_f64(0.5 + f64::from(odd % 1000) / 1000.0);
        self.next = (self.next * 2).min(Self::LONGEST);
        if Instant::now() + pause > self.end {
            return false;
        }
        sleep(pause).await;
        true
    }
}
