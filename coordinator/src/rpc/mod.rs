//! The gRPC edge: decode, ask the driver, encode. No decisions. Wire types do not go beyond this folder.

mod caller;
mod download;
mod fleet;
mod jobs;
mod reason;
mod server;
mod watch;
mod workers;

pub(crate) use server::{Server, serve};
