//! Reading a job spec from a file: parse, fill in what the generator's sidecar says, make paths absolute, look at the files.
//!
//! From here on the spec says everything itself, and so do the job's record and its result. Whatever is wrong is told at
//! once. Not here: what files hold (`lethe_coordinator::look_at_files`).

use std::path::Path;
use std::time::Duration;

use lethe_artifacts::{Environment, Location, Remote, resolve};
use lethe_domain::spec::value;
use lethe_domain::{Draft, JobSpec, Sidecar, SpecError, SpecProblem};
use serde_json::Value;

use crate::commands::block_on;
use crate::error::Error;
use crate::spec_places::shown;

/// How long somebody at a terminal waits for one answer of a store.
const ANSWER: Duration = Duration::from_secs(5);

/// Which of the files that a spec names are looked at from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Those of this machine, and only if the spec is refused anyway: the coordinator looks at all of them.
    IfRefused,
    /// Those of this machine.
    Here,
    /// Objects of stores too.
    Everywhere,
}

/// Reads and checks a spec. `-` is standard input. Paths in a spec that comes from there, or through another pipe, are relative
/// to the current folder.
pub(crate) fn read(file: &Path, look: Look) -> Result<JobSpec, Error> {
    let stdin = file == Path::new("-");
    let piped = stdin || std::fs::metadata(file).is_ok_and(|metadata| !metadata.is_file());
    let text = if stdin { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|source| Error::SpecFile { file: file.display().to_string(), source })?;
    let refuse = |problems: SpecError, keys| {
        let file = file.display().to_string();
        let told = shown(&file, &text, &problems.problems);
        Error::Spec { file, problems, told, keys }
    };
    let folder = if piped { None } else { file.parent().filter(|folder| !folder.as_os_str().is_empty()) };
    let folder = folder.unwrap_or(Path::new("."));
    let base = std::path::absolute(folder).map_err(|error| Error::io("find", folder, error))?;
    let environment = match look {
        Look::IfRefused | Look::Here => Environment::of_process(),
        Look::Everywhere => Environment::of_process().patience(ANSWER, ANSWER),
    };
    let mut value = value(&text).map_err(|problems| refuse(problems, true))?;
    let unseen = fill_in(&mut value, &base, &environment).err();
    let mut draft = Draft::read(value).map_err(|problems| refuse(problems, true))?;
    draft.add(unseen);
    let mut draft = absolute(draft, &base);
    if look != Look::IfRefused || !draft.is_sound() {
        lethe_coordinator::look_at_files(&mut draft);
    }
    if look == Look::Everywhere {
        block_on(async {
            lethe_coordinator::look_at_objects(&mut draft, &environment).await;
            Ok(())
        })?;
    }
    let keys = draft.has_wrong_keys();
    draft.finish().map_err(|problems| refuse(problems, keys))
}

/// Has the generator's sidecar say what the spec does not.
fn fill_in(spec: &mut Value, base: &Path, environment: &Environment) -> Result<(), SpecProblem> {
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
    let found = sidecar(&location, environment);
    let problem = |message| SpecProblem { path: "generator.uri".to_owned(), message };
    if let Some(sidecar) = found.map_err(problem)? {
        sidecar.fill(spec);
    }
    Ok(())
}

/// The description beside a model, wherever that is; none when there is none.
fn sidecar(model: &Location, environment: &Environment) -> Result<Option<Sidecar>, String> {
    let said = |error: lethe_artifacts::Error| error.to_string();
    let (name, text) = match (model.local_path(), Remote::at(model, environment).map_err(said)?) {
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
            match found.map_err(|error| format!("could not look at it: {error}"))? {
                Some(text) => (remote.sidecar_uri(), text.to_vec()),
                None => return Ok(None),
            }
        }
        (None, None) => return Ok(None),
    };
    Sidecar::read(&text).map(Some).map_err(|what| format!("{name} {what}"))
}

