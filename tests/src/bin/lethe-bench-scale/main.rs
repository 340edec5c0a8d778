//! Whether the coordinator holds at the sizes that docs promise: real processes, real gRPC, workers that do nothing. One
//! JSON line each.

#![allow(clippy::print_stdout, reason = "a benchmark's lines are its result")]

mod coordinator;
mod load;
mod takeover;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lethe_store::etcd_cluster::{Cluster, Security};

/// Measures a coordinator with a long history, or under load.
#[derive(Debug, Parser)]
struct Args {
    /// The coordinator program [default: beside this one]
    #[arg(long, global = true)]
    coordinator: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Another coordinator takes over a store with a long history, on a 3-member etcd
    Takeover(takeover::Sizes),
    /// Waiting jobs, workers, pages and watchers, all at once
    Load(load::Sizes),
}

fn main() -> Result<()> {
    let args = Args::parse();
    let program = match args.coordinator {
        Some(program) => program,
        None => std::env::current_exe()?.with_file_name("lethe-coordinator"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match args.what {
            What::Load(sizes) => load::measure(&program, &sizes).await,
            What::Takeover(sizes) => {
                let Some(etcd) = Cluster::start(Security::Plain).await else { return Ok(()) };
                takeover::measure(&program, &etcd, &sizes).await
            }
        }
    })
}
