//! What a model file really is, whatever its name says: told by its beginning, its end and its size.
//!
//! One place for everybody who refuses files: the executor, which has libtorch, and admission, which has not. Nothing is
//! unpacked and nothing is run. Not here: reading files, what a model of the right kind holds.

use std::path::Path;

use crate::ModelKind;
use crate::spec::ModelFormat;

/// Bytes of a file's beginning that are looked at.
pub const FIRST_BYTES: usize = 4096;
/// Bytes of a file's end that are looked at: room for the directory of a zip archive of thousands of tensors.
pub const LAST_BYTES: usize = 1 << 20;

/// A file's beginning and end. They overlap, or are one and the same, where the file is small.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// The first bytes, [`FIRST_BYTES`] or all.
    pub first: &'a [u8],
    /// The last bytes, [`LAST_BYTES`] or all.
    pub last: &'a [u8],
    /// Bytes of the whole file.
    pub size: u64,
}

impl<'a> Ends<'a> {
    /// The ends of a file that is in memory.
    pub fn of(bytes: &'a [u8]) -> Self {
        let last = &bytes[bytes.len().saturating_sub(LAST_BYTES)..];
        Self { first: &bytes[..bytes.len().min(FIRST_BYTES)], last, size: bytes.len() as u64 }
    }
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Nothing at all.
    Empty,
    /// The few lines that stand for a file of Git LFS until it is fetched.
    LfsPointer,
    /// HTML or XML: what a server answers instead of a file.
    WebPage,
    /// A pickle as it is, or in a zip archive as torch.save writes it.
    Pickle,
    /// TorchScript, of torch.jit.save.
    TorchScript,
    /// A program of torch.export.
    ExportedProgram,
    /// A zip archive without an end: it was cut off.
    CutZip,
    /// Any other zip archive.
    OtherZip,
    /// Safetensors, as far as the length of the header and its first byte tell.
    Safetensors,
    /// Safetensors whose header is longer than the file: it was cut off.
    CutSafetensors,
    /// None of these.
    Unknown,
}

impl FileKind {
    /// Looks at the two ends.
    pub fn of(ends: Ends<'_>) -> Self {
        let Ends { first, last, size } = ends;
        let text = first.trim_ascii_start();
        let opens =
            |tag: &str| text.len() >= tag.len() && text[..tag.len()].eq_ignore_ascii_case(tag.as_bytes());
        match first {
            [] => Self::Empty,
            _ if first.starts_with(b"version https://git-lfs.github.com/") => Self::LfsPointer,
            _ if ["<!doctype", "<html", "<?xml", "<head", "<body"].into_iter().any(opens) => Self::WebPage,
            _ if first.starts_with(b"PK\x03\x04") => zip(last),
            // Protocol 2 and later open with 0x80.
            [0x80, 2..=5, ..] => Self::Pickle,
            _ => match first.split_at_checked(8) {
                Some((header, [b'{', ..])) => safetensors(header, size),
                _ => Self::Unknown,
            },
        }
    }

    /// Why a file of this kind is no model in `format`; none: it may be one.
    pub fn refusal(self, format: ModelFormat) -> Option<&'static str> {
        match (self, format) {
            (Self::TorchScript, ModelFormat::TorchScript) | (Self::Safetensors, ModelFormat::Safetensors) => {
                None
            }
            (Self::Empty, _) => Some("is empty"),
            (Self::LfsPointer, _) => {
                Some("is a Git LFS pointer, not the file it stands for: run `git lfs pull`")
            }
            (Self::WebPage, _) => Some(
                "is a web page, not a model: download the file itself, and look whether it asks for a login",
            ),
            (Self::Pickle, _) => Some("is a pickle, which Lethe never loads"),
            (Self::ExportedProgram, _) => Some(
                "is a program of torch.export, which libtorch cannot train: export the module as TorchScript with `python tools/export --module`",
            ),
            (Self::CutZip, _) => Some("is a zip archive without its end: it was cut off, copy it again"),
            (Self::CutSafetensors, _) => Some("ends before its header does: it was cut off, copy it again"),
            (Self::OtherZip, _) => {
                Some("is a zip archive, but no TorchScript: export the module with tools/export")
            }
            (Self::Safetensors, ModelFormat::TorchScript) => Some(
                "is safetensors, not TorchScript: say format: safetensors for a generator with a sidecar; other models must be TorchScript, which tools/export writes",
            ),
            (Self::TorchScript, ModelFormat::Safetensors) => {
                Some("is a TorchScript archive, not safetensors: say format: torchscript")
            }
            (Self::Unknown, ModelFormat::TorchScript) => {
                Some("is not a TorchScript archive (not a zip file)")
            }
            (Self::Unknown, ModelFormat::Safetensors) => {
                Some("is not safetensors (it does not begin with a header)")
            }
        }
    }
}

fn safetensors(length: &[u8], size: u64) -> FileKind {
    let length = length.try_into().map_or(u64::MAX, u64::from_le_bytes);
    match length {
        // No header of tensors is that long; it is the format's own limit.
        100_000_001.. => FileKind::Unknown,
        _ if length + 8 > size => FileKind::CutSafetensors,
        _ => FileKind::Safetensors,
    }
}

