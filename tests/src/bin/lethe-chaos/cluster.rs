//! The processes of a rehearsal: etcd, coordinators, workers, an S3 server; each can be found, hurt and started again.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lethe_client::{Client, Options};
use lethe_domain::JobSpec;
use lethe_store::etcd_cluster::{self, Security};
use lethe_testkit::{Moto, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::proxy::Proxy;

pub(crate) const COORDINATORS: usize = 3;
pub(crate) const WORKERS: usize = 4;
const BUCKET: &str = "lethe-chaos";
/// Room for what jobs publish.
const DISK: &str = "24m";

/// One of our programs.
pub(crate) struct Program {
    pub(crate) name: String,
    command: Vec<String>,
    child: Child,
}

/// Everything that runs.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    bin: PathBuf,
    pub(crate) etcd: etcd_cluster::Cluster,
    pub(crate) coordinators: Vec<Program>,
    pub(crate) addresses: Vec<String>,
    pub(crate) workers: Vec<Program>,
    _s3: Moto,
    s3_address: SocketAddr,
    pub(crate) proxy: Proxy,
    environment: Vec<(&'static str, String)>,
}

/// Brings up the loopback interface of the new network namespace. False where that cannot be done.
pub(crate) fn isolate() -> Result<bool> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    let rules = Command::new("nft").arg("--version").stdout(Stdio::null()).status();
    if !up.context("ip (Debian: iproute2)")?.success() {
        bail!("the loopback interface of the new namespace does not come up");
    }
    if !rules.is_ok_and(|status| status.success()) {
        skip("partitions: there is no program nft (Debian: nftables)");
    }
    Ok(true)
}

