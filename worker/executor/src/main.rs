//! `lethe-executor`: one slot at work. It does the numeric part of a job's phases on one device.
//!
//! A process of its own, so that a hung collective, a fault of the device, lack of memory or a hostile model takes nobody
//! else down. An agent starts it with one end of a socket pair as standard input, sends assignments and reads events
//! (`lethe_proto::frame`); standard error is the log. Two threads: the main one owns every tensor and does the work, the other reads
//! commands, so that a stop is heard and an agent's end is noticed in the middle of anything.
//!
//! Not here: what to do next (the coordinator decides), starting and ending executors (the agent).

mod bench;
mod canary;
mod chaos;
mod device;
mod error;
mod input;
mod link;
mod measures;
mod memory;
mod models;
mod pairs;
mod phase;
mod reuse;
mod serve;
mod storage;
mod values;
mod verdict;
mod work;

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use lethe_process::log;
use nix::sys::prctl;
use nix::sys::signal::Signal;

use device::DeviceSettings;
use phase::fine_tune::GangSettings;

/// One slot of a Lethe worker.
///
/// Started by an agent (`lethe-worker`, `lethe run`) with one end of a Unix socket pair as standard input, over which it
/// is told what to do. There is nothing to do with it by hand.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Which slot of the worker this is; for the log.
    #[arg(long, default_value_t = 0)]
    slot: u32,
    #[command(flatten)]
    device: DeviceSettings,
    #[command(flatten)]
    gang: GangSettings,
    /// A fault to make on purpose: canary, slow=FACTOR. For rehearsals.
    #[arg(long, hide = true, value_parser = chaos::parse)]
    chaos: Vec<chaos::Chaos>,
    #[command(subcommand)]
    bench: Option<Bench>,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Trains for some steps and prints one JSON line.
    #[command(name = "bench-train", hide = true)]
    Train(bench::Train),
    /// Trains with and without checkpoints of about 100 MB and prints one JSON line.
    #[command(name = "bench-checkpoint", hide = true)]
    Checkpoint(bench::Checkpoint),
    /// Generates and scores some samples and prints one JSON line.
    #[command(name = "bench-sample", hide = true)]
    Sample(bench::Sample),
    /// Writes down what the device computes and prints one JSON line.
    #[command(name = "values", hide = true)]
    Values(values::Values),
}

fn main() -> ExitCode {
    lethe_process::run(work)
}

fn work() -> ExitCode {
    // First of all: should the agent die while this process still starts, nobody else would end it. It cannot fail
    // with a valid signal, and where it did, the closed socket ends the process too.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let args = Args::parse();
    set_environment(&args.device);
    // The agent keeps standard error as the job's log; LETHE_LOG filters it (`debug`, `lethe_executor=trace`).
    log::start_plain(log::filter("LETHE_LOG", "info"));
    let ended = match &args.bench {
        None => serve::serve(serve::Settings {
            slot: args.slot,
            device: args.device,
            gang: args.gang,
            chaos: args.chaos,
        }),
        Some(Bench::Train(train)) => bench::train(train, args.device),
        Some(Bench::Checkpoint(checkpoint)) => bench::checkpoint(checkpoint, args.device),
        Some(Bench::Sample(sample)) => bench::sample(sample, args.device),
        Some(Bench::Values(values)) => values::write(values, args.device),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ error::Error::NoAgent) => {
            tracing::error!("{error}");
            ExitCode::from(2)
        }
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this program over with what libraries read when they are loaded, unless somebody has decided it already.
///
/// OpenMP's threads spin so long for each other by default that beside one other busy process they take twice the time. A thousand
/// turns cost 3 % on a quiet machine. (10,000 and more are no better than the default beside others.) cuBLAS repeats its numbers
/// only with a workspace of its own.
fn set_environment(device: &DeviceSettings) {
    let unset = |name: &&str| env::var_os(name).is_none();
    let mut wanted = Vec::new();
    if device.threads > 1 && unset(&"OMP_WAIT_POLICY") {
        wanted.push(("GOMP_SPINCOUNT", "1000"));
    }
    if device.device.is_cuda() {
        wanted.push(("CUBLAS_WORKSPACE_CONFIG", ":4096:8"));
    }
    wanted.retain(|(name, _)| unset(name));
    if wanted.is_empty() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        // It comes back only when it failed; then the defaults have to do.
        let _ = Command::new(program).args(env::args_os().skip(1)).envs(wanted).exec();
    }
}
