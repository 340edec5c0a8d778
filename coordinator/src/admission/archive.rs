//! A look into a TorchScript archive, as far as its last megabyte goes: whether its module has the method `forward`.
//!
//! torch.jit.save writes the code after the weights, and the directory of a zip archive lies at its end. Code is read as
//! text; nothing is run, no pickle is loaded. Not here: whether it is TorchScript at all (`FileKind`).

use std::io::Read;

use flate2::read::DeflateDecoder;
use lethe_domain::{Ends, ZipEntry, zip_entries};

/// More text than the code of a class has.
const CODE_BYTES: u64 = 16 << 20;

/// Whether the module has `forward`; none when that cannot be told.
pub(super) fn has_forward(ends: Ends<'_>) -> Option<bool> {
    let named = |name: &str| zip_entries(ends.last).find(|entry| entry.name == name.as_bytes());
    let top = |name: &&str| name.matches('/').count() == 1;
    let names = zip_entries(ends.last).filter_map(|entry| std::str::from_utf8(entry.name).ok());
    let folder = names.filter(top).find_map(|name| name.strip_suffix("data.pkl"))?;
    let pickle = unpacked(ends, named(&format!("{folder}data.pkl"))?)?;
    // A module is pickled as an object of its class: protocol 2, then the class by module and name, a line each.
    let mut lines = pickle.strip_prefix(b"\x80\x02c")?.split(|byte| *byte == b'\n');
    let mut line = || std::str::from_utf8(lines.next()?).ok();
    let (module, class) = (line()?, line()?);
    let code = unpacked(ends, named(&format!("{folder}code/{}.py", module.replace('.', "/")))?)?;
    let code = std::str::from_utf8(&code).ok()?;
    let (_, body) = code.split_once(&format!("class {class}(Module):\n"))?;
    let own = body.split("\nclass ").next()?;
    Some(own.contains("  def forward("))
}

/// The bytes of an entry; none when it lies before the end that was read, or is packed in another way.
fn unpacked(ends: Ends<'_>, entry: ZipEntry<'_>) -> Option<Vec<u8>> {
    const HEADER: usize = 30;
    let start = ends.size - ends.last.len() as u64;
    let rest = ends.last.get(usize::try_from(u64::from(entry.at).checked_sub(start)?).ok()?..)?;
    let header = rest.get(..HEADER)?;
    let length = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let packed = rest.get(HEADER + length(26) + length(28)..)?.get(..entry.packed as usize)?;
    match entry.method {
        0 => Some(packed.to_owned()),
        8 => {
            let mut bytes = Vec::new();
            DeflateDecoder::new(packed).take(CODE_BYTES).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn forward_is_found_where_it_is_and_missed_where_it_is_not() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (file, forward) in [
            ("crates/models/tests/fixtures/flat_generator.pt", Some(true)),
            ("crates/models/tests/fixtures/classifier.pt", Some(true)),
            ("examples/mnist/models/thickness.pt", Some(true)),
            ("examples/mnist/models/features.pt", Some(true)),
            ("crates/models/tests/fixtures/broken_no_forward.pt", Some(false)),
            ("crates/models/tests/fixtures/broken_pickled_module.pt", None),
            ("examples/mnist/models/vae.safetensors", None),
        ] {
            let bytes = fs::read(root.join(file)).unwrap();
            assert_eq!(has_forward(Ends::of(&bytes)), forward, "{file}");
        }
    }

    #[test]
    fn what_lies_before_the_end_cannot_be_told() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/mnist/models/thickness.pt");
        let bytes = fs::read(file).unwrap();
        let ends = Ends { last: &bytes[bytes.len() - 1000..], ..Ends::of(&bytes) };
        assert_eq!(has_forward(ends), None);
    }
}
