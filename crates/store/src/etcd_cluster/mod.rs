//! A real etcd cluster of three members on loopback: for tests and benchmarks, here and in other crates.
//!
//! Members are processes that the kernel ends with us. They can be stopped, continued, killed and started again. Where
//! there is no `etcd` that goes on record as a skip. Not here: what is done with the cluster.

#![allow(
    clippy::unwrap_used,
    reason = "a cluster that cannot be started should stop the test where it happened"
)]

mod certificates;
mod users;

use std::{
    fs::File,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use etcd_client::{Client, ConnectOptions};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use self::certificates::Certificates;
pub use self::users::PASSWORD;
use crate::{EtcdConfig, StateStore, etcd};

/// Longer than a cluster takes to start or to elect a leader; reaching it is a failure.
const DEADLINE: Duration = Duration::from_secs(60);
const MEMBERS: usize = 3;

/// How members and clients know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// They do not: no TLS, no users.
    Plain,
    /// Certificates on both sides, for members and clients; users by the name in the certificate or by password. User
    /// `lethe` may read and write below `/lethe/` and nothing else.
    Tls,
}

/// Who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The one with the role it needs.
    Lethe,
    /// The same by password, with a certificate that names nobody.
    Password(&'static str),
    /// One that exists and may do nothing.
    Stranger,
    /// Nobody: without certificate and password.
    Nobody,
}

/// A running cluster. Dropped, its processes and files are gone.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    members: Vec<Member>,
    certificates: Option<Certificates>,
}

#[derive(Debug)]
struct Member {
    name: String,
    client_port: u16,
    peer_port: u16,
    process: Child,
}

impl Cluster {
    /// Starts a cluster and waits until it serves; none where etcd is not installed.
    pub async fn start(security: Security) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        {
            lethe_testkit::skip("everything about etcd: there is no program etcd (Debian: etcd-server)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let certificates = (security == Security::Tls).then(|| Certificates::make(folder.path()));
        let ports: Vec<(u16, u16)> = free_ports().chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let together = (0..MEMBERS).map(|place| format!("m{place}={scheme}://127.0.0.1:{}", ports[place].1));
        let together = together.collect::<Vec<_>>().join(",");
        let mut cluster = Self { folder, members: Vec::new(), certificates };
        for (place, (client_port, peer_port)) in ports.into_iter().enumerate() {
            let name = format!("m{place}");
            let process = cluster.launch(&name, client_port, peer_port, &["--initial-cluster", &together]);
            cluster.members.push(Member { name, client_port, peer_port, process });
        }
        let root = cluster.client("root").await;
        if security == Security::Tls {
            users::set_up(root).await;
        }
        Some(cluster)
    }

    fn launch(&self, name: &str, client_port: u16, peer_port: u16, more: &[&str]) -> Child {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        let (clients, peers) =
            (format!("{scheme}://127.0.0.1:{client_port}"), format!("{scheme}://127.0.0.1:{peer_port}"));
        let log = File::options().create(true).append(true).open(self.log(name)).unwrap();
        let mut command = Command::new("etcd");
        command
            .args(["--name", name, "--data-dir"])
            .arg(self.folder.path().join(name))
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500", "--unsafe-no-fsync"])
            .args(["--initial-cluster-state", "new", "--logger", "zap", "--log-level", "warn"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some(certificates) = &self.certificates {
            command.args(certificates.flags());
        }
        // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
        unsafe {
            command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
        }
        command.spawn().unwrap()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// A URI for coordinators, beside [`environment`](Self::environment).
    pub fn uri(&self, prefix: &str) -> String {
        let members = self.members.iter().map(|member| format!("127.0.0.1:{}", member.client_port));
        format!("etcd://{}?prefix={prefix}", members.collect::<Vec<_>>().join(","))
    }

    /// The environment by which a process is this user.
    pub fn environment(&self, user: User) -> Vec<(&'static str, String)> {
        self.certificates.as_ref().map_or_else(Vec::new, |certificates| certificates.environment(user))
    }

    /// A store below `/lethe/NAME`.
    pub fn store(&self, name: &str) -> impl Future<Output = Arc<dyn StateStore>> + use<> {
        std::future::ready(self.store_of(User::Lethe, &format!("/lethe/{name}")))
    }

    /// A store of this user at this prefix.
    pub fn store_of(&self, user: User, prefix: &str) -> Arc<dyn StateStore> {
        let environment = self.environment(user);
        let config = EtcdConfig::from_uri(&self.uri(prefix), |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
        });
        etcd(config.unwrap()).unwrap()
    }

    /// The cluster's own client, once it answers: user `root`, who may do anything.
    pub async fn client(&self, name: &str) -> Client {
        let begun = Instant::now();
        loop {
            let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(1));
            let options = match &self.certificates {
                Some(certificates) => options.with_tls(certificates.tls(name)),
                None => options,
            };
            let endpoints: Vec<String> =
                self.members.iter().map(|member| format!("127.0.0.1:{}", member.client_port)).collect();
            let hello = async {
                let mut client = Client::connect(endpoints, Some(options)).await?;
                client.get("hello", None).await?;
                Ok::<_, etcd_client::Error>(client)
            };
            match timeout(Duration::from_secs(2), hello).await {
                Ok(Ok(client)) => return client,
                answer if begun.elapsed() > DEADLINE => {
                    let log = std::fs::read_to_string(self.log("m0")).unwrap_or_default();
                    panic!("etcd does not answer: {answer:?}\n{log}", answer = answer.map(|_| ()))
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The place of the member that leads, once there is one among those that answer.
    pub async fn leader(&self) -> usize {
        let begun = Instant::now();
        loop {
            for place in 0..MEMBERS {
                if self.leads(place).await {
                    return place;
                }
            }
            assert!(begun.elapsed() < DEADLINE, "no member leads");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn leads(&self, place: usize) -> bool {
        let options = match &self.certificates {
            Some(certificates) => ConnectOptions::new().with_tls(certificates.tls("root")),
            None => ConnectOptions::new(),
        };
        let endpoint = format!("127.0.0.1:{}", self.members[place].client_port);
        let ask = async {
            let mut client = Client::connect([endpoint], Some(options)).await.ok()?;
            let status = client.status().await.ok()?;
            Some(status.leader() == status.header()?.member_id())
        };
        timeout(Duration::from_secs(1), ask).await.ok().flatten().unwrap_or(false)
    }

    /// Stops a member where it is (SIGSTOP): its connections stay open and nothing is answered.
    pub fn pause(&self, place: usize) {
        self.signal(place, Signal::SIGSTOP);
    }

    /// Lets a paused member go on.
    pub fn resume(&self, place: usize) {
        self.signal(place, Signal::SIGCONT);
    }

    fn signal(&self, place: usize, signal: Signal) {
        kill(Pid::from_raw(self.members[place].process.id().cast_signed()), signal).unwrap();
    }

    /// Kills a member (SIGKILL).
    pub fn kill(&mut self, place: usize) {
        let process = &mut self.members[place].process;
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Starts a killed member again, with its data.
    pub fn restart(&mut self, place: usize) {
        let Member { name, client_port, peer_port, .. } = &self.members[place];
        self.members[place].process = self.launch(name, *client_port, *peer_port, &[]);
    }

    /// How many members there are.
    pub fn size(&self) -> usize {
        self.members.len()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Killed before: no harm.
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
    }
}

/// Held all at once, so that they differ.
fn free_ports() -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..2 * MEMBERS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
