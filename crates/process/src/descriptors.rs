//! File descriptors: as many as the system allows, and listening while there are none left.
//!
//! An `accept` that finds no free descriptor fails at once and again: whoever just tries again is busy with that. Not here:
//! what is served on a connection.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use futures::stream::{self, Stream};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// More than anybody needs, where the system sets no limit.
const ENOUGH: u64 = 1 << 20;

/// Until the next try, when a connection cannot be taken.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two lines about that.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Raises the soft limit to the hard one; children inherit it. Where that is not allowed, the limit stays.
pub(crate) fn raise() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let wanted = hard.min(ENOUGH);
        if soft < wanted {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
        }
    }
}

/// Connections as they come in. Where none can be taken, that is logged, and there is a pause.
#[derive(Debug)]
pub struct Incoming {
    listener: TcpListener,
    complained: Option<Instant>,
}

impl Incoming {
    /// Those of a listener.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, complained: None }
    }

    /// The next one.
    pub async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((connection, peer)) => {
                    // Answers are small, and somebody waits for each. A connection that is gone already is noticed later.
                    let _ = connection.set_nodelay(true);
                    return (connection, peer);
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    self.complain(&error);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            tracing::error!(
                %error,
                limit,
                "cannot take a connection, trying again: raise the limit on file descriptors (ulimit -n, LimitNOFILE=) if \
                 they have run out"
            );
            self.complained = Some(Instant::now());
        }
    }

    /// The same as a stream, without end and without errors.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<TcpStream>> {
        stream::unfold(self, |mut incoming| async move {
            let (connection, _) = incoming.next().await;
            Some((Ok(connection), incoming))
        })
    }
}

/// It went before it was taken: the next one is not concerned.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

#[cfg(feature = "http")]
impl axum::serve::Listener for Incoming {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
