//! What can go wrong with a model or a number, sorted into the causes that `lethe-domain` knows.
//!
//! Not here: when it happened and in which task (the executor stamps that).

use std::io;

use lethe_domain::{ErrorCode, Failure};
use tch::TchError;

use crate::ffi::torch_version;

/// How the reason ends of a generator that `clamp` would make fit.
pub(crate) const CLAMP: &str =
    "; if it goes a little beyond it by design (no tanh), say generator.output.clamp: true";

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault of a model, of data, or of the machine. Each names its object and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A pickle: loading it could run any code, so nobody does.
    #[error("{file}: is a pickle, which Lethe never loads: convert it with `{command}`")]
    Pickle {
        /// The file.
        file: String,
        /// The tools/export command that converts it.
        command: String,
    },
    /// Recognised as something that cannot be used.
    #[error("{file}: {what}")]
    Foreign {
        /// The file.
        file: String,
        /// What it is.
        what: String,
        /// What to do, where `what` does not say so already; else empty.
        hint: &'static str,
    },
    /// Truncated, damaged or something else altogether.
    #[error("{file}: {reason}")]
    Unreadable {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not those the sidecar was written for.
    #[error(
        "{file}: has the digest {found}, its sidecar says {expected}: one of the two was changed or damaged"
    )]
    Digest {
        /// The file.
        file: String,
        /// SHA-256 of the bytes.
        found: String,
        /// SHA-256 in the sidecar.
        expected: String,
    },
    /// The sidecar is missing, unreadable, or contradicts the spec or the weights.
    #[error("{file}: {reason}")]
    Sidecar {
        /// The sidecar.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Tensors that the architecture does not have, or lacks, or has in another shape.
    #[error("{file}: {reason}")]
    Tensors {
        /// The file.
        file: String,
        /// Which tensors, and what was expected.
        reason: String,
    },
    /// A TorchScript archive without the method `forward`.
    #[error(
        "{file}: is a TorchScript archive without the method forward: export a module that defines forward, or another method of it (tools/export, --method)"
    )]
    NoForward {
        /// The file.
        file: String,
    },
    /// A TorchScript generator whose weights are constants.
    #[error(
        "{file}: has no parameters to train: export it without torch.jit.freeze and before optimize_for_inference"
    )]
    NothingToTrain {
        /// The file.
        file: String,
    },
    /// The model's own code failed.
    #[error("{model}: forward failed on an input of shape {input:?}: {reason}")]
    Forward {
        /// The model.
        model: String,
        /// Shape of the input.
        input: Vec<i64>,
        /// libtorch's first sentence.
        reason: String,
    },
    /// What the model gives does not follow from its input.
    #[error("{model}: is no function of its input: {reason}")]
    NoFunction {
        /// The model.
        model: String,
        /// How it was noticed.
        reason: String,
    },
    /// The model runs, but gives something else than the spec says.
    #[error("{model}: {reason}")]
    Mismatch {
        /// The model.
        model: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// NaN or infinity.
    #[error("{what}")]
    NotFinite {
        /// What is not finite, and where it came from.
        what: String,
    },
    /// Too few samples show the feature.
    #[error("{positives} of {samples} samples show the feature, at least {needed} are needed")]
    NoPositives {
        /// Samples that show it.
        positives: u64,
        /// Samples looked at.
        samples: u64,
        /// How many are needed.
        needed: u64,
    },
    /// Too few samples lack the feature.
    #[error("{negatives} of {samples} samples lack the feature, at least {needed} are needed")]
    NoNegatives {
        /// Samples that lack it.
        negatives: u64,
        /// Samples looked at.
        samples: u64,
        /// How many are needed.
        needed: u64,
    },
    /// A row of a labels file.
    #[error("{file}, line {line}: {reason}")]
    Labels {
        /// The file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What was found and what is expected.
        reason: String,
    },
    /// Too few of the images that somebody labelled show the feature.
    #[error("{file}: {positives} of its {images} images are labelled 1, at least {needed} are needed")]
    FewLabelled {
        /// The file.
        file: String,
        /// Images that show it.
        positives: u64,
        /// Images in all.
        images: u64,
        /// How many are needed.
        needed: u64,
    },
    /// The labels cannot be split into parts that each show both.
    #[error(
        "all {positives} positives, or all {negatives} negatives, of the samples lie at indices {apart} apart, so that no part of them can be held out"
    )]
    Unsplit {
        /// How many show the feature.
        positives: u64,
        /// How many lack it.
        negatives: u64,
        /// The number of parts.
        apart: usize,
    },
    /// Memory ran out.
    #[error("memory ran out: {reason}")]
    Memory {
        /// libtorch's first sentence.
        reason: String,
    },
    /// libtorch refused an operation that should have worked.
    #[error("libtorch: {reason}")]
    Torch {
        /// Its first sentence.
        reason: String,
    },
}

