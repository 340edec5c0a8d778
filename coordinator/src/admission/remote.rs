//! What a spec names on stores beyond this machine: objects that are there, not empty and as described, and a place that
//! takes the result.
//!
//! Each is read at most once, and nothing of it is kept but the digest: the same version of the same object is not read
//! again. Not here: what is on this machine.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use lethe_artifacts::{ArtifactStore, Digest, Environment, Error, Location, Publication, Remote, Version};
use lethe_domain::{Draft, Ends, JobSpec, LAST_BYTES, result_files};

use super::content::{Seen, kind_of};
use super::local::inputs;
use super::{Findings, location};

/// Digests of objects that were read, by uri and version.
static READ: Mutex<BTreeMap<(String, Version), Digest>> = Mutex::new(BTreeMap::new());
/// More objects than a fleet's jobs name; then it begins anew.
const REMEMBERED: usize = 1024;

/// How much of an object is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// Its first and its last bytes: somebody waits.
    Ends,
    /// All of it, for its digest.
    Whole,
}

/// Looks at every object under a key with which nothing is wrong so far. A store that gives no answer is asked once.
pub(super) async fn look(draft: &Draft, environment: &Environment, read: Read, found: &mut Findings) {
    let spec = draft.spec();
    for (key, uri) in spec.files() {
        // Uris that lead nowhere are told by who looks at this machine.
        let Ok(location) = location(uri) else { continue };
        if draft.is_refused(key) || draft.stands_in(key) {
            continue;
        }
        match object((key, uri), &location, draft, environment, read, found).await {
            Ok(()) => {}
            Err(error @ Error::Unreachable { .. }) => {
                return found.problem(key, format!("could not look at it: {error}"));
            }
            Err(error) => found.problem(key, error.to_string()),
        }
    }
    if let Some(publish) = &spec.publish
        && let Ok(folder @ Location::S3 { .. }) = location(&publish.uri)
        && let Err(message) = publishable(spec, &folder, environment).await
    {
        found.problem("publish.uri", message);
    }
}

async fn object(
    (key, uri): (&str, &str),
    location: &Location,
    draft: &Draft,
    environment: &Environment,
    read: Read,
    found: &mut Findings,
) -> lethe_artifacts::Result<()> {
    let Some(remote) = Remote::at(location, environment)? else { return Ok(()) };
    let version = remote.version().await?;
    let (first, last) = remote.ends(&version, LAST_BYTES as u64).await?;
    let sidecar = if kind_of(key).is_some() { remote.sidecar().await? } else { None };
    let (name, size) = (remote.uri(), version.size);
    let ends = Ends { first: &first, last: &last, size };
    let seen = Seen { key, name: &name, ends, sidecar: sidecar.as_deref() };
    let problems = seen.problems(draft);
    if !problems.is_empty() || read == Read::Ends {
        found.problems.extend(problems);
        return Ok(());
    }
    let digest = digest(&remote, version).await?;
    match seen.digest(digest) {
        Ok(()) => found.inputs.0.extend(inputs(key, uri, (digest, size), sidecar.as_deref())),
        Err(message) => found.problem(key, message),
    }
    Ok(())
}

/// The digest of what lies there now.
pub(super) async fn digest_at(
    location: &Location,
    environment: &Environment,
) -> lethe_artifacts::Result<Digest> {
    let remote = Remote::at(location, environment)?;
    let remote = remote.ok_or_else(|| lethe_artifacts::Error::NotFound { object: location.to_string() })?;
    let version = remote.version().await?;
    digest(&remote, version).await
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
    let places = result_files::ALL.map(|name| format!("{folder}/{name}"));
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
        Publication::new(store, "").check(&result_files::ALL).await
    };
    look.await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lethe_domain::spec::Publish;
    use serde_json::json;

    use super::*;

    async fn problems(spec: &JobSpec, environment: &Environment) -> Vec<(String, String)> {
        let mut found = Findings::default();
        look(&Draft::whole(spec.clone()), environment, Read::Whole, &mut found).await;
        found.problems.into_iter().map(|problem| (problem.path, problem.message)).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_store_that_gives_no_answer_is_asked_once_and_told() {
        // Bound, and never listening.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let endpoint = format!("http://{}", socket.local_addr().unwrap());
        let environment = Environment::new([
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "me"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ]);
        let second = Duration::from_secs(1);
        let spec = JobSpec::from_value(json!({
            "name": "far", "generator": {"uri": "s3://models/g.pt", "format": "torchscript", "latent": {"dimension": 2},
                                         "output": {"range": [0, 1], "channels": 1, "size": 8}},
            "feature": {"name": "f", "scorer": {"uri": "s3://models/s.pt", "positive": {"top": 0.1}}},
        }))
        .unwrap();
        let found = problems(&spec, &environment.patience(second, second)).await;
        let [(key, message)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(key, "generator.uri");
        assert!(message.starts_with("could not look at it: s3://models/g.pt: no answer from"), "{message}");
        assert!(message.contains(&endpoint), "{message}");
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
        let empty = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let script =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/mnist/models/thickness.pt"))
                .unwrap();
        let weights = store.put("vae.safetensors", empty("{}")).await.unwrap();
        store.put("vae.safetensors.json", describe("generator", weights.sha256.to_string())).await.unwrap();
        store.put("thickness.pt", script).await.unwrap();
        let spec = JobSpec::from_value(json!({
            "name": "thick-vae",
            "generator": {"uri": "s3://models/x/vae.safetensors", "format": "safetensors",
                          "latent": {"dimension": 20}, "output": {"range": [0, 1], "channels": 1, "size": 28}},
            "feature": {"name": "thick", "scorer": {"uri": "s3://models/x/thickness.pt", "positive": {"top": 0.1}}},
            "publish": {"uri": "s3://models/out"},
        }))
        .unwrap();
        assert_eq!(problems(&spec, &environment).await, []);

        store.put("vae.safetensors", empty("{ }")).await.unwrap();
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
        assert!(found[0].1.contains("is of the kind scorer, expected generator"), "{found:?}");
        store.delete("vae.safetensors.json").await.unwrap();
        let found = problems(&spec, &environment).await;
        assert!(found[0].1.contains("safetensors weights need one"), "{found:?}");

        let inside = JobSpec { publish: Some(Publish { uri: "s3://models/x".to_owned() }), ..spec };
        let inside = inside.map_uris(|uri| uri.replace("x/vae.", "x/generator."));
        store.put("generator.safetensors", empty("{}")).await.unwrap();
        let found = problems(&inside, &environment).await;
        assert!(found.iter().any(|(_, message)| message.contains("the result would replace")), "{found:?}");
    }
}
