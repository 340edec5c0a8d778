//! The end of an executor in words people understand.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Lines of the log that go into a message.
const LINES: usize = 10;
/// Characters of a line that go into a message.
const WIDTH: usize = 300;

/// How an executor ended, or why it could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Death {
    /// "exit status 1", "signal 9 (killed: ...)".
    pub(crate) how: String,
    /// The last lines it wrote to stderr.
    pub(crate) log: Vec<String>,
    /// What to do.
    pub(crate) hint: String,
}

impl Death {
    /// The end of a process with these last lines; `log` says where all of them are.
    pub(crate) fn of(status: ExitStatus, lines: Vec<String>, log: &str) -> Self {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}{}", meaning(signal)),
            (None, None) => status.to_string(),
        };
        let hint = remedy(&lines).map_or_else(|| format!("see {log}"), str::to_owned);
        Self { how, log: lines, hint }
    }

    /// The program could not be started at all.
    pub(crate) fn before_birth(reason: &std::io::Error) -> Self {
        let hint = "see that the program is an executable for this machine and that processes may be started";
        Self { how: format!("it cannot be started: {reason}"), log: Vec::new(), hint: hint.to_owned() }
    }

    /// How it ended, with the last lines of its log.
    pub(crate) fn account(&self) -> String {
        let last = self.log.len().saturating_sub(LINES);
        let lines: String = self.log[last..]
            .iter()
            .map(|line| format!("\n  {}", line.chars().take(WIDTH).collect::<String>()))
            .collect();
        if lines.is_empty() { self.how.clone() } else { format!("{}; its log ends:{lines}", self.how) }
    }
}

/// What usually sends this signal.
fn meaning(signal: i32) -> &'static str {
    use nix::libc;
    match signal {
        libc::SIGKILL => " (killed: often the kernel's out-of-memory killer, see dmesg)",
        libc::SIGABRT => " (aborted: a failed assertion or an uncaught C++ exception)",
        libc::SIGSEGV => " (segmentation fault)",
        libc::SIGBUS => " (bus error: often a full /dev/shm, or a file that was cut while mapped)",
        libc::SIGILL => " (illegal instruction: the processor is older than libtorch expects)",
        libc::SIGFPE => " (arithmetic fault)",
        libc::SIGTERM => " (terminated: somebody ended it)",
        libc::SIGINT => " (interrupted: somebody ended it)",
        _ => "",
    }
}

/// What to do about a log that ends like this.
fn remedy(lines: &[String]) -> Option<&'static str> {
    let says = |text: &str| lines.iter().any(|line| line.contains(text));
    if says("error while loading shared libraries") {
        return Some(
            "a library is missing, most likely libtorch: run `make build` in the checkout, which installs it, or set LD_LIBRARY_PATH to the lib folder of torch 2.11.0",
        );
    }
    if says("CUDA driver version is insufficient") || says("no NVIDIA driver") || says("no CUDA GPUs") {
        return Some("the GPU cannot be used: update the NVIDIA driver, or use --devices cpu");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words() {
        let killed = Death::of(ExitStatus::from_raw(9), vec!["step 1".to_owned()], "/tmp/slot-0.log");
        assert!(killed.how.starts_with("signal 9 (killed: often the kernel's out-of-memory killer"));
        assert_eq!(killed.account(), format!("{}; its log ends:\n  step 1", killed.how));
        assert_eq!(killed.hint, "see /tmp/slot-0.log");
        let exited = Death::of(ExitStatus::from_raw(3 << 8), Vec::new(), "x");
        assert_eq!(exited.account(), "exit status 3");
    }

    #[test]
    fn a_missing_libtorch_has_a_remedy() {
        let line = "lethe-executor: error while loading shared libraries: libtorch_cpu.so: cannot open shared object file";
        let death = Death::of(ExitStatus::from_raw(127 << 8), vec![line.to_owned()], "x");
        assert!(death.hint.contains("make build"), "{}", death.hint);
    }

    #[test]
    fn only_the_last_lines_and_not_all_of_a_long_one() {
        let mut lines: Vec<String> = (0..50).map(|number| format!("line {number}")).collect();
        lines.push("x".repeat(10_000));
        let account = Death::of(ExitStatus::from_raw(9), lines, "x").account();
        assert!(account.contains("\n  line 41") && !account.contains("line 40"), "{account}");
        assert!(account.len() < 1_000);
    }
}
