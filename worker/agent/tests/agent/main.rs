//! The agent with real processes and a real coordinator's end of the wire: an in-process server that the test plays, and
//! executors that are this test program again, doing what the lease they get is named after.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod coordinator;
mod executor;
mod fleet;
mod process;

use std::future::Future;
use std::time::Duration;

/// No step takes longer on a busy machine with two cores.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for an event, not for ever.
async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, event).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
