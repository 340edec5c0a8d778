//! Why a command ended badly: what is printed, and the exit code.

use std::process::ExitCode;

use lethe_domain::{Failure, SpecError};

use crate::output::remark;

/// Exit codes, as documented in `lethe --help`.
pub(crate) mod exit {
    /// The job failed, or something unforeseen did.
    pub(crate) const FAILED: u8 = 1;
    /// The command line or the job spec is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// No coordinator answers.
    pub(crate) const UNREACHABLE: u8 = 3;
    /// The job was cancelled.
    pub(crate) const CANCELLED: u8 = 4;
    /// Waiting took too long; the job goes on.
    pub(crate) const TIMED_OUT: u8 = 6;
    /// Ctrl-C; the state is kept.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// Why a command ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The job spec is refused.
    #[error("{file} is not a valid job:\n{told}")]
    Spec {
        /// The file.
        file: String,
        /// Everything found.
        problems: SpecError,
        /// The same for people, each where it stands in the file.
        told: String,
        /// Whether any of it is about the spec itself, and not about the files it names.
        keys: bool,
    },
    /// The job spec cannot be read.
    #[error("cannot read {file}: {source}")]
    SpecFile {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The command line asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// The job failed.
    #[error("{0}")]
    Job(Failure),
    /// The job was cancelled.
    #[error("job {0} was cancelled")]
    Cancelled(String),
    /// Waiting took too long.
    #[error("job {job} is not over after {seconds} s; it goes on: lethe job watch {job}")]
    TimedOut {
        /// The job.
        job: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Ctrl-C.
    #[error("{0}")]
    Interrupted(String),
    /// A call failed.
    #[error(transparent)]
    Client(#[from] lethe_client::Error),
    /// A file or folder cannot be read or written.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// read, write, create.
        what: &'static str,
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A result would take the place of files that Lethe did not write.
    #[error("{out} would lose files that Lethe did not write, or that were changed since: {files}")]
    WouldReplace {
        /// The folder, as it was named.
        out: String,
        /// Those files.
        files: String,
        /// Whether the command has --force.
        may_force: bool,
    },
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Error::Io { what, path: path.display().to_string(), source }
    }

    fn code(&self) -> u8 {
        match self {
            Error::Spec { .. } | Error::SpecFile { .. } | Error::Usage(_) | Error::WouldReplace { .. } => {
                exit::USAGE
            }
            Error::Client(lethe_client::Error::Invalid(_) | lethe_client::Error::Address { .. }) => {
                exit::USAGE
            }
            Error::Client(
                lethe_client::Error::Unreachable { .. }
                | lethe_client::Error::Unavailable { .. }
                | lethe_client::Error::NotLeader { .. },
            ) => exit::UNREACHABLE,
            Error::Cancelled(_) => exit::CANCELLED,
            Error::TimedOut { .. } => exit::TIMED_OUT,
            Error::Interrupted(_) => exit::INTERRUPTED,
            Error::Job(_) | Error::Client(_) | Error::Io { .. } | Error::Other(_) => exit::FAILED,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Job(failure) if !failure.hint.is_empty() => Some(failure.hint.clone()),
            Error::Client(lethe_client::Error::Unreachable { .. }) => {
                Some("is it running? start one with `lethe serve`, or name it with --coordinator or LETHE_COORDINATOR".to_owned())
            }
            Error::Client(lethe_client::Error::NotLeader { .. }) => Some(
                "they elect one within seconds once a majority of their store answers: see /readyz of a coordinator, and docs/ha.md"
                    .to_owned(),
            ),
            Error::WouldReplace { may_force, .. } => {
                let force = if *may_force { "; --force replaces them" } else { "" };
                Some(format!("choose another folder with --out, or move them away{force}"))
            }
            Error::Spec { keys: true, .. } => Some("the keys are described in docs/job-spec.md and by `lethe job schema`".to_owned()),
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("the disk is full: free some space and run the same command again".to_owned())
            }
            Error::SpecFile { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("let this user read it".to_owned())
            }
            Error::Io { source, .. }
                if matches!(
                    source.kind(),
                    std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Some("name a folder this user may write to, with --out".to_owned())
            }
            Error::Client(lethe_client::Error::Rejected(failure)) if !failure.hint.is_empty() => {
                Some(failure.hint.clone())
            }
            _ => None,
        }
    }

    /// Prints the error and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Error::Interrupted(message) => remark(message),
            other => remark(&format!("error: {other}")),
        }
        if let Some(hint) = self.hint() {
            remark(&format!("hint: {hint}"));
        }
        ExitCode::from(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_can_be_followed() {
        let hint = |may_force| {
            let error = Error::WouldReplace { out: "out".to_owned(), files: "out/a".to_owned(), may_force };
            error.hint().unwrap()
        };
        assert!(hint(true).contains("--force") && !hint(false).contains("--force"));
        let refused = |keys| {
            let problems = SpecError::one("generator.uri", "there is no file");
            Error::Spec { file: "job.yaml".to_owned(), problems, told: String::new(), keys }.hint()
        };
        assert!(refused(true).unwrap().contains("docs/job-spec.md") && refused(false).is_none());
    }
}