/// Resolves every uri against the spec's folder.
fn absolute(mut draft: Draft, base: &Path) -> Draft {
    let lost = |(path, uri): (&str, &str)| {
        let message = resolve(uri, base).err()?.to_string();
        Some(SpecProblem { path: path.to_owned(), message })
    };
    let lost: Vec<SpecProblem> = draft.spec().files().into_iter().filter_map(lost).collect();
    draft.add(lost);
    draft.map_uris(|text| {
        match resolve(text, base).ok().and_then(|found| found.local_path().map(Path::to_owned)) {
            Some(file) => file.display().to_string(),
            None => text.to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use lethe_domain::spec::{Latent, ModelFormat, Prior, Size};
    use serde_json::json;

    use super::*;

    /// A job beside its models.
    struct Job(tempfile::TempDir);

    impl Job {
        fn new(spec: &str) -> Self {
            let job = Self(tempfile::tempdir().unwrap());
            std::fs::write(job.0.path().join("job.yaml"), spec).unwrap();
            let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/mnist/models");
            for name in ["g.pt", "s.pt"] {
                std::fs::copy(models.join("thickness.pt"), job.0.path().join(name)).unwrap();
            }
            job
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).unwrap();
        }

        fn refused(&self, look: Look) -> (Vec<String>, bool) {
            match read(&self.0.path().join("job.yaml"), look).unwrap_err() {
                Error::Spec { problems, keys, .. } => {
                    (problems.problems.iter().map(ToString::to_string).collect(), keys)
                }
                other => panic!("{other}"),
            }
        }
    }

    const SHORT: &str =
        "{name: t, generator: {uri: g.pt}, feature: {name: f, scorer: {uri: s.pt, positive: {above: 1}}}}";

    #[track_caller]
    fn assert_lines(lines: &[String], starts: &[&str]) {
        assert!(lines.len() == starts.len(), "{lines:#?}");
        for start in starts {
            assert!(lines.iter().any(|line| line.starts_with(start)), "no {start} in {lines:#?}");
        }
    }

    #[test]
    fn paths_are_relative_to_the_spec_and_the_sidecar_says_the_rest() {
        let job = Job::new(SHORT);
        let (said, keys) = job.refused(Look::Here);
        assert_lines(
            &said,
            &["generator.format: missing", "generator.latent: missing", "generator.output: missing"],
        );
        assert!(keys);
        let sidecar = json!({"schema_version": 1, "kind": "generator", "format": "torchscript", "sha256": "",
            "latent": {"shape": [2], "prior": {"uniform": [-1, 1]}},
            "output": {"range": [0, 1], "channels": 1, "height": 28, "width": 28}});
        job.write("g.pt.json", &sidecar.to_string());
        let generator = read(&job.0.path().join("job.yaml"), Look::IfRefused).unwrap().generator;
        assert_eq!(generator.uri, job.0.path().join("g.pt").display().to_string());
        assert_eq!(
            (generator.format, generator.latent, generator.prior, generator.output.size),
            (ModelFormat::TorchScript, Latent::Dimension(2), Prior::Uniform(-1.0, 1.0), Size::Square(28))
        );
    }

    #[test]
    fn a_sidecar_that_cannot_be_read_is_one_problem() {
        let job = Job::new(SHORT);
        job.write("g.pt.json", "{");
        let (said, keys) = job.refused(Look::Here);
        assert_lines(&said, &["generator.uri: "]);
        assert!(said[0].contains("g.pt.json is no description of a model (it ends too early)"), "{said:?}");
        assert!(!keys, "the spec itself is right");
    }

    #[test]
    fn a_generator_that_is_missing_or_something_else_is_told_instead_of_its_missing_keys() {
        let job = Job::new(SHORT);
        for (text, words) in [
            ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
            ("<!DOCTYPE html><title>Sign in</title>", "is a web page"),
            ("\u{2}\0\0\0\0\0\0\0{}", "safetensors weights need one, tools/export writes it"),
        ] {
            job.write("g.pt", text);
            let (said, keys) = job.refused(Look::IfRefused);
            assert_lines(&said, &["generator.uri: "]);
            assert!(said[0].contains(words) && !keys, "{said:?}, expected {words}");
        }
        std::fs::remove_file(job.0.path().join("g.pt")).unwrap();
        assert_lines(&job.refused(Look::IfRefused).0, &["generator.uri: there is no file"]);
    }

    #[test]
    fn files_are_looked_at_whatever_is_wrong_with_keys() {
        let job = Job::new(
            "{foo: 1, name: t, generator: {uri: nothere.pt}, evaluate: {features: also.pt, samples: many},
              feature: {name: f, scorer: {positive: {above: 1}}}}",
        );
        let (said, keys) = job.refused(Look::Here);
        let starts = [
            "foo: unknown key",
            "evaluate.samples: found the text",
            "feature.scorer.uri: missing",
            "generator.uri: there is no file",
            "evaluate.features: there is no file",
        ];
        assert_lines(&said, &starts);
        assert!(keys);
    }
}
