//! docs/result.md names every key of result.json and every warning.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lethe_domain::{
    ArtifactPaths, Better, DirectionSummary, EditMethod, ErrorCode, Failure, Figure, Input, InputRole,
    Inputs, JobId, JobResult, JobState, JudgeSummary, JudgingModel, PoolSummary, RESULT_VERSION, Round,
    SearchSummary, TrainSummary, Trial, Unit, Values, Versions, Warning, WarningCode,
};
use serde_json::Value;

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/result.md")).unwrap()
}

const VALUES: Values = Values { lr: 0.0, alpha: 0.0, labeller_term: 0.0, anchor: 0.0, squares: 0.0 };

/// A result in which nothing is left out.
fn full() -> JobResult {
    let some = || Some(String::new());
    JobResult {
        schema_version: RESULT_VERSION,
        job: JobId::new("j-1").unwrap(),
        name: String::new(),
        feature: String::new(),
        state: JobState::Failed,
        failure: Some(Failure::new(ErrorCode::Internal, "", "")),
        warnings: vec![Warning::new(WarningCode::NotRemoved, "", "")],
        judge: Some(JudgeSummary {
            uri: String::new(),
            sha256: String::new(),
            others: vec![JudgingModel { uri: String::new(), sha256: String::new() }],
            same_as_labeller: true,
        }),
        figures: vec![Figure {
            name: String::new(),
            group: String::new(),
            before: None,
            after: None,
            unit: Unit::Share,
            ci95_before: None,
            ci95_after: None,
            better: Better::Lower,
            samples: 0,
            definition: String::new(),
        }],
        advice: some(),
        direction: Some(DirectionSummary {
            threshold: 0.0,
            edited_share: 0.0,
            heldout_auc: 0.0,
            samples: 0,
            positives: 0,
            label_threshold: 0.0,
            select: 3.5,
            goal: 4.75,
            edit: EditMethod::Gradient,
        }),
        pool: Some(PoolSummary { latents: 0, shards: 0, reused: 0 }),
        search: Some(SearchSummary {
            trial: 1,
            values: VALUES,
            trials: vec![Trial {
                trial: 1,
                round: Round::Last,
                steps: 0,
                values: VALUES,
                left: None,
                changed: None,
            }],
        }),
        train: Some(TrainSummary {
            steps: 0,
            world_size: 0,
            samples_per_second: 0.0,
            lr: 0.001,
            drift: Some(0.0125),
            halved: 0,
            alpha: 3.0,
            labeller_term: 2.0,
            strength: Some(1.25),
            loss_first: 0.0,
            loss_last: 0.0,
        }),
        seconds: Default::default(),
        versions: Some(Versions::default()),
        inputs: Inputs(
            [(InputRole::Generator, Input { uri: String::new(), sha256: String::new(), size: 0 })].into(),
        ),
        artifacts: ArtifactPaths {
            generator: some(),
            before_after_png: some(),
            checkpoint: some(),
            target_sha256: some(),
        },
        spec: None,
    }
}

fn keys(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                found.push(key.clone());
                keys(value, found);
            }
        }
        Value::Array(entries) => entries.iter().for_each(|entry| keys(entry, found)),
        _ => {}
    }
}

#[test]
fn every_key_is_described() {
    assert!(page().contains("`spec`"));
    let mut found = Vec::new();
    keys(&serde_json::to_value(full()).unwrap(), &mut found);
    let page = page();
    let missing: Vec<&String> = found.iter().filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(found.len() > 40 && missing.is_empty(), "docs/result.md lacks {missing:?}");
    assert!(page.contains(&format!("| `schema_version` | {RESULT_VERSION}.")));
}

#[test]
fn every_warning_and_unit_is_described() {
    let page = page();
    for code in WarningCode::ALL {
        assert!(page.contains(&format!("| `{code}` |")), "docs/result.md lacks {code}");
    }
    for unit in
        [Unit::Share, Unit::Distance, Unit::PixelValue, Unit::Similarity, Unit::Deviations, Unit::Ratio]
    {
        let name = serde_json::to_value(unit).unwrap();
        assert!(page.contains(&format!("`{}`", name.as_str().unwrap())), "docs/result.md lacks {unit:?}");
    }
}