impl Error {
    /// The cause in the closed list of causes.
    pub fn code(&self) -> ErrorCode {
        match self {
            Error::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorCode::InvalidSpec,
            Error::Read { .. } => ErrorCode::Storage,
            Error::Pickle { .. }
            | Error::Foreign { .. }
            | Error::Unreadable { .. }
            | Error::Sidecar { .. }
            | Error::Tensors { .. }
            | Error::NoForward { .. }
            | Error::NothingToTrain { .. }
            | Error::Forward { .. }
            | Error::NoFunction { .. } => ErrorCode::BadModel,
            Error::Digest { .. } => ErrorCode::Damaged,
            Error::Mismatch { .. } => ErrorCode::SpecMismatch,
            Error::NotFinite { .. } => ErrorCode::NotFinite,
            Error::NoPositives { .. } => ErrorCode::NoPositives,
            Error::NoNegatives { .. } => ErrorCode::NoNegatives,
            Error::Labels { .. } | Error::FewLabelled { .. } | Error::Unsplit { .. } => {
                ErrorCode::InvalidSpec
            }
            Error::Memory { .. } => ErrorCode::OutOfMemory,
            Error::Torch { .. } => ErrorCode::Internal,
        }
    }

    /// What to do about it, where the message does not say so already; else empty.
    pub fn hint(&self) -> &'static str {
        match self {
            Error::Read { .. } => "check the uri in the job spec and the permissions of the file",
            Error::Foreign { hint, .. } => hint,
            Error::Unreadable { .. } | Error::Digest { .. } => {
                "copy or export the file again; its sha256 must be the one in its sidecar"
            }
            Error::Sidecar { .. } => {
                "write the sidecar with tools/export, or change the job spec to match it"
            }
            Error::Tensors { .. } => {
                "make the sidecar's architecture describe these weights, or export the model as TorchScript"
            }
            Error::Forward { reason, .. } => of_forward(reason),
            Error::NoFunction { .. } => {
                "export it in eval mode (`module.eval()` before tracing), and take noise, dropout, statistics kept in forward \
                 and fixed batch sizes out of it, or make the noise a buffer: tools/export checks the same"
            }
            Error::Mismatch { reason, .. } if reason.ends_with(CLAMP) => "",
            Error::Mismatch { .. } => {
                "change the job spec to what the model gives, or export the right model"
            }
            Error::NotFinite { .. } => {
                "check the weights; if it happened while training, lower unlearn.lr or unlearn.alpha"
            }
            Error::NoPositives { .. } => {
                "raise sample.until, lower the labeller's threshold, or check that this generator shows the feature"
            }
            Error::NoNegatives { .. } => {
                "raise the labeller's threshold: it calls nearly every image positive"
            }
            Error::FewLabelled { .. } => {
                "label more images that show the feature, or set direction.recall in place of direction.calibration"
            }
            Error::Unsplit { .. } => "sample more, or check the labels",
            Error::Memory { .. } => {
                "lower sample.batch or unlearn.global_batch, or give the slot more memory"
            }
            Error::Pickle { .. }
            | Error::NoForward { .. }
            | Error::NothingToTrain { .. }
            | Error::Labels { .. }
            | Error::Torch { .. } => "",
        }
    }

    /// Whether the same call may succeed on another try.
    pub fn retryable(&self) -> bool {
        self.code().retryable()
    }

    /// An error in a model's own code, or the lack of memory that stopped it.
    pub(crate) fn forward(model: &str, input: &[i64], message: &str) -> Self {
        match classify(message) {
            Error::Torch { reason } => {
                Error::Forward { model: model.to_owned(), input: input.to_vec(), reason }
            }
            other => other,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::new(error.code(), error.to_string(), error.hint())
    }
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        match error {
            TchError::Torch(message) => classify(&message),
            other => classify(&other.to_string()),
        }
    }
}

