//! A proxy before an S3 server that does to requests what networks and busy stores do.
//!
//! It passes conditional writes on one at a time. S3 promises that of several creators one wins; s3s-fs looks and then
//! writes, and moto let two win in one of 30 rounds on a busy machine.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Mutex as Turn,
    task::JoinHandle,
};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// An answer with this status; the server never sees the request.
    Status(u16),
    /// The same, but the server has done it.
    DoneAnd(u16),
    /// The connection ends; the server never sees the request.
    Reset,
    /// The connection ends when the server has done it.
    DoneAndReset,
    /// The connection ends after half of the answer.
    HalfAnAnswer,
    /// No answer, ever.
    Stall,
}

/// Requests whose head contains `.0` suffer `.1`, so many times.
type Plan = Vec<(String, Fault, usize)>;

pub(crate) struct Proxy {
    pub(crate) address: String,
    plan: Arc<Mutex<Plan>>,
    requests: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (plan, requests) = (Arc::<Mutex<Plan>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (server, with, turn) =
            (server.to_owned(), (plan.clone(), requests.clone()), Arc::<Turn<()>>::default());
        let serving = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (server, (plan, requests), turn) = (server.clone(), with.clone(), turn.clone());
                tokio::spawn(async move {
                    // None when either side hangs up.
                    let _ = pass(client, &server, &plan, &requests, &turn).await;
                });
            }
        });
        Self { address, plan, requests, serving }
    }

    /// From now on requests whose head contains `text` suffer this, so many times.
    pub(crate) fn plan(&self, text: &str, fault: Fault, times: usize) {
        self.plan.lock().unwrap().push((text.to_owned(), fault, times));
    }

    /// The first lines of all requests since this was asked last.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One connection: requests one after the other, each over a connection of its own to the server.
async fn pass(
    mut client: TcpStream,
    server: &str,
    plan: &Mutex<Plan>,
    requests: &Mutex<Vec<String>>,
    turn: &Turn<()>,
) -> Option<()> {
    loop {
        let (head, body) = message(&mut client).await?;
        requests.lock().unwrap().push(head.lines().next()?.to_owned());
        let fault =
            plan.lock().unwrap().iter_mut().find(|(text, _, left)| *left > 0 && head.contains(text)).map(
                |(_, fault, left)| {
                    *left -= 1;
                    *fault
                },
            );
        let answer = match fault {
            Some(Fault::Status(_) | Fault::Reset | Fault::Stall) => Vec::new(),
            _ => {
                let conditional = head.to_ascii_lowercase().contains("\r\nif-none-match:");
                let _one_at_a_time = if conditional { Some(turn.lock().await) } else { None };
                forward(server, &head, &body).await?
            }
        };
        match fault {
            None => client.write_all(&answer).await.ok()?,
            Some(Fault::Status(status) | Fault::DoneAnd(status)) => {
                let answer = format!("HTTP/1.1 {status} Injected\r\nContent-Length: 0\r\n\r\n");
                client.write_all(answer.as_bytes()).await.ok()?;
            }
            Some(Fault::HalfAnAnswer) => {
                client.write_all(&answer[..answer.len() / 2]).await.ok()?;
                return None;
            }
            // Closed with nothing read left, so that it is a reset and not an end.
            Some(Fault::Reset | Fault::DoneAndReset) => {
                let _ = client.set_zero_linger();
                return None;
            }
            Some(Fault::Stall) => std::future::pending().await,
        }
    }
}

async fn forward(server: &str, head: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut upstream = TcpStream::connect(server).await.ok()?;
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    upstream.write_all(head.as_bytes()).await.ok()?;
    upstream.write_all(body).await.ok()?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await.ok()?;
    Some(answer)
}

/// A request's head, with the empty line, and its body.
async fn message(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8(bytes).ok()?;
    let length = head.to_ascii_lowercase().lines().find_map(|line| {
        line.strip_prefix("content-length:").and_then(|value| value.trim().parse::<usize>().ok())
    });
    while body.len() < length.unwrap_or(0) {
        if client.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, body))
}
