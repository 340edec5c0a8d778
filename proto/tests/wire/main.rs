//! The wire, seen from outside: what goes in comes out, and what makes no sense is refused by name.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod descriptors;
mod frame;
mod job;
mod samples;
mod session;
mod spec;
mod status;
mod task;

use lethe_proto::ConversionError;
use prost::Message;

/// Domain to wire to bytes, and back.
fn round_trip<W, T>(value: T) -> Result<T, ConversionError>
where
    W: Message + Default + From<T>,
    T: TryFrom<W, Error = ConversionError>,
{
    let bytes = W::from(value).encode_to_vec();
    T::try_from(W::decode(bytes.as_slice()).unwrap())
}