/// What to do about a forward pass that failed, by libtorch's words.
fn of_forward(reason: &str) -> &'static str {
    const DEVICE: [&str; 5] = [
        "'CUDA' backend",
        "on the same device",
        "not compiled with CUDA",
        "not linked with support for cuda",
        "CUDA GPUs are available",
    ];
    const PRECISION: [&str; 5] =
        ["same dtype", "expected scalar type", "not implemented for '", "the same type", "of type complex"];
    let says = |words: &[&str]| words.iter().any(|words| reason.contains(words));
    if says(&DEVICE) {
        "a device is written into the module's code: trace it on the cpu, or make its tensors with device=x.device"
    } else if says(&PRECISION) {
        "the module's precision does not fit its code or this device: export it in single precision (`module.float()`), \
         without casts in its forward"
    } else {
        "check generator.latent in the job spec, or that the model takes [N, C, H, W] images"
    }
}

/// An archive that libtorch does not load, by its words.
pub(crate) fn of_load(file: &str, message: &str) -> Error {
    let reason = match classify(message) {
        Error::Torch { reason } => reason,
        other => return other,
    };
    let foreign = |what, hint| Error::Foreign { file: file.to_owned(), what, hint };
    if message.contains("maximum supported version for reading") {
        return foreign(
            format!("was written by a PyTorch newer than this libtorch ({})", torch_version()),
            "export it with that version of PyTorch or an older one",
        );
    }
    for (words, name) in
        [("Unknown builtin op: ", "operator"), ("Unknown type name '__torch__.torch.classes.", "class")]
    {
        if let Some(at) = message.find(words) {
            let rest = &message[at + words.len()..];
            let end = rest.find(|letter: char| !(letter.is_alphanumeric() || "_:".contains(letter)));
            let missing = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
            return foreign(
                format!("uses the {name} {missing}, which libtorch {} does not have", torch_version()),
                "it comes from another library (torchvision, an extension) or a newer PyTorch: export a module of PyTorch's \
                 own operators",
            );
        }
    }
    let reason = format!("is truncated, damaged or not a TorchScript archive: {reason}");
    Error::Unreadable { file: file.to_owned(), reason }
}

/// Sorts a message of libtorch: lack of memory is the user's to mend, anything else is not.
pub(crate) fn classify(message: &str) -> Error {
    const MEMORY: [&str; 4] =
        ["can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "std::bad_alloc"];
    let reason = first_sentence(message);
    if MEMORY.iter().any(|words| message.contains(words)) {
        Error::Memory { reason }
    } else {
        Error::Torch { reason }
    }
}

/// The cause without the stack trace: libtorch's messages go on for pages, and name source files of its build.
///
/// An error in TorchScript code opens with "The following operation failed in the TorchScript interpreter" and a
/// trace of the script, and says what happened in its last `RuntimeError: ` line.
pub(crate) fn first_sentence(message: &str) -> String {
    let cause = message.rfind("RuntimeError: ").map_or(message, |at| &message[at + "RuntimeError: ".len()..]);
    let line = cause.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no message");
    // "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: ..."
    let line = match (line.starts_with("[enforce fail"), line.find("] ")) {
        (true, Some(end)) => &line[end + 2..],
        _ => line,
    };
    let line = line.split(" (Triggered internally").next().unwrap_or(line);
    let line = line.split("Exception raised from").next().unwrap_or(line).trim();
    let end = line.match_indices(". ").map(|(at, _)| at).find(|at| *at >= 20).unwrap_or(line.len());
    line[..end].trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_memory_is_told_from_other_faults() {
        let cpu = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you \
                   tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)\nframe #0: ...";
        let cuda = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79 GiB";
        for message in [cpu, cuda] {
            let failure = Failure::from(Error::from(TchError::Torch(message.to_owned())));
            assert_eq!(failure.code, ErrorCode::OutOfMemory, "{failure}");
            assert!(failure.hint.contains("sample.batch"), "{}", failure.hint);
            assert!(!failure.message.contains("frame #0"), "{}", failure.message);
        }
        let other = Error::from(TchError::Torch("size mismatch\nframe #0: x".to_owned()));
        assert_eq!(
            (other.code(), other.to_string().as_str()),
            (ErrorCode::Internal, "libtorch: size mismatch")
        );
    }

    #[test]
    fn the_cause_in_a_script_is_found_behind_its_trace() {
        let message = "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript, \
                       serialized code (most recent call last):\n  File \"code/x.py\", line 9, in forward\n    \
                       return torch.linear(z, w)\n           ~~~~ <--- HERE\nRuntimeError: mat1 and mat2 shapes \
                       cannot be multiplied (2x7 and 5x16)\n";
        assert_eq!(first_sentence(message), "mat1 and mat2 shapes cannot be multiplied (2x7 and 5x16)");
    }
}
