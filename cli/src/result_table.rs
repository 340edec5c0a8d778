//! A job's result as a table for people. It shows whatever figures there are.

use lethe_domain::numbers::{counted, grouped, span};
use lethe_domain::{Figure, JobResult, JudgeSummary, Phase, PoolSummary, Round, Unit, Values};

use crate::output::columns;

/// The result: how it ended, its figures, how it came about. `wide` says what each figure means.
pub(crate) fn render(result: &JobResult, wide: bool) -> String {
    let mut lines = vec![format!("{} ({}): {}{}", result.name, result.job, result.state, doubts(result))];
    if let Some(failure) = &result.failure {
        lines.push(format!("  failure             {failure}"));
    }
    lines.extend(result.judge.as_ref().map(|judge| judged(&result.feature, judge)));
    if !result.figures.is_empty() {
        lines.extend(figures(&result.figures, wide).lines().map(|line| format!("  {line}")));
    }
    lines.extend(result.advice.iter().map(|advice| format!("  advice              {advice}")));
    lines.extend(story(result));
    lines.join("\n")
}

/// Every warning, a line each.
pub(crate) fn warnings(result: &JobResult) -> impl Iterator<Item = String> {
    result.warnings.iter().map(|warning| format!("warning: {warning}"))
}

fn doubts(result: &JobResult) -> String {
    let codes: Vec<&str> = result.warnings.iter().map(|warning| warning.code.name()).collect();
    match codes.len() {
        0 => String::new(),
        1 => format!(", 1 warning: {}", codes[0]),
        many => format!(", {many} warnings: {}", codes.join(", ")),
    }
}

fn judged(feature: &str, judge: &JudgeSummary) -> String {
    let parts = |(uri, sha256): (&str, &str)| {
        (uri.rsplit('/').next().unwrap_or(uri).to_owned(), sha256[..sha256.len().min(12)].to_owned())
    };
    let (names, digests): (Vec<String>, Vec<String>) = judge.models().map(parts).unzip();
    let who = if judge.same_as_labeller { "the labeller itself" } else { "which is not the labeller" };
    let (names, digests) = (names.join(" and "), digests.join(" and "));
    format!("  feature '{feature}', judged by {names} ({who}, sha256 {digests})")
}

fn figures(figures: &[Figure], wide: bool) -> String {
    let mut head = vec!["FIGURE", "BEFORE", "AFTER", "CHANGE", "95 % INTERVAL", "BETTER"];
    if wide {
        head.extend(["ON", "MEANING"]);
    }
    let mut rows = Vec::new();
    for (place, figure) in figures.iter().enumerate() {
        if place == 0 || figures[place - 1].group != figure.group {
            rows.push(vec![figure.group.clone()]);
        }
        rows.push(row(figure, wide));
    }
    columns(&head, &rows)
}

fn row(figure: &Figure, wide: bool) -> Vec<String> {
    let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| figure.unit.show(value));
    let change = figure.change().map_or_else(String::new, |change| format!("{:+.1} %", change * 100.0));
    let interval = figure.ci95_after.or(figure.ci95_before);
    let mut row = vec![
        format!("  {}", figure.title()),
        show(figure.before),
        show(figure.after),
        change,
        interval.map(|interval| figure.unit.show_interval(interval)).unwrap_or_default(),
        figure.better.name().to_owned(),
    ];
    if wide {
        row.extend([grouped(figure.samples), figure.definition.clone()]);
    }
    row
}

/// How it came about: direction, training, time, files.
fn story(result: &JobResult) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(direction) = &result.direction {
        lines.push(format!(
            "  direction           edits {} of latents, held-out AUC {:.3}",
            Unit::Share.show(direction.edited_share),
            direction.heldout_auc
        ));
    }
    if let Some(PoolSummary { latents, shards, reused }) = result.pool {
        let reused = match reused {
            0 => String::new(),
            reused => format!(", {} of them made before", grouped(reused.into())),
        };
        lines.push(format!(
            "  pool                {} in {}{reused}",
            counted(latents, "latent"),
            counted(shards.into(), "shard")
        ));
    }
    if let Some(search) = &result.search {
        let Values { lr, alpha, labeller_term, anchor, squares } = search.values;
        let first = search.trials.iter().filter(|trial| trial.round == Round::First).count();
        lines.push(format!(
            "  search              trial {} of {first}: lr {lr}, alpha {alpha}, labeller_term {labeller_term}, anchor {anchor}, squares {squares}",
            search.trial
        ));
    }
    if let Some(train) = &result.train {
        let strength =
            train.strength.map_or_else(String::new, |strength| format!(", strength {strength:.2}"));
        lines.push(format!(
            "  training            {} on {}, {} samples/s, loss {:.4} -> {:.4}, lr {:.2e}, alpha {}, labeller_term {}{strength}",
            counted(train.steps, "step"),
            counted(u64::from(train.world_size), "slot"),
            grouped(train.samples_per_second as u64),
            train.loss_first,
            train.loss_last,
            train.lr,
            train.alpha,
            train.labeller_term
        ));
    }
    let total: f64 = result.seconds.values().sum();
    let phases: Vec<String> = Phase::ALL
        .iter()
        .filter_map(|phase| {
            result.seconds.get(phase.name()).map(|seconds| format!("{phase} {}", span(*seconds)))
        })
        .collect();
    lines.push(format!("  time                {} ({})", span(total), phases.join(", ")));
    for (name, path) in
        [("generator", &result.artifacts.generator), ("before and after", &result.artifacts.before_after_png)]
    {
        if let Some(path) = path {
            lines.push(format!("  {name:<20}{path}"));
        }
    }
    lines
}
