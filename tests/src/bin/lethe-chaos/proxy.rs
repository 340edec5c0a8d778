//! What stands before the S3 server: it passes everything on, or answers 503, or hangs up, or says nothing, as it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It is passed on.
    Pass = 0,
    /// Every request is answered with 503.
    Error = 1,
    /// It is closed at once.
    HangUp = 2,
    /// It is accepted, and nothing is ever said.
    Silent = 3,
}

/// A running proxy. It ends with the runtime.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    mood: Arc<AtomicU8>,
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mood = Arc::new(AtomicU8::new(Mood::Pass as u8));
        let told = mood.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(attend(client, server, told.clone()));
            }
        });
        Ok(Self { address, mood })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }
}

async fn attend(mut client: TcpStream, server: SocketAddr, mood: Arc<AtomicU8>) -> std::io::Result<()> {
    let is = |wanted: Mood| mood.load(Ordering::SeqCst) == wanted as u8;
    if is(Mood::HangUp) {
        return Ok(());
    }
    if is(Mood::Silent) {
        return std::future::pending().await;
    }
    if is(Mood::Error) {
        // Read what there is, so that the answer is not lost to a reset.
        let mut request = [0; 64 << 10];
        let _ = client.read(&mut request).await?;
        let answer = "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        client.write_all(answer.as_bytes()).await?;
        return client.shutdown().await;
    }
    let mut upstream = TcpStream::connect(server).await?;
    // An open connection ends when the mood changes.
    let changed = async {
        while is(Mood::Pass) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        passed = copy_bidirectional(&mut client, &mut upstream) => passed.map(drop),
        () = changed => Ok(()),
    }
}

/// One request, and all of the answer.
pub(crate) async fn ask(server: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
