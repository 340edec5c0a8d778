//! What executors write to stderr: to a file per slot, to the agent's own log, and the last lines kept for messages.
//!
//! One thread per executor reads it with blocking io: it never waits for anything but its executor and the disk, and a
//! slow disk never slows the agent. Everything is bounded: the length of a line, the size of the file, the lines kept.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::{fs, thread};

use tokio::sync::oneshot;

/// Bytes of a line that are kept.
const LINE_BYTES: usize = 8 << 10;
/// Lines kept in memory.
const LAST_LINES: usize = 50;
/// Bytes of a log file; then it becomes `slot-I.log.1` and another begins.
const FILE_BYTES: u64 = 8 << 20;
/// What each log file begins with: a file of that name without it is somebody else's, and stays as it is.
const MARK: &str = "== a log of lethe-executor\n";

/// The log file of a slot.
pub(crate) fn path(folder: &Path, slot: u32) -> PathBuf {
    folder.join(format!("slot-{slot}.log"))
}

/// Reads an executor's stderr to its end in a thread of its own. The receiver gets the last lines then.
pub(crate) fn capture(
    slot: u32,
    headline: String,
    stderr: impl io::Read + Send + 'static,
    file: Option<PathBuf>,
) -> io::Result<oneshot::Receiver<Vec<String>>> {
    let (sender, receiver) = oneshot::channel();
    let mut log = SlotLog { slot, file: file.map(LogFile::new), last: VecDeque::new() };
    thread::Builder::new().name(format!("slot-{slot}-log")).spawn(move || {
        log.remark(&headline);
        // An error ends the log as the end of the stream does; the process is waited for elsewhere.
        let _ = each_line(BufReader::new(stderr), |line| log.line(line));
        let _ = sender.send(log.last.into());
    })?;
    Ok(receiver)
}

struct SlotLog {
    slot: u32,
    file: Option<LogFile>,
    last: VecDeque<String>,
}

impl SlotLog {
    fn line(&mut self, line: &str) {
        tracing::info!(target: "lethe_executor", slot = self.slot, "{line}");
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
        self.remark(line);
    }

    /// To the file alone.
    fn remark(&mut self, line: &str) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write(line) {
            tracing::warn!(file = %file.path.display(), %error, "cannot write an executor's log; it is only here now");
            self.file = None;
        }
    }
}

/// A file that does not grow beyond a size.
struct LogFile {
    path: PathBuf,
    open: Option<(File, u64)>,
}

impl LogFile {
    fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, size)| *size >= FILE_BYTES) {
            self.open = None;
            let mut before = self.path.clone().into_os_string();
            before.push(".1");
            // Only to see whether it is ours.
            open_ours(Path::new(&before))?;
            fs::rename(&self.path, before)?;
        }
        let (file, size) = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(open_ours(&self.path)?),
        };
        let bytes = format!("{line}\n");
        file.write_all(bytes.as_bytes())?;
        *size += bytes.len() as u64;
        Ok(())
    }
}

/// A log file of ours and its size; made if there is none.
fn open_ours(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.len() == 0 {
        file.write_all(MARK.as_bytes())?;
        return Ok((file, MARK.len() as u64));
    }
    let mut begin = [0; MARK.len()];
    if metadata.is_file() && file.read_exact(&mut begin).is_ok() && begin == MARK.as_bytes() {
        return Ok((file, metadata.len()));
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there and no log of ours"))
}

/// Calls with each line, without its end and cut to [`LINE_BYTES`]; what is not UTF-8 is replaced.
fn each_line(mut reader: impl BufRead, mut call: impl FnMut(&str)) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        let chunk = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = LINE_BYTES.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(&part[..room]);
        let (over, used) = (chunk.is_empty(), end.map_or(chunk.len(), |end| end + 1));
        reader.consume(used);
        if end.is_some() || (over && !line.is_empty()) {
            call(String::from_utf8_lossy(&line).trim_end_matches('\r'));
            line.clear();
        }
        if over {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        each_line(BufReader::with_capacity(16, bytes), |line| lines.push(line.to_owned())).unwrap();
        lines
    }

    #[test]
    fn lines_are_cut_and_repaired() {
        assert_eq!(lines(b"one\ntwo\r\n\nlast"), ["one", "two", "", "last"]);
        assert_eq!(lines(b"\xff\xfe\n"), ["\u{fffd}\u{fffd}"]);
        let long = lines(&[vec![b'x'; 100_000], b"\nnext\n".to_vec()].concat());
        assert_eq!((long[0].len(), long[1].as_str()), (LINE_BYTES, "next"));
        assert_eq!(lines(b""), [""; 0]);
    }

    #[test]
    fn the_file_is_bounded_and_the_last_lines_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = path(folder.path(), 3);
        let line = [vec![b'y'; LINE_BYTES - 1], b"\n".to_vec()].concat();
        let text = [line.repeat(FILE_BYTES as usize / LINE_BYTES + 100), b"end\n".to_vec()].concat();
        let last = capture(3, "begin".to_owned(), io::Cursor::new(text), Some(file.clone())).unwrap();
        let last = last.blocking_recv().unwrap();
        assert_eq!((last.len(), last.last().unwrap().as_str()), (LAST_LINES, "end"));
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        let before = folder.path().join("slot-3.log.1");
        assert!(size(&before) >= FILE_BYTES && size(&before) < FILE_BYTES + LINE_BYTES as u64);
        assert!(fs::read_to_string(before).unwrap().starts_with(&format!("{MARK}begin\n")));
        assert!(size(&file) < 200 * LINE_BYTES as u64);
    }

    #[test]
    fn a_file_that_is_no_log_of_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = path(folder.path(), 3);
        let write = |text: &[u8]| {
            let last =
                capture(3, "begin".to_owned(), io::Cursor::new(text.to_vec()), Some(file.clone())).unwrap();
            assert_eq!(last.blocking_recv().unwrap(), ["line"]);
            fs::read_to_string(&file).unwrap()
        };
        fs::write(&file, "precious").unwrap();
        assert_eq!(write(b"line"), "precious");
        fs::remove_file(&file).unwrap();
        write(b"line");
        assert_eq!(write(b"line"), format!("{MARK}begin\nline\nbegin\nline\n"));
        fs::write(folder.path().join("slot-3.log.1"), "precious").unwrap();
        fs::write(&file, MARK.repeat(FILE_BYTES as usize / MARK.len() + 1)).unwrap();
        write(b"line");
        assert_eq!(fs::read_to_string(folder.path().join("slot-3.log.1")).unwrap(), "precious");
    }
}
