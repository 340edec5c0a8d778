//! Reading a job spec from a file: parse, fill in what the generator's sidecar says, make paths absolute.
//!
//! From here on the spec says everything itself, and so do the job's record and its result. Not here: what files hold
//! (`lethe_coordinator::look_at_files`).

use std::path::Path;

use lethe_artifacts::{Environment, Location, Remote, resolve};
use lethe_domain::spec::value;
use lethe_domain::{JobSpec, Sidecar, SpecError, SpecProblem};
use serde_json::Value;

use crate::commands::block_on;
use crate::error::Error;

/// Reads and checks a spec. `-` is standard input. Paths in a spec that comes from there, or through another pipe, are relative
/// to the current folder.
pub(crate) fn read(file: &Path) -> Result<JobSpec, Error> {
    let stdin = file == Path::new("-");
    let piped = stdin || std::fs::metadata(file).is_ok_and(|metadata| !metadata.is_file());
    let text = if stdin { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|source| Error::SpecFile { file: file.display().to_string(), source })?;
    let refuse = |problems| Error::Spec { file: file.display().to_string(), problems };
    let folder = if piped { None } else { file.parent().filter(|folder| !folder.as_os_str().is_empty()) };
    let folder = folder.unwrap_or(Path::new("."));
    let base = std::path::absolute(folder).map_err(|error| Error::io("find", folder, error))?;
    let mut value = value(&text).map_err(refuse)?;
    let unseen = fill_in(&mut value, &base).err();
    let spec = JobSpec::from_value(value).map_err(|mut error| {
        error.problems.extend(unseen);
        refuse(error)
    })?;
    absolute(spec, &base).map_err(refuse)
}

/// Has the generator's sidecar say what the spec does not.
fn fill_in(spec: &mut Value, base: &Path) -> Result<(), SpecProblem> {
    let generator = &spec["generator"];
    let said = |key: &str| !generator[key].is_null();
    let output = &generator["output"];
    let whole = ["range", "channels", "size"].iter().all(|key| !output[*key].is_null());
    if said("format") && said("latent") && said("prior") && whole {
        return Ok(());
    }
    let Some(location) = generator["uri"].as_str().and_then(|uri| resolve(uri, base).ok()) else {
        return Ok(());
    };
    let sidecar =
        sidecar(&location).map_err(|message| SpecProblem { path: "generator.uri".to_owned(), message })?;
    if let Some(sidecar) = sidecar {
        sidecar.fill(spec);
    }
    Ok(())
}

/// The description beside a model, wherever that is; none when there is none.
fn sidecar(model: &Location) -> Result<Option<Sidecar>, String> {
    let environment = Environment::of_process();
    let said = |error: lethe_artifacts::Error| error.to_string();
    let (name, text) = match (model.local_path(), Remote::at(model, &environment).map_err(said)?) {
        (Some(path), _) => {
            let mut beside = path.as_os_str().to_owned();
            beside.push(".json");
            let name = Path::new(&beside).display().to_string();
            match std::fs::read(&beside) {
                Ok(text) => (name, text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(format!("cannot read {name}: {error}")),
            }
        }
        (None, Some(remote)) => {
            let found = block_on(async { Ok(remote.sidecar().await) }).map_err(|error| error.to_string())?;
            match found.map_err(|error| {
                format!("what the spec leaves out would be in {}: {error}", remote.sidecar_uri())
            })? {
                Some(text) => (remote.sidecar_uri(), text.to_vec()),
                None => return Ok(None),
            }
        }
        (None, None) => return Ok(None),
    };
    let sidecar = serde_json::from_slice(&text);
    sidecar.map(Some).map_err(|error| format!("{name} is no description of a model: {error}"))
}

/// Resolves every uri against the spec's folder.
fn absolute(spec: JobSpec, base: &Path) -> Result<JobSpec, SpecError> {
    let problems: Vec<SpecProblem> = spec
        .files()
        .into_iter()
        .filter_map(|(path, uri)| {
            let message = resolve(uri, base).err()?.to_string();
            Some(SpecProblem { path: path.to_owned(), message })
        })
        .collect();
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

#[cfg(test)]
mod tests {
    use lethe_domain::spec::{Latent, ModelFormat, Prior, Size};
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_relative_to_the_spec_and_the_sidecar_says_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.yaml");
        std::fs::write(
            &file,
            "{name: t, generator: {uri: g.pt}, feature: {name: f, scorer: {uri: s.pt, positive: {above: 1}}}}",
        )
        .unwrap();
        let error = read(&file).unwrap_err().to_string();
        for key in ["generator.format: missing", "generator.latent: missing", "generator.output: missing"] {
            assert!(error.contains(key), "{key} is not in {error}");
        }
        let sidecar = json!({"schema_version": 1, "kind": "generator", "format": "torchscript", "sha256": "",
            "latent": {"shape": [2], "prior": {"uniform": [-1, 1]}},
            "output": {"range": [0, 1], "channels": 1, "height": 28, "width": 28}});
        std::fs::write(folder.path().join("g.pt.json"), sidecar.to_string()).unwrap();
        let generator = read(&file).unwrap().generator;
        assert_eq!(generator.uri, folder.path().join("g.pt").display().to_string());
        assert_eq!(
            (generator.format, generator.latent, generator.prior, generator.output.size),
            (ModelFormat::TorchScript, Latent::Dimension(2), Prior::Uniform(-1.0, 1.0), Size::Square(28))
        );
        std::fs::write(folder.path().join("g.pt.json"), "{").unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("is no description of a model"), "{error}");
    }
}
