//! Checkpoints, on every kind of store, with every kind of damage done to their files.

use std::{fs, num::NonZeroUsize};

use bytes::Bytes;
use lethe_artifacts::{Checkpoint, Checkpoints, Content, Error, Fault, Header, Keep, Latest, NewFile};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{conformance, place::Place};

conformance!(
    the_latest_is_found_with_all_it_holds,
    files_of_the_disk_are_saved_too,
    a_later_generation_saves_the_same_step_again,
    of_two_that_save_the_same_one_commits,
    a_generation_finishes_what_it_could_not_commit,
    the_one_before_a_damaged_one_is_used,
    any_flipped_bit_is_found,
    nothing_valid_is_nothing,
    bad_file_names_are_refused_before_anything_is_written,
    the_last_few_are_kept,
    the_best_and_every_nth_are_kept_beside_the_last,
    faulty_ones_do_not_push_out_sound_ones,
    an_unfinished_one_is_removed_once_nobody_can_finish_it,
    at_the_end_of_a_job_nothing_unfinished_is_left,
    what_is_not_a_checkpoint_is_left_alone,
);

const FILES: [&str; 3] = ["generator.safetensors", "optimizer.safetensors", "state.json"];
const PREFIX: &str = "jobs/7/checkpoints";

struct Fixture {
    place: Place,
    checkpoints: Checkpoints,
}

