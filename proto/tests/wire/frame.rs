//! Frames: over blocking io, over tokio, from one to the other; cut short, too long, garbled.

use std::io::{Cursor, Read};
use std::os::unix::net::UnixStream;

use futures::{SinkExt, StreamExt};
use lethe_domain::Task;
use lethe_proto::MAX_MESSAGE_BYTES;
use lethe_proto::executor::{ExecutorCommand, ExecutorEvent};
use lethe_proto::frame::{AgentCodec, FrameError, read_frame, write_frame};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, Framed};

use crate::samples;
use crate::session::executor_events;

fn written(events: Vec<ExecutorEvent>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        write_frame(&mut bytes, event).unwrap();
    }
    bytes
}

/// Gives one byte at a time, and is interrupted before each.
struct Drip<R>(R, bool);

impl<R: Read> Read for Drip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let end = buffer.len().min(1);
        self.0.read(&mut buffer[..end])
    }
}

#[test]
fn frames_are_read_as_they_were_written_however_they_arrive() {
    let bytes = written(executor_events());
    let mut reader = Drip(bytes.as_slice(), false);
    for event in executor_events() {
        assert_eq!(read_frame(&mut reader).unwrap(), Some(event));
    }
    assert_eq!(read_frame::<ExecutorEvent>(&mut reader).unwrap(), None);

    let mut buffer = BytesMut::new();
    let mut decoded = Vec::new();
    for byte in bytes {
        buffer.extend_from_slice(&[byte]);
        decoded.extend(AgentCodec::default().decode(&mut buffer).unwrap());
    }
    assert_eq!(decoded, executor_events());
    assert_eq!(AgentCodec::default().decode_eof(&mut buffer).unwrap(), None);
}

#[test]
fn a_stream_that_ends_within_a_frame_is_found_at_every_byte() {
    let bytes = written(vec![executor_events().remove(1)]);
    for cut in 1..bytes.len() {
        let error = read_frame::<ExecutorEvent>(&mut &bytes[..cut]).unwrap_err();
        assert!(matches!(error, FrameError::Truncated), "{cut} bytes: {error}");
        let error = AgentCodec::default().decode_eof(&mut BytesMut::from(&bytes[..cut])).unwrap_err();
        assert!(matches!(error, FrameError::Truncated), "{cut} bytes: {error}");
    }
}

#[test]
fn a_length_beyond_the_bound_is_refused_before_its_bytes_are_awaited() {
    let header = u32::MAX.to_be_bytes();
    // A cursor of four bytes: were the body awaited, this would be Truncated.
    let error = read_frame::<ExecutorEvent>(&mut Cursor::new(header)).unwrap_err();
    assert!(matches!(error, FrameError::TooLarge { found: 0xffff_ffff }), "{error}");
    let error = AgentCodec::default().decode(&mut BytesMut::from(&header[..])).unwrap_err();
    assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");

    let device = "d".repeat(MAX_MESSAGE_BYTES);
    let mut sink = Vec::new();
    let error =
        write_frame(&mut sink, ExecutorEvent::Ready { device, torch: String::new(), canary: Vec::new() })
            .unwrap_err();
    assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
    assert_eq!(sink, [0_u8; 0], "nothing is written of a message that is refused");
}

#[test]
fn bytes_that_are_no_message_and_messages_without_meaning_are_told_apart() {
    let error = read_frame::<ExecutorEvent>(&mut [0, 0, 0, 2, 0xff, 0xff].as_slice()).unwrap_err();
    assert!(matches!(error, FrameError::Garbled(_)), "{error}");
    let error = read_frame::<ExecutorEvent>(&mut [0, 0, 0, 0].as_slice()).unwrap_err();
    assert!(matches!(error, FrameError::Meaningless(_)), "{error}");
}

#[tokio::test]
async fn a_blocking_executor_and_an_async_agent_understand_each_other() {
    let (agent, mut executor) = UnixStream::pair().unwrap();
    agent.set_nonblocking(true).unwrap();
    let mut agent = Framed::new(tokio::net::UnixStream::from_std(agent).unwrap(), AgentCodec::default());
    let executor = std::thread::spawn(move || {
        let mut commands = Vec::new();
        for event in executor_events() {
            write_frame(&mut executor, event).unwrap();
            commands.extend(read_frame::<ExecutorCommand>(&mut executor).unwrap());
        }
        commands
    });
    let sent: Vec<ExecutorCommand> = samples::tasks()
        .into_iter()
        .map(|task| ExecutorCommand::Start(Box::new(samples::assignment(task))))
        .collect();
    let mut events = Vec::new();
    for command in sent.iter().take(executor_events().len()) {
        events.push(agent.next().await.unwrap().unwrap());
        agent.send(command.clone()).await.unwrap();
    }
    assert!(agent.next().await.is_none(), "the executor ended between frames");
    assert_eq!(events, executor_events());
    assert_eq!(executor.join().unwrap(), sent[..events.len()]);
    assert!(matches!(sent[0], ExecutorCommand::Start(ref first) if first.task == Task::Probe));
}
