//! What is done to the processes, and undone: one fault at a time, chosen by a seed, a few seconds each.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use crate::cluster::{COORDINATORS, Cluster, WORKERS};
use crate::proxy::Mood;

/// Chooses and makes faults.
pub(crate) struct Faults {
    rng: ChaCha8Rng,
    /// Whether there are namespaces of our own: for partitions and a full disk.
    isolated: bool,
    counts: BTreeMap<&'static str, u32>,
}

const KINDS: [&str; 11] = [
    "kill executor",
    "kill worker",
    "kill coordinator",
    "kill etcd member",
    "freeze executor",
    "freeze worker",
    "freeze coordinator",
    "freeze etcd member",
    "cut off coordinator",
    "full disk",
    "S3 errors",
];

impl Faults {
    pub(crate) fn new(rng: ChaCha8Rng, isolated: bool) -> Self {
        Self { rng, isolated, counts: BTreeMap::new() }
    }

    /// How many of each kind there were.
    pub(crate) fn counts(&self) -> &BTreeMap<&'static str, u32> {
        &self.counts
    }

    /// Makes the next fault, undoes it after a while, and waits a little.
    pub(crate) async fn strike(&mut self, cluster: &mut Cluster) -> Result<()> {
        let kind = KINDS[self.rng.random_range(0..KINDS.len())];
        if !self.isolated && matches!(kind, "cut off coordinator" | "full disk") {
            return Ok(());
        }
        let seconds = Duration::from_millis(self.rng.random_range(1_000..6_000));
        let (coordinator, worker, member) = (
            self.rng.random_range(0..COORDINATORS),
            self.rng.random_range(0..WORKERS),
            self.rng.random_range(0..cluster.etcd.size()),
        );
        eprintln!("fault: {kind} ({seconds:?}; coordinator {coordinator}, worker {worker}, member {member})");
        *self.counts.entry(kind).or_default() += 1;
        match kind {
            "kill executor" => signal_children(cluster.workers[worker].pid(), Signal::SIGKILL),
            "kill worker" => {
                let mut program = cluster.workers.remove(worker);
                program.kill()?;
                sleep(seconds).await;
                cluster.restart(&mut program)?;
                cluster.workers.insert(worker, program);
            }
            "kill coordinator" => {
                let mut program = cluster.coordinators.remove(coordinator);
                program.kill()?;
                sleep(seconds).await;
                cluster.restart(&mut program)?;
                cluster.coordinators.insert(coordinator, program);
            }
            "kill etcd member" => {
                cluster.etcd.kill(member);
                sleep(seconds).await;
                cluster.etcd.restart(member);
            }
            "freeze executor" => {
                let pid = cluster.workers[worker].pid();
                signal_children(pid, Signal::SIGSTOP);
                sleep(seconds).await;
                signal_children(pid, Signal::SIGCONT);
            }
            "freeze worker" => {
                cluster.workers[worker].signal(Signal::SIGSTOP);
                sleep(seconds * 2).await;
                cluster.workers[worker].signal(Signal::SIGCONT);
            }
            "freeze coordinator" => {
                cluster.coordinators[coordinator].signal(Signal::SIGSTOP);
                sleep(seconds * 2).await;
                cluster.coordinators[coordinator].signal(Signal::SIGCONT);
            }
            "freeze etcd member" => {
                cluster.etcd.pause(member);
                sleep(seconds).await;
                cluster.etcd.resume(member);
            }
            "cut off coordinator" => {
                let port = cluster.addresses[coordinator].rsplit(':').next().unwrap_or_default().to_owned();
                rules(&format!(
                    "add table inet chaos\nadd chain inet chaos in {{ type filter hook input priority 0; }}\nadd rule inet chaos in tcp dport {port} drop\nadd rule inet chaos in tcp sport {port} drop\n"
                ))?;
                sleep(seconds * 2).await;
                rules("delete table inet chaos\n")?;
            }
            "full disk" => {
                let ballast = cluster.published().join("ballast");
                fill(&ballast);
                sleep(seconds).await;
                fs::remove_file(&ballast)?;
            }
            _ => {
                let moods = [Mood::Error, Mood::HangUp, Mood::Silent];
                cluster.proxy.set(moods[self.rng.random_range(0..moods.len())]);
                sleep(seconds).await;
                cluster.proxy.set(Mood::Pass);
            }
        }
        sleep(Duration::from_millis(self.rng.random_range(500..3_000))).await;
        Ok(())
    }

    /// Nothing is wrong any more.
    pub(crate) async fn heal(&mut self, cluster: &mut Cluster) -> Result<()> {
        cluster.proxy.set(Mood::Pass);
        for program in cluster.workers.iter().chain(&cluster.coordinators) {
            program.signal(Signal::SIGCONT);
            signal_children(program.pid(), Signal::SIGCONT);
        }
        Ok(())
    }
}

/// Takes all the room there is.
fn fill(file: &std::path::Path) {
    use std::io::Write;
    let Ok(mut file) = fs::File::create(file) else { return };
    // It ends with the error that is wanted.
    while file.write_all(&[0x5a; 64 << 10]).is_ok() {}
    while file.write_all(&[0x5a]).is_ok() {}
}

fn signal_children(parent: u32, signal: Signal) {
    for pid in lethe_tests::children(parent) {
        // It may have ended meanwhile.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal);
    }
}

fn rules(text: &str) -> Result<()> {
    use std::io::Write;
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn()?;
    if let Some(stdin) = &mut nft.stdin {
        stdin.write_all(text.as_bytes())?;
    }
    drop(nft.stdin.take());
    ensure!(nft.wait()?.success(), "nft does not take: {text}");
    Ok(())
}
