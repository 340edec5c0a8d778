//! Values with every field set, each to something else.

use lethe_domain::{
    ArtifactPaths, ArtifactRef, Assignment, Attempt, Better, Cut, DirectionOutput, DirectionSummary,
    EditMethod, EditOutput, EditSummary, ErrorCode, EvaluateOutput, Failure, Figure, FineTuneOutput,
    GangRole, Generation, Input, InputRole, Inputs, JobId, JobResult, JobSpec, JobState, JudgeSummary,
    JudgingModel, LeaseId, Phase, PoolSummary, ProbeOutput, Progress, PublishOutput, RESULT_VERSION, Rank,
    ReportOutput, Round, SampleOutput, SampleRange, SearchOutput, SearchSummary, ShardIndex, Task,
    TaskOutput, TrainSummary, Trial, Unit, Values, Versions, Warning, WarningCode,
};

pub(crate) fn spec() -> JobSpec {
    JobSpec::parse(
        "{name: thick-vae, generator: {uri: /m/vae.safetensors, format: safetensors, latent: {dimension: 20},
          output: {range: [0, 1], channels: 1, size: 28}},
          feature: {name: thick, scorer: {uri: /m/thickness.pt, positive: {top: 0.1}}}}",
    )
    .unwrap()
}

pub(crate) fn job() -> JobId {
    JobId::new("thick-vae-7").unwrap()
}

pub(crate) fn lease() -> LeaseId {
    LeaseId { job: job(), phase: Phase::Evaluate, shard: ShardIndex(3), attempt: Attempt(2) }
}

pub(crate) fn artifact(name: &str) -> ArtifactRef {
    ArtifactRef { path: format!("jobs/thick-vae-7/{name}"), sha256: name.repeat(3), size: name.len() as u64 }
}

pub(crate) fn failure() -> Failure {
    Failure {
        code: ErrorCode::NoPositives,
        message: "none of 10000 samples scores above 3".to_owned(),
        hint: "lower feature.scorer.positive.above".to_owned(),
        at_unix_ms: 1_785_542_400_123,
    }
}

pub(crate) fn progress() -> Progress {
    Progress { lease: lease(), done: 750, total: 10_000, samples_per_second: 812.5, loss: Some(0.1 + 0.2) }
}

pub(crate) fn tasks() -> Vec<Task> {
    let range = SampleRange { start: 1500, count: 500 };
    let role = |rank, store: Option<&str>| GangRole {
        generation: Generation(4),
        rank: Rank(rank),
        world: 3,
        store: store.map(str::to_owned),
        floor: 120,
    };
    let (target, weights) = (artifact("target"), artifact("weights"));
    let pool = || vec![artifact("pool-0"), artifact("pool-1")];
    let search = |round| {
        let before =
            if round == Round::First { vec![] } else { vec![artifact("trial-0"), artifact("trial-1")] };
        Task::Search { round, range, target: target.clone(), pool: pool(), before }
    };
    vec![
        Task::Probe,
        Task::Sample { range },
        Task::Direction { scores: vec![artifact("scores-0"), artifact("scores-1")] },
        Task::Edit { range, target: target.clone() },
        search(Round::First),
        search(Round::Second),
        search(Round::Last),
        Task::FineTune { target: target.clone(), pool: pool(), search: vec![], role: role(0, None) },
        Task::FineTune {
            target: target.clone(),
            pool: pool(),
            search: vec![artifact("trial-0")],
            role: role(2, Some("10.0.0.7:4512")),
        },
        Task::Standby { target: target.clone(), pool: pool() },
        Task::Evaluate { range, target: target.clone(), weights: weights.clone() },
        Task::Report { moments: vec![artifact("moments-0")], target: target.clone() },
        Task::Publish { target, weights, report: report() },
    ]
}

pub(crate) fn inputs() -> Inputs {
    let input = |uri: &str, digit: &str| Input { uri: uri.to_owned(), sha256: digit.repeat(64), size: 1234 };
    Inputs(
        [
            (InputRole::Generator, input("/models/vae.pt", "a")),
            (InputRole::Judge, input("s3://b/judge.pt", "b")),
        ]
        .into(),
    )
}

pub(crate) fn assignment(task: Task) -> Assignment {
    let lease = LeaseId { phase: task.phase(), ..lease() };
    Assignment {
        lease,
        spec: spec(),
        inputs: inputs(),
        artifacts: "file:///var/lib/lethe/artifacts".to_owned(),
        task,
    }
}

pub(crate) fn report() -> ReportOutput {
    let advice = Some("raise unlearn.steps".to_owned());
    ReportOutput { figures: figures(), warnings: vec![warning()], judge: judge(), advice }
}

pub(crate) fn figures() -> Vec<Figure> {
    let share = Figure {
        name: "share".to_owned(),
        group: "feature".to_owned(),
        before: Some(0.1004),
        after: Some(0.0051),
        unit: Unit::Share,
        ci95_before: Some([0.0946, 0.1064]),
        ci95_after: Some([0.0039, 0.0067]),
        better: Better::Lower,
        samples: 10_000,
        definition: "Share of images in which the judge sees the feature".to_owned(),
    };
    let remaining =
        Figure { name: "remaining_share".to_owned(), before: None, ci95_before: None, ..share.clone() };
    vec![share, remaining]
}

pub(crate) fn warning() -> Warning {
    Warning::new(WarningCode::NotRemoved, "nothing may have been removed", "raise unlearn.steps")
}

fn judge() -> JudgeSummary {
    JudgeSummary {
        uri: "/m/thickness.pt".to_owned(),
        sha256: "ab".repeat(32),
        others: vec![JudgingModel { uri: "/m/other.pt".to_owned(), sha256: "cd".repeat(32) }],
        same_as_labeller: true,
    }
}

