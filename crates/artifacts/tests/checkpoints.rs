//! Checkpoints on a real folder, with every kind of damage done to their files.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{fs, num::NonZeroUsize, path::PathBuf};

use bytes::Bytes;
use lethe_artifacts::{
    ArtifactStore, Checkpoint, Checkpoints, Content, Error, Fault, Header, Latest, NewFile,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

const FILES: [&str; 3] = ["generator.safetensors", "optimizer.safetensors", "state.json"];

struct Fixture {
    folder: TempDir,
    checkpoints: Checkpoints,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path().join("store").to_str().unwrap()).await.unwrap();
        Self { folder, checkpoints: Checkpoints::new(store, "jobs/7/checkpoints", "7") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("store/jobs/7/checkpoints").join(name)
    }

    async fn save(&self, step: u64, generation: u64) -> Checkpoint {
        self.checkpoints.save(header(step, generation), files(step, generation)).await.unwrap()
    }

    async fn latest(&self) -> Latest {
        let latest = self.checkpoints.latest_valid().await.unwrap();
        if let Some(checkpoint) = &latest.checkpoint {
            let Header { step, generation, .. } = checkpoint.manifest.header;
            for file in files(step, generation) {
                let Content::Bytes(wanted) = file.content else { panic!("bytes are saved here") };
                assert_eq!(self.checkpoints.load(checkpoint, &file.name).await.unwrap(), wanted);
            }
        }
        latest
    }

    /// The step and generation found, and the faults passed over.
    async fn found(&self) -> (Option<(u64, u64)>, Vec<(String, Fault)>) {
        let latest = self.latest().await;
        let found = latest.checkpoint.map(|checkpoint| checkpoint.manifest.header);
        let skipped = latest.skipped.into_iter().map(|skipped| {
            assert!(
                skipped.to_string().contains(&skipped.path)
                    && skipped.to_string().contains(&skipped.fault.to_string())
            );
            (skipped.path.strip_prefix("jobs/7/checkpoints/").unwrap().to_owned(), skipped.fault)
        });
        (found.map(|header| (header.step, header.generation)), skipped.collect())
    }

    fn folders(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("")) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn header(step: u64, generation: u64) -> Header {
    let metrics = [("loss".to_owned(), 0.1 / (step as f64 + 1.0))].into();
    Header { step, generation, epoch: 5, world_size: 2, created_unix_ms: 1_735_689_600_000 + step, metrics }
}

fn files(step: u64, generation: u64) -> Vec<NewFile> {
    let bytes = |size: u64| (0..size).map(|i| (i * 31 + step * 7 + generation) as u8).collect::<Vec<u8>>();
    FILES.iter().zip([5000, 9000, 40]).map(|(name, size)| NewFile::new(*name, bytes(size))).collect()
}

#[tokio::test]
async fn the_latest_is_found_with_all_it_holds() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.found().await, (None, vec![]));
    fixture.save(100, 1).await;
    let saved = fixture.save(200, 1).await;
    assert_eq!(saved.path, "jobs/7/checkpoints/step-00000200-g1");
    let latest = fixture.latest().await;
    assert_eq!(latest, Latest { checkpoint: Some(saved.clone()), skipped: vec![] });
    assert_eq!(saved.manifest.header, header(200, 1));
    assert_eq!(saved.manifest.job, "7");
    let names: Vec<&str> = saved.manifest.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, FILES);
    assert!(matches!(fixture.checkpoints.load(&saved, "other").await, Err(Error::NotFound { .. })));
    assert_eq!(saved.file("other"), None);
}

#[tokio::test]
async fn files_of_the_disk_are_saved_too() {
    let fixture = Fixture::new().await;
    let source = fixture.folder.path().join("weights");
    let bytes: Vec<u8> = (0..20_000_000u32).map(|i| (i % 253) as u8).collect();
    fs::write(&source, &bytes).unwrap();
    let file = NewFile { name: "weights".to_owned(), content: Content::File(source) };
    let saved = fixture.checkpoints.save(header(1, 1), vec![file]).await.unwrap();
    let latest = fixture.checkpoints.latest_valid().await.unwrap();
    assert_eq!(latest.checkpoint.as_ref(), Some(&saved));
    assert!(fixture.checkpoints.load(&saved, "weights").await.unwrap() == bytes);
}

#[tokio::test]
async fn a_later_generation_saves_the_same_step_again() {
    let fixture = Fixture::new().await;
    fixture.save(200, 3).await;
    fixture.save(200, 10).await;
    fixture.save(150, 11).await;
    assert_eq!(fixture.found().await, (Some((200, 10)), vec![]));
    let error = fixture
        .checkpoints
        .save(header(200, 3), vec![NewFile::new("state.json", "other")])
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::AlreadyExists { object } if object.contains("step-00000200-g3")),
        "{error:?}"
    );
    fs::remove_dir_all(fixture.path("step-00000200-g10")).unwrap();
    assert_eq!(fixture.found().await, (Some((200, 3)), vec![]), "the refused save touched nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_that_save_the_same_one_commits() {
    let fixture = Fixture::new().await;
    for step in 0..10 {
        let savers: Vec<_> = (0..4)
            .map(|_| {
                let checkpoints = fixture.checkpoints.clone();
                tokio::spawn(async move { checkpoints.save(header(step, 1), files(step, 1)).await })
            })
            .collect();
        let mut committed = 0;
        for saver in savers {
            match saver.await.unwrap() {
                Ok(_) => committed += 1,
                Err(error) => assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}"),
            }
        }
        assert_eq!(committed, 1);
        assert_eq!(fixture.found().await, (Some((step, 1)), vec![]));
    }
}

