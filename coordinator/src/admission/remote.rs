//! What a spec names on stores beyond this machine: objects that are there, not empty and as described, and a place that
//! takes the result.
//!
//! A model with a description is read once to compare it, and nothing of it is kept but the digest: the same version of the
//! same object is not read again. Not here: what is on this machine.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use lethe_artifacts::{ArtifactStore, Digest, Environment, Location, Publication, Remote, Version};
use lethe_domain::{JobSpec, SpecProblem};

use super::{Names, RESULT, kind_of, location, problem};

/// Digests of objects that were read, by uri and version.
static READ: Mutex<BTreeMap<(String, Version), Digest>> = Mutex::new(BTreeMap::new());
/// More objects than a fleet's jobs name; then it begins anew.
const REMEMBERED: usize = 1024;

pub(super) async fn look(spec: &JobSpec, environment: &Environment) -> Vec<SpecProblem> {
    let mut problems = Vec::new();
    for (key, uri) in spec.files() {
        // Uris that lead nowhere are told by who looks at this machine.
        let Ok(location) = location(uri) else { continue };
        if let Err(message) = object(key, &location, spec, environment).await {
            problems.push(problem(key, message));
        }
    }
    if let Some(publish) = &spec.publish
        && let Ok(folder @ Location::S3 { .. }) = location(&publish.uri)
        && let Err(message) = publishable(spec, &folder, environment).await
    {
        problems.push(problem("publish.uri", message));
    }
    problems
}

async fn object(
    key: &str,
    location: &Location,
    spec: &JobSpec,
    environment: &Environment,
) -> Result<(), String> {
    let said = |error: lethe_artifacts::Error| error.to_string();
    let Some(remote) = Remote::at(location, environment).map_err(said)? else { return Ok(()) };
    let version = remote.version().await.map_err(said)?;
    if version.size == 0 {
        return Err(format!("{location} is empty"));
    }
    let Some(kind) = kind_of(key) else { return Ok(()) };
    let names = Names { model: remote.uri(), description: remote.sidecar_uri() };
    let text = remote.sidecar().await.map_err(said)?;
    let Some(sidecar) = names.fitting(text.as_deref(), kind, spec)? else { return Ok(()) };
    names.same(&sidecar, digest(&remote, version).await.map_err(said)?)
}

async fn digest(remote: &Remote, version: Version) -> lethe_artifacts::Result<Digest> {
    let known = || READ.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (remote.uri(), version);
    let found = known().get(&key).copied();
    if let Some(found) = found {
        return Ok(found);
    }
    let found = remote.digest(&key.1).await?;
    let mut known = known();
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(key, found);
    Ok(found)
}

async fn publishable(spec: &JobSpec, folder: &Location, environment: &Environment) -> Result<(), String> {
    let places = RESULT.map(|name| format!("{folder}/{name}"));
    let replaced = spec.files().into_iter().find_map(|(key, uri)| {
        let file = location(uri).ok()?.to_string();
        places.contains(&file).then_some((key, file))
    });
    if let Some((key, file)) = replaced {
        return Err(format!(
            "found {folder}, where the result would replace {file}, which {key} names: expected another folder"
        ));
    }
    let look = async {
        let store = ArtifactStore::open_in(&folder.to_string(), environment).await?;
        // The job has no name yet, so whatever is there is not its own.
        Publication::new(store, "").check(&RESULT).await
    };
    look.await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use lethe_domain::spec::Publish;
    use serde_json::json;

    use super::*;

    async fn problems(spec: &JobSpec, environment: &Environment) -> Vec<(String, String)> {
        let found = look(spec, environment).await;
        found.into_iter().map(|problem| (problem.path, problem.message)).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn objects_are_looked_at_as_files_are() {
        let Some(moto) = lethe_testkit::Moto::start() else { return };
        moto.bucket("models");
        let environment = Environment::new(moto.variables());
        let store = ArtifactStore::open_in("s3://models/x", &environment).await.unwrap();
        let describe = |kind: &str, sha256: String| {
            json!({"schema_version": 1, "kind": kind, "format": "safetensors", "sha256": sha256}).to_string()
        };
        let weights = store.put("vae.safetensors", "weights").await.unwrap();
        store.put("vae.safetensors.json", describe("generator", weights.sha256.to_string())).await.unwrap();
        store.put("thickness.pt", "scorer").await.unwrap();
        let spec = JobSpec::from_value(json!({
            "name": "thick-vae",
            "generator": {"uri": "s3://models/x/vae.safetensors", "format": "safetensors",
                          "latent": {"dimension": 20}, "output": {"range": [0, 1], "channels": 1, "size": 28}},
            "feature": {"name": "thick", "scorer": {"uri": "s3://models/x/thickness.pt", "positive": {"top": 0.1}}},
            "publish": {"uri": "s3://models/out"},
        }))
        .unwrap();
        assert_eq!(problems(&spec, &environment).await, []);

        store.put("vae.safetensors", "other weights").await.unwrap();
        store.put("thickness.pt", "").await.unwrap();
        let mut bad = spec.clone();
        bad.evaluate.features = Some("s3://models/x/missing.pt".to_owned());
        bad.publish = Some(Publish { uri: "s3://nowhere/out".to_owned() });
        let found = problems(&bad, &environment).await;
        let expected = [
            ("generator.uri", "one of them is damaged or out of date"),
            ("feature.scorer.uri", "s3://models/x/thickness.pt is empty"),
            ("evaluate.features", "s3://models/x/missing.pt does not exist"),
            ("publish.uri", "there is no such bucket"),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((path, message), (key, part)) in found.iter().zip(expected) {
            assert!(path == key && message.contains(part), "{path}: {message}, expected {key}: {part}");
        }

        store.put("vae.safetensors.json", describe("scorer", weights.sha256.to_string())).await.unwrap();
        let found = problems(&spec, &environment).await;
        assert!(found[0].1.contains("describes a Scorer, expected a Generator"), "{found:?}");
        store.delete("vae.safetensors.json").await.unwrap();
        let found = problems(&spec, &environment).await;
        assert!(found[0].1.contains("safetensors weights need one"), "{found:?}");

        let inside = JobSpec { publish: Some(Publish { uri: "s3://models/x".to_owned() }), ..spec };
        let inside = inside.map_uris(|uri| uri.replace("x/vae.", "x/generator."));
        store.put("generator.safetensors", "weights").await.unwrap();
        let found = problems(&inside, &environment).await;
        assert!(found.iter().any(|(_, message)| message.contains("the result would replace")), "{found:?}");
    }
}
