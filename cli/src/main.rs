//! `lethe`: submit jobs, watch them, or run one from start to end on this machine.
//!
//! stdout is data, stderr is everything else. One subcommand, one file, below `commands`. Not here: decisions about
//! jobs, tensors.

mod commands;
mod error;
mod output;
mod progress;
mod result_folder;
mod result_table;
mod spec_file;
mod spec_places;
mod whole_file;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::Command;

/// Removes a feature from a pre-trained image generator, without its training data.
#[derive(Debug, Parser)]
#[command(name = "lethe", version, about, long_about = None, propagate_version = true, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 job failed, 2 usage, 3 cannot reach the coordinator, 4 cancelled, 6 wait timed out, 130 Ctrl-C.";

fn main() -> ExitCode {
    lethe_process::run(|| match commands::execute(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => error.report(),
    })
}
