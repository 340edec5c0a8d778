//! A job in a folder of its own: its spec, its assignments, and what was stored.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use lethe_domain::{
    ArtifactRef, Assignment, Attempt, DirectionOutput, EditOutput, FineTuneOutput, GangRole, Generation,
    Input, InputRole, Inputs, JobId, JobSpec, JudgeSummary, LeaseId, Phase, Rank, ReportOutput, SampleOutput,
    SampleRange, ShardIndex, Task, TaskOutput,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::Executor;

pub(crate) struct Job {
    pub(crate) spec: Value,
    /// What its files held when it was accepted.
    pub(crate) inputs: Inputs,
    id: String,
    folder: Rc<TempDir>,
    attempt: Cell<u32>,
    /// The edits that its ranks train on.
    pub(crate) pool: RefCell<Vec<ArtifactRef>>,
    /// What the trials of the search before it gave.
    pub(crate) search: RefCell<Vec<ArtifactRef>>,
    /// The furthest step that the coordinator knows of.
    pub(crate) floor: Cell<u64>,
}

/// A model that the crate `models` tests with, or one of `examples/mnist`.
pub(crate) fn fixture(name: &str) -> String {
    repository().join("crates/models/tests/fixtures").join(name).display().to_string()
}

pub(crate) fn mnist(name: &str) -> String {
    repository().join("examples/mnist").join(name).display().to_string()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

impl Job {
    /// A generator of 12x12 pixels with random weights, and a classifier likewise: one image in eight is positive.
    pub(crate) fn tiny() -> Self {
        Self::of(json!({
            "name": "tiny",
            "generator": {"uri": fixture("mlp_1.safetensors"), "format": "safetensors",
                          "latent": {"dimension": 5}, "output": {"range": [0, 1], "channels": 1, "size": 12}},
            "feature": {"name": "zero", "classifier": {"uri": fixture("classifier.pt"), "output": "logits",
                                                        "class": 0, "threshold": 0.134}},
            "sample": {"seed": 7, "shard_size": 200, "batch": 64, "until": {"total": 600}},
            "direction": {"selection": "classifier", "margin": 0.1},
            "pool": {"latents": 500, "shard_size": 200, "batch": 64},
            "unlearn": {"steps": 24, "global_batch": 24, "lr": 0.002},
            "evaluate": {"samples": 300, "shard_size": 200, "batch": 64},
            "checkpoint": {"every": 10, "keep": 2},
        }))
    }

    /// Thick strokes of the example's VAE.
    pub(crate) fn thick() -> Self {
        Self::of(json!({
            "name": "thick-vae",
            "generator": {"uri": mnist("models/vae.safetensors"), "format": "safetensors",
                          "latent": {"dimension": 16}, "output": {"range": [0, 1], "channels": 1, "size": 28}},
            "feature": {"name": "thick", "scorer": {"uri": mnist("models/thickness.pt"),
                                                     "positive": {"top": 0.1}}},
            "sample": {"seed": 1, "shard_size": 200, "batch": 100, "until": {"total": 600}},
            "direction": {"selection": "projection"},
            "pool": {"latents": 500, "shard_size": 200, "batch": 100},
            "unlearn": {"steps": 20, "global_batch": 32},
            "evaluate": {"samples": 400, "shard_size": 200, "batch": 100, "features": mnist("models/features.pt")},
            "checkpoint": {"every": 0, "keep": 1},
        }))
    }

    pub(crate) fn of(spec: Value) -> Self {
        Self {
            spec,
            inputs: Inputs::default(),
            id: "tiny-1".to_owned(),
            folder: Rc::new(tempfile::tempdir().unwrap()),
            attempt: Cell::new(0),
            pool: RefCell::default(),
            search: RefCell::default(),
            floor: Cell::new(0),
        }
    }

    /// As the coordinator accepts it: it knows what the files hold.
    pub(crate) fn accepted(mut self) -> Self {
        let spec = self.parsed();
        let files = spec.files();
        let sidecar = format!("{}.json", spec.generator.uri);
        let roles = files.iter().map(|(key, uri)| (InputRole::of_key(key).unwrap(), *uri));
        self.inputs.0 = roles
            .chain([(InputRole::Sidecar, sidecar.as_str())])
            .map(|(role, uri)| {
                let bytes = fs::read(uri).unwrap();
                let sha256 = lethe_artifacts::Digest::of(&bytes).to_string();
                (role, Input { uri: uri.to_owned(), sha256, size: bytes.len() as u64 })
            })
            .collect();
        self
    }

    /// Another job like it, of the same artifact root.
    pub(crate) fn another(&self, id: &str) -> Self {
        let (spec, inputs, folder) = (self.spec.clone(), self.inputs.clone(), Rc::clone(&self.folder));
        Self { inputs, id: id.to_owned(), folder, ..Self::of(spec) }
    }

    /// Changes the spec: `set("unlearn.lr", 0.1)`.
    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        let mut at = &mut self.spec;
        for part in key.split('.') {
            at = at.as_object_mut().unwrap().entry(part).or_insert_with(|| json!({}));
        }
        *at = value.into();
        self
    }

    pub(crate) fn parsed(&self) -> JobSpec {
        JobSpec::from_value(self.spec.clone()).unwrap()
    }

    /// The artifact root.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("artifacts")
    }

    /// A folder for whatever else the test needs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path below the artifact root.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// The job's own files that are there, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(&self.root(), &mut found);
        let root = self.root();
        let mut names: Vec<String> =
            found.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect();
        names.sort();
        names
    }

    pub(crate) fn assignment(&self, shard: u32, task: Task) -> Assignment {
        self.attempt.set(self.attempt.get() + 1);
        self.attempt_of(shard, self.attempt.get(), task)
    }

    fn attempt_of(&self, shard: u32, attempt: u32, task: Task) -> Assignment {
        let lease = LeaseId {
            job: JobId::new(&*self.id).unwrap(),
            phase: task.phase(),
            shard: ShardIndex(shard),
            attempt: Attempt(attempt),
        };
        let artifacts = format!("file://{}", self.root().display());
        Assignment { lease, spec: self.parsed(), inputs: self.inputs.clone(), artifacts, task }
    }

    pub(crate) fn probe(&self) -> Assignment {
        self.assignment(0, Task::Probe)
    }

    /// The ranges of all shards of a phase.
    pub(crate) fn shards(&self, phase: Phase) -> Vec<SampleRange> {
        let spec = self.parsed();
        let portions = phase.portions(&spec);
        portions.cut(SampleRange { start: 0, count: portions.samples }).map(|(_, range)| range).collect()
    }

    /// Every sample shard, in order.
    pub(crate) fn sample(&self, executor: &mut Executor) -> Vec<ArtifactRef> {
        self.shards(Phase::Sample)
            .into_iter()
            .zip(0..)
            .map(|(range, shard)| self.sample_shard(executor, range, shard).scores)
            .collect()
    }

    pub(crate) fn sample_shard(
        &self,
        executor: &mut Executor,
        range: SampleRange,
        shard: u32,
    ) -> SampleOutput {
        match executor.run(&self.assignment(shard, Task::Sample { range })) {
            TaskOutput::Sample(output) => output,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn direction(&self, executor: &mut Executor, scores: Vec<ArtifactRef>) -> DirectionOutput {
        match executor.run(&self.assignment(0, Task::Direction { scores })) {
            TaskOutput::Direction(output) => output,
            other => panic!("{other:?}"),
        }
    }

    /// Every shard of the pool, in order: what ranks train on from now on.
    pub(crate) fn edit(&self, executor: &mut Executor, target: &ArtifactRef) {
        let edit = |(range, shard)| self.edit_shard(executor, target, range, shard).pool;
        let pool = self.shards(Phase::Edit).into_iter().zip(0..).map(edit).collect();
        self.pool.replace(pool);
    }

    pub(crate) fn edit_shard(
        &self,
        executor: &mut Executor,
        target: &ArtifactRef,
        range: SampleRange,
        shard: u32,
    ) -> EditOutput {
        match executor.run(&self.assignment(shard, Task::Edit { range, target: target.clone() })) {
            TaskOutput::Edit(output) => output,
            other => panic!("{other:?}"),
        }
    }

    /// Sampling, direction and edits: the target.
    pub(crate) fn target(&self, executor: &mut Executor) -> ArtifactRef {
        let scores = self.sample(executor);
        let target = self.direction(executor, scores).target;
        self.edit(executor, &target);
        target
    }

    pub(crate) fn rank(
        &self,
        target: &ArtifactRef,
        generation: u32,
        rank: u32,
        world: u32,
        store: Option<String>,
    ) -> Assignment {
        let (generation_id, floor) = (Generation(generation), self.floor.get());
        let role = GangRole { generation: generation_id, rank: Rank(rank), world, store, floor };
        let (target, pool) = (target.clone(), self.pool.borrow().clone());
        let search = self.search.borrow().clone();
        self.attempt_of(rank, generation, Task::FineTune { target, pool, search, role })
    }

    /// Starts a gang; the assignments are those of the ranks.
    pub(crate) fn begin_gang(
        &self,
        executors: &mut [Executor],
        target: &ArtifactRef,
        generation: u32,
    ) -> Vec<Assignment> {
        let world = executors.len() as u32;
        let first = self.rank(target, generation, 0, world, None);
        executors[0].begin(&first);
        let mut all = vec![first];
        if world > 1 {
            let address = executors[0].store_open(&all[0].lease);
            for rank in 1..world {
                let assignment = self.rank(target, generation, rank, world, Some(address.clone()));
                executors[rank as usize].begin(&assignment);
                all.push(assignment);
            }
        }
        all
    }

    /// Waits for the end of a gang that trains to the end.
    pub(crate) fn trained(&self, executors: &mut [Executor], leases: &[Assignment]) -> FineTuneOutput {
        let mut output = None;
        for (executor, assignment) in executors.iter_mut().zip(leases) {
            match executor.end(&assignment.lease) {
                Ok(TaskOutput::FineTune(Some(trained))) => {
                    assert_eq!(assignment.lease.shard.0, 0, "only rank 0 reports");
                    output = Some(trained);
                }
                Ok(TaskOutput::FineTune(None)) => assert_ne!(assignment.lease.shard.0, 0),
                other => panic!("{other:?}; the log:\n{}", executor.log()),
            }
        }
        output.expect("rank 0 reports")
    }

    /// Trains to the end with these executors.
    pub(crate) fn train(
        &self,
        executors: &mut [Executor],
        target: &ArtifactRef,
        generation: u32,
    ) -> FineTuneOutput {
        let leases = self.begin_gang(executors, target, generation);
        self.trained(executors, &leases)
    }

    /// The losses of an output, checked to be numbered 1, 2, ...
    pub(crate) fn curve(&self, output: &FineTuneOutput) -> Vec<f64> {
        let text = fs::read(self.file(&output.curve.path)).unwrap();
        let steps: Vec<(u64, f64)> = serde_json::from_slice(&text).unwrap();
        assert!(steps.iter().zip(1..).all(|((step, _), expected)| *step == expected), "{steps:?}");
        assert_eq!(steps.len() as u64, output.steps);
        steps.into_iter().map(|(_, loss)| loss).collect()
    }

    /// Puts a file below the artifact root.
    pub(crate) fn store(&self, path: &str, bytes: Vec<u8>) -> ArtifactRef {
        let file = self.file(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let sha256 = lethe_artifacts::Digest::of(&bytes).to_string();
        fs::write(file, &bytes).unwrap();
        ArtifactRef { path: path.to_owned(), sha256, size: bytes.len() as u64 }
    }

    /// An f64 tensor of a stored file.
    pub(crate) fn numbers(&self, artifact: &ArtifactRef, name: &str) -> Vec<f64> {
        let bytes = fs::read(self.file(&artifact.path)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let data = tensors.tensor(name).unwrap();
        data.data().chunks_exact(8).map(|chunk| f64::from_le_bytes(chunk.try_into().unwrap())).collect()
    }
}

/// A report of nothing, for tasks that only pass it on.
pub(crate) fn no_report() -> ReportOutput {
    let judge = JudgeSummary {
        uri: "judge.pt".to_owned(),
        sha256: "00".repeat(32),
        others: vec![],
        same_as_labeller: false,
    };
    ReportOutput { figures: Vec::new(), warnings: Vec::new(), judge, advice: None }
}
