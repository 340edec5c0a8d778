//! The cache of models: fetched once, whole or absent, checked on use, bounded, and shared by whoever is there.

use std::{fs, path::Path, sync::Arc};

use lethe_artifacts::{ArtifactStore, Cache, Digest, Environment, Error, Location, resolve};
use lethe_testkit::{Moto, moto::variables};
use tempfile::TempDir;

use crate::{
    place::{BUCKET, environment},
    proxy::{Fault, Proxy},
    store::pattern,
};

struct World {
    _moto: Moto,
    proxy: Proxy,
    store: ArtifactStore,
    environment: Environment,
    folder: TempDir,
}

impl World {
    async fn new() -> Option<Self> {
        let moto = Moto::start()?;
        moto.bucket(BUCKET);
        let proxy = Proxy::before(moto.address()).await;
        let environment = environment(variables(&proxy.address));
        let store = ArtifactStore::open_in(&format!("s3://{BUCKET}/models"), &environment).await.unwrap();
        Some(Self { _moto: moto, proxy, store, environment, folder: tempfile::tempdir().unwrap() })
    }

    fn cache(&self, bytes: u64) -> Cache {
        Cache::new(self.folder.path().join("cache"), bytes)
    }

    /// A model, and its description if it is to have one.
    async fn put(&self, name: &str, bytes: &[u8], described: bool) -> Location {
        let put = self.store.put(name, bytes.to_vec()).await.unwrap();
        if described {
            let text = format!("{{\"sha256\": \"{}\"}}", put.sha256);
            self.store.put(&format!("{name}.json"), text).await.unwrap();
        }
        self.proxy.requests();
        resolve(&self.store.name_of(name), Path::new("/")).unwrap()
    }

    /// Reads of the model itself since this was asked last.
    fn reads(&self, name: &str) -> usize {
        let line = format!("GET /{BUCKET}/models/{name} ");
        self.proxy.requests().iter().filter(|request| request.starts_with(&line)).count()
    }