#[tokio::test]
async fn a_generation_finishes_what_it_could_not_commit() {
    let fixture = Fixture::new().await;
    fixture.save(200, 3).await;
    let folder = fixture.path("step-00000200-g3");
    fs::remove_file(folder.join("manifest.json")).unwrap();
    fs::write(folder.join(FILES[0]), "half").unwrap();
    fs::write(folder.join("generator.safetensors#1"), "a torn upload").unwrap();
    assert_eq!(fixture.found().await, (None, vec![("step-00000200-g3".to_owned(), Fault::Unfinished)]));
    fixture.save(200, 3).await;
    assert_eq!(fixture.found().await, (Some((200, 3)), vec![]));
}

/// Each damage on its own, to the newest of two: the one before is used, and the report says what is wrong.
#[tokio::test]
async fn the_one_before_a_damaged_one_is_used() {
    type Damage = fn(&std::path::Path);
    let cases: [(&str, Damage); 12] = [
        ("no manifest", |at| fs::remove_file(at.join("manifest.json")).unwrap()),
        ("manifest is damaged: it is empty", |at| fs::write(at.join("manifest.json"), "").unwrap()),
        ("manifest is damaged", |at| {
            let text = fs::read_to_string(at.join("manifest.json")).unwrap();
            fs::write(at.join("manifest.json"), &text[..text.len() - 30]).unwrap();
        }),
        ("it says", |at| {
            let text = fs::read_to_string(at.join("manifest.json")).unwrap();
            fs::write(at.join("manifest.json"), text.replace("\"world_size\": 2", "\"world_size\": 3"))
                .unwrap();
        }),
        ("manifest is damaged", |at| fs::write(at.join("manifest.json"), [0xff; 100]).unwrap()),
        ("schema version 2", |at| fs::write(at.join("manifest.json"), "{\"schema_version\": 2}").unwrap()),
        ("of another checkpoint: job \"7\", step 100, generation 1", |at| {
            let before = at.with_file_name("step-00000100-g1");
            fs::copy(before.join("manifest.json"), at.join("manifest.json")).unwrap();
        }),
        ("file state.json is missing", |at| fs::remove_file(at.join("state.json")).unwrap()),
        ("file generator.safetensors is damaged: expected 5000 bytes", |at| {
            fs::write(at.join("generator.safetensors"), "").unwrap();
        }),
        ("found 8999 bytes", |at| {
            let file = fs::File::options().write(true).open(at.join("optimizer.safetensors")).unwrap();
            file.set_len(8999).unwrap();
        }),
        ("found 9001 bytes", |at| {
            let file = fs::File::options().write(true).open(at.join("optimizer.safetensors")).unwrap();
            file.set_len(9001).unwrap();
        }),
        ("found 9000 bytes with ", |at| {
            let mut bytes = fs::read(at.join("optimizer.safetensors")).unwrap();
            bytes[8999] ^= 1;
            fs::write(at.join("optimizer.safetensors"), bytes).unwrap();
        }),
    ];
    for (words, damage) in cases {
        let fixture = Fixture::new().await;
        fixture.save(100, 1).await;
        fixture.save(200, 2).await;
        damage(&fixture.path("step-00000200-g2"));
        let (found, skipped) = fixture.found().await;
        assert_eq!(found, Some((100, 1)), "{words}");
        let [(folder, fault)] = skipped.as_slice() else { panic!("{words}: {skipped:?}") };
        assert_eq!(folder, "step-00000200-g2");
        assert!(fault.to_string().contains(words), "{words}: {fault}");
    }
}

#[tokio::test]
async fn any_flipped_bit_is_found() {
    let fixture = Fixture::new().await;
    fixture.save(100, 1).await;
    fixture.save(200, 2).await;
    let folder = fixture.path("step-00000200-g2");
    let mut chance = ChaCha8Rng::seed_from_u64(20_240_820);
    for round in 0..120 {
        let name = [FILES[0], FILES[1], FILES[2], "manifest.json"][round % 4];
        let whole = fs::read(folder.join(name)).unwrap();
        let mut damaged = whole.clone();
        let at = chance.random_range(0..whole.len());
        damaged[at] ^= 1 << chance.random_range(0..8);
        fs::write(folder.join(name), damaged).unwrap();
        let (found, skipped) = fixture.found().await;
        assert_eq!((found, skipped.len()), (Some((100, 1)), 1), "{name} at {at}");
        fs::write(folder.join(name), whole).unwrap();
    }
    assert_eq!(fixture.found().await, (Some((200, 2)), vec![]));
}

