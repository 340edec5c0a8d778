//! The first page: how busy the fleet is, the newest jobs, the workers.

use lethe_domain::{JobResult, JobState, JobStatus, PhaseState, Shape, WorkerState, WorkerStatus};
use maud::{Markup, html};

use super::numbers::{ago, grouped, moment, percent, significant, span};
use super::result::doubt;
use super::{Page, badge, current, phase_class, phase_name, share};
use crate::driver::View;

/// Jobs shown; older ones are listed by `lethe job list`.
const JOBS: usize = 100;

/// What the first page shows.
#[derive(Debug)]
pub(crate) struct Overview {
    jobs: Vec<JobStatus>,
    older: usize,
    workers: Vec<WorkerStatus>,
    now_unix_ms: u64,
    /// Who leads, and so knows the workers, when it is another coordinator.
    leader: Option<String>,
}

impl Overview {
    pub(crate) fn of(view: &View) -> Self {
        let jobs = view.newest(JOBS);
        let older = view.job_count() - jobs.len();
        Self {
            jobs,
            older,
            workers: view.workers(),
            now_unix_ms: view.unix_ms(),
            leader: view.leader().map(str::to_owned),
        }
    }

    pub(crate) fn render(&self) -> Page {
        let lively = !self.workers.is_empty() || self.jobs.iter().any(|job| !job.state.is_final());
        let body = html! {
            (self.summary())
            section {
                h2 { "Jobs" }
                @if self.jobs.is_empty() {
                    p.empty { "No job yet. Submit one with " code { "lethe job submit JOB.yaml" } "." }
                } @else {
                    (self.job_table())
                }
                @if self.older > 0 {
                    p.empty { "and " (self.older) " older ones: " code { "lethe job list" } }
                }
            }
            section {
                h2 { "Workers" }
                @if let Some(leader) = &self.leader {
                    p.empty { "This coordinator stands by. The one at " code { (leader) } " leads and knows the workers." }
                } @else if self.workers.is_empty() {
                    p.empty {
                        "No worker has joined. Start one with " code { "lethe-worker --coordinator URL" } "."
                    }
                } @else {
                    (self.worker_table())
                }
            }
        };
        Page { title: "Jobs".to_owned(), lively, body }
    }

    fn summary(&self) -> Markup {
        let slots = || self.workers.iter().flat_map(|worker| &worker.slots);
        let busy = slots().filter(|slot| slot.lease.is_some()).count();
        let count = |state| self.jobs.iter().filter(|job| job.state == state).count();
        let suspect = self.workers.iter().filter(|worker| worker.state == WorkerState::Suspect).count();
        html! {
            section.tiles {
                (tile("running", &count(JobState::Running).to_string(), "jobs at work"))
                (tile("queued", &count(JobState::Queued).to_string(), "jobs waiting"))
                @if self.leader.is_none() {
                (tile("slots busy", &format!("{busy} / {}", slots().count()), "of all workers"))
                (tile("workers", &self.workers.len().to_string(),
                    &if suspect > 0 { format!("{suspect} silent") } else { "all heard from".to_owned() }))
                }
            }
        }
    }

    fn job_table(&self) -> Markup {
        html! {
            div.scroll { table {
                thead { tr {
                    th { "Job" } th { "Feature" } th { "State" } th.wide { "Progress" } th.right { "Remaining" } th { "Submitted" }
                } }
                tbody { @for job in &self.jobs { (self.job_row(job)) } }
            } }
        }
    }

    fn job_row(&self, job: &JobStatus) -> Markup {
        let remaining = job.result.as_ref().and_then(JobResult::remaining_share);
        let warnings = job.result.as_ref().map_or(0, |result| result.warnings.len());
        html! {
            tr {
                td { a.job href={ "/jobs/" (job.id) } { (job.id) } }
                td { (job.feature) }
                td { (badge(job.state)) @if warnings > 0 { " " (doubt(warnings)) } }
                td.wide {
                    (phase_strip(job))
                    p.line { (progress_line(job)) }
                }
                td.right {
                    @if let Some(remaining) = remaining { b { (percent(remaining)) } } @else { span.faint { "–" } }
                }
                td.nowrap.faint title=(moment(job.submitted_unix_ms)) { (ago(self.now_unix_ms.saturating_sub(job.submitted_unix_ms))) }
            }
        }
    }

