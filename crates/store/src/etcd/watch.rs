//! Following a prefix: a stream on one member, taken up again on another when it breaks or falls silent.
//!
//! etcd sends events; the port promises whole commits. Events of one revision are gathered until a later revision or the
//! end of an unfragmented answer shows that there are no more. A place that is reached (`after`) only ever moves by whole
//! commits, so a broken stream loses and repeats nothing.

use std::{collections::VecDeque, time::Duration};

use etcd_client::{EventType, GetOptions, WatchOptions, WatchResponse, WatchStream};
use futures::{StreamExt, stream};
use tokio::time::{sleep, timeout};

use super::{
    Etcd, MESSAGE_BYTES, kv,
    members::{Failure, Repeat},
    signed, unsigned,
    verdict::{Verdict, verdict},
};
use crate::{Change, Changes, Error, Result, Revision, Watch};

/// A stream silent for this long is asked for a sign of life, and given up when the same time passes again without one.
const SILENCE: Duration = Duration::from_secs(2);
/// Before another member is asked.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn watch(etcd: Etcd, prefix: &str, after: Revision) -> Watch {
    let watcher = Watcher {
        prefix: etcd.full(prefix),
        etcd,
        after,
        place: 0,
        stream: None,
        whole: VecDeque::new(),
        gathered: None,
    };
    stream::unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(changes) => Some((Ok(changes), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Watcher {
    etcd: Etcd,
    prefix: String,
    /// Everything up to here has been given, or concerns others.
    after: Revision,
    /// The member the stream is on.
    place: usize,
    stream: Option<WatchStream>,
    /// Commits known to be whole.
    whole: VecDeque<Changes>,
    /// A commit of which more may come.
    gathered: Option<Changes>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Changes> {
        loop {
            if let Some(changes) = self.whole.pop_front() {
                self.after = changes.revision;
                return Ok(changes);
            }
            match self.receive().await {
                Ok(()) => {}
                Err(error @ Error::Unreachable { .. }) => {
                    tracing::debug!(prefix = self.prefix, %error, "the watch is taken up again");
                    self.stream = None;
                    self.gathered = None;
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes one answer, over a new stream when there is none.
    async fn receive(&mut self) -> Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = self.open().await?;
                self.stream.insert(stream)
            }
        };
        let answer = match timeout(SILENCE, stream.message()).await {
            Ok(answer) => answer,
            Err(_) => {
                // A failure to ask shows in the answer.
                let _ = stream.request_progress().await;
                timeout(SILENCE, stream.message()).await.unwrap_or(Ok(None))
            }
        };
        match answer {
            Ok(Some(response)) => self.take(&response).await,
            Ok(None) => Err(self.lost("it fell silent".to_owned())),
            Err(error) => match verdict(&error) {
                Verdict::Denied(reason) => Err(self.etcd.members.denied(reason)),
                other => Err(self.lost(format!("{other:?}"))),
            },
        }
    }

    fn lost(&self, reason: String) -> Error {
        self.etcd.members.leave(self.place);
        Error::Unreachable { endpoints: self.etcd.members.config.names(), reason }
    }

    /// A stream of what came after `after`, once it is known that the store has been there and still knows.
    async fn open(&mut self) -> Result<WatchStream> {
        let members = self.etcd.members.clone();
        // etcd would wait for a revision that is to come, and would give what is left of one that is compacted.
        let read = members.call(Repeat::Harmless, |client| {
            let options = GetOptions::new().with_count_only().with_revision(signed(self.after.0));
            let root = self.etcd.root().to_owned();
            async move { kv(&client).get(root, Some(options)).await }
        });
        let start = match read.await {
            Ok(_) => self.after.0 + 1,
            // So this one will be refused, with the revision that is kept.
            Err(Failure::Compacted) => self.after.0.max(1),
            Err(Failure::Future) => {
                let newest = self.etcd.revision().await?;
                return Err(Error::Compacted { after: self.after, oldest: newest, newest });
            }
            Err(failure) => return Err(failure.plain(&members)),
        };
        let (place, client) = members.serving().await.map_err(|failure| failure.plain(&members))?;
        self.place = place;
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(signed(start))
            .with_progress_notify()
            .with_fragment();
        let mut watches = client.watch_client().max_decoding_message_size(MESSAGE_BYTES);
        match timeout(SILENCE, watches.watch(self.prefix.as_str(), Some(options))).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => match verdict(&error) {
                Verdict::Denied(reason) => Err(members.denied(reason)),
                other => Err(self.lost(format!("{other:?}"))),
            },
            Err(_) => Err(self.lost(format!("it opened no watch within {SILENCE:?}"))),
        }
    }

    async fn take(&mut self, response: &WatchResponse) -> Result<()> {
        if response.canceled() {
            if response.compact_revision() > 0 {
                let oldest = Revision(unsigned(response.compact_revision()));
                let newest = self.etcd.revision().await?;
                return Err(Error::Compacted { after: self.after, oldest, newest });
            }
            let reason = response.cancel_reason().to_owned();
            return Err(if reason.contains("permission denied") {
                self.etcd.members.denied(reason)
            } else {
                self.lost(format!("it ended the watch: {reason}"))
            });
        }
        for event in response.events() {
            let Some(found) = event.kv() else { continue };
            let revision = Revision(unsigned(found.mod_revision()));
            let Some(entry) = self.etcd.entry(found) else { continue };
            let change = match event.event_type() {
                EventType::Put => Change::Put(entry),
                EventType::Delete => Change::Delete { key: entry.key },
            };
            self.gather(revision, change);
        }
        if !response.0.fragment {
            self.whole.extend(self.gathered.take());
        }
        // Only a notice to this very watch (it has an id) says that everything up to its revision was sent: an answer to
        // a request for progress may run ahead of events in older releases.
        let notice = response.events().is_empty() && !response.created() && response.watch_id() >= 0;
        if let Some(header) = response.header()
            && notice
            && self.whole.is_empty()
        {
            self.after = self.after.max(Revision(unsigned(header.revision())));
        }
        Ok(())
    }

    fn gather(&mut self, revision: Revision, change: Change) {
        if revision <= self.after {
            return;
        }
        match &mut self.gathered {
            Some(open) if open.revision == revision => open.changes.push(change),
            open => {
                self.whole.extend(open.take());
                *open = Some(Changes { revision, changes: vec![change] });
            }
        }
    }
}
