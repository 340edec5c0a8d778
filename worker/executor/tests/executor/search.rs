//! The search for settings: the same winner whoever tries them, and a training that can be repeated without it.

use lethe_domain::{ArtifactRef, FineTuneOutput, Phase, Round, SearchSummary, Task, TaskOutput, Trial};

use crate::harness::Executor;
use crate::job::Job;

fn searching() -> Job {
    // The file of the judge is nowhere: the search has no use for it.
    let judge = serde_json::json!({"scorer": {"uri": "/nowhere/judge.pt", "positive": {"above": 1}}});
    Job::tiny()
        .set("unlearn.slot_minutes", 0)
        .set("unlearn.steps", 32)
        .set("unlearn.trials", 3)
        .set("evaluate.judge", judge)
}

/// Every trial of every round, by these executors in turn; training has them from then on.
fn search(job: &Job, all: &mut [Executor], target: &ArtifactRef) {
    let mut found: Vec<ArtifactRef> = Vec::new();
    for round in Round::ALL {
        let (pool, before) = (job.pool.borrow().clone(), found.clone());
        for (shard, range) in (0..).zip(job.shards(round.phase())) {
            let (target, pool, before) = (target.clone(), pool.clone(), before.clone());
            let task = Task::Search { round, range, target, pool, before };
            let executor = (found.len() + round as usize) % all.len();
            match all[executor].run(&job.assignment(shard, task)) {
                TaskOutput::Search(output) => found.push(output.trial),
                other => panic!("{other:?}"),
            }
        }
    }
    job.search.replace(found);
}

fn searched(job: &Job, slots: usize) -> (SearchSummary, FineTuneOutput) {
    let mut all: Vec<Executor> = (0..slots).map(|_| Executor::start()).collect();
    let target = job.target(&mut all[0]);
    search(job, &mut all, &target);
    let trained = job.train(&mut all, &target, 1);
    (trained.search.clone().unwrap(), trained)
}

#[test]
fn any_slots_come_to_the_same_settings_and_a_job_that_is_given_them_to_the_same_weights() {
    let (alone, weights) = searched(&searching(), 1);
    let (together, same) = searched(&searching(), 2);
    assert_eq!((&together, &same.weights.sha256), (&alone, &weights.weights.sha256));
    let rounds: Vec<(u32, Round, u64)> = alone.trials.iter().map(|t| (t.trial, t.round, t.steps)).collect();
    assert_eq!(rounds[..3], [1, 2, 3].map(|trial| (trial, Round::First, 2)));
    assert!(
        rounds[3..5].iter().all(|(_, round, steps)| (*round, *steps) == (Round::Second, 4)),
        "{rounds:?}"
    );
    assert_eq!(rounds[5], (alone.trial, Round::Last, 8));
    let measured = |trial: &Trial| {
        trial.left.is_some_and(|left| (0.0..=1.0).contains(&left)) && trial.changed.is_some_and(|by| by > 0.0)
    };
    assert!(alone.trials.iter().all(measured), "{alone:?}");
    assert_eq!(weights.lr, alone.values.lr);

    // Not as they are in memory, but as people read them.
    let values: serde_json::Value =
        serde_json::from_str(&serde_json::to_string(&alone.values).unwrap()).unwrap();
    let mut repeated = searching().set("unlearn.trials", 0);
    for key in ["lr", "alpha", "labeller_term", "anchor", "squares"] {
        repeated = repeated.set(&format!("unlearn.{key}"), values[key].clone());
    }
    let mut executors = [Executor::start()];
    let target = repeated.target(&mut executors[0]);
    let again = repeated.train(&mut executors, &target, 1);
    assert_eq!((again.search, again.weights.sha256), (None, weights.weights.sha256));
}

#[test]
fn a_rate_at_which_training_diverges_loses() {
    // A step so long that weights are no numbers after it, whatever the generator squashes.
    let job = searching().set("unlearn.lr", 1e39).set("unlearn.labeller_term", 0.0);
    let mut all = [Executor::start()];
    let target = job.target(&mut all[0]);
    let (range, pool) = (job.shards(Phase::SearchLast)[0], job.pool.borrow().clone());
    let tried = |trial, left| Trial {
        trial,
        round: Round::Second,
        steps: 1,
        values: lethe_domain::Values { lr: 1.0, alpha: 1.0, labeller_term: 0.0, anchor: 0.0, squares: 0.0 },
        left,
        changed: left,
    };
    let before = [tried(1, None), tried(3, Some(0.5))]
        .map(|trial| job.store(&format!("{}.json", trial.trial), serde_json::to_vec(&trial).unwrap()))
        .to_vec();
    let task = Task::Search { round: Round::Last, range, target, pool, before };
    let TaskOutput::Search(output) = all[0].run(&job.assignment(0, task)) else { panic!() };
    let bytes = std::fs::read(job.file(&output.trial.path)).unwrap();
    let trial: Trial = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((trial.trial, trial.left, trial.changed), (3, None, None), "{trial:?}");
}