    fn worker_table(&self) -> Markup {
        html! {
            div.scroll { table {
                thead { tr {
                    th { "Worker" } th { "Machine" } th { "State" } th.wide { "Slots" } th.right { "Heartbeat" } th { "Version" }
                } }
                tbody { @for worker in &self.workers { (worker_row(worker)) } }
            } }
        }
    }
}

fn tile(name: &str, value: &str, note: &str) -> Markup {
    html! { div.tile { span.name { (name) } span.value { (value) } span.note { (note) } } }
}

/// One bar per phase.
fn phase_strip(job: &JobStatus) -> Markup {
    html! {
        div.strip {
            @for phase in &job.phases {
                progress class=(phase_class(phase.state)) title=(phase_name(phase.phase)) value=(format!("{:.4}", share(phase))) max="1" {}
            }
        }
    }
}

fn progress_line(job: &JobStatus) -> Markup {
    if let Some(failure) = &job.failure {
        let failed = job.state == JobState::Failed;
        return html! { @if failed { span.bad { (failure.code) } " " } (failure.message) };
    }
    if let Some(waiting) = &job.waiting {
        return html! { "waiting: " (waiting) };
    }
    let Some(phase) = current(job) else { return html! { "not begun" } };
    if job.state == JobState::Succeeded {
        let seconds: f64 = job.phases.iter().map(|phase| phase.seconds).sum();
        return html! { "all phases in " (span(seconds)) };
    }
    let unit = if phase.phase.shape() == Shape::Gang { "steps" } else { "samples" };
    html! {
        b { (phase_name(phase.phase)) }
        @if phase.total > 1 { " " (grouped(phase.done)) " of " (grouped(phase.total)) " " (unit) }
        @if let Some(loss) = phase.loss { " · loss " (significant(loss)) }
        @if phase.samples_per_second > 0.0 { " · " (significant(phase.samples_per_second)) " samples/s" }
        @if let Some(eta) = phase.eta_seconds { " · " (span(eta)) " left" }
        @if phase.state == PhaseState::Running && job.slots > 0 {
            " · " (job.slots) @if job.slots == 1 { " slot" } @else { " slots" }
        }
    }
}

fn worker_row(worker: &WorkerStatus) -> Markup {
    let class = match worker.state {
        WorkerState::Ready | WorkerState::Busy => "succeeded",
        WorkerState::Joining | WorkerState::Canary | WorkerState::Draining => "running",
        WorkerState::Suspect | WorkerState::Dead | WorkerState::Quarantined => "failed",
    };
    html! {
        tr {
            td.mono { (worker.id) }
            td { (worker.hostname) }
            td {
                span class={ "badge " (class) } { (worker.state.name()) }
                @if let Some(reason) = &worker.reason { div.faint { (reason) } }
            }
            td.wide {
                div.chips {
                    @for slot in &worker.slots {
                        @match &slot.lease {
                            Some(lease) => a.chip.busy href={ "/jobs/" (lease.job) } {
                                (slot.device) " · " (lease.job) " " (phase_name(lease.phase)) " " (lease.shard)
                            },
                            None if slot.quarantine.is_some() => {
                                span.chip title=(slot.quarantine.as_deref().unwrap_or_default()) { (slot.device) " · quarantined" }
                            }
                            None if !slot.proven => span.chip { (slot.device) " · starting" },
                            None => span.chip { (slot.device) " · free" },
                        }
                    }
                }
            }
            td.right.nowrap { (span(worker.heartbeat_age_ms as f64 / 1000.0)) " ago" }
            td.faint { (worker.version) }
        }
    }
}
