//! The page of one job: what it does, how far it is, what came of it.

use std::sync::Arc;

use lethe_artifacts::ArtifactStore;
use lethe_domain::{Failure, JobResult, JobState, JobStatus, PhaseState, PhaseStatus, Shape};
use lethe_engine::JobRecord;
use maud::{Markup, html};

use super::curve::Curve;
use super::numbers::{grouped, moment, significant, span};
use super::{Page, badge, phase_class, phase_name, result, share};
use crate::driver::WholeJob;
use crate::published::as_stored;

/// What a job's page shows.
#[derive(Debug)]
pub(crate) struct JobPage {
    status: JobStatus,
    record: Arc<JobRecord>,
    /// The result as far as there is one; its figures appear as their phases end.
    result: JobResult,
    curve: Option<Curve>,
}

impl JobPage {
    pub(crate) fn of(job: WholeJob) -> Self {
        let WholeJob { status, record, leader: _ } = job;
        Self { status, result: record.result(), record, curve: None }
    }

    /// Reads the loss curve, if training has ended. A curve that cannot be read is left out.
    pub(crate) async fn read_curve(&mut self, artifacts: &ArtifactStore) {
        let Some(trained) = self.record.outputs.fine_tune() else { return };
        if let Ok(artifact) = as_stored(&self.record, &trained.curve) {
            self.curve = Curve::read(artifacts, &artifact).await;
        }
    }

    pub(crate) fn render(&self) -> Page {
        let published = self.record.outputs.publish().is_some();
        let body = html! {
            (self.head())
            (self.notices())
            @if let Some(figures) = result::figures(&self.result) { section { h2 { @if self.status.state.is_final() { "Result" } @else { "So far" } } (figures) } }
            @if published {
                section {
                    h2 { "Before and after, at the same latents" }
                    figure.sheet {
                        img src={ "/jobs/" (self.status.id) "/before_after.png" }
                            alt={ "Images of the original above those of the unlearned generator: feature " (self.status.feature) };
                    }
                }
            }
            section { h2 { "Phases" } (self.phases()) }
            @if let Some(curve) = &self.curve { section { h2 { "Training loss" } (curve.render()) } }
            @if !self.status.retried.is_empty() {
                section {
                    h2 { @if self.status.state == JobState::Failed { "Tries that failed" } @else { "Survived by another try" } }
                    ul.failures { @for failure in self.status.retried.iter().rev() { li { (told(failure)) } } }
                }
            }
            section {
                details { summary { "What was asked for" } pre { (self.spec()) } }
            }
        };
        Page { title: self.status.id.to_string(), lively: !self.status.state.is_final(), body }
    }

    fn head(&self) -> Markup {
        let status = &self.status;
        let seconds: f64 = status.phases.iter().map(|phase| phase.seconds).sum();
        html! {
            section.head {
                p.crumb { a href="/" { "Jobs" } " / " (status.id) }
                h1 { "Remove “" (status.feature) "” from " (status.name) " " (badge(status.state))
                    @if !self.result.warnings.is_empty() { " " (result::doubt(self.result.warnings.len())) }
                }
                p.faint {
                    "submitted " (moment(status.submitted_unix_ms))
                    @if let Some(finished) = status.finished_unix_ms { " · ended " (moment(finished)) }
                    " · " (span(seconds)) " of work"
                    @if status.slots > 0 { " · " (status.slots) " slots at work" }
                }
            }
        }
    }

    fn notices(&self) -> Markup {
        html! {
            @if let Some(failure) = &self.status.failure {
                section class={ "notice " (if self.status.state == JobState::Failed { "bad" } else { "mild" }) } { (told(failure)) }
            }
            @if let Some(waiting) = &self.status.waiting {
                section.notice.mild { b { "Waiting" } p { (waiting) } }
            }
            (result::warnings(&self.result.warnings))
        }
    }

    fn phases(&self) -> Markup {
        html! {
            div.scroll { table.phases {
                thead { tr {
                    th { "Phase" } th.wide { "Progress" } th.right { "Done" } th.right { "Shards" } th.right { "Time" } th.right { "Samples/s" } th.right { "Loss" } th.right { "Left" }
                } }
                tbody { @for phase in &self.status.phases { (phase_row(phase)) } }
            } }
        }
    }

    fn spec(&self) -> String {
        serde_json::to_string_pretty(&self.record.spec).unwrap_or_default()
    }
}

fn phase_row(phase: &PhaseStatus) -> Markup {
    let many = phase.phase.shape() != Shape::Single;
    let begun = phase.state != PhaseState::Pending;
    let none = || html! { span.faint { "–" } };
    html! {
        tr class=(phase_class(phase.state)) {
            td { span.dot {} (phase_name(phase.phase)) }
            td.wide { progress class=(phase_class(phase.state)) value=(format!("{:.4}", share(phase))) max="1" {} }
            td.right {
                @if begun && many { (grouped(phase.done)) " / " (grouped(phase.total)) } @else { (none()) }
            }
            td.right {
                @if begun && phase.shards > 1 { (grouped(phase.shards_done.into())) " / " (grouped(phase.shards.into())) } @else { (none()) }
            }
            td.right.nowrap { @if begun { (span(phase.seconds)) } @else { (none()) } }
            td.right { @if phase.samples_per_second > 0.0 { (significant(phase.samples_per_second)) } @else { (none()) } }
            td.right { @if let Some(loss) = phase.loss { (significant(loss)) } @else { (none()) } }
            td.right.nowrap { @if let Some(eta) = phase.eta_seconds { (span(eta)) } @else { (none()) } }
        }
    }
}

fn told(failure: &Failure) -> Markup {
    html! {
        p { b { (failure.code) } " " (failure.message) }
        @if !failure.hint.is_empty() { p { (failure.hint) } }
        @if failure.at_unix_ms > 0 { p.faint { (moment(failure.at_unix_ms)) } }
    }
}
