//! A job's progress, live on a terminal, in plain lines elsewhere.
//!
//! Not here: where the statuses come from.

use std::io::IsTerminal;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lethe_domain::numbers::{counted, grouped, span};
use lethe_domain::{JobStatus, Phase, PhaseState, PhaseStatus, Shape, Waiting};

use crate::output::remark;

/// Shows statuses as they come.
pub(crate) struct ProgressView {
    form: Form,
    /// The worker is on its way: that none has joined yet is not worth saying.
    own_worker: bool,
}

enum Form {
    /// A bar for each phase, redrawn in place.
    Bars(Screen),
    /// A line when a phase begins or ends, and now and then between.
    Lines(Lines),
}

/// Plain lines.
pub(crate) struct Lines {
    last: Option<(Phase, PhaseState)>,
    last_printed: Instant,
    last_remark: String,
}

/// What there is to draw, and the thread that draws it: a terminal that is paused (Ctrl-S) holds up nobody else.
struct Screen(Arc<(Mutex<Drawing>, Condvar)>);

#[derive(Default)]
struct Drawing {
    /// Not drawn yet: how the job stands, and a note. An older one that was never drawn is nothing to regret.
    next: Option<(JobStatus, String)>,
    /// Nothing more comes.
    over: bool,
    /// The thread has left the screen as it is to stay.
    left: bool,
}

/// For the last picture to be drawn.
const LAST_PICTURE: Duration = Duration::from_millis(500);

/// Bars on a terminal.
struct Bars {
    all: MultiProgress,
    phases: Vec<(Phase, ProgressBar)>,
    note: ProgressBar,
}

const LINE_EVERY: Duration = Duration::from_secs(5);

impl ProgressView {
    /// Bars when stderr is a terminal, lines otherwise.
    pub(crate) fn new() -> Self {
        let form = if std::io::stderr().is_terminal() {
            Form::Bars(Screen::new())
        } else {
            let past = Instant::now().checked_sub(LINE_EVERY).unwrap_or_else(Instant::now);
            Form::Lines(Lines { last: None, last_printed: past, last_remark: String::new() })
        };
        Self { form, own_worker: false }
    }

    /// The same, where this process brings the worker itself.
    pub(crate) fn of_own_worker() -> Self {
        Self { own_worker: true, ..Self::new() }
    }

    /// Shows how a job stands.
    pub(crate) fn show(&mut self, status: &JobStatus) {
        let note = match &status.waiting {
            Some(Waiting::NoWorkers) if self.own_worker => None,
            Some(waiting) => Some(format!("waiting: {waiting}")),
            None => retried(status),
        };
        match &mut self.form {
            Form::Bars(screen) => screen.show(status, note.unwrap_or_default()),
            Form::Lines(lines) => lines.show(status, note.unwrap_or_default()),
        }
    }
}

impl Screen {
    fn new() -> Self {
        let shared = Arc::new((Mutex::new(Drawing::default()), Condvar::new()));
        let drawing = shared.clone();
        // Without a thread to be had there are no bars, and the job goes on.
        let _ = thread::Builder::new().name("progress".to_owned()).spawn(move || draw(&drawing));
        Self(shared)
    }

    fn show(&self, status: &JobStatus, note: String) {
        let (drawing, changed) = &*self.0;
        drawing.lock().unwrap_or_else(PoisonError::into_inner).next = Some((status.clone(), note));
        changed.notify_all();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let (drawing, changed) = &*self.0;
        let mut drawing = drawing.lock().unwrap_or_else(PoisonError::into_inner);
        drawing.over = true;
        changed.notify_all();
        let _ = changed.wait_timeout_while(drawing, LAST_PICTURE, |drawing| !drawing.left);
    }
}

fn draw((drawing, changed): &(Mutex<Drawing>, Condvar)) {
    let mut bars = Bars::new();
    loop {
        let waiting = drawing.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_while(waiting, |drawing| drawing.next.is_none() && !drawing.over);
        let next = waited.unwrap_or_else(PoisonError::into_inner).next.take();
        match next {
            Some((status, note)) => bars.show(&status, note),
            None => break,
        }
    }
    bars.finish();
    drawing.lock().unwrap_or_else(PoisonError::into_inner).left = true;
    changed.notify_all();
}

