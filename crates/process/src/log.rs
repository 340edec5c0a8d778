//! The log on standard error: in which form, and how much of it. A log that cannot be written is lost, and no more.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::{Stderr, say};

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    Text,
    /// A JSON object per line.
    Json,
}

/// What a variable of the environment says is to be logged; a filter that cannot be understood is said and not used.
pub fn filter(variable: &str, default: &str) -> EnvFilter {
    // Its retries are a line each, and what came of them is an error of ours.
    let ours = || EnvFilter::new(format!("{default},object_store=warn"));
    let Some(text) = std::env::var_os(variable) else { return ours() };
    let read = text.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
    match read.and_then(|text| EnvFilter::try_new(text).map_err(|error| error.to_string())) {
        Ok(filter) => filter,
        Err(error) => {
            say(&format!("{variable}={}: {error}; logging {default} instead", text.display()));
            ours()
        }
    }
}

/// Starts the log of a program. A second one (tests) finds it started: fine.
pub fn start(filter: EnvFilter, format: Format) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Stderr)
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let _ = match format {
        Format::Text => log.try_init(),
        Format::Json => log.json().flatten_event(true).try_init(),
    };
}

/// Starts the log of a program whose standard error another program reads line by line, and names by itself.
pub fn start_plain(filter: EnvFilter) {
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Stderr);
    let _ = log.log_internal_errors(false).with_ansi(false).with_target(false).try_init();
}
