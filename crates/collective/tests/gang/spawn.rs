//! Starting a gang of processes and listening to them.
//!
//! The test's own process serves the store. A rank is this test binary again, told by environment variables to run
//! one scenario; it reports by lines on its standard output, and its standard input closes when the test ends.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use lethe_collective::{Abort, Backend, Error, Group, GroupOptions, Place, Store, load_cuda};
use tch::Device;

/// No scenario takes longer on a busy machine with two cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

const MARK: &str = "report: ";

/// What the ranks work on: the cpu, or what LETHE_TEST_DEVICE says, such as cuda:0, which they all share then (tests/gpu).
pub(crate) fn device() -> Device {
    let Ok(name) = env::var("LETHE_TEST_DEVICE") else { return Device::Cpu };
    let number = name.strip_prefix("cuda:").and_then(|number| number.parse().ok());
    load_cuda().expect("CUDA's libraries");
    Device::Cuda(number.expect("LETHE_TEST_DEVICE is cuda:N"))
}

/// Values of a tensor on any device.
pub(crate) fn values<T>(tensor: &tch::Tensor) -> Vec<T>
where
    Vec<T>: TryFrom<tch::Tensor>,
{
    Vec::try_from(tensor.to(Device::Cpu).flatten(0, -1))
        .unwrap_or_else(|_| panic!("{tensor:?} of another kind"))
}

pub(crate) fn serve() -> Store {
    Store::serve("127.0.0.1", DEADLINE).expect("a store on loopback")
}

/// The processes of one test. They are killed when this goes out of scope.
pub(crate) struct Gang {
    ranks: Vec<Rank>,
    _store: Store,
}

struct Rank {
    process: Child,
    reports: Receiver<String>,
}

impl Gang {
    pub(crate) fn start(scenario: &str, world: usize) -> Self {
        let store = serve();
        let ranks = (0..world).map(|rank| Rank::start(scenario, rank, world, store.address())).collect();
        Self { ranks, _store: store }
    }

    /// The next line that `rank` reports.
    pub(crate) fn report(&self, rank: usize) -> String {
        let line = self.ranks[rank].reports.recv_timeout(DEADLINE);
        line.unwrap_or_else(|_| panic!("rank {rank} reported nothing: see its panic above"))
    }

    /// The next line of every rank.
    pub(crate) fn reports(&self) -> Vec<String> {
        (0..self.ranks.len()).map(|rank| self.report(rank)).collect()
    }

    /// Lets a rank pass its [`Seat::wait_for_go`].
    pub(crate) fn go(&mut self, rank: usize) {
        let stdin = self.ranks[rank].process.stdin.as_mut().expect("piped");
        stdin.write_all(b"g").and_then(|()| stdin.flush()).expect("the rank is still running");
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, rank: usize) {
        self.ranks[rank].process.kill().expect("the rank is still running");
    }

    /// Waits for every rank to end well, apart from the killed one.
    pub(crate) fn finish(mut self, killed: Option<usize>) {
        let deadline = Instant::now() + DEADLINE;
        for (rank, running) in self.ranks.iter_mut().enumerate() {
            drop(running.process.stdin.take()); // ends Seat::stay
            // The channel closes when the process ends, which makes this an event to wait for.
            while running.reports.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
            let status = running.process.wait().expect("a status");
            assert!(status.success() || killed == Some(rank), "rank {rank} ended with {status}");
        }
    }
}

impl Drop for Gang {
    fn drop(&mut self) {
        for rank in &mut self.ranks {
            let _ = rank.process.kill();
            let _ = rank.process.wait();
        }
    }
}

impl Rank {
    fn start(scenario: &str, rank: usize, world: usize, store: &str) -> Self {
        let mut process = Command::new(env::current_exe().expect("this binary"))
            .args(["--exact", "rank_process", "--ignored", "--nocapture"])
            .env("LETHE_TEST_SCENARIO", scenario)
            .env("LETHE_TEST_STORE", store)
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", world.to_string())
            // NCCL refuses two ranks on one device, unless it takes them for ranks of two machines.
            .env("NCCL_HOSTID", format!("rank-{rank}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a rank starts");
        let stdout = process.stdout.take().expect("piped");
        let (send, reports) = sync_channel(64);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // libtest writes the test's name in front of the first line.
                if let Some((_, report)) = line.split_once(MARK)
                    && send.send(report.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        Self { process, reports }
    }
}

/// A rank's own view, inside its process.
pub(crate) struct Seat {
    pub(crate) scenario: String,
    pub(crate) rank: usize,
    pub(crate) world: usize,
    pub(crate) store: Store,
}

impl Seat {
    /// `None` when this process was not started by a [`Gang`].
    pub(crate) fn from_environment() -> Option<Self> {
        let number = |name: &str| env::var(name).ok()?.parse().ok();
        let scenario = env::var("LETHE_TEST_SCENARIO").ok()?;
        let address = env::var("LETHE_TEST_STORE").ok()?;
        let store = Store::connect(&address, DEADLINE, &Abort::new()).expect("the test serves the store");
        tch::set_num_threads(1);
        Some(Self { scenario, rank: number("RANK")?, world: number("WORLD_SIZE")?, store })
    }

    pub(crate) fn place(&self, generation: u64) -> Place {
        Place { rank: self.rank, world: self.world, generation }
    }

    pub(crate) fn join(&self, generation: u64, options: GroupOptions) -> Group {
        self.try_join(generation, options).expect("everybody joins")
    }

    pub(crate) fn try_join(&self, generation: u64, options: GroupOptions) -> Result<Group, Error> {
        let backend = match device() {
            Device::Cuda(device) => Backend::Nccl { device },
            _ => Backend::Gloo,
        };
        Group::join(&self.store, backend, self.place(generation), options)
    }

    pub(crate) fn report(&self, line: &str) {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{MARK}{line}").and_then(|()| out.flush()).expect("the test listens");
    }

    /// Blocks until the test calls [`Gang::go`].
    pub(crate) fn wait_for_go(&self) {
        std::io::stdin().read_exact(&mut [0]).expect("the test says go");
    }

    /// Blocks until the test ends.
    pub(crate) fn stay(&self) {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    }
}
