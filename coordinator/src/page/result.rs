//! What came of a job: its figures, whatever they are, what makes them doubtful, who judged.

use lethe_domain::{
    DirectionSummary, Figure, JobResult, JudgeSummary, REMAINING_SHARE, TrainSummary, Warning,
};
use maud::{Markup, html};

use super::numbers::{grouped, percent, significant as number};

/// Cards with the figures so far; none before there is one.
pub(super) fn figures(result: &JobResult) -> Option<Markup> {
    let JobResult { figures, advice, judge, direction, train, .. } = result;
    let is_doubtful = result.warnings.iter().any(|warning| warning.code.doubts_removal());
    (direction.is_some() || !figures.is_empty()).then(|| {
        html! {
            @if let Some(judge) = judge { (judged(&result.feature, judge)) }
            @if let Some(advice) = advice { p { b { "Advice: " } (advice) } }
            div.cards {
                @for figure in figures.iter().filter(|figure| is_headline(figure)) { (card(figure, is_doubtful)) }
                @for figure in figures.iter().filter(|figure| !is_headline(figure)) { (card(figure, false)) }
                @if let Some(direction) = direction { (direction_card(direction)) }
                @if let Some(train) = train { (train_card(train)) }
            }
        }
    })
}

/// What makes a result doubtful.
pub(super) fn warnings(warnings: &[Warning]) -> Markup {
    html! {
        @for warning in warnings {
            section.notice.mild { p { b { (warning.code) } " " (warning.message) } p { (warning.hint) } }
        }
    }
}

/// That there are so many warnings.
pub(super) fn doubt(count: usize) -> Markup {
    html! { span.badge.doubtful { (count) @if count == 1 { " warning" } @else { " warnings" } } }
}

/// As much of a digest as tells files apart.
fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

fn judged(feature: &str, judge: &JudgeSummary) -> Markup {
    html! {
        p.faint.judge {
            "“" (feature) "” was judged by "
            @for (place, (uri, sha256)) in judge.models().enumerate() {
                @if place > 0 { " and " }
                span.mono { (uri) } " (SHA-256 " span.mono title=(sha256) { (short(sha256)) } ")"
            }
            @if judge.same_as_labeller { ", the labeller itself" } @else { ", which is not the labeller" }
        }
    }
}

fn is_headline(figure: &Figure) -> bool {
    (figure.group.as_str(), figure.name.as_str()) == REMAINING_SHARE
}

fn card(figure: &Figure, is_doubtful: bool) -> Markup {
    let headline = is_headline(figure);
    let show = |value: f64| unbroken(&figure.unit.show(value));
    let interval = |interval: [f64; 2]| unbroken(&figure.unit.show_interval(interval));
    html! {
        div class=(match (headline, is_doubtful) { (true, true) => "card main doubtful", (true, false) => "card main", _ => "card" }) {
            div {
                span.name { (figure.group) " · " (figure.title()) }
                p.change {
                    @match (figure.before, figure.after) {
                        (Some(before), Some(after)) => { (show(before)) span.arrow { "→" } strong { (show(after)) } }
                        (Some(only), None) | (None, Some(only)) => strong { (show(only)) },
                        (None, None) => span.faint { "–" },
                    }
                    @if let Some(change) = figure.change() { " " span.note { (format!("{:+.1}\u{a0}%", change * 100.0)) } }
                }
                p.faint {
                    @if let Some(ci95) = figure.ci95_before { "95\u{a0}%: " (interval(ci95)) " before" @if figure.ci95_after.is_some() { ", " } @else { "; " } }
                    @if let Some(ci95) = figure.ci95_after {
                        @if figure.ci95_before.is_some() { (interval(ci95)) " after; " } @else { "95\u{a0}%: " (interval(ci95)) "; " }
                    }
                    (figure.better.name()) " is better; on " (grouped(figure.samples)) " latents"
                }
                p.faint { (figure.definition) "." }
            }
        }
    }
}

/// The text, its words never torn apart.
fn unbroken(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

fn direction_card(direction: &DirectionSummary) -> Markup {
    html! {
        div.card {
            span.name { "direction" }
            p.change { strong { (number(direction.heldout_auc)) } " AUC" }
            p.faint {
                (grouped(direction.positives)) " positives in " (grouped(direction.samples)) " samples · "
                (percent(direction.edited_share)) " of the latents edited"
            }
        }
    }
}

fn train_card(train: &TrainSummary) -> Markup {
    html! {
        div.card {
            span.name { "training loss" }
            p.change { (number(train.loss_first)) span.arrow { "→" } strong { (number(train.loss_last)) } }
            p.faint {
                (grouped(train.steps)) " steps on " (train.world_size) @if train.world_size == 1 { " rank" } @else { " ranks" }
                " · " (number(train.samples_per_second)) " samples/s"
            }
        }
    }
}
