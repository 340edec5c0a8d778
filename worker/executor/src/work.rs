//! One lease at work: what it is about, and everything it may use.

use std::rc::Rc;
use std::time::{Duration, Instant};

use lethe_domain::{ArtifactRef, Inputs, JobSpec, LeaseId, Progress};
use lethe_models::{Classes, Features, Labeller, Latents, Reference, Target};
use lethe_proto::executor::ExecutorEvent;
use tch::Device;

use crate::chaos::Pace;
use crate::device::Arithmetic;
use crate::error::Result;
use crate::link::{Events, Stop, Yielding};
use crate::models::{Models, Original};
use crate::phase::fine_tune::{GangSettings, ResidentState};
use crate::storage::Storage;
use crate::verdict::{self, Judge};

/// Between two words about progress: five a second are enough to look at.
const QUIET: Duration = Duration::from_millis(200);

/// A lease, and what its work may use.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) lease: LeaseId,
    pub(crate) spec: JobSpec,
    /// What the files it reads held when the job was accepted.
    pub(crate) inputs: Inputs,
    pub(crate) device: Device,
    /// What decides the bits of what is computed there.
    pub(crate) arithmetic: Arithmetic,
    pub(crate) storage: Storage,
    pub(crate) models: &'a mut Models,
    /// Where the training of a job stood when its last gang ended.
    pub(crate) resident: &'a mut Option<ResidentState>,
    pub(crate) gang: &'a GangSettings,
    pub(crate) stop: Stop,
    pub(crate) yielding: Yielding,
    pub(crate) pace: Pace,
    pub(crate) speaker: Speaker,
}

impl Work<'_> {
    /// The job's latents.
    pub(crate) fn latents(&self) -> Latents {
        Latents::new(self.spec.sample.seed, &self.spec.generator)
    }

    /// A path of the job's own, below the artifact root.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("jobs/{}/{name}", self.lease.job)
    }

    /// The path of what this lease gives for a shard, in the folder of its phase, which goes when the job is over: another
    /// lease's has another name, so none is overwritten.
    pub(crate) fn shard_path(&self, shard: u64) -> String {
        self.shard_file(shard, "safetensors")
    }

    /// The same for a file of another kind.
    pub(crate) fn shard_file(&self, shard: u64, end: &str) -> String {
        let folder = self.lease.phase;
        let (first, attempt) = (u64::from(self.lease.shard.0), self.lease.attempt);
        let among = if shard == first { String::new() } else { format!("-of-{first:05}") };
        self.path(&format!("{folder}/shard-{shard:05}-a{}{among}.{end}", attempt.0))
    }

    /// # Errors
    /// As [`Models::original`].
    pub(crate) fn original(&mut self) -> Result<Rc<Original>> {
        self.models.original(&self.spec.generator, &self.inputs, self.device)
    }

    /// # Errors
    /// As [`Models::labeller`].
    pub(crate) fn labeller(&mut self, judge: &Judge) -> Result<Rc<Labeller>> {
        self.models.labeller(judge, &self.inputs, self.device)
    }

    /// Whose classes should stay, if there is anybody.
    ///
    /// # Errors
    /// As [`Models::classes`].
    pub(crate) fn classes(&mut self) -> Result<Option<Rc<Classes>>> {
        let classes = verdict::classes(&self.spec);
        classes.map(|classes| self.models.classes(&classes, &self.inputs, self.device)).transpose()
    }

    /// The feature space, if the spec names one.
    ///
    /// # Errors
    /// As [`Models::features`].
    pub(crate) fn features(&mut self) -> Result<Option<Rc<Features>>> {
        let uri = self.spec.evaluate.features.as_deref();
        uri.map(|uri| self.models.features(uri, &self.inputs, self.device)).transpose()
    }

    /// Images that somebody says show the feature, if the spec names some.
    ///
    /// # Errors
    /// As [`Models::calibration`].
    pub(crate) fn calibration(&mut self) -> Result<Option<Rc<Reference>>> {
        let (calibration, shape) =
            (self.spec.direction.calibration.as_ref(), self.spec.generator.output.shape());
        calibration.map(|spec| self.models.calibration(spec, &self.inputs, shape)).transpose()
    }

    /// # Errors
    /// As [`Storage::get`] and [`Target::from_bytes`].
    pub(crate) fn target(&mut self, target: &ArtifactRef) -> Result<Rc<Target>> {
        let storage = self.storage.clone();
        self.models.target(target, || Ok(Target::from_bytes(&storage.get(target)?, &target.path)?))
    }

    /// Between two batches: whether to go on, and a word about how far it is.
    ///
    /// # Errors
    /// [`crate::error::Error::Stopped`].
    pub(crate) fn step(&mut self, done: u64, total: u64) -> Result<()> {
        self.stop.check()?;
        self.pace.keep(&self.stop)?;
        self.speaker.progress(&self.lease, done, total, done, None);
        Ok(())
    }
}

/// Tells the agent how far the work is, not too often.
#[derive(Debug)]
pub(crate) struct Speaker {
    events: Events,
    begun: Instant,
    said: Option<Instant>,
}

impl Speaker {
    /// For work that begins now.
    pub(crate) fn new(events: Events) -> Self {
        Self { events, begun: Instant::now(), said: None }
    }

    /// From now on the speed counts: what came before was loading.
    pub(crate) fn begin(&mut self) {
        self.begun = Instant::now();
    }

    /// Seconds since the work began.
    pub(crate) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Says it, unless something was said just now. `samples` are those done since the work began.
    pub(crate) fn progress(
        &mut self,
        lease: &LeaseId,
        done: u64,
        total: u64,
        samples: u64,
        loss: Option<f64>,
    ) {
        if self.said.is_some_and(|said| said.elapsed() < QUIET) {
            return;
        }
        self.said = Some(Instant::now());
        let samples_per_second = samples as f64 / self.seconds().max(1e-9);
        let lease = lease.clone();
        self.events.send(ExecutorEvent::Progress(Progress { lease, done, total, samples_per_second, loss }));
    }

    /// Says where the ranks of a gang meet.
    pub(crate) fn store_open(&self, lease: &LeaseId, address: &str) {
        let (lease, address) = (lease.clone(), address.to_owned());
        self.events.send(ExecutorEvent::StoreOpen { lease, address });
    }
}
