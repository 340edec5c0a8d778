//! The wire: messages and services generated from `lethe/v1/*.proto`, and their conversions to and from the domain.
//!
//! One file per subject. Wire types stop here: callers convert at the rpc edge and work with `lethe_domain` types and with
//! the few typed messages of this crate ([`executor`], [`session`]). Not here: connecting ([`v1`] has the raw clients,
//! crate `client` the typed one), checks of a spec's content (`JobSpec::check`), decisions.

mod artifacts;
mod conversion;
pub mod executor;
mod figure;
pub mod frame;
mod inputs;
mod job;
mod phase;
mod result;
pub mod session;
mod spec;
pub mod status;
mod task;
mod time;
mod waiting;

use prost::Message;
use prost_types::FileDescriptorSet;

pub use conversion::{ConversionError, Fault};
pub use task::LeaseOutcome;

/// Messages, clients and servers as generated from the .proto files.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    clippy::too_many_lines,
    reason = "generated; the .proto files carry the documentation"
)]
pub mod v1 {
    tonic::include_proto!("lethe.v1");
}

/// The descriptors of every service and message, with those they import: what gRPC reflection serves.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The rpcs of these services, from the descriptors: the path and the name of each, such as
/// `/lethe.v1.JobService/GetJob` and `GetJob`.
pub fn rpcs() -> Vec<(String, String)> {
    // The build has made them of the .proto files: they decode.
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file;
    let services = files.iter().flat_map(|file| file.service.iter().map(move |service| (file, service)));
    services
        .flat_map(|(file, service)| {
            service.method.iter().map(move |method| {
                (
                    format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                    method.name().to_owned(),
                )
            })
        })
        .collect()
}

/// The largest message either side accepts, in bytes. Bulk travels as artifacts, so nothing comes near it.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Where a coordinator that follows names the leader, in the metadata of an answer that may be older than the leader's.
pub const LEADER_HEADER: &str = "lethe-leader";

/// The version of the wire that workers and coordinators of this build speak, and no other.
pub const PROTOCOL: u32 = 3;
