//! When the store may forget its history: nobody here looks back further than a few minutes, and what is overwritten or
//! deleted takes room until then. Not here: the compaction itself (`lethe-store`).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lethe_store::Revision;
use tokio::time::Instant;

/// History is kept for at least this long, and for less than twice as long while there are commits.
const KEPT: Duration = Duration::from_secs(5 * 60);

/// A revision and when it was the newest.
#[derive(Debug, Default)]
pub(crate) struct History {
    mark: Mutex<Option<(Instant, Revision)>>,
}

impl History {
    /// Takes note of a commit. Some revision, now and then: what came before it is old enough to be forgotten.
    pub(crate) fn past(&self, newest: Revision) -> Option<Revision> {
        let now = Instant::now();
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        match *mark {
            Some((since, _)) if now - since < KEPT => None,
            before => {
                *mark = Some((now, newest));
                before.map(|(_, revision)| revision)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_forgotten_is_older_than_five_minutes() {
        let history = History::default();
        let mut forgotten = Vec::new();
        // A commit each second, numbered by its second.
        for second in 0..1000 {
            forgotten.extend(history.past(Revision(second)).map(|through| (second, through.0)));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(forgotten, [(300, 0), (600, 300), (900, 600)]);
    }
}