#[tokio::test]
async fn nothing_valid_is_nothing() {
    let fixture = Fixture::new().await;
    for step in [100, 200, 300] {
        fixture.save(step, 1).await;
        fs::write(fixture.path(&format!("step-{step:08}-g1")).join("manifest.json"), "").unwrap();
    }
    let (found, skipped) = fixture.found().await;
    assert_eq!(found, None);
    let folders: Vec<&str> = skipped.iter().map(|(folder, _)| folder.as_str()).collect();
    assert_eq!(folders, ["step-00000300-g1", "step-00000200-g1", "step-00000100-g1"]);
}

#[tokio::test]
async fn bad_file_names_are_refused_before_anything_is_written() {
    let fixture = Fixture::new().await;
    let file = |name: &str| NewFile::new(name, Bytes::from_static(b"x"));
    for names in [vec!["a", "manifest.json"], vec!["a", "../x"], vec!["a", "b/c"], vec!["a", "a"]] {
        let files = names.iter().map(|name| file(name)).collect();
        let error = fixture.checkpoints.save(header(1, 1), files).await.unwrap_err();
        assert!(matches!(error, Error::InvalidPath { .. }), "{names:?}: {error:?}");
    }
    assert_eq!(fixture.folders(), Vec::<String>::new());
}

fn keep(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

#[tokio::test]
async fn the_last_few_are_kept() {
    let fixture = Fixture::new().await;
    for step in [100, 200, 300, 400] {
        fixture.save(step, 1).await;
    }
    fixture.save(400, 2).await;
    assert_eq!(fixture.checkpoints.retain(keep(9)).await.unwrap(), []);
    let removed = fixture.checkpoints.retain(keep(3)).await.unwrap();
    let removed: Vec<&str> = removed.iter().map(|removed| removed.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(removed, ["step-00000200-g1", "step-00000100-g1"]);
    assert_eq!(fixture.folders(), ["step-00000300-g1", "step-00000400-g1", "step-00000400-g2"]);
    fixture.checkpoints.retain(keep(1)).await.unwrap();
    assert_eq!(fixture.folders(), ["step-00000400-g2"]);
    assert_eq!(fixture.found().await, (Some((400, 2)), vec![]));
}

#[tokio::test]
async fn faulty_ones_do_not_push_out_sound_ones() {
    let fixture = Fixture::new().await;
    for step in [100, 200, 300, 400, 500, 600] {
        fixture.save(step, 1).await;
    }
    let folder = |step: u64| fixture.path(&format!("step-{step:08}-g1"));
    fs::write(folder(200).join("manifest.json"), "").unwrap();
    fs::write(folder(400).join("manifest.json"), "").unwrap();
    fs::remove_file(folder(500).join("state.json")).unwrap();
    fs::write(folder(600).join("generator.safetensors"), "short").unwrap();
    let removed = fixture.checkpoints.retain(keep(1)).await.unwrap();
    let kept = ["step-00000300-g1", "step-00000400-g1", "step-00000500-g1", "step-00000600-g1"];
    assert_eq!(fixture.folders(), kept);
    assert!(matches!(&removed[0].fault, Some(Fault::Manifest(_))), "{removed:?}");
    assert_eq!((removed.len(), &removed[1].fault), (2, &None));
    assert_eq!(fixture.found().await.0, Some((300, 1)));
}

#[tokio::test]
async fn an_unfinished_one_is_removed_once_nobody_can_finish_it() {
    let fixture = Fixture::new().await;
    for (step, generation) in [(100, 1), (200, 1), (300, 2), (150, 3), (400, 3)] {
        fixture.save(step, generation).await;
    }
    // Generation 1 died in step 200, generation 2 in step 300; generation 3 is saving step 400.
    for name in ["step-00000200-g1", "step-00000300-g2", "step-00000400-g3"] {
        fs::remove_file(fixture.path(name).join("manifest.json")).unwrap();
    }
    fixture.checkpoints.retain(keep(5)).await.unwrap();
    assert_eq!(fixture.folders(), ["step-00000100-g1", "step-00000150-g3", "step-00000400-g3"]);
}

#[tokio::test]
async fn what_is_not_a_checkpoint_is_left_alone() {
    let fixture = Fixture::new().await;
    fixture.save(100, 1).await;
    fixture.save(200, 1).await;
    fs::create_dir(fixture.path("step-200-by-hand")).unwrap();
    fs::write(fixture.path("step-200-by-hand").join("a"), "x").unwrap();
    fs::write(fixture.path("notes.txt"), "x").unwrap();
    fixture.checkpoints.retain(keep(1)).await.unwrap();
    assert_eq!(fixture.folders(), ["notes.txt", "step-00000200-g1", "step-200-by-hand"]);
    assert_eq!(fixture.found().await, (Some((200, 1)), vec![]));
}
