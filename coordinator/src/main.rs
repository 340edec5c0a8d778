//! `lethe-coordinator`: a coordinator as a process of its own.

use std::process::ExitCode;

use clap::Parser;
use lethe_coordinator::{Coordinator, Error, Flags};
use lethe_process::log::{self, Format};
use tracing_subscriber::EnvFilter;

/// Drives Lethe's jobs: answers clients and workers over gRPC, and shows operators what happens.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Command {
    #[command(flatten)]
    flags: Flags,
    /// How the log on stderr is written.
    #[arg(long, env = "LETHE_LOG_FORMAT", value_enum, default_value_t = Format::Text)]
    log_format: Format,
    /// What is logged: a level, or a filter such as info,lethe_coordinator=debug.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    log: EnvFilter,
    /// Check the settings and end: 0 when they are good, 2 when not.
    #[arg(long)]
    check_config: bool,
}

/// What is left of two cores when most of the time nothing happens: enough for thousands of workers' heartbeats.
const THREADS: usize = 2;

fn main() -> ExitCode {
    lethe_process::run(serve)
}

fn serve() -> ExitCode {
    few_arenas();
    let Command { flags, log_format, log, check_config } = Command::parse();
    let config = match flags.config("/var/lib/lethe") {
        Ok(config) => config,
        Err(error) => return ended(Err(error)),
    };
    if check_config {
        return ended(config.check());
    }
    log::start(log, log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(8)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            ended(runtime.block_on(async { Coordinator::start(config).await?.until_told().await }))
        }
        Err(source) => {
            tracing::error!(%source, "cannot start the runtime");
            ExitCode::FAILURE
        }
    }
}

/// Has the allocator keep two pools instead of one for each thread: what jobs leave behind is used by the next ones, whichever
/// thread they come to.
fn few_arenas() {
    // SAFETY: mallopt has no preconditions, and a value that it refuses changes nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// The exit code: 0, 2 for settings that cannot be right, 1 otherwise.
fn ended(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            lethe_process::say(&format!("lethe-coordinator: {error}"));
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}
