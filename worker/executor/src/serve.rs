//! One task after another: each gets a fresh ceiling of memory, and its end is told exactly once. A panic is the failure of
//! its task; then the process ends, for nobody knows what it left behind, and the agent starts another.

use std::time::{SystemTime, UNIX_EPOCH};

use lethe_domain::{Assignment, Failure, Task, TaskOutput};
use lethe_proto::LeaseOutcome;
use lethe_proto::executor::ExecutorEvent;
use tch::Device;
use tokio::runtime::{Builder, Runtime};

use crate::chaos::{Chaos, Pace};
use crate::device::{Arithmetic, DeviceSettings};
use crate::error::{Error, Result};
use crate::link::{self, Events, Order};
use crate::models::Models;
use crate::phase::fine_tune::{GangSettings, ResidentState};
use crate::storage::Storage;
use crate::work::{Speaker, Work};
use crate::{canary, device, memory, phase};

/// What Rust's own panics end a process with.
const PANICKED: i32 = 101;

/// A slot between tasks.
struct Slot {
    device: Device,
    threads: u32,
    tf32: bool,
    runtime: Runtime,
    /// The artifact root of the last task: opening one writes a probe.
    storage: Option<(String, Storage)>,
    models: Models,
    resident: Option<ResidentState>,
    gang: GangSettings,
    pace: Pace,
    events: Events,
}

/// How this slot is set up.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Which slot of the worker, for the log.
    pub(crate) slot: u32,
    pub(crate) device: DeviceSettings,
    pub(crate) gang: GangSettings,
    /// Faults to be made on purpose.
    pub(crate) chaos: Vec<Chaos>,
}

/// Serves the agent until it is gone, which ends the process.
///
/// # Errors
/// Those of starting up; nothing was said to the agent then.
pub(crate) fn serve(settings: Settings) -> Result<()> {
    let Settings { slot, device: settings, gang, chaos } = settings;
    let (events, orders) = link::connect()?;
    device::open(settings)?;
    let DeviceSettings { device, threads, tf32 } = settings;
    let canary = canary::sing(device, &chaos)?;
    let mut slot = {
        tracing::info!(slot, device = device::label(device), threads, "ready");
        Slot {
            device,
            threads,
            tf32,
            runtime: runtime()?,
            storage: None,
            models: Models::default(),
            resident: None,
            gang,
            pace: Pace::of(&chaos),
            events: events.clone(),
        }
    };
    let torch = lethe_models::torch_version().to_owned();
    events.send(ExecutorEvent::Ready { device: device::label(device), torch, canary });
    for order in orders {
        let lease = order.assignment.lease.clone();
        let span = tracing::info_span!("lease", %lease).entered();
        let done = lethe_process::caught(|| slot.perform(order));
        let panicked = done.is_err();
        let panic = |message| Err(Error::internal(format!("lethe-executor panicked: {message}")));
        let outcome = done.unwrap_or_else(panic).map_err(failed_now);
        if let Err(failure) = &outcome {
            tracing::warn!("{failure}; {}", failure.hint);
        }
        drop(span);
        memory::give_back();
        // What there was to say about a lease is said before its end is.
        lethe_process::flush(link::LAST_WORDS);
        events.send(ExecutorEvent::Finished(Box::new(LeaseOutcome { lease, outcome })));
        if panicked {
            link::end(PANICKED);
        }
    }
    Ok(())
}

/// For storage: one thread that drives, and threads that wait for disks as they are needed.
///
/// # Errors
/// [`Error::System`].
pub(crate) fn runtime() -> Result<Runtime> {
    let built = Builder::new_multi_thread().worker_threads(1).thread_name("storage").enable_all().build();
    built.map_err(|source| Error::System { what: "threads cannot be started", source })
}

fn failed_now(error: Error) -> Failure {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Failure { at_unix_ms: now.as_millis() as u64, ..Failure::from(error) }
}

impl Slot {
    fn perform(&mut self, order: Order) -> Result<TaskOutput> {
        let Order { assignment, stop, yielding } = order;
        stop.check()?;
        let Assignment { lease, spec, inputs, artifacts, task } = *assignment;
        // Before anything else takes memory.
        self.resident.take_if(|kept| !kept.survives(&lease, &task));
        let device = device::choose(spec.resources.device, self.device)?;
        let threads = if spec.resources.threads > 0 { spec.resources.threads } else { self.threads };
        tch::set_num_threads(i32::try_from(threads).unwrap_or(1));
        if matches!(self.device, Device::Cpu) {
            memory::set_ceiling();
        }
        if matches!(task, Task::Probe) {
            // It is there to find out whether the place can be written to now.
            self.storage = None;
        }
        let storage = self.storage(&artifacts)?;
        let speaker = Speaker::new(self.events.clone());
        let mut work = Work {
            lease,
            spec,
            inputs,
            device,
            arithmetic: Arithmetic::of(device, threads, self.tf32),
            storage,
            models: &mut self.models,
            resident: &mut self.resident,
            gang: &self.gang,
            stop,
            yielding,
            pace: self.pace,
            speaker,
        };
        phase::run(task, &mut work)
    }

    fn storage(&mut self, uri: &str) -> Result<Storage> {
        match &self.storage {
            Some((known, storage)) if known == uri => Ok(storage.clone()),
            _ => {
                let storage = Storage::open(self.runtime.handle(), uri)?;
                self.storage = Some((uri.to_owned(), storage.clone()));
                Ok(storage)
            }
        }
    }
}
