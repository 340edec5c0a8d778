//! Jobs and workers as people see them.

use lethe_domain::{
    ErrorCode, Failure, JobFilter, JobResult, JobState, JobStatus, LeaseId, Phase, PhaseState, PhaseStatus,
    SlotState, Waiting, WorkerId, WorkerState, WorkerStatus,
};
use lethe_proto::v1;

use crate::{round_trip, samples};

fn status() -> JobStatus {
    let phase = |(phase, state)| PhaseStatus {
        phase,
        state,
        done: 750,
        total: 10_000,
        shards_done: 1,
        shards: 20,
        seconds: 12.5,
        samples_per_second: 812.25,
        loss: Some(0.125),
        eta_seconds: Some(30.0),
    };
    let states = [PhaseState::Done, PhaseState::Running, PhaseState::Failed, PhaseState::Pending];
    JobStatus {
        id: samples::job(),
        name: "thick-vae".to_owned(),
        feature: "thick".to_owned(),
        owner: "team-a".to_owned(),
        state: JobState::Running,
        submitted_unix_ms: 1_785_542_400_001,
        finished_unix_ms: Some(1_785_542_460_999),
        phases: Phase::ALL.into_iter().zip(states.into_iter().cycle()).map(phase).collect(),
        slots: 2,
        waiting: Some(Waiting::GangTooSmall { needs: 3, free: 2 }),
        retried: vec![samples::failure(), Failure::new(ErrorCode::WorkerLost, "w", "")],
        failure: Some(samples::failure()),
        result: Some(JobResult {
            state: JobState::Running,
            failure: Some(samples::failure()),
            ..samples::result()
        }),
        version: 41,
    }
}

#[test]
fn a_job_survives_the_wire_full_and_bare() {
    assert_eq!(round_trip::<v1::Job, _>(status()), Ok(status()));
    let bare = JobStatus {
        finished_unix_ms: None,
        phases: Vec::new(),
        waiting: None,
        retried: Vec::new(),
        failure: None,
        result: None,
        ..status()
    };
    assert_eq!(round_trip::<v1::Job, _>(bare.clone()), Ok(bare));
}

#[test]
fn every_state_and_every_reason_to_wait_survives() {
    for state in JobState::ALL {
        let mut job = JobStatus { state, ..status() };
        job.result.as_mut().unwrap().state = state;
        assert_eq!(round_trip::<v1::Job, _>(job.clone()), Ok(job));
    }
    for waiting in [
        Waiting::NoWorkers,
        Waiting::NoFreeSlot { slots: 4 },
        Waiting::NoSuitableSlot { slots: 4 },
        Waiting::NoUsableSlot { slots: 4 },
        Waiting::OverQuota { owner: "ann".to_owned(), holds: 3, quota: 4, needs: 2 },
        Waiting::GangTooSmall { needs: 3, free: 2 },
        Waiting::Backoff { ms: 1500 },
    ] {
        let wire = v1::Job::from(JobStatus { waiting: Some(waiting.clone()), ..status() });
        let told = wire.waiting.as_ref().unwrap();
        assert_eq!(told.message, waiting.to_string(), "people read the same words everywhere");
        assert_eq!(JobStatus::try_from(wire).unwrap().waiting, Some(waiting));
    }
}

#[test]
fn a_filter_survives_the_wire() {
    let filter = JobFilter {
        states: vec![JobState::Queued, JobState::Failed],
        owner: Some("ann".to_owned()),
        name: Some("thick-vae".to_owned()),
        since_unix_ms: Some(1_785_542_400_001),
    };
    for filter in [filter, JobFilter::default()] {
        assert_eq!(round_trip::<v1::JobFilter, _>(filter.clone()), Ok(filter));
    }
    let wrong = v1::JobFilter { states: vec![1, 77], ..Default::default() };
    let error = JobFilter::try_from(wrong).unwrap_err().to_string();
    assert_eq!(error, "states[1]: found 77, which has no meaning here");
}

#[test]
fn every_cause_survives_and_an_unknown_one_is_named() {
    for code in ErrorCode::ALL {
        let failure = Failure { code, ..samples::failure() };
        assert_eq!(round_trip::<v1::Failure, _>(failure.clone()), Ok(failure));
    }
    let mut wire = v1::Job::from(status());
    wire.retried[1].code = "GREMLINS".to_owned();
    let error = JobStatus::try_from(wire).unwrap_err().to_string();
    assert!(error.starts_with("retried[1].code: found 'GREMLINS'"), "{error}");
}

#[test]
fn what_makes_no_sense_is_named_by_its_path() {
    let refused = |spoil: fn(&mut v1::Job)| {
        let mut wire = v1::Job::from(status());
        spoil(&mut wire);
        JobStatus::try_from(wire).unwrap_err().to_string()
    };
    assert_eq!(refused(|job| job.state = 0), "state: missing");
    assert_eq!(refused(|job| job.submit_time = None), "submit_time: missing");
    assert_eq!(
        refused(|job| job.phases[2].state = 77),
        "phases[2].state: found 77, which has no meaning here"
    );
    assert_eq!(refused(|job| job.waiting = Some(v1::Waiting::default())), "waiting.reason: missing");
    assert_eq!(
        refused(|job| job.result.as_mut().unwrap().figures[0].unit = 0),
        "result.figures[0].unit: missing"
    );
}

#[test]
fn an_estimate_that_is_no_number_is_left_out() {
    for nonsense in [f64::NAN, f64::INFINITY, -1.0] {
        let mut job = status();
        job.phases[0].eta_seconds = Some(nonsense);
        let arrived: JobStatus = round_trip::<v1::Job, _>(job).unwrap();
        assert_eq!(arrived.phases[0].eta_seconds, None);
    }
}

fn slot(device: &str, lease: Option<LeaseId>, quarantine: Option<&str>) -> SlotState {
    SlotState {
        device: device.to_owned(),
        proven: lease.is_some(),
        lease,
        quarantine: quarantine.map(str::to_owned),
        samples_per_second: 812.5,
    }
}

#[test]
fn a_worker_survives_the_wire() {
    for state in WorkerState::ALL {
        let worker = WorkerStatus {
            id: WorkerId::new("node-7").unwrap(),
            hostname: "node-7.example".to_owned(),
            version: "0.1.0".to_owned(),
            state,
            slots: vec![
                slot("cpu", None, Some("its canary is off by 3 %")),
                slot("cuda:0", Some(samples::lease()), None),
            ],
            heartbeat_age_ms: 1_234,
            reason: Some("drained by an operator".to_owned()),
        };
        assert_eq!(round_trip::<v1::Worker, _>(worker.clone()), Ok(worker));
    }
}
