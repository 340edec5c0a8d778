//! Frames between agent and executor: four bytes of length, big-endian, then one protobuf message of that many bytes.
//!
//! The executor reads and writes them with blocking io ([`read_frame`], [`write_frame`]); the agent wraps its end in a
//! `tokio_util::codec::Framed` with [`AgentCodec`]. A length beyond [`MAX_MESSAGE_BYTES`] is refused before anything is
//! allocated. Not here: the socket pair, the processes.

use std::io::{self, Read, Write};
use std::marker::PhantomData;

use bytes::{Buf, BufMut, BytesMut};
use prost::Message;
use tokio_util::codec::{Decoder, Encoder};

use crate::executor::{ExecutorCommand, ExecutorEvent};
use crate::{ConversionError, MAX_MESSAGE_BYTES, v1};

/// Bytes of the length before each message.
const HEADER: usize = 4;

/// A frame that cannot be read or written. After any of these the stream is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The socket failed.
    #[error("the socket between agent and executor failed: {0}")]
    Io(#[from] io::Error),
    /// The other side ended within a frame.
    #[error("the other side ended within a frame: it died while writing")]
    Truncated,
    /// More than either side accepts.
    #[error("a frame of {found} bytes, at most {MAX_MESSAGE_BYTES} are accepted")]
    TooLarge {
        /// Bytes announced, or about to be written.
        found: usize,
    },
    /// The bytes are not the message expected.
    #[error("a frame that is not a message: {0}")]
    Garbled(#[from] prost::DecodeError),
    /// The message means nothing.
    #[error("a frame without meaning: {0}; are agent and executor of the same version?")]
    Meaningless(#[from] ConversionError),
}

/// A message that travels as a frame.
pub trait Frame: Sized + Into<Self::Wire> + TryFrom<Self::Wire, Error = ConversionError> {
    /// Its wire form.
    type Wire: Message + Default;
}

impl Frame for ExecutorCommand {
    type Wire = v1::ExecutorCommand;
}

impl Frame for ExecutorEvent {
    type Wire = v1::ExecutorEvent;
}

/// Writes one frame and flushes it. Blocks while the other side does not read.
///
/// # Errors
/// [`FrameError::Io`], [`FrameError::TooLarge`] (nothing is written then).
pub fn write_frame<T: Frame>(writer: &mut impl Write, message: T) -> Result<(), FrameError> {
    let mut frame = BytesMut::new();
    put_frame(message, &mut frame)?;
    writer.write_all(&frame)?;
    Ok(writer.flush()?)
}

/// Reads one frame; none when the other side ended between two frames. Blocks until it is there.
///
/// # Errors
/// Every [`FrameError`].
pub fn read_frame<T: Frame>(reader: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut header = [0; HEADER];
    let got = read_up_to(reader, &mut header)?;
    if got == 0 {
        return Ok(None);
    }
    if got < HEADER {
        return Err(FrameError::Truncated);
    }
    let mut body = vec![0; checked_length(header)?];
    if read_up_to(reader, &mut body)? < body.len() {
        return Err(FrameError::Truncated);
    }
    Ok(Some(T::try_from(T::Wire::decode(body.as_slice())?)?))
}

/// Fills the buffer as far as the stream goes; says how far.
fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn checked_length(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(header) as usize;
    if length > MAX_MESSAGE_BYTES { Err(FrameError::TooLarge { found: length }) } else { Ok(length) }
}

/// Appends a frame.
fn put_frame<T: Frame>(message: T, frame: &mut BytesMut) -> Result<(), FrameError> {
    let wire: T::Wire = message.into();
    let found = wire.encoded_len();
    match u32::try_from(found) {
        Ok(length) if found <= MAX_MESSAGE_BYTES => {
            frame.reserve(HEADER + found);
            frame.put_u32(length);
            frame.put_slice(&wire.encode_to_vec());
            Ok(())
        }
        _ => Err(FrameError::TooLarge { found }),
    }
}

/// One end of the socket for tokio: it reads `In` and writes `Out`.
#[derive(Debug)]
pub struct Codec<In, Out>(PhantomData<fn(Out) -> In>);

/// The agent's end.
pub type AgentCodec = Codec<ExecutorEvent, ExecutorCommand>;

/// The executor's end, for tests and tools.
pub type ExecutorCodec = Codec<ExecutorCommand, ExecutorEvent>;

impl<In, Out> Default for Codec<In, Out> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<In: Frame, Out> Decoder for Codec<In, Out> {
    type Item = In;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<In>, FrameError> {
        let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = checked_length(*header)?;
        if buffer.len() < HEADER + length {
            buffer.reserve(HEADER + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(HEADER);
        let body = buffer.split_to(length);
        Ok(Some(In::try_from(In::Wire::decode(body)?)?))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<In>, FrameError> {
        match self.decode(buffer)? {
            None if !buffer.is_empty() => Err(FrameError::Truncated),
            frame => Ok(frame),
        }
    }
}

impl<In, Out: Frame> Encoder<Out> for Codec<In, Out> {
    type Error = FrameError;

    fn encode(&mut self, message: Out, buffer: &mut BytesMut) -> Result<(), FrameError> {
        put_frame(message, buffer)
    }
}