impl Fixture {
    async fn new(place: Place) -> Self {
        let checkpoints = Checkpoints::new(place.store().await, PREFIX, "7");
        Self { place, checkpoints }
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
            (skipped.path.strip_prefix(&format!("{PREFIX}/")).unwrap().to_owned(), skipped.fault)
        });
        (found.map(|header| (header.step, header.generation)), skipped.collect())
    }

    /// What is in a folder of a checkpoint.
    async fn read(&self, name: &str) -> Bytes {
        self.place.read(&format!("{PREFIX}/{name}")).await
    }

    async fn write(&self, name: &str, bytes: impl Into<Bytes>) {
        self.place.write(&format!("{PREFIX}/{name}"), bytes).await;
    }

    async fn remove(&self, name: &str) {
        self.place.remove(&format!("{PREFIX}/{name}")).await;
    }

    /// The folders that are there, in order.
    async fn folders(&self) -> Vec<String> {
        let mut names = self.place.names(PREFIX).await;
        names.iter_mut().for_each(|name| name.truncate(name.find('/').unwrap_or(name.len())));
        names.dedup();
        names
    }

    async fn retain(&self, keep: Keep) -> Vec<String> {
        let removed = self.checkpoints.retain(keep).await.unwrap();
        removed.iter().map(|removed| removed.path.rsplit('/').next().unwrap().to_owned()).collect()
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

async fn the_latest_is_found_with_all_it_holds(place: Place) {
    let fixture = Fixture::new(place).await;
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

async fn files_of_the_disk_are_saved_too(place: Place) {
    let fixture = Fixture::new(place).await;
    let source = fixture.place.scratch().join("weights");
    let bytes: Vec<u8> = (0..20_000_000u32).map(|i| (i % 253) as u8).collect();
    fs::write(&source, &bytes).unwrap();
    let file = NewFile { name: "weights".to_owned(), content: Content::File(source) };
    let saved = fixture.checkpoints.save(header(1, 1), vec![file]).await.unwrap();
    let latest = fixture.checkpoints.latest_valid().await.unwrap();
    assert_eq!(latest.checkpoint.as_ref(), Some(&saved));
    assert!(fixture.checkpoints.load(&saved, "weights").await.unwrap() == bytes);
}

async fn a_later_generation_saves_the_same_step_again(place: Place) {
    let fixture = Fixture::new(place).await;
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
    for file in FILES.iter().chain(&["manifest.json"]) {
        fixture.remove(&format!("step-00000200-g10/{file}")).await;
    }
    assert_eq!(fixture.found().await, (Some((200, 3)), vec![]), "the refused save touched nothing");
}

async fn of_two_that_save_the_same_one_commits(place: Place) {
    let fixture = Fixture::new(place).await;
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

async fn a_generation_finishes_what_it_could_not_commit(place: Place) {
    let fixture = Fixture::new(place).await;
    fixture.save(200, 3).await;
    fixture.remove("step-00000200-g3/manifest.json").await;
    fixture.write(&format!("step-00000200-g3/{}", FILES[0]), "half").await;
    assert_eq!(fixture.found().await, (None, vec![("step-00000200-g3".to_owned(), Fault::Unfinished)]));
    fixture.save(200, 3).await;
    assert_eq!(fixture.found().await, (Some((200, 3)), vec![]));
}

/// What is done to a file, given its bytes and the manifest of the checkpoint before: its new bytes, or none.
type Damage = fn(&[u8], &[u8]) -> Option<Vec<u8>>;

/// Each damage on its own, to the newest of two: the one before is used, and the report says what is wrong.
async fn the_one_before_a_damaged_one_is_used(place: Place) {
    let cases: [(&str, &str, Damage); 12] = [
        ("no manifest", "manifest.json", |_, _| None),
        ("manifest is damaged: it is empty", "manifest.json", |_, _| Some(vec![])),
        ("manifest is damaged", "manifest.json", |bytes, _| Some(bytes[..bytes.len() - 30].to_vec())),
        ("it says", "manifest.json", |bytes, _| {
            let text = std::str::from_utf8(bytes).unwrap();
            Some(text.replace("\"world_size\": 2", "\"world_size\": 3").into_bytes())
        }),
        ("manifest is damaged", "manifest.json", |_, _| Some(vec![0xff; 100])),
        ("schema version 2", "manifest.json", |_, _| Some(b"{\"schema_version\": 2}".to_vec())),
        ("of another checkpoint: job \"7\", step 100, generation 1", "manifest.json", |_, before| {
            Some(before.to_vec())
        }),
        ("file state.json is missing", "state.json", |_, _| None),
        ("file generator.safetensors is damaged: expected 5000 bytes", "generator.safetensors", |_, _| {
            Some(vec![])
        }),
        ("found 8999 bytes", "optimizer.safetensors", |bytes, _| Some(bytes[..8999].to_vec())),
        ("found 9001 bytes", "optimizer.safetensors", |bytes, _| Some([bytes, &[0]].concat())),
        ("found 9000 bytes with ", "optimizer.safetensors", |bytes, _| {
            let mut bytes = bytes.to_vec();
            bytes[8999] ^= 1;
            Some(bytes)
        }),
    ];
    let fixture = Fixture::new(place).await;
    fixture.save(100, 1).await;
    fixture.save(200, 2).await;
    let before = fixture.read("step-00000100-g1/manifest.json").await;
    for (words, file, damage) in cases {
        let file = format!("step-00000200-g2/{file}");
        let whole = fixture.read(&file).await;
        match damage(&whole, &before) {
            Some(bytes) => fixture.write(&file, bytes).await,
            None => fixture.remove(&file).await,
        }
        let (found, skipped) = fixture.found().await;
        assert_eq!(found, Some((100, 1)), "{words}");
        let [(folder, fault)] = skipped.as_slice() else { panic!("{words}: {skipped:?}") };
        assert_eq!(folder, "step-00000200-g2");
        assert!(fault.to_string().contains(words), "{words}: {fault}");
        fixture.write(&file, whole).await;
    }
    assert_eq!(fixture.found().await, (Some((200, 2)), vec![]), "nothing was done to it but that");
}

async fn any_flipped_bit_is_found(place: Place) {
    let fixture = Fixture::new(place).await;
    fixture.save(100, 1).await;
    fixture.save(200, 2).await;
    let mut chance = ChaCha8Rng::seed_from_u64(20_240_820);
    for round in 0..60 {
        let name = [FILES[0], FILES[1], FILES[2], "manifest.json"][round % 4];
        let file = format!("step-00000200-g2/{name}");
        let whole = fixture.read(&file).await;
        let mut damaged = whole.to_vec();
        let at = chance.random_range(0..whole.len());
        damaged[at] ^= 1 << chance.random_range(0..8);
        fixture.write(&file, damaged).await;
        let (found, skipped) = fixture.found().await;
        assert_eq!((found, skipped.len()), (Some((100, 1)), 1), "{name} at {at}");
        fixture.write(&file, whole).await;
    }
    assert_eq!(fixture.found().await, (Some((200, 2)), vec![]));
}

async fn nothing_valid_is_nothing(place: Place) {
    let fixture = Fixture::new(place).await;
    for step in [100, 200, 300] {
        fixture.save(step, 1).await;
        fixture.write(&format!("step-{step:08}-g1/manifest.json"), "").await;
    }
    let (found, skipped) = fixture.found().await;
    assert_eq!(found, None);
    let folders: Vec<&str> = skipped.iter().map(|(folder, _)| folder.as_str()).collect();
    assert_eq!(folders, ["step-00000300-g1", "step-00000200-g1", "step-00000100-g1"]);
}

async fn bad_file_names_are_refused_before_anything_is_written(place: Place) {
    let fixture = Fixture::new(place).await;
    let file = |name: &str| NewFile::new(name, Bytes::from_static(b"x"));
    for names in [vec!["a", "manifest.json"], vec!["a", "../x"], vec!["a", "b/c"], vec!["a", "a"]] {
        let files = names.iter().map(|name| file(name)).collect();
        let error = fixture.checkpoints.save(header(1, 1), files).await.unwrap_err();
        assert!(matches!(error, Error::InvalidPath { .. }), "{names:?}: {error:?}");
    }
    assert_eq!(fixture.folders().await, Vec::<String>::new());
}

/// The newest `count`.
fn last(count: usize) -> Keep {
    Keep::last(NonZeroUsize::new(count).unwrap())
}

async fn the_last_few_are_kept(place: Place) {
    let fixture = Fixture::new(place).await;
    for step in [100, 200, 300, 400] {
        fixture.save(step, 1).await;
    }
    fixture.save(400, 2).await;
    assert_eq!(fixture.retain(last(9)).await, Vec::<String>::new());
    assert_eq!(fixture.retain(last(3)).await, ["step-00000200-g1", "step-00000100-g1"]);
    assert_eq!(fixture.folders().await, ["step-00000300-g1", "step-00000400-g1", "step-00000400-g2"]);
    fixture.retain(last(1)).await;
    assert_eq!(fixture.folders().await, ["step-00000400-g2"]);
    assert_eq!(fixture.found().await, (Some((400, 2)), vec![]));
}

async fn the_best_and_every_nth_are_kept_beside_the_last(place: Place) {
    let fixture = Fixture::new(place).await;
    let losses =
        [(10, 0.9), (20, 0.2), (30, 0.7), (40, f64::NAN), (50, 0.3), (60, 0.2), (70, 0.8), (80, 0.6)];
    for (step, loss) in losses {
        let header = Header { metrics: [("loss".to_owned(), loss)].into(), ..header(step, 1) };
        fixture.checkpoints.save(header, files(step, 1)).await.unwrap();
    }
    // Of two that are equally good, the newer; one without a number is never good.
    let keep = Keep { best: 3, ..last(1) };
    let kept = |steps: &[u64]| steps.iter().map(|step| format!("step-{step:08}-g1")).collect::<Vec<_>>();
    assert_eq!(fixture.retain(Keep { every: 30, ..keep }).await, kept(&[70, 40, 10]));
    assert_eq!(fixture.folders().await, kept(&[20, 30, 50, 60, 80]));
    assert_eq!(fixture.retain(keep).await, kept(&[30]), "a multiple of 30 is nothing special any more");
    assert_eq!(fixture.retain(Keep { best: 1, ..keep }).await, kept(&[50, 20]));
    assert_eq!(fixture.folders().await, kept(&[60, 80]));
    assert_eq!(fixture.found().await, (Some((80, 1)), vec![]));
}

async fn faulty_ones_do_not_push_out_sound_ones(place: Place) {
    let fixture = Fixture::new(place).await;
    for step in [100, 200, 300, 400, 500, 600] {
        fixture.save(step, 1).await;
    }
    fixture.write("step-00000200-g1/manifest.json", "").await;
    fixture.write("step-00000400-g1/manifest.json", "").await;
    fixture.remove("step-00000500-g1/state.json").await;
    fixture.write("step-00000600-g1/generator.safetensors", "short").await;
    let removed = fixture.checkpoints.retain(last(1)).await.unwrap();
    let kept = ["step-00000300-g1", "step-00000400-g1", "step-00000500-g1", "step-00000600-g1"];
    assert_eq!(fixture.folders().await, kept);
    assert!(matches!(&removed[0].fault, Some(Fault::Manifest(_))), "{removed:?}");
    assert_eq!((removed.len(), &removed[1].fault), (2, &None));
    assert_eq!(fixture.found().await.0, Some((300, 1)));
}

async fn an_unfinished_one_is_removed_once_nobody_can_finish_it(place: Place) {
    let fixture = Fixture::new(place).await;
    for (step, generation) in [(100, 1), (200, 1), (300, 2), (150, 3), (400, 3)] {
        fixture.save(step, generation).await;
    }
    // Generation 1 died in step 200, generation 2 in step 300; generation 3 is saving step 400.
    for name in ["step-00000200-g1", "step-00000300-g2", "step-00000400-g3"] {
        fixture.remove(&format!("{name}/manifest.json")).await;
    }
    fixture.retain(last(5)).await;
    assert_eq!(fixture.folders().await, ["step-00000100-g1", "step-00000150-g3", "step-00000400-g3"]);
}

async fn at_the_end_of_a_job_nothing_unfinished_is_left(place: Place) {
    let fixture = Fixture::new(place).await;
    for (step, generation) in [(100, 1), (200, 1), (300, 2), (400, 3), (500, 3)] {
        fixture.save(step, generation).await;
    }
    for name in ["step-00000200-g1", "step-00000300-g2", "step-00000500-g3"] {
        fixture.remove(&format!("{name}/manifest.json")).await;
    }
    fixture.write("step-00000400-g3/state.json", "damaged").await;
    let removed = fixture.checkpoints.sweep().await.unwrap();
    assert!(removed.iter().all(|removed| removed.fault == Some(Fault::Unfinished)), "{removed:?}");
    assert_eq!(removed.len(), 3);
    assert_eq!(
        fixture.folders().await,
        ["step-00000100-g1", "step-00000400-g3"],
        "people may look at damage"
    );
}

async fn what_is_not_a_checkpoint_is_left_alone(place: Place) {
    let fixture = Fixture::new(place).await;
    fixture.save(100, 1).await;
    fixture.save(200, 1).await;
    fixture.write("step-200-by-hand/a", "x").await;
    fixture.write("notes.txt", "x").await;
    fixture.retain(last(1)).await;
    assert_eq!(fixture.folders().await, ["notes.txt", "step-00000200-g1", "step-200-by-hand"]);
    assert_eq!(fixture.found().await, (Some((200, 1)), vec![]));
}
