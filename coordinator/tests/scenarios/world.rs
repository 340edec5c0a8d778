//! A coordinator in this process, over a folder that outlives it, and ways to look at it from outside.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use lethe_client::{Client, Options};
use lethe_coordinator::{Coordinator, CoordinatorConfig, Handle, KEEP_EDITS};
use lethe_domain::{JobId, JobSpec, JobState, JobStatus};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

/// Longer than anything here takes on a busy machine; a test that waits for it has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A folder with everything a coordinator and its jobs need.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["generator.pt", "scorer.pt"] {
            // Nobody runs it, but it is looked at.
            let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/mnist/models/thickness.pt");
            std::fs::copy(model, folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn config(&self, listen: SocketAddr) -> CoordinatorConfig {
        CoordinatorConfig {
            listen,
            advertise: None,
            leader_ttl: Duration::from_secs(3),
            http: Some(any_port()),
            store: format!("redb://{}", self.text("state")),
            artifacts: format!("file://{}", self.text("artifacts")),
            allow_chaos: false,
            keep_edits: KEEP_EDITS,
            // One shard a lease, so that leases can be counted.
            engine: lethe_engine::Config {
                gang_patience_ms: 50,
                shards_per_lease: 1,
                ..lethe_engine::Config::default()
            },
        }
    }

    pub(crate) async fn start(&self) -> Handle {
        Coordinator::start(self.config(any_port())).await.unwrap()
    }

    /// 40 shards of sampling, 10 of evaluation, a gang of up to two.
    pub(crate) fn spec(&self) -> Value {
        json!({
            "name": "thick-vae",
            "generator": {"uri": self.text("generator.pt"), "format": "torchscript", "latent": {"dimension": 20},
                          "output": {"range": [0, 1], "channels": 1, "size": 28}},
            "feature": {"name": "thick", "scorer": {"uri": self.text("scorer.pt"), "positive": {"above": 3.5}}},
            "sample": {"shard_size": 50, "batch": 50, "until": {"total": 2000}},
            "pool": {"latents": 500, "shard_size": 50, "batch": 50},
            "unlearn": {"steps": super::fake::STEPS, "global_batch": 64},
            "evaluate": {"samples": 500, "shard_size": 50, "batch": 50},
            "resources": {"slots": {"min": 1, "max": 2}},
        })
    }

    pub(crate) fn job(&self) -> JobSpec {
        JobSpec::from_value(self.spec()).unwrap()
    }
}

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// A connection for the generated clients.
pub(crate) async fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(url(address)).unwrap().connect().await.unwrap()
}

pub(crate) async fn client(address: SocketAddr) -> Client {
    Client::connect(&[url(address)], Options::default()).await.unwrap()
}

/// Waits until something holds that nobody announces.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let found = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// Watches until the state is as wanted.
pub(crate) async fn until(client: &Client, id: &JobId, wanted: impl Fn(&JobStatus) -> bool) -> JobStatus {
    let mut states = client.watch(id);
    let found = async {
        loop {
            let status = states.next().await.expect("the job ended otherwise").unwrap();
            if wanted(&status) {
                return status;
            }
            assert!(!status.state.is_final(), "{status:?}");
        }
    };
    timeout(DEADLINE, found).await.expect("in time")
}

pub(crate) async fn until_final(client: &Client, id: &JobId) -> JobStatus {
    until(client, id, |status| status.state.is_final()).await
}

pub(crate) async fn succeeded(client: &Client, id: &JobId) -> JobStatus {
    let status = until_final(client, id).await;
    assert_eq!(status.state, JobState::Succeeded, "{:?}", status.failure);
    status
}

/// An HTTP answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub(crate) async fn get(handle: &Handle, path: &str) -> Answer {
    timeout(DEADLINE, fetch(handle.http_address().unwrap(), path)).await.expect("in time").expect("an answer")
}

/// None when nobody answers there, or not within a second more than the coordinator waits for its store.
pub(crate) async fn fetch(address: SocketAddr, path: &str) -> Option<Answer> {
    let fetched = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        std::io::Result::Ok(bytes)
    };
    let bytes = timeout(Duration::from_secs(3), fetched).await.ok()?.ok()?;
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some(Answer { status, head, body: bytes[split + 4..].to_vec() })
}

/// The value of a line of /metrics.
pub(crate) async fn metric(handle: &Handle, series: &str) -> Option<f64> {
    let answer = get(handle, "/metrics").await;
    let line = answer
        .text()
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map(str::to_owned);
    line.map(|value| value.parse().unwrap())
}