impl Lines {
    fn show(&mut self, status: &JobStatus, note: String) {
        if note != self.last_remark && !note.is_empty() {
            remark(&format!("{}: {note}", status.id));
        }
        self.last_remark = note;
        for phase in &status.phases {
            let now = (phase.phase, phase.state);
            let begun = self.last.is_none_or(|(last, state)| {
                phase.phase > last || (phase.phase == last && phase.state != state)
            });
            let due = phase.state == PhaseState::Running && self.last_printed.elapsed() >= LINE_EVERY;
            if phase.state != PhaseState::Pending && (begun || due) {
                remark(&format!("{}: {:<10} {}", status.id, phase.phase, details(phase)));
                self.last = Some(now);
                self.last_printed = Instant::now();
            }
        }
    }
}

impl Bars {
    /// Leaves the screen as it is.
    fn finish(self) {
        self.note.finish_and_clear();
        self.phases.iter().for_each(|(_, bar)| bar.abandon());
    }

    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let phases = Phase::ALL
            .into_iter()
            .map(|phase| {
                let bar = all.add(ProgressBar::new(1));
                bar.set_prefix(phase.name());
                bar.set_style(style("  {prefix:<10} {msg}"));
                (phase, bar)
            })
            .collect();
        let note = all.add(ProgressBar::new_spinner());
        note.set_style(style("  {msg}"));
        Self { all, phases, note }
    }

    fn show(&mut self, status: &JobStatus, note: String) {
        for ((_, bar), phase) in self.phases.iter().zip(&status.phases) {
            let template = match phase.state {
                PhaseState::Running if phase.total > 0 => "  {prefix:<10} [{bar:24}] {msg}",
                PhaseState::Running | PhaseState::Pending | PhaseState::Done | PhaseState::Failed => {
                    "  {prefix:<10} {msg}"
                }
            };
            bar.set_style(style(template));
            bar.set_length(phase.total.max(1));
            bar.set_position(phase.done.min(phase.total));
            bar.set_message(details(phase));
        }
        self.note.set_message(note);
        if status.state.is_final() {
            self.all.set_move_cursor(false);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn retried(status: &JobStatus) -> Option<String> {
    let last = status.retried.last().filter(|_| !status.state.is_final())?;
    Some(format!("tried again after: {}", last.message.lines().next().unwrap_or_default()))
}

/// What there is to say about a phase.
fn details(phase: &PhaseStatus) -> String {
    let mut parts = Vec::new();
    match phase.state {
        PhaseState::Pending => return "-".to_owned(),
        PhaseState::Failed => parts.push("failed".to_owned()),
        PhaseState::Done => parts.push(format!("done in {}", span(phase.seconds))),
        PhaseState::Running => {}
    }
    let [item, part] = if phase.phase.round().is_some() { ["step", "trial"] } else { ["sample", "shard"] };
    match phase.phase.shape() {
        Shape::Sharded => {
            parts.push(format!("{}/{}", grouped(phase.done), counted(phase.total, item)));
            parts.push(format!(
                "{}/{}",
                grouped(phase.shards_done.into()),
                counted(phase.shards.into(), part)
            ));
        }
        Shape::Gang => parts.push(format!("{}/{}", grouped(phase.done), counted(phase.total, "step"))),
        Shape::Single if phase.state == PhaseState::Running => parts.push(span(phase.seconds)),
        Shape::Single => {}
    }
    if let Some(loss) = phase.loss {
        parts.push(format!("loss {loss:.4}"));
    }
    if phase.samples_per_second > 0.0 {
        parts.push(format!("{} {item}s/s", grouped(phase.samples_per_second as u64)));
    }
    if let (PhaseState::Running, Some(eta)) = (phase.state, phase.eta_seconds) {
        parts.push(format!("{} left", span(eta)));
    }
    parts.join(", ")
}
