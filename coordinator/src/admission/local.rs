//! Files of this machine that a spec names: there, what they should be, as described; and what they hold.
//!
//! Not here: objects of stores beyond this machine (`remote`), what files say (`content`).

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use lethe_artifacts::{Digest, digest_file_blocking};
use lethe_domain::{Draft, Ends, Input, InputRole, LAST_BYTES};

use super::Findings;
use super::content::{Seen, kind_of};

/// Looks at the file under a key. One that is as it should be is read once, whole, for its digest.
pub(super) fn file(key: &str, uri: &str, path: &Path, draft: &Draft, found: &mut Findings) {
    let name = path.display().to_string();
    let read = ends(path).and_then(|ends| Ok((ends, beside(key, path)?)));
    let ((first, last, size), sidecar) = match read {
        Ok(read) => read,
        Err(message) => return found.problem(key, message),
    };
    let ends = Ends { first: &first, last: &last, size };
    let seen = Seen { key, name: &name, ends, sidecar: sidecar.as_deref() };
    let problems = seen.problems(draft);
    if !problems.is_empty() {
        return found.problems.extend(problems);
    }
    let digest = digest_file_blocking(path).map_err(|error| error.to_string());
    match digest.and_then(|whole| seen.digest(whole.0).map(|()| whole)) {
        Ok(whole) => found.inputs.0.extend(inputs(key, uri, whole, sidecar.as_deref())),
        Err(message) => found.problem(key, message),
    }
}

/// What is written down of the file under a key: itself, and the description of the generator.
pub(super) fn inputs(
    key: &str,
    uri: &str,
    (digest, size): (Digest, u64),
    sidecar: Option<&[u8]>,
) -> Vec<(InputRole, Input)> {
    let Some(role) = InputRole::of_key(key) else { return Vec::new() };
    let mut inputs = vec![(role, Input { uri: uri.to_owned(), sha256: digest.to_string(), size })];
    if let (InputRole::Generator, Some(text)) = (role, sidecar) {
        let input = Input {
            uri: format!("{uri}.json"),
            sha256: Digest::of(text).to_string(),
            size: text.len() as u64,
        };
        inputs.push((InputRole::Sidecar, input));
    }
    inputs
}

/// A file's first and last bytes, and how many it has.
fn ends(path: &Path) -> Result<(Vec<u8>, Vec<u8>, u64), String> {
    let says = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no file {}", path.display()),
        _ => format!("cannot read {}: {error}", path.display()),
    };
    let about = fs::metadata(path).map_err(says)?;
    if about.is_dir() {
        return Err(format!("{} is a folder, expected a file", path.display()));
    }
    if !about.is_file() {
        // Opening a pipe would wait for whoever writes to it.
        return Err(format!("{} is a pipe or a device, expected a file", path.display()));
    }
    let mut file = File::open(path).map_err(says)?;
    let mut part = |from: u64| {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        Read::by_ref(&mut file).take(LAST_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let size = about.len();
    let first = part(0).map_err(says)?;
    let last = if size <= LAST_BYTES as u64 {
        first.clone()
    } else {
        part(size - LAST_BYTES as u64).map_err(says)?
    };
    Ok((first, last, size))
}

/// The text of a model's description; none for data, and where there is none.
fn beside(key: &str, path: &Path) -> Result<Option<Vec<u8>>, String> {
    if kind_of(key).is_none() {
        return Ok(None);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    let beside = PathBuf::from(name);
    match fs::read(&beside) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", beside.display())),
    }
}
