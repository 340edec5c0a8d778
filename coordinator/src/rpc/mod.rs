//! The gRPC edge: decode, ask the driver, encode. No decisions. Wire types do not go beyond this folder.

mod download;
mod jobs;
mod server;
mod watch;
mod workers;

pub(crate) use server::{Server, serve};