impl Cluster {
    /// Starts everything and waits until it serves; none where etcd or the S3 server is not installed.
    pub(crate) async fn start(bin: Option<PathBuf>, isolated: bool) -> Result<Option<Self>> {
        let bin = match bin {
            Some(bin) => bin,
            None => std::env::current_exe()?.parent().context("a program lies in a folder")?.to_owned(),
        };
        let folder = tempfile::tempdir()?;
        let Some(etcd) = etcd_cluster::Cluster::start(Security::Plain).await else { return Ok(None) };
        let Some(s3) = Moto::start() else { return Ok(None) };
        s3.bucket(BUCKET);
        let address = s3.address().parse()?;
        let proxy = Proxy::start(address).await?;
        let environment = vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", proxy.address())),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "chaos".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "chaos".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("RUST_LOG", "info".to_owned()),
            ("LETHE_CACHE", folder.path().join("cache").display().to_string()),
        ];
        let published = folder.path().join("published");
        std::fs::create_dir(&published)?;
        if isolated {
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={DISK}"), "tmpfs"])
                .arg(&published)
                .status()?;
            anyhow::ensure!(mounted.success(), "a small disk cannot be mounted");
        }
        let addresses = lethe_tests::free_addresses(COORDINATORS);
        let mut cluster = Self {
            folder,
            bin,
            etcd,
            coordinators: Vec::new(),
            addresses,
            workers: Vec::new(),
            _s3: s3,
            s3_address: address,
            proxy,
            environment,
        };
        for place in 0..COORDINATORS {
            let program = cluster.coordinator(place)?;
            cluster.coordinators.push(program);
        }
        for place in 0..WORKERS {
            let program = cluster.worker(place)?;
            cluster.workers.push(program);
        }
        Ok(Some(cluster))
    }

    fn coordinator(&self, place: usize) -> Result<Program> {
        let store = self.etcd.uri("/chaos");
        let artifacts = format!("s3://{BUCKET}/artifacts");
        let arguments = [
            "--listen",
            &self.addresses[place],
            "--http",
            "off",
            "--store",
            &store,
            "--artifacts",
            &artifacts,
        ];
        self.launch(&format!("coordinator-{place}"), "lethe-coordinator", &arguments)
    }

    fn worker(&self, place: usize) -> Result<Program> {
        let (id, coordinators) = (format!("w{place}"), self.addresses.join(","));
        let arguments = [
            "--coordinator",
            &coordinators,
            "--id",
            &id,
            "--devices",
            "cpu",
            "--slots",
            "1",
            "--threads",
            "1",
        ];
        self.launch(&format!("worker-{place}"), "lethe-worker", &arguments)
    }

    fn launch(&self, name: &str, program: &str, arguments: &[&str]) -> Result<Program> {
        let mut command = vec![self.bin.join(program).display().to_string()];
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let child = self.spawn(name, &command)?;
        Ok(Program { name: name.to_owned(), command, child })
    }

    fn spawn(&self, name: &str, command: &[String]) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.log(name))?;
        let mut process = Command::new(&command[0]);
        process
            .args(&command[1..])
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        end_with_us(&mut process);
        process.spawn().with_context(|| format!("{} starts", command[0]))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Where jobs publish: a small disk of its own where that can be had.
    pub(crate) fn published(&self) -> PathBuf {
        self.folder.path().join("published")
    }

    /// Starts a program again that has ended.
    pub(crate) fn restart(&self, program: &mut Program) -> Result<()> {
        program.child = self.spawn(&program.name, &program.command)?;
        Ok(())
    }

    /// A client of all coordinators, once one of them leads.
    pub(crate) async fn client(&self) -> Result<Client> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let answered = async {
                let client = Client::connect(&self.addresses, Options::default()).await?;
                let workers = client.workers().await?.len();
                Ok::<_, lethe_client::Error>((client, workers))
            };
            match answered.await {
                Ok((client, WORKERS)) => return Ok(client),
                answer if Instant::now() > deadline => {
                    let log = std::fs::read_to_string(self.log("coordinator-0")).unwrap_or_default();
                    bail!("the cluster does not come up: {:?}\n{log}", answer.map(|(_, workers)| workers));
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// A small job with the real models of the examples; there are two kinds.
    pub(crate) fn spec(&self, kind: usize) -> Result<JobSpec> {
        let folder = self.folder.path().join(format!("spec-{kind}"));
        std::fs::create_dir_all(&folder)?;
        let publish = self.published().join(format!("kind-{kind}"));
        let path = lethe_tests::thick_vae(&folder, |spec| {
            spec["name"] = format!("chaos-{kind}").into();
            spec["sample"]["seed"] = (kind + 7).into();
            spec["sample"]["until"]["total"] = 3_000.into();
            spec["unlearn"]["steps"] = 300.into();
            spec["evaluate"]["samples"] = 600.into();
            spec["resources"]["slots"] = serde_json::json!({"min": 1, "max": 2, "spares": kind});
            spec["publish"] = serde_json::json!({"uri": publish.display().to_string()});
        });
        Ok(JobSpec::from_value(serde_json::from_slice(&std::fs::read(path)?)?)?)
    }

    /// The names of everything on the S3 server.
    pub(crate) async fn objects(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/{BUCKET}?list-type=2&start-after={after}");
            let answer = crate::proxy::ask(self.s3_address, &request("GET", &path, self.s3_address)).await?;
            let page: Vec<String> = answer
                .split("<Key>")
                .skip(1)
                .filter_map(|rest| rest.split_once("</Key>").map(|(name, _)| name.to_owned()))
                .collect();
            let Some(last) = page.last() else { return Ok(names) };
            after = last.clone();
            names.extend(page);
        }
    }

    /// Copies the logs, and the curves of all jobs, for whoever looks for the cause.
    pub(crate) async fn copy_logs(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log")
                && let Some(name) = path.file_name()
            {
                std::fs::copy(&path, folder.join(name))?;
            }
        }
        for name in self.objects().await?.iter().filter(|name| name.contains("/curve-")) {
            let path = format!("/{BUCKET}/{name}");
            let answer = crate::proxy::ask(self.s3_address, &request("GET", &path, self.s3_address)).await?;
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            std::fs::write(folder.join(name.replace('/', "_")), body)?;
        }
        Ok(())
    }

    /// Ends everything in good order, workers first; gives the processes there were.
    pub(crate) async fn stop(mut self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        let programs = self.workers.iter_mut().chain(&mut self.coordinators);
        for program in programs {
            pids.push(program.pid());
            pids.extend(lethe_tests::children(program.pid()));
            program.signal(Signal::SIGTERM);
        }
        for program in self.workers.iter_mut().chain(&mut self.coordinators) {
            let deadline = Instant::now() + Duration::from_secs(60);
            while program.child.try_wait()?.is_none() {
                if Instant::now() > deadline {
                    bail!("{} does not end when it is told to", program.name);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(pids)
    }
}

impl Program {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; that the process is gone already is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid().cast_signed()), signal);
    }

    /// kill -9, and waits for it.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for program in self.workers.iter_mut().chain(&mut self.coordinators) {
            // Ended already, mostly.
            let _ = program.child.kill();
            let _ = program.child.wait();
        }
        let _ = Command::new("umount").arg(self.published()).stderr(Stdio::null()).status();
    }
}

/// Has a process end with this one, even when this one is killed.
fn end_with_us(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
}

/// A request without a body, signed in a way that moto does not look at.
fn request(method: &str, path: &str, server: SocketAddr) -> String {
    let scope = "Credential=chaos/20260101/us-east-1/s3/aws4_request";
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nContent-Length: 0\r\nConnection: close\r\nAuthorization: AWS4-HMAC-SHA256 {scope}\r\n\r\n"
    )
}
