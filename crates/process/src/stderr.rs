//! Standard error that nobody has to read: what is said waits in a queue, and a thread of its own writes it.
//!
//! A terminal that is paused, a pipe whose reader left, a full disk: the program goes on, and the lines that find no room
//! are lost and counted. When lines can be written again, one says how many were lost.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Bytes that may wait.
const ROOM: usize = 1 << 20;

static QUEUE: Queue = Queue::new(ROOM);

/// Says a line on standard error, without waiting for anybody to read it.
pub fn say(line: &str) {
    put(format!("{line}\n").into_bytes());
}

/// Waits until everything said so far is written, at most so long.
pub fn flush(patience: Duration) {
    QUEUE.wait_until_written(patience);
}

/// Lines lost since the process began.
pub fn lost_lines() -> u64 {
    QUEUE.lock().lost
}

/// Standard error for who wants something to write to: a whole line at a time. It never fails and never waits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        put(line.to_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn put(line: Vec<u8>) {
    static WRITER: OnceLock<bool> = OnceLock::new();
    let serve = || {
        let mut sink = Sink { torn: false };
        QUEUE.serve(|line| sink.write(line))
    };
    let started =
        WRITER.get_or_init(|| thread::Builder::new().name("stderr".to_owned()).spawn(serve).is_ok());
    if *started {
        QUEUE.put(line);
    } else {
        // No thread to be had: better to wait than to say nothing at all.
        let _ = io::stderr().write_all(&line);
    }
}

/// Lines on their way to the thread that writes them.
struct Queue {
    room: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    lines: VecDeque<Vec<u8>>,
    /// Of the lines that wait, and of the one that is being written.
    bytes: usize,
    lost: u64,
}

impl Queue {
    const fn new(room: usize) -> Self {
        let state = State { lines: VecDeque::new(), bytes: 0, lost: 0 };
        Self { room, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: Vec<u8>) {
        let mut state = self.lock();
        if state.bytes + line.len() > self.room {
            state.lost += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        drop(state);
        self.changed.notify_all();
    }

    /// Writes one line after another, for ever.
    fn serve(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
        let mut told = 0;
        loop {
            let line = self.next();
            let written = write(&line).is_ok();
            let lost = self.done(&line, written);
            if written && lost > told {
                tracing::warn!(
                    lines = lost - told,
                    "lines of this log were lost: nobody read it, or its disk was full"
                );
                told = lost;
            }
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut state = self.lock();
        loop {
            match state.lines.pop_front() {
                Some(line) => return line,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn done(&self, line: &[u8], written: bool) -> u64 {
        let mut state = self.lock();
        state.bytes -= line.len();
        state.lost += u64::from(!written);
        let lost = state.lost;
        drop(state);
        self.changed.notify_all();
        lost
    }

    fn wait_until_written(&self, patience: Duration) {
        // Over, or too late: there is nothing more to do about it.
        let _ = self.changed.wait_timeout_while(self.lock(), patience, |state| state.bytes > 0);
    }
}

/// Standard error itself.
struct Sink {
    /// Whether the last line was cut off in its middle.
    torn: bool,
}

impl Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            write_all(b"\n").map_err(|(_, error)| error)?;
            self.torn = false;
        }
        write_all(line).map_err(|(written, error)| {
            self.torn = written > 0;
            error
        })
    }
}

/// Writes all of it; or says how much was written before the error. Somebody else may have made the descriptor one that
/// does not wait: then this waits.
fn write_all(bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut stderr = io::stderr();
    let mut written = 0;
    while written < bytes.len() {
        match stderr.write(&bytes[written..]) {
            Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut room = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
                poll(&mut room, PollTimeout::NONE).map_err(|error| (written, error.into()))?;
            }
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{channel, sync_channel};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn whoever_does_not_read_holds_nobody_up_and_what_finds_no_room_is_counted() {
        let queue = Arc::new(Queue::new(100));
        let (begun, writing) = channel();
        let (reader, goes_on) = sync_channel::<()>(0);
        let (written, read) = channel();
        let serving = queue.clone();
        thread::spawn(move || {
            serving.serve(|line| {
                begun.send(()).unwrap();
                goes_on.recv().map_err(io::Error::other)?;
                written.send(line.to_vec()).map_err(io::Error::other)
            })
        });
        queue.put(vec![0; 40]);
        writing.recv_timeout(DEADLINE).unwrap();
        // One is being written, one waits, and for the others there is no room.
        for line in 1..=5 {
            queue.put(vec![line; 40]);
        }
        assert_eq!(queue.lock().lost, 4);
        queue.wait_until_written(Duration::from_millis(20));
        reader.send(()).unwrap();
        reader.send(()).unwrap();
        queue.wait_until_written(DEADLINE);
        assert_eq!(read.try_iter().map(|line| line[0]).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn a_line_that_cannot_be_written_is_lost_and_the_next_one_is_tried() {
        let queue = Arc::new(Queue::new(1000));
        let (sender, tried) = channel();
        let serving = queue.clone();
        thread::spawn(move || {
            serving.serve(|line| {
                sender.send(line[0]).unwrap();
                if line[0] < 2 { Err(io::Error::other("full")) } else { Ok(()) }
            })
        });
        for line in 0..4 {
            queue.put(vec![line]);
        }
        queue.wait_until_written(DEADLINE);
        assert_eq!(tried.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(queue.lock().lost, 2);
    }
}
