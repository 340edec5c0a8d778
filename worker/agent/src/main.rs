//! `lethe-worker`: an agent as a process. Flags, signals, exit codes; everything else is in the library.

mod flags;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lethe_agent::{Agent, Error, http};
use lethe_process::log;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::flags::Flags;

fn main() -> ExitCode {
    lethe_process::run(work)
}

fn work() -> ExitCode {
    let flags = Flags::parse();
    log::start(log::filter("RUST_LOG", "info"), flags.log_format);
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// 1 failed, 2 usage, 3 cannot reach.
fn exit_code(error: &Error) -> u8 {
    match error {
        error if error.is_usage() => 2,
        Error::Refused(_) => 3,
        _ => 1,
    }
}

fn run(flags: Flags) -> Result<(), Error> {
    let http_address = flags.http;
    let agent = Agent::new(flags.into_config()?)?;
    let runtime =
        runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(Error::Thread)?;
    runtime.block_on(async {
        let status = agent.status();
        let probes = async {
            match http_address {
                Some(address) => http::serve(address, status).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            outcome = agent.run(asked_to_leave()) => outcome,
            failure = probes => failure,
        }
    })
}

/// Ready at the first SIGTERM or SIGINT. The second ends the process at once; the kernel ends the executors.
async fn asked_to_leave() {
    let (sender, first) = oneshot::channel();
    tokio::spawn(async move {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            // Without handlers the signals keep their usual effect.
            return std::future::pending().await;
        };
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        tracing::info!("draining: no more work is taken; a second signal ends this at once");
        let _ = sender.send(());
        next().await;
        lethe_process::flush(Duration::from_millis(100));
        std::process::exit(1);
    });
    let _ = first.await;
}
