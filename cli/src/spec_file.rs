//! Reading a job spec from a file: parse, make paths absolute, see that the files are there.

use std::path::Path;

use lethe_artifacts::resolve;
use lethe_domain::{JobSpec, SpecError, SpecProblem};

use crate::error::Error;

/// Reads and checks a spec. `-` is standard input. Paths in a spec that comes from there, or through another pipe, are relative
/// to the current folder.
pub(crate) fn read(file: &Path) -> Result<JobSpec, Error> {
    let stdin = file == Path::new("-");
    let piped = stdin || std::fs::metadata(file).is_ok_and(|metadata| !metadata.is_file());
    let text = if stdin {
        std::io::read_to_string(std::io::stdin()).map_err(|error| Error::io("read", file, error))?
    } else {
        std::fs::read_to_string(file).map_err(|error| Error::io("read", file, error))?
    };
    let refuse = |problems| Error::Spec { file: file.display().to_string(), problems };
    let spec = JobSpec::parse(&text).map_err(refuse)?;
    let folder = if piped { None } else { file.parent().filter(|folder| !folder.as_os_str().is_empty()) };
    let folder = folder.unwrap_or(Path::new("."));
    let base = std::path::absolute(folder).map_err(|error| Error::io("find", folder, error))?;
    absolute(spec, &base).map_err(refuse)
}

/// Resolves every uri against the spec's folder and looks whether the files that are read exist.
fn absolute(spec: JobSpec, base: &Path) -> Result<JobSpec, SpecError> {
    let problem = |path: &str, message: String| SpecProblem { path: path.to_owned(), message };
    let mut problems = Vec::new();
    for (path, uri) in spec.files() {
        match resolve(uri, base) {
            Err(error) => problems.push(problem(path, error.to_string())),
            Ok(location) => {
                if let Some(file) = location.local_path()
                    && let Err(message) = readable(file)
                {
                    problems.push(problem(path, message));
                }
            }
        }
    }
    if !problems.is_empty() {
        return Err(SpecError { problems });
    }
    Ok(spec.map_uris(|text| {
        match resolve(text, base).ok().and_then(|found| found.local_path().map(Path::to_owned)) {
            Some(file) => file.display().to_string(),
            None => text.to_owned(),
        }
    }))
}

fn readable(file: &Path) -> Result<(), String> {
    let found = |what: &str| format!("found {}, {what}", file.display());
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(found("which does not exist; expected a file"))
        }
        Err(error) => Err(found(&format!("which cannot be read: {error}"))),
        Ok(metadata) if !metadata.is_file() => Err(found("which is not a file")),
        Ok(_) => std::fs::File::open(file)
            .map(drop)
            .map_err(|error| found(&format!("which cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "
name: t
generator: {uri: g.pt, format: torchscript, latent: {dimension: 2}, output: {range: [0, 1], channels: 1, size: 28}}
feature: {name: f, scorer: {uri: s.pt, positive: {above: 1}}}
";

    #[test]
    fn paths_are_relative_to_the_spec_and_missing_files_are_named_with_their_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.yaml");
        std::fs::write(&file, SPEC).unwrap();
        std::fs::write(folder.path().join("g.pt"), b"x").unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("feature.scorer.uri: found") && error.contains("does not exist"), "{error}");
        assert!(!error.contains("generator.uri"), "{error}");
        std::fs::write(folder.path().join("s.pt"), b"x").unwrap();
        let spec = read(&file).unwrap();
        assert_eq!(spec.generator.uri, folder.path().join("g.pt").display().to_string());
    }
}
