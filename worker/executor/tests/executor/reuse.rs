//! Shards of edits that another job has made: found by what they depend on, and made anew where anything is wrong with them.

use std::fs;

use lethe_domain::{EditOutput, Phase, Task, TaskOutput};

use crate::harness::Executor;
use crate::job::Job;

/// Its shards of edits, sampling and direction before them.
fn edited(job: &Job, executor: &mut Executor) -> Vec<EditOutput> {
    let scores = job.sample(executor);
    let target = job.direction(executor, scores).target;
    let shards = job.shards(Phase::Edit).into_iter().zip(0..);
    shards.map(|(range, shard)| job.edit_shard(executor, &target, range, shard)).collect()
}

fn reused(shards: &[EditOutput]) -> Vec<bool> {
    shards.iter().map(|shard| shard.reused).collect()
}

fn digests(shards: &[EditOutput]) -> Vec<&str> {
    shards.iter().map(|shard| shard.pool.sha256.as_str()).collect()
}

/// What is kept for other jobs.
fn entries(job: &Job) -> Vec<String> {
    job.files().into_iter().filter(|file| file.starts_with("edits/")).collect()
}

#[test]
fn another_training_uses_the_same_edits_and_other_edits_are_made() {
    let mut executor = Executor::start();
    let first = Job::tiny().accepted();
    let made = edited(&first, &mut executor);
    assert_eq!((reused(&made), entries(&first).len()), (vec![false; 3], 3));
    fs::remove_dir_all(first.file("jobs/tiny-1")).unwrap();

    let second = first.another("tiny-2").set("unlearn.lr", 0.01).set("unlearn.steps", 12);
    let found = edited(&second, &mut executor);
    assert_eq!((reused(&found), digests(&found)), (vec![true; 3], digests(&made)));
    assert!(found[2].pool.path.starts_with("jobs/tiny-2/edit/shard-00002-a"), "a file of its own: {found:?}");
    assert_eq!(second.numbers(&found[2].pool, "start"), [400.0], "it is there");
    let alone = first.another("tiny-3").set("pool.reuse", false);
    let anew = edited(&alone, &mut executor);
    assert_eq!((reused(&anew), digests(&anew)), (vec![false; 3], digests(&made)), "the same bits");
    assert_eq!(entries(&first).len(), 3);

    // Of a longer pool, the whole shards that it begins with are the same.
    let longer = edited(&first.another("tiny-4").set("pool.latents", 700), &mut executor);
    assert_eq!(reused(&longer), [true, true, false, false]);
    for (id, key, value) in [("tiny-5", "sample.seed", 8.into()), ("tiny-6", "direction.margin", 0.2.into())]
    {
        let value: serde_json::Value = value;
        let others = edited(&first.another(id).set(key, value), &mut executor);
        assert_eq!(reused(&others), [false; 3], "{key}");
    }
}

#[test]
fn what_is_broken_is_made_anew_and_then_found() {
    let mut executor = Executor::start();
    let job = Job::tiny().accepted();
    let made = edited(&job, &mut executor);
    let files = entries(&job);
    let of = |shard: usize| {
        let file = files.iter().find(|file| file.contains(&made[shard].pool.sha256)).unwrap();
        job.file(file)
    };
    let bytes = fs::read(of(0)).unwrap();
    fs::write(of(0), &bytes[..bytes.len() / 2]).unwrap();
    let mut bytes = fs::read(of(1)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(of(1), bytes).unwrap();
    // Somebody else's file beside an entry that is whole.
    fs::write(of(2).with_file_name("notes.txt"), "x").unwrap();
    let again = edited(&job.another("tiny-2"), &mut executor);
    assert_eq!((reused(&again), digests(&again)), (vec![false, false, true], digests(&made)));
    assert!(executor.log().contains("they are made anew"), "{}", executor.log());
    let third = edited(&job.another("tiny-3"), &mut executor);
    assert_eq!((reused(&third), digests(&third)), (vec![true; 3], digests(&made)));
}

#[test]
fn two_jobs_at_the_same_time_keep_one_entry() {
    let mut all = [Executor::start(), Executor::start()];
    let job = Job::tiny().set("pool.latents", 200).accepted();
    let other = job.another("tiny-2");
    let targets = [&job, &other].map(|job| {
        let scores = job.sample(&mut all[0]);
        job.direction(&mut all[0], scores).target
    });
    let range = job.shards(Phase::Edit)[0];
    let [one, two] = [(&job, &targets[0]), (&other, &targets[1])]
        .map(|(job, target)| job.assignment(0, Task::Edit { range, target: target.clone() }));
    all[0].begin(&one);
    all[1].begin(&two);
    let outputs = [all[0].end(&one.lease), all[1].end(&two.lease)].map(|output| match output.unwrap() {
        TaskOutput::Edit(output) => output,
        other => panic!("{other:?}"),
    });
    assert_eq!(outputs[0].pool.sha256, outputs[1].pool.sha256);
    assert_eq!(entries(&job).len(), 1);
}
