//! Several shards in one lease give what each of them gives alone.

use lethe_domain::{ArtifactRef, Phase, Round, SampleRange, Task, TaskOutput};

use crate::harness::Executor;
use crate::job::Job;

fn bulk(output: &TaskOutput) -> &ArtifactRef {
    match output {
        TaskOutput::Sample(output) => &output.scores,
        TaskOutput::Edit(output) => &output.pool,
        TaskOutput::Search(output) => &output.trial,
        TaskOutput::Evaluate(output) => &output.moments,
        other => panic!("{other:?}"),
    }
}

/// Two shards in one lease, the second of them short, after one shard that another lease did.
fn as_alone(job: &Job, executor: &mut Executor, phase: Phase, task: impl Fn(SampleRange) -> Task) {
    let shards = job.shards(phase);
    assert_eq!(shards.len(), 3, "{phase}");
    let alone: Vec<TaskOutput> = shards
        .iter()
        .zip(0..)
        .map(|(range, shard)| executor.run(&job.assignment(shard, task(*range))))
        .collect();
    let range = SampleRange { start: shards[1].start, count: shards[1].count + shards[2].count };
    executor.progress.clear();
    let TaskOutput::Shards(together) = executor.run(&job.assignment(1, task(range))) else { panic!("one") };
    assert_eq!(together.len(), 2);
    for (together, alone) in together.iter().zip(&alone[1..]) {
        assert_eq!(bulk(together).sha256, bulk(alone).sha256, "the same numbers");
        assert_ne!(bulk(together).path, bulk(alone).path, "what was stored before stays");
    }
    let names: Vec<&str> =
        together.iter().map(|output| bulk(output).path.rsplit('/').next().unwrap()).collect();
    assert!(names[0].starts_with("shard-00001-a") && names[1].starts_with("shard-00002-a"), "{names:?}");
    assert!(executor.progress.iter().all(|progress| progress.total == range.count), "of the whole lease");
}

#[test]
fn sample_shards_in_a_row_are_what_they_are_alone() {
    let (job, mut executor) = (Job::tiny().set("sample.until.total", 450), Executor::start());
    as_alone(&job, &mut executor, Phase::Sample, |range| Task::Sample { range });
}

#[test]
fn edit_shards_in_a_row_are_what_they_are_alone() {
    for job in [Job::tiny(), Job::thick()] {
        let (job, mut executor) = (job.set("pool.latents", 450), Executor::start());
        let target = job.target(&mut executor);
        as_alone(&job, &mut executor, Phase::Edit, |range| Task::Edit { range, target: target.clone() });
    }
}

#[test]
fn evaluation_shards_in_a_row_are_what_they_are_alone() {
    let job = Job::tiny().set("evaluate.samples", 450);
    let mut all = vec![Executor::start()];
    let target = job.target(&mut all[0]);
    let weights = job.train(&mut all, &target, 1).weights;
    let task = |range| Task::Evaluate { range, target: target.clone(), weights: weights.clone() };
    as_alone(&job, &mut all[0], Phase::Evaluate, task);
}

#[test]
fn trials_in_a_row_are_what_they_are_alone() {
    let job = Job::tiny().set("unlearn.trials", 3).set("unlearn.steps", 32);
    let mut executor = Executor::start();
    let target = job.target(&mut executor);
    let pool = job.pool.borrow().clone();
    as_alone(&job, &mut executor, Phase::SearchFirst, |range| Task::Search {
        round: Round::First,
        range,
        target: target.clone(),
        pool: pool.clone(),
        before: Vec::new(),
    });
}
