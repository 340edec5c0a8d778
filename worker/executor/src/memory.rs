//! A ceiling for this process's memory, so that a batch that is too large ends a task and not the machine.
//!
//! Linux promises more memory than it has, and when it cannot keep a promise it kills somebody: this process without a
//! word, or one beside it. With a limit on data (RLIMIT_DATA) the allocation itself fails, libtorch says so, and the
//! job's failure can name what did not fit. The ceiling is what this process has plus most of what the machine or its
//! cgroup still has, taken anew for every task: generous, since other slots count on the same memory. Not on a GPU,
//! where the driver maps far more address space than it uses.

use std::fs;
use std::path::{Path, PathBuf};

use lethe_domain::ErrorCode;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::{Error, Result};

/// Never less than this: with so little left, being refused and being killed hardly differ.
const LEAST: u64 = 512 << 20;

/// Has freed memory kept for the next batch. By default the allocator gives large blocks back to the kernel each time, which
/// then clears the same pages for every batch anew: a tenth of a training step's time.
pub(crate) fn keep_freed() {
    // The most that glibc takes; larger blocks are few.
    const BLOCKS: libc::c_int = 32 << 20;
    const AT_THE_END: libc::c_int = 1 << 30;
    // SAFETY: mallopt has no preconditions, and a value that it refuses changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, BLOCKS);
        libc::mallopt(libc::M_TRIM_THRESHOLD, AT_THE_END);
    }
}

/// Gives freed memory back after a task: an idle slot holds models, not batches.
pub(crate) fn give_back() {
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Sets the ceiling for the next task. Without /proc, or where it is not allowed, there is none.
pub(crate) fn set_ceiling() {
    let (Some(used), Some(available)) = (data_used(), available()) else { return };
    let soft = used + (available / 16 * 15).max(LEAST);
    match getrlimit(Resource::RLIMIT_DATA) {
        Ok((_, hard)) => {
            if let Err(error) = setrlimit(Resource::RLIMIT_DATA, soft.min(hard), hard) {
                tracing::debug!("no memory ceiling: {error}");
            }
        }
        Err(error) => tracing::debug!("no memory ceiling: {error}"),
    }
}

/// Asks for memory and gives it back: whether Rust, which would end the process otherwise, can have this much.
///
/// # Errors
/// `OUT_OF_MEMORY`, naming `what`.
pub(crate) fn require(bytes: u64, what: &str, hint: &str) -> Result<()> {
    let reserved = usize::try_from(bytes).ok().and_then(|size| Vec::<u8>::new().try_reserve_exact(size).ok());
    reserved.ok_or_else(|| {
        let message = format!("{what} does not fit in memory: it takes {} MiB and more", bytes >> 20);
        Error::refused(ErrorCode::OutOfMemory, message, hint)
    })
}

/// Bytes of data this process has, as RLIMIT_DATA counts them.
fn data_used() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmData:")
}

/// Bytes this process may still take: of the machine's, and of every cgroup's it is in.
fn available() -> Option<u64> {
    let machine = kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(cgroups(&own).iter().filter_map(|folder| left(folder)).fold(machine, u64::min))
}

/// The number of a line `NAME   123 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The folders of the memory cgroups of `/proc/self/cgroup`, with all above them: each has a limit of its own.
fn cgroups(own: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            _ if controllers.split(',').any(|name| name == "memory") => "/sys/fs/cgroup/memory",
            _ => continue,
        };
        let below = Path::new(path.trim_start_matches('/'));
        folders.extend(below.ancestors().map(|part| Path::new(root).join(part)));
    }
    folders
}

/// Bytes left below the limit of one cgroup, of version 2 or 1; none without a limit. Clean pages of files do not count as
/// taken: the kernel gives them up.
fn left(folder: &Path) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, usage) = number("memory.max")
        .zip(number("memory.current"))
        .or_else(|| number("memory.limit_in_bytes").zip(number("memory.usage_in_bytes")))?;
    let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let of = |name: &str| {
        statistics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok())
    };
    let clean = of("total_inactive_file").or_else(|| of("inactive_file")).unwrap_or(0);
    Some(limit.saturating_sub(usage.saturating_sub(clean)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cgroup_above_counts_in_both_versions() {
        let folders = |text| cgroups(text).iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            folders("0::/kubepods/pod1\n"),
            ["/sys/fs/cgroup/kubepods/pod1", "/sys/fs/cgroup/kubepods", "/sys/fs/cgroup/"]
        );
        assert_eq!(
            folders("12:cpu,cpuacct:/a\n5:memory:/docker/x\n"),
            ["/sys/fs/cgroup/memory/docker/x", "/sys/fs/cgroup/memory/docker", "/sys/fs/cgroup/memory/"]
        );
    }

    #[test]
    fn what_is_left_of_a_cgroup_does_not_count_clean_pages_as_taken() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(left(folder.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(left(folder.path()), None, "no limit");
        write("memory.max", "1000\n");
        write("memory.stat", "anon 400\nfile 300\nactive_file 200\ninactive_file 100\n");
        assert_eq!(left(folder.path()), Some(400));
        write("memory.current", "5000\n");
        assert_eq!(left(folder.path()), Some(0));
    }

    #[test]
    fn this_machine_has_memory_and_this_process_some_of_it() {
        let (used, available) = (data_used().unwrap(), available().unwrap());
        assert!(used > 1 << 20 && available > 1 << 20, "{used} {available}");
        require(1 << 20, "a test", "").unwrap();
        let Err(Error::Refused(failure)) = require(1 << 60, "a batch of 9", "lower it") else { panic!() };
        assert_eq!(failure.code, ErrorCode::OutOfMemory);
        assert!(failure.message.starts_with("a batch of 9 does not fit in memory"), "{failure}");
    }
}
