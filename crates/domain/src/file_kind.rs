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
    /// A file of another kind that is known: what it is, and what to do.
    Foreign(&'static str),
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
                _ => foreign(first).map_or_else(|| in_words(text), Self::Foreign),
            },
        }
    }

    /// The format that is meant by a file of this kind, as far as it tells.
    pub fn format(self) -> ModelFormat {
        match self {
            Self::Safetensors | Self::CutSafetensors => ModelFormat::Safetensors,
            Self::TorchScript
            | Self::ExportedProgram
            | Self::CutZip
            | Self::OtherZip
            | Self::Pickle
            | Self::Empty
            | Self::LfsPointer
            | Self::WebPage
            | Self::Foreign(_)
            | Self::Unknown => ModelFormat::TorchScript,
        }
    }

    /// Why a file of this kind is no model in `format`; none: it may be one.
    pub fn refusal(self, format: ModelFormat) -> Option<&'static str> {
        match (self, format) {
            (Self::TorchScript, ModelFormat::TorchScript) | (Self::Safetensors, ModelFormat::Safetensors) => {
                None
            }
            (Self::Empty, _) => Some("is empty: copy or export it again"),
            (Self::Foreign(what), _) => Some(what),
            (Self::LfsPointer, _) => {
                Some("is a Git LFS pointer, not the file it stands for: run `git lfs pull`")
            }
            (Self::WebPage, _) => {
                Some("is a web page: download the file itself, and look whether it asks for a login")
            }
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
            (Self::TorchScript, ModelFormat::Safetensors) => Some(
                "is a TorchScript archive, not safetensors: say format: torchscript for a generator; other files than models are safetensors",
            ),
            (Self::Unknown, ModelFormat::TorchScript) => {
                Some("is not a TorchScript archive (not a zip file)")
            }
            (Self::Unknown, ModelFormat::Safetensors) => {
                Some("is not safetensors (it does not begin with a header)")
            }
        }
    }
}

/// What files begin with that people name by mistake: where, with which bytes.
const BEGINNINGS: [(usize, &[u8], &str); 19] = [
    (0, b"/annex/objects/", "is a git-annex pointer, not the file it stands for: run `git annex get`"),
    (0, b"\x1f\x8b", "is compressed (gzip): unpack it, and name the model in it"),
    (0, b"BZh", "is compressed (bzip2): unpack it, and name the model in it"),
    (0, b"\xfd7zXZ\0", "is compressed (xz): unpack it, and name the model in it"),
    (0, b"\x28\xb5\x2f\xfd", "is compressed (zstd): unpack it, and name the model in it"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it, and name the model in it"),
    (0, b"Rar!", "is a rar archive: unpack it, and name the model in it"),
    (257, b"ustar", "is a tar archive: unpack it, and name the model in it"),
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        "is an HDF5 file (Keras writes such): convert the model to PyTorch, then use tools/export",
    ),
    (
        0,
        b"\x93NUMPY",
        "is a NumPy array, not a model: load it in a PyTorch module, and export that with tools/export",
    ),
    (0, b"GGUF", "is a GGUF file: export the PyTorch module with tools/export"),
    (4, b"PTMF", "is a module for PyTorch Mobile: export the PyTorch module with tools/export"),
    (4, b"ET12", "is a program for ExecuTorch: export the PyTorch module with tools/export"),
    (4, b"TFL3", "is a TensorFlow Lite model: convert it to PyTorch, then use tools/export"),
    (0, b"\x89PNG", "is a PNG image, not a model"),
    (0, b"\xff\xd8\xff", "is a JPEG image, not a model"),
    (0, b"GIF8", "is a GIF image, not a model"),
    (0, b"%PDF", "is a PDF document, not a model"),
    (0, b"\x7fELF", "is a program or a shared library, not a model"),
];

const ONNX: &str = "looks like an ONNX model: export the PyTorch module itself with tools/export";

fn foreign(first: &[u8]) -> Option<&'static str> {
    let begins =
        |(at, bytes, _): &&(usize, &[u8], &str)| first.get(*at..).is_some_and(|rest| rest.starts_with(bytes));
    // ONNX: the first fields of the protobuf are the format's version and a text.
    let onnx = matches!(first, [0x08, 1..=20, 0x12 | 0x1a | 0x22 | 0x3a, ..]);
    BEGINNINGS.iter().find(begins).map(|(_, _, what)| *what).or(onnx.then_some(ONNX))
}

/// Text is a message or a description, never a model.
fn in_words(text: &[u8]) -> FileKind {
    let text = &text[..text.len().min(512)];
    let words =
        text.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || *byte >= 0x80);
    match text.first() {
        Some(b'{' | b'[') if words => FileKind::Foreign("is JSON, not a model: name the model's own file"),
        Some(_) if words => FileKind::Foreign(
            "is text, not a model: read it, it may be what a server answered instead of the file",
        ),
        _ => FileKind::Unknown,
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
    let has = |found: fn(&[u8]) -> bool| zip_entries(last).any(|entry| found(entry.name));
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

/// An entry of a zip archive, as its directory has it.
#[derive(Debug, Clone, Copy)]
pub struct ZipEntry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// How it is packed: 0 = as it is, 8 = deflated.
    pub method: u16,
    /// Bytes it takes.
    pub packed: u32,
    /// Where its own header lies; `u32::MAX` in archives too large for this number.
    pub at: u32,
}

/// The directory of a zip archive, which lies at its end. A stray match in what comes before only adds an entry.
pub fn zip_entries(last: &[u8]) -> impl Iterator<Item = ZipEntry<'_>> {
    const HEADER: usize = 46;
    last.windows(4).enumerate().filter(|(_, window)| *window == b"PK\x01\x02").filter_map(|(at, _)| {
        let header = last.get(at..at + HEADER)?;
        let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let long = |at: usize| u32::from(short(at)) | u32::from(short(at + 2)) << 16;
        let name = last.get(at + HEADER..at + HEADER + usize::from(short(28)))?;
        Some(ZipEntry { name, method: short(10), packed: long(20), at: long(42) })
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
            (b"\x01\x02weights\0".to_vec(), FileKind::Unknown),
        ] {
            assert_eq!(of(&bytes), kind, "{bytes:?}");
        }
    }

    #[test]
    fn files_that_are_named_by_mistake_are_recognised() {
        let tar = [[b'a'; 257].as_slice(), b"ustar\x0000"].concat();
        let files: [(&[u8], &str); 8] = [
            (b"\x1f\x8b\x08\0\0\0", "gzip"),
            (&tar, "a tar archive: unpack it"),
            (b"\x08\x07\x12\x07pytorch\x1a\x05", "ONNX"),
            (b"\x93NUMPY\x01\0v\0", "NumPy"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"{\"schema_version\": 1}", "JSON"),
            (b"Not Found\n", "is text"),
            (b"/annex/objects/SHA256E-s3--ab.pt\n", "git annex get"),
        ];
        for (bytes, words) in files {
            for format in [ModelFormat::TorchScript, ModelFormat::Safetensors] {
                let why = of(bytes).refusal(format).unwrap();
                assert!(why.contains(words), "{why}");
            }
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