    /// Models that are kept, in order.
    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("cache")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.contains('-')).collect();
        names.sort();
        names
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_model_is_fetched_once_and_again_when_it_is_another() {
    let Some(world) = World::new().await else { return };
    let cache = world.cache(1 << 30);
    for described in [true, false] {
        let bytes = pattern(100_000 + usize::from(described));
        let at = world.put("a.pt", &bytes, described).await;
        for reads in [1, 0, 0] {
            let found = cache.fetch(&at, &world.environment).await.unwrap();
            assert_eq!(fs::read(&*found).unwrap(), bytes);
            let sidecar = fs::read_to_string(format!("{}.json", found.display()));
            assert_eq!(sidecar.is_ok_and(|text| text.contains(&Digest::of(&bytes).to_string())), described);
            assert_eq!(world.reads("a.pt"), reads, "described: {described}");
        }
        // The same bytes elsewhere: kept once, but read before they are believed to be the same.
        let twin = world.put("twin.pt", &bytes, described).await;
        cache.fetch(&twin, &world.environment).await.unwrap();
        assert_eq!(world.reads("twin.pt"), 1);
        let other = pattern(90_000 + usize::from(described));
        world.put("a.pt", &other, described).await;
        assert_eq!(fs::read(&*cache.fetch(&at, &world.environment).await.unwrap()).unwrap(), other);
        for name in ["a.pt.json", "twin.pt.json"] {
            world.store.delete(name).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn damage_is_found_on_use_and_mended_and_a_wrong_model_is_refused() {
    let Some(world) = World::new().await else { return };
    let cache = world.cache(1 << 30);
    for described in [true, false] {
        let bytes = pattern(50_000 + usize::from(described));
        let name = format!("model-{described}");
        let at = world.put(&name, &bytes, described).await;
        let path = cache.fetch(&at, &world.environment).await.unwrap().to_path_buf();
        let mut flipped = bytes.clone();
        flipped[4711] ^= 1;
        for damaged in [&flipped[..], &bytes[..100], &[]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(fs::read(&*cache.fetch(&at, &world.environment).await.unwrap()).unwrap(), bytes);
        }
    }
    let at = world.put("wrong", b"what is described", true).await;
    let kept = world.kept();
    world.store.put("wrong", "something else").await.unwrap();
    let error = cache.fetch(&at, &world.environment).await.unwrap_err();
    assert!(matches!(&error, Error::Damaged { object, .. } if object.ends_with("models/wrong")), "{error:?}");
    assert_eq!(world.kept(), kept, "nothing is left of it");
    // One that was kept, and is replaced without its description.
    let at = world.put("replaced", b"the first version", true).await;
    drop(cache.fetch(&at, &world.environment).await.unwrap());
    world.store.put("replaced", "another version").await.unwrap();
    let error = cache.fetch(&at, &world.environment).await.unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { object, .. } if object.ends_with("models/replaced")),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fetch_that_is_cut_off_leaves_nothing_that_is_believed() {
    let Some(world) = World::new().await else { return };
    let cache = world.cache(20 << 20);
    let bytes = pattern(17 << 20);
    let at = world.put("large", &bytes, false).await;
    world.proxy.plan("GET /artifacts/models/large ", Fault::Stall, 1);
    let fetching = tokio::spawn({
        let (cache, at, environment) = (cache.clone(), at.clone(), world.environment.clone());
        async move { cache.fetch(&at, &environment).await.map(drop) }
    });
    while !world.kept().iter().any(|name| name.starts_with("fetching-")) {
        tokio::task::yield_now().await;
    }
    fetching.abort();
    assert!(fetching.await.unwrap_err().is_cancelled());
    // As a process leaves it that is killed: room taken, nobody holds it.
    let abandoned = world.folder.path().join("cache/fetching-7");
    fs::create_dir_all(&abandoned).unwrap();
    fs::File::create(abandoned.join("model")).unwrap().set_len(15 << 20).unwrap();
    let found = cache.fetch(&at, &world.environment).await.unwrap();
    assert!(fs::read(&*found).unwrap() == bytes);
    assert_eq!(world.kept().len(), 1, "{:?}", world.kept());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_least_recently_used_goes_and_never_one_in_use() {
    let Some(world) = World::new().await else { return };
    let cache = world.cache(3500);
    let mut models = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        models.push(world.put(name, &pattern(1000 + name.len() + models.len()), false).await);
    }
    let fetch = async |at: &Location| cache.fetch(at, &world.environment).await;
    let a = fetch(&models[0]).await.unwrap();
    drop(fetch(&models[1]).await.unwrap());
    drop(fetch(&models[2]).await.unwrap());
    drop(fetch(&models[1]).await.unwrap());
    world.proxy.requests();
    drop(fetch(&models[3]).await.unwrap());
    drop(fetch(&models[1]).await.unwrap());
    assert_eq!((world.reads("b"), world.kept().len()), (0, 3), "c went: a is in use, b was used after it");
    assert!(a.exists());
    let _b = fetch(&models[1]).await.unwrap();
    let _d = fetch(&models[3]).await.unwrap();
    let error = fetch(&models[4]).await.unwrap_err();
    assert!(matches!(error, Error::CacheFull { bound: 3500, .. }) && error.retryable(), "{error:?}");
    assert!(error.to_string().contains("LETHE_CACHE_BYTES"), "{error}");
    drop(a);
    drop(fetch(&models[4]).await.unwrap());
    assert_eq!(world.kept().len(), 3);
    let error = world.cache(10).fetch(&models[0], &world.environment).await.unwrap_err();
    assert!(matches!(error, Error::CacheFull { size: 1001, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_fetch_each_model_once_and_never_see_half_of_it() {
    let Some(world) = World::new().await else { return };
    // Room for three of four: something goes all the time.
    let cache = world.cache(3_500_000);
    let mut models = Vec::new();
    for number in 0..4 {
        let bytes = pattern(1_000_000 + number);
        let at = world.put(&format!("m{number}"), &bytes, number % 2 == 0).await;
        models.push((at, Digest::of(&bytes)));
    }
    let models = Arc::new(models);
    let first = (0..8).map(|_| {
        let (cache, models, environment) = (cache.clone(), models.clone(), world.environment.clone());
        tokio::spawn(async move { cache.fetch(&models[0].0, &environment).await.unwrap() })
    });
    for fetched in first.collect::<Vec<_>>() {
        fetched.await.unwrap();
    }
    assert_eq!(world.reads("m0"), 1, "seven waited for one");
    let everybody = (0..6).map(|worker: usize| {
        let (cache, models, environment) = (cache.clone(), models.clone(), world.environment.clone());
        tokio::spawn(async move {
            for round in 0..12 {
                let (at, digest) = &models[(worker * 7 + round * 3) % 4];
                match cache.fetch(at, &environment).await {
                    Ok(found) => assert_eq!(Digest::of(&fs::read(&*found).unwrap()), *digest),
                    Err(error) => assert!(matches!(error, Error::CacheFull { .. }), "{error:?}"),
                }
            }
        })
    });
    for worker in everybody.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    assert!(world.kept().len() <= 3, "{:?}", world.kept());
}

#[tokio::test]
async fn a_file_of_this_machine_is_used_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().join("cache"), 0);
    let at = resolve("/srv/model.pt", Path::new("/")).unwrap();
    let found = cache.fetch(&at, &environment(vec![])).await.unwrap();
    assert_eq!(&*found, Path::new("/srv/model.pt"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let whole = resolve("s3://bucket", Path::new("/")).unwrap();
    assert!(matches!(cache.fetch(&whole, &environment(vec![])).await, Err(Error::InvalidUri { .. })));
}

#[test]
fn the_environment_names_the_folder_and_the_bound() {
    let of = |variables: &[(&str, &str)]| {
        Cache::of(&Environment::new(variables.iter().copied())).map(|cache| format!("{cache:?}"))
    };
    for (variables, folder) in [
        (vec![("LETHE_CACHE", "/a"), ("XDG_CACHE_HOME", "/b")], "\"/a\""),
        (vec![("XDG_CACHE_HOME", "/b"), ("HOME", "/c")], "\"/b/lethe\""),
        (vec![("HOME", "/c")], "\"/c/.cache/lethe\""),
        (vec![("LETHE_CACHE", "")], "\"/var/cache/lethe\""),
    ] {
        let cache = of(&variables).unwrap();
        assert!(cache.contains(folder) && cache.contains("21474836480"), "{cache}");
    }
    assert!(of(&[("LETHE_CACHE_BYTES", "1000")]).unwrap().contains("1000"));
    let error = of(&[("LETHE_CACHE_BYTES", "20G")]).unwrap_err().to_string();
    assert!(error.contains("LETHE_CACHE_BYTES") && error.contains("20G"), "{error}");
}