pub(crate) fn outputs() -> Vec<TaskOutput> {
    vec![
        TaskOutput::Probe(ProbeOutput {
            image_shape: vec![1, 28, 30],
            range: [-0.98, 0.97],
            batch_seconds: 0.0123,
            parameters: 1_234_567,
            warnings: vec![Warning::new(WarningCode::NotTrained, "l0.weight stays", "set its requires_grad")],
        }),
        TaskOutput::Sample(SampleOutput { samples: 500, positives: Some(0), scores: artifact("scores") }),
        TaskOutput::Sample(SampleOutput { samples: 500, positives: None, scores: artifact("scores") }),
        TaskOutput::Shards(vec![
            TaskOutput::Sample(SampleOutput {
                samples: 500,
                positives: Some(1),
                scores: artifact("scores-0"),
            }),
            TaskOutput::Sample(SampleOutput { samples: 20, positives: None, scores: artifact("scores-1") }),
        ]),
        TaskOutput::Direction(DirectionOutput {
            target: artifact("target"),
            samples: 10_000,
            positives: 1_000,
            cut: Cut { sign: -1.0, threshold: 3.25 },
            select: 3.5,
            goal: 4.75,
            edit: EditMethod::Gradient,
            threshold: 1.75,
            edited_share: 0.17,
            heldout_auc: 0.93,
            costs: lethe_domain::spec::Costs { edit: 0.25, train: 0.5, evaluate: 0.75 },
            warnings: vec![warning()],
        }),
        TaskOutput::Edit(EditOutput { samples: 500, pool: artifact("pool-0"), reused: true }),
        TaskOutput::Search(SearchOutput { round: Round::First, steps: 25, trial: artifact("trial-0") }),
        TaskOutput::Search(SearchOutput { round: Round::Second, steps: 50, trial: artifact("trial-1") }),
        TaskOutput::Search(SearchOutput { round: Round::Last, steps: 100, trial: artifact("trial-2") }),
        TaskOutput::FineTune(None),
        TaskOutput::FineTune(Some(FineTuneOutput {
            weights: artifact("weights"),
            checkpoint: "jobs/thick-vae-7/checkpoints/400".to_owned(),
            steps: 400,
            world_size: 2,
            samples_per_second: 2048.5,
            lr: 0.001,
            drift: Some(0.0125),
            halved: 1,
            alpha: 3.0,
            labeller_term: 2.0,
            strength: Some(1.25),
            loss_first: 0.31,
            loss_last: 0.012,
            curve: artifact("curve"),
            edits: EditSummary { tried: 812, unresolved: 3, median_step: 0.7, p99_step: 2.5 },
            search: Some(search()),
        })),
        TaskOutput::Evaluate(EvaluateOutput {
            samples: 500,
            before: Some(51),
            after: Some(0),
            moments: artifact("moments"),
        }),
        TaskOutput::Evaluate(EvaluateOutput {
            samples: 500,
            before: None,
            after: None,
            moments: artifact("moments"),
        }),
        TaskOutput::Report(report()),
        TaskOutput::Report(ReportOutput { warnings: vec![], advice: None, ..report() }),
        TaskOutput::Publish(PublishOutput {
            generator: artifact("vae.safetensors"),
            sidecar: artifact("vae.safetensors.json"),
            before_after_png: artifact("before_after.png"),
            versions: versions(),
        }),
    ]
}

fn versions() -> Versions {
    Versions { lethe: "0.1.0".to_owned(), torch: "2.11.0".to_owned(), device: "cpu".to_owned() }
}

fn search() -> SearchSummary {
    let values = Values { lr: 0.002, alpha: 3.0, labeller_term: 0.5, anchor: 0.001, squares: 10.0 };
    let trial =
        Trial { trial: 2, round: Round::Last, steps: 100, values, left: Some(0.25), changed: Some(0.01) };
    let diverged = Trial { trial: 7, round: Round::First, steps: 25, left: None, changed: None, ..trial };
    SearchSummary { trial: 2, values, trials: vec![diverged, trial] }
}

pub(crate) fn result() -> JobResult {
    JobResult {
        schema_version: RESULT_VERSION,
        job: job(),
        name: "thick-vae".to_owned(),
        state: JobState::Succeeded,
        failure: None,
        feature: "thick".to_owned(),
        warnings: vec![warning()],
        judge: Some(judge()),
        figures: figures(),
        advice: Some("raise unlearn.steps".to_owned()),
        direction: Some(DirectionSummary {
            threshold: 1.75,
            edited_share: 0.17,
            heldout_auc: 0.93,
            samples: 10_000,
            positives: 1_000,
            label_threshold: 3.25,
            select: 3.5,
            goal: 4.75,
            edit: EditMethod::Gradient,
        }),
        pool: Some(PoolSummary { latents: 60_000, shards: 120, reused: 7 }),
        search: Some(search()),
        train: Some(TrainSummary {
            steps: 400,
            world_size: 2,
            samples_per_second: 2048.5,
            lr: 0.001,
            drift: Some(0.0125),
            halved: 1,
            alpha: 3.0,
            labeller_term: 2.0,
            strength: Some(1.25),
            loss_first: 0.31,
            loss_last: 0.012,
        }),
        seconds: [("probe".to_owned(), 0.7), ("sample".to_owned(), 12.3)].into(),
        versions: Some(versions()),
        inputs: inputs(),
        artifacts: ArtifactPaths {
            generator: Some("vae.safetensors".to_owned()),
            before_after_png: Some("before_after.png".to_owned()),
            checkpoint: None,
            target_sha256: Some("ab".repeat(32)),
        },
        spec: Some(Box::new(spec())),
    }
}
