//! A typed client of the coordinator: jobs, workers, and the session of a worker, in domain types.
//!
//! A [`Client`] knows one or several addresses and keeps one HTTP/2 connection to each; a call goes to the one that
//! answered last and to the others when that one cannot be reached. Every call has a deadline, every connection a
//! keepalive. Not here: what to print (cli), when to send which session event (the agent's own state machine).

mod address;
mod backoff;
mod connection;
mod download;
mod error;
mod jobs;
mod session;
mod watch;
mod workers;

pub use backoff::Backoff;
pub use connection::{Client, Options};
pub use error::Error;
pub use jobs::Page;
pub use session::{CommandReceiver, EventSender, Session};
