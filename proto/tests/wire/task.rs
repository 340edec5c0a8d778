//! Assignments, outputs, outcomes.

use lethe_domain::{Assignment, Phase, Progress, ReportOutput, Task, TaskOutput};
use lethe_proto::{LeaseOutcome, v1};
use proptest::prelude::*;

use crate::{round_trip, samples};

#[test]
fn every_task_survives_the_wire() {
    let tasks = samples::tasks();
    let phases: std::collections::BTreeSet<Phase> = tasks.iter().map(Task::phase).collect();
    assert_eq!(phases.into_iter().collect::<Vec<_>>(), Phase::ALL, "a task of every phase is tried");
    for task in tasks {
        let assignment = samples::assignment(task);
        assert_eq!(round_trip::<v1::Assignment, _>(assignment.clone()), Ok(assignment));
    }
}

#[test]
fn every_output_and_failure_survives_the_wire() {
    let outputs = samples::outputs();
    let phases: std::collections::BTreeSet<Phase> = outputs.iter().map(TaskOutput::phase).collect();
    assert_eq!(phases.into_iter().collect::<Vec<_>>(), Phase::ALL, "an output of every phase is tried");
    for output in outputs {
        let outcome = LeaseOutcome { lease: samples::lease(), outcome: Ok(output) };
        assert_eq!(round_trip::<v1::LeaseOutcome, _>(outcome.clone()), Ok(outcome));
    }
    let outcome = LeaseOutcome { lease: samples::lease(), outcome: Err(samples::failure()) };
    assert_eq!(round_trip::<v1::LeaseOutcome, _>(outcome.clone()), Ok(outcome));
}

#[test]
fn progress_survives_the_wire() {
    for loss in [None, Some(0.0), Some(1.0 / 3.0)] {
        let progress = Progress { loss, ..samples::progress() };
        assert_eq!(round_trip::<v1::LeaseProgress, _>(progress.clone()), Ok(progress));
    }
}

proptest! {
    #[test]
    fn figures_that_travel_as_json_arrive_bit_for_bit(l1 in prop::num::f64::NORMAL, before in 0.0..1.0_f64) {
        let mut report = samples::report();
        report.figures[0].after = Some(l1);
        report.figures[0].before = Some(before);
        let arrived: ReportOutput = round_trip::<v1::ReportOutput, _>(report).unwrap();
        let bits = |value: Option<f64>| value.map(f64::to_bits);
        prop_assert_eq!(bits(arrived.figures[0].after), Some(l1.to_bits()));
        prop_assert_eq!(bits(arrived.figures[0].before), Some(before.to_bits()));
    }
}

#[test]
fn what_makes_no_sense_is_named_by_its_path() {
    let wire = |task: Task| v1::Assignment::from(samples::assignment(task));
    let refused = |wire: v1::Assignment| Assignment::try_from(wire).unwrap_err().to_string();

    let good = wire(Task::Probe);
    assert_eq!(refused(v1::Assignment { task: None, ..good.clone() }), "task: missing");
    assert_eq!(refused(v1::Assignment { spec: None, ..good.clone() }), "spec: missing");
    let lease = |spoil: fn(&mut v1::LeaseId)| {
        let mut wire = good.clone();
        spoil(wire.lease.as_mut().unwrap());
        refused(wire)
    };
    assert_eq!(lease(|lease| lease.phase = 0), "lease.phase: missing");
    assert!(lease(|lease| lease.job_id = "../etc".to_owned()).starts_with("lease.job_id: job id '../etc'"));

    let role = v1::GangRole { generation: 1, rank: 2, world: 2, store: String::new(), floor: 0 };
    let target = Some(samples::artifact("target").into());
    let task = v1::FineTuneTask { target, role: Some(role), ..Default::default() };
    let gang = v1::Assignment { task: Some(v1::Task { task: Some(v1::task::Task::FineTune(task)) }), ..good };
    assert_eq!(refused(gang), "task.role.rank: found 2 in a gang of 2");

    // A rank other than 0 gives nothing; rank 0 gives everything.
    let part = v1::FineTuneOutput { steps: 400, ..Default::default() };
    let part = v1::TaskOutput { output: Some(v1::task_output::Output::FineTune(part)) };
    assert_eq!(TaskOutput::try_from(part).unwrap_err().to_string(), "fine_tune.weights: missing");
    let report = v1::ReportOutput::default();
    assert_eq!(ReportOutput::try_from(report).unwrap_err().to_string(), "judge: missing");
}
