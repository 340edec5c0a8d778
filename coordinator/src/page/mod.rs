//! The page operators look at: workers and jobs, and one job in full. Rendered here, works without JavaScript.
//!
//! maud escapes everything that is not markup of ours. Not here: routes and headers (`http`).

mod curve;
mod job;
mod numbers;
mod overview;
mod result;

pub(crate) use job::JobPage;
pub(crate) use overview::Overview;

use lethe_domain::{JobState, JobStatus, PhaseState, PhaseStatus};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");

/// Seconds between two looks at something that changes.
const REFRESH: u32 = 2;

/// A page without its frame.
#[derive(Debug)]
pub(crate) struct Page {
    title: String,
    /// Whether what it shows will change soon.
    lively: bool,
    body: Markup,
}

impl Page {
    /// A page that only says something.
    pub(crate) fn message(title: &str, text: &str) -> Self {
        let body = html! {
            section.notice { h1 { (title) } p { (text) } p { a href="/" { "All jobs" } } }
        };
        Self { title: title.to_owned(), lively: false, body }
    }

    /// The whole document; only the style that carries the nonce is applied.
    pub(crate) fn render(&self, nonce: &str) -> String {
        let document = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    @if self.lively { meta http-equiv="refresh" content=(REFRESH); }
                    title { (self.title) " · Lethe" }
                    style nonce=(nonce) { (PreEscaped(STYLE)) }
                }
                body {
                    header.top {
                        a.brand href="/" { (mark()) "Lethe" }
                        span.version { "coordinator " (env!("CARGO_PKG_VERSION")) }
                        nav { a href="/metrics" { "metrics" } }
                    }
                    main { (self.body) }
                }
            }
        };
        document.into_string()
    }
}

/// A river with a drop going under.
fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 24 24" aria-hidden="true" {
            circle cx="12" cy="7" r="3.4" {}
            path d="M2 14c3.3-2.6 6.7-2.6 10 0s6.7 2.6 10 0M2 19c3.3-2.6 6.7-2.6 10 0s6.7 2.6 10 0" {}
        }
    }
}

/// A job's state as a badge.
fn badge(state: JobState) -> Markup {
    let class = match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Cancelling | JobState::Cancelled => "cancelled",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
    };
    html! { span class={ "badge " (class) } { (state) } }
}

/// The class of a phase's state.
fn phase_class(state: PhaseState) -> &'static str {
    match state {
        PhaseState::Pending => "pending",
        PhaseState::Running => "running",
        PhaseState::Done => "done",
        PhaseState::Failed => "failed",
    }
}

/// What a phase is called on the page.
fn phase_name(phase: lethe_domain::Phase) -> String {
    phase.name().replace('_', "-")
}

/// The phase a job is in, or ended in.
fn current(job: &JobStatus) -> Option<&PhaseStatus> {
    job.phases.iter().rfind(|phase| phase.state != PhaseState::Pending)
}

/// How far a phase is, 0 to 1.
fn share(phase: &PhaseStatus) -> f64 {
    match phase.state {
        PhaseState::Done => 1.0,
        PhaseState::Pending => 0.0,
        PhaseState::Running | PhaseState::Failed if phase.total == 0 => 0.0,
        PhaseState::Running | PhaseState::Failed => (phase.done as f64 / phase.total as f64).clamp(0.0, 1.0),
    }
}
