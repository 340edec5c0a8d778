//! A coordinator, the typed client, and fake workers that speak the real session protocol.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod crash;
mod edges;
mod fake;
mod ha;
mod jobs;
mod operators;
mod refusals;
mod retention;
mod sessions;
mod world;
