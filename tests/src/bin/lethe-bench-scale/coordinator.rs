//! A coordinator as a process, and what the kernel knows of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lethe_client::{Client, Options};
use lethe_tests::free_addresses;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

const DEADLINE: Duration = Duration::from_secs(60);

/// A coordinator that ends with this.
pub(crate) struct Coordinator {
    child: Child,
    pub(crate) grpc: String,
    pub(crate) http: String,
}

impl Coordinator {
    /// Starts one on this store, in a folder for its artifacts.
    pub(crate) fn start(program: &Path, store: &str, folder: &Path) -> Result<Self> {
        let mut addresses = free_addresses(2);
        let (http, grpc) = (addresses.remove(1), addresses.remove(0));
        let mut command = Command::new(program);
        command.args(["--listen", &grpc, "--http", &http, "--store", store, "--log", "error"]);
        command.arg("--data").arg(folder.join("data")).stdin(Stdio::null());
        let child = command.spawn().with_context(|| format!("{} starts", program.display()))?;
        Ok(Self { child, grpc, http })
    }

    /// A client of it, once it serves.
    pub(crate) async fn client(&self) -> Result<Client> {
        let begun = Instant::now();
        loop {
            match Client::connect(&[&self.grpc], Options::default()).await {
                Ok(client) => return Ok(client),
                Err(error) if begun.elapsed() > DEADLINE => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Whether it says that it leads.
    pub(crate) async fn leads(&self) -> bool {
        page(&self.http, "/metrics").await.is_ok_and(|text| text.lines().any(|line| line == "lethe_leader 1"))
    }

    /// The value of a line of /metrics.
    pub(crate) async fn metric(&self, series: &str) -> Result<f64> {
        let text = page(&self.http, "/metrics").await?;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no {series}"))?.parse()?)
    }

    /// Ends it at once, without a word.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Seconds of processor time so far, by the name of the thread.
    pub(crate) fn cpu_seconds(&self) -> Result<BTreeMap<String, f64>> {
        let mut seconds: BTreeMap<String, f64> = BTreeMap::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end while one looks.
            let Ok(stat) = std::fs::read_to_string(thread?.path().join("stat")) else { continue };
            let (head, rest) = stat.rsplit_once(") ").context("stat has a name")?;
            let name = head.split_once('(').context("stat has a name")?.1;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let ticks = |place: usize| -> Result<f64> { Ok(fields.get(place).context("a field")?.parse()?) };
            *seconds.entry(name.to_owned()).or_default() += (ticks(11)? + ticks(12)?) / 100.0;
        }
        Ok(seconds)
    }

    /// Megabytes of memory: now, and the most it has had.
    pub(crate) fn memory(&self) -> Result<(f64, f64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let read = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a line of status")?;
            Ok(line.split_whitespace().next().context("a number")?.parse::<f64>()? / 1024.0)
        };
        Ok((read("VmRSS:")?, read("VmHWM:")?))
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer to a GET.
pub(crate) async fn page(http: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(http).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("{path}: {}", answer.lines().next().unwrap_or_default());
    }
    Ok(answer)
}
