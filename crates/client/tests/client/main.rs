//! The client against servers on loopback, over the real transport.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod calls;
mod download;
mod reach;
mod server;
mod session;
mod watch;

use std::time::Duration;

use lethe_client::Options;
use lethe_domain::{JobId, JobSpec, JobState, JobStatus};

/// Short enough that a test of silence ends soon, long enough for a busy machine.
fn options() -> Options {
    Options {
        connect_timeout: Duration::from_secs(5),
        call_timeout: Duration::from_secs(5),
        patience: Duration::from_secs(20),
    }
}

fn id() -> JobId {
    JobId::new("thick-vae-7").unwrap()
}

fn spec() -> JobSpec {
    JobSpec::parse(
        "{name: thick-vae, generator: {uri: /m/vae.safetensors, format: safetensors, latent: {dimension: 20},
          output: {range: [0, 1], channels: 1, size: 28}},
          feature: {name: thick, scorer: {uri: /m/thickness.pt, positive: {top: 0.1}}}}",
    )
    .unwrap()
}

fn job(state: JobState, version: u64) -> JobStatus {
    JobStatus {
        id: id(),
        name: "thick-vae".to_owned(),
        feature: "thick".to_owned(),
        owner: "default".to_owned(),
        state,
        submitted_unix_ms: 1_785_542_400_001,
        finished_unix_ms: None,
        phases: Vec::new(),
        slots: 2,
        waiting: None,
        retried: Vec::new(),
        failure: None,
        result: None,
        version,
    }
}