fn zip(last: &[u8]) -> FileKind {
    const END: &[u8] = b"PK\x05\x06";
    if !last.windows(END.len()).any(|window| window == END) {
        return FileKind::CutZip;
    }
    let has = |found: fn(&[u8]) -> bool| zip_names(last).any(found);
    if has(|name| name.ends_with(b"archive_format") || name.ends_with(b"serialized_exported_program.json")) {
        FileKind::ExportedProgram
    } else if has(|name| name.ends_with(b"/constants.pkl") || name.windows(6).any(|part| part == b"/code/")) {
        // torch.jit.save writes both, torch.save writes neither.
        FileKind::TorchScript
    } else if has(|name| name.ends_with(b"data.pkl")) {
        FileKind::Pickle
    } else {
        FileKind::OtherZip
    }
}

/// Names in the directory of a zip archive, which lies at its end. A stray match in what comes before only adds a name.
fn zip_names(last: &[u8]) -> impl Iterator<Item = &[u8]> {
    const HEADER: usize = 46;
    last.windows(4).enumerate().filter(|(_, window)| *window == b"PK\x01\x02").filter_map(|(at, _)| {
        let length = u16::from_le_bytes([*last.get(at + 28)?, *last.get(at + 29)?]) as usize;
        last.get(at + HEADER..at + HEADER + length)
    })
}

/// The command that makes an artifact of a pickle.
pub fn conversion(name: &str, kind: ModelKind) -> String {
    const IMAGES: &str = "--channels C --size H,W";
    let (kind, more) = match kind {
        ModelKind::Generator => ("generator", format!("--latent D --output-range LO,HI {IMAGES}")),
        ModelKind::Classifier => ("classifier", IMAGES.to_owned()),
        ModelKind::Scorer => ("scorer", IMAGES.to_owned()),
        ModelKind::Features => ("features", IMAGES.to_owned()),
    };
    let out = Path::new(name).file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
    format!(
        "python tools/export --kind {kind} --module FILE.py:CLASS --weights {name} {more} --out {out}-export.pt"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A zip archive of empty entries, without compression.
    fn archive(names: &[&str]) -> Vec<u8> {
        let (mut bytes, mut directory) = (Vec::new(), Vec::new());
        for name in names {
            let length = (name.len() as u16).to_le_bytes();
            bytes.extend(b"PK\x03\x04");
            bytes.extend([0; 22]);
            bytes.extend(length);
            bytes.extend([0; 2]);
            bytes.extend(name.as_bytes());
            directory.extend(b"PK\x01\x02");
            directory.extend([0; 24]);
            directory.extend(length);
            directory.extend([0; 16]);
            directory.extend(name.as_bytes());
        }
        bytes.extend(directory);
        bytes.extend(b"PK\x05\x06");
        bytes.extend([0; 18]);
        bytes
    }

    fn of(bytes: &[u8]) -> FileKind {
        FileKind::of(Ends::of(bytes))
    }

    #[test]
    fn files_are_known_by_what_they_hold() {
        let script = archive(&["m/data.pkl", "m/code/__torch__.py", "m/constants.pkl", "m/version"]);
        let mut cut = script.clone();
        cut.truncate(script.len() - 30);
        let header = |length: u64, rest: &[u8]| [&length.to_le_bytes()[..], rest].concat();
        for (bytes, kind) in [
            (vec![], FileKind::Empty),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n".to_vec(),
                FileKind::LfsPointer,
            ),
            (b"\n <!DOCTYPE html><title>404</title>".to_vec(), FileKind::WebPage),
            (b"<html>".to_vec(), FileKind::WebPage),
            (b"\x80\x02\x8a\x0al\xfc".to_vec(), FileKind::Pickle),
            (archive(&["m/data.pkl", "m/data/0", "m/version"]), FileKind::Pickle),
            (script, FileKind::TorchScript),
            (cut, FileKind::CutZip),
            (archive(&["p/archive_format", "p/models/model.json", "p/data.pkl"]), FileKind::ExportedProgram),
            (archive(&["serialized_exported_program.json", "version"]), FileKind::ExportedProgram),
            (archive(&["a.npy"]), FileKind::OtherZip),
            (header(2, b"{}"), FileKind::Safetensors),
            (header(2000, b"{\"a\""), FileKind::CutSafetensors),
            (header(u64::MAX, b"{}"), FileKind::Unknown),
            (b"weights".to_vec(), FileKind::Unknown),
        ] {
            assert_eq!(of(&bytes), kind, "{bytes:?}");
        }
    }

    #[test]
    fn only_the_fitting_kind_is_not_refused() {
        for (kind, format) in [
            (FileKind::TorchScript, ModelFormat::TorchScript),
            (FileKind::Safetensors, ModelFormat::Safetensors),
        ] {
            assert_eq!(kind.refusal(format), None);
        }
        assert!(
            FileKind::Safetensors.refusal(ModelFormat::TorchScript).unwrap().contains("format: safetensors")
        );
        assert!(
            FileKind::TorchScript.refusal(ModelFormat::Safetensors).unwrap().contains("format: torchscript")
        );
        for format in [ModelFormat::TorchScript, ModelFormat::Safetensors] {
            assert!(FileKind::LfsPointer.refusal(format).unwrap().contains("git lfs pull"));
        }
    }

    #[test]
    fn the_conversion_of_a_pickle_keeps_its_name() {
        let command = conversion("/models/old.pkl", ModelKind::Generator);
        assert!(
            command.contains("--weights /models/old.pkl") && command.ends_with("--out old-export.pt"),
            "{command}"
        );
    }
}
