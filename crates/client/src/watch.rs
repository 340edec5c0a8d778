//! Watching a job: its states as a stream that survives the loss of its connection.

use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use lethe_domain::{JobId, JobStatus};
use lethe_proto::v1;
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use crate::{Backoff, Client, Error};

impl Client {
    /// The job now, then again at each change, until it is final; then the stream ends.
    ///
    /// When the connection is lost it is made again, with pauses; a state that was given already is not given again.
    /// The last item is an error when no coordinator could be reached for [`crate::Options::patience`], or when there
    /// is no such job.
    pub fn watch(&self, id: &JobId) -> impl Stream<Item = Result<JobStatus, Error>> + Send + Unpin + use<> {
        let watch = Watch {
            client: self.clone(),
            id: id.clone(),
            stream: None,
            seen: None,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            silent_since: None,
            ended: false,
        };
        Box::pin(unfold(watch, |mut watch| async move { watch.next().await.map(|item| (item, watch)) }))
    }
}

struct Watch {
    client: Client,
    id: JobId,
    stream: Option<Streaming<v1::WatchJobResponse>>,
    /// Version of the state given last.
    seen: Option<u64>,
    backoff: Backoff,
    /// When contact was lost.
    silent_since: Option<Instant>,
    ended: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<JobStatus, Error>> {
        while !self.ended {
            match self.receive().await {
                Ok(status) => {
                    self.silent_since = None;
                    self.backoff.reset();
                    if self.seen.is_some_and(|seen| status.version <= seen) {
                        continue;
                    }
                    self.seen = Some(status.version);
                    self.ended = status.state.is_final();
                    return Some(Ok(status));
                }
                Err(error) => {
                    self.stream = None;
                    let silent = self.silent_since.get_or_insert_with(Instant::now).elapsed();
                    let left = self.client.options().patience.saturating_sub(silent);
                    if !error.retryable() || left.is_zero() {
                        self.ended = true;
                        return Some(Err(error));
                    }
                    tracing::debug!(job = %self.id, %error, "lost sight of the job, trying again");
                    sleep(self.backoff.pause().min(left)).await;
                }
            }
        }
        None
    }

    /// The next message, over a new stream when there is none.
    async fn receive(&mut self) -> Result<JobStatus, Error> {
        if self.stream.is_none() {
            self.stream = Some(self.client.open_watch(&self.id).await?);
        }
        let message = match &mut self.stream {
            Some(stream) => stream.message().await,
            None => Ok(None),
        };
        let address = self.client.address();
        match message {
            Ok(Some(message)) => self.client.understood(message.job, "job"),
            Ok(None) => Err(Error::unreachable(&address, "it ended the stream before the job was final")),
            Err(status) => Err(Error::of_status(&address, &status)),
        }
    }
}
