//! How long training waits for a snapshot, measured: the loop of training with a model whose checkpoint is about 140 MB.
//!
//! Not here: what it is compared with.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lethe_artifacts::{Digest, Header};
use lethe_collective::Group;
use lethe_domain::{Cut, EditMethod, Inputs, JobSpec, spec};
use lethe_models::{Target, Tensors};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::super::edit;
use super::buffers::Buffers;
use super::saver::{Saver, Snapshot};
use super::trainer::Trainer;
use crate::error::{Error, Result};
use crate::link::Wishes;
use crate::models::Models;
use crate::serve::runtime;
use crate::storage::Storage;

const LATENT: i64 = 64;
/// With Adam's two moments and the average a checkpoint holds 4 * 4 bytes for each of the 8.7 million parameters.
const HIDDEN: [i64; 2] = [2560, 2560];
const SIDE: i64 = 28;
/// Of an image that shows something and of one that does not: here it does not matter which.
const JOB: &str = "checkpoint-stall";

/// Trains `count * every` steps without checkpoints and as many with one every `every`; the model lies in `folder`.
///
/// # Errors
/// Those of models and storage.
pub(crate) fn measure(folder: &Path, artifacts: &str, count: u64, every: u64, on: Device) -> Result<Value> {
    let runtime = runtime()?;
    let storage = Storage::open(runtime.handle(), artifacts)?;
    let spec = job(folder)?;
    let (mut models, inputs) = (Models::default(), Inputs::default());
    let original = models.original(&spec.generator, &inputs, on)?;
    let editor = edit::editor(&spec, &target(), &inputs, &mut models, on)?;
    let pool = edit::small_pool(&spec, &original, &editor, spec.pool.batch)?;
    let mut trainer = Trainer::new(&spec, &target(), pool, original, None, Group::loopback())?;
    for _ in 0..every.min(5) {
        trainer.step(Wishes::default())?;
    }
    let quiet = steps(&mut trainer, count * every, |_, _| Ok(()))?;

    let (generator, training) = <(Buffers, Buffers)>::default();
    generator.prepare(&trainer.weights())?;
    training.prepare(&trainer.optimiser())?;
    let mut saver = Saver::to(storage.clone(), JOB, spec.checkpoint)?;
    let (mut stalls, mut left_out) = (Vec::new(), 0);
    let saving = steps(&mut trainer, count * every, |trainer, step| {
        saver.check();
        if !step.is_multiple_of(every) {
            return Ok(());
        }
        if !saver.has_room(step) {
            left_out += 1;
            return Ok(());
        }
        let begun = Instant::now();
        let header = Header { step, ..Header::default() };
        let (generator, training) =
            (generator.copy(&trainer.weights())?, training.copy(&trainer.optimiser())?);
        saver.offer(Snapshot { header, generator, training });
        stalls.push(begun.elapsed());
        Ok(())
    })?;
    saver.settle()?;
    let checkpoints = storage.checkpoints(JOB);
    let latest = storage.wait(checkpoints.latest_valid())?.checkpoint;
    let latest = latest.ok_or_else(|| Error::internal("no checkpoint was written"))?;
    let bytes: u64 = latest.manifest.files.iter().map(|file| file.size).sum();
    let per_second = |times: &[Duration]| times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(json!({
        "benchmark": "checkpoint_stall",
        "checkpoint_bytes": bytes,
        "checkpoint_stall_ms": milliseconds(stalls.iter().copied().max().unwrap_or_default()),
        "checkpoint_stall_ms_median": milliseconds(median(&stalls)),
        "checkpoints": stalls.len(),
        "checkpoints_left_out": left_out,
        "step_ms_median_without": milliseconds(median(&quiet)),
        "step_ms_median_with": milliseconds(median(&saving)),
        "steps_per_second_without": per_second(&quiet),
        "steps_per_second_with": per_second(&saving),
        "compared": "the same training on the same machine, first without checkpoints, then with them: the stall is \
                     the time that a step waits for the copy and for handing it over",
    }))
}

/// The time of each step, with what is done `after` it.
fn steps(
    trainer: &mut Trainer,
    count: u64,
    mut after: impl FnMut(&Trainer, u64) -> Result<()>,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for step in 1..=count {
        let begun = Instant::now();
        trainer.step(Wishes::default())?;
        after(trainer, step)?;
        times.push(begun.elapsed());
    }
    trainer.given()?;
    Ok(times)
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A job whose generator has random weights.
fn job(folder: &Path) -> Result<JobSpec> {
    let sides = [LATENT, HIDDEN[0], HIDDEN[1], SIDE * SIDE];
    let mut weights = Tensors::new("random weights");
    for (layer, pair) in sides.windows(2).enumerate() {
        let random = Tensor::f_randn([pair[1], pair[0]], (Kind::Float, Device::Cpu))?.f_mul_scalar(0.02)?;
        weights.insert(format!("layers.{layer}.weight"), &random);
        weights
            .insert(format!("layers.{layer}.bias"), &Tensor::f_zeros([pair[1]], (Kind::Float, Device::Cpu))?);
    }
    let bytes = weights.to_bytes()?;
    let sidecar = json!({
        "schema_version": 1, "kind": "generator", "format": "safetensors",
        "architecture": {"name": "mlp_decoder", "latent": LATENT, "hidden": HIDDEN, "activation": "relu",
                         "output": "sigmoid", "shape": [1, SIDE, SIDE]},
        "latent": {"shape": [LATENT], "prior": "normal"},
        "output": {"range": [0.0, 1.0], "channels": 1, "height": SIDE, "width": SIDE},
        "sha256": Digest::of(&bytes).to_string(),
    });
    let file = folder.join("generator.safetensors");
    let write = |path: &Path, bytes: &[u8]| {
        let failed = |source| lethe_models::Error::Read { file: path.display().to_string(), source };
        fs::write(path, bytes).map_err(failed)
    };
    write(&file, &bytes)?;
    write(&folder.join("generator.safetensors.json"), sidecar.to_string().as_bytes())?;
    let spec = json!({
        "name": JOB,
        "generator": {"uri": file.display().to_string(), "format": "safetensors", "latent": {"dimension": LATENT},
                      "output": {"range": [0, 1], "channels": 1, "size": SIDE}},
        // Nobody labels anything: the target is given.
        "feature": {"name": "none", "scorer": {"uri": "none.pt", "positive": {"above": 0}}},
        "direction": {"selection": "projection"},
        "unlearn": {"steps": 1_000_000, "global_batch": 32, "micro_batches": 1},
    });
    let mut spec = JobSpec::from_value(spec)
        .map_err(|error| Error::internal(format!("the benchmark's job: {error}")))?;
    spec.checkpoint = spec::Checkpoint { keep: 2, ..spec::Checkpoint::default() };
    Ok(spec)
}

/// One that edits about half of the latents.
fn target() -> Target {
    let mut unit = vec![0.0; LATENT as usize];
    unit[0] = 1.0;
    Target {
        unit,
        shape: vec![LATENT],
        raw_norm: 1.0,
        threshold: 0.0,
        cut: Cut { sign: 1.0, threshold: 0.0 },
        select: 0.0,
        goal: 0.0,
        method: EditMethod::Projection,
        student: None,
        surrogate: None,
        metric: None,
        score_deviation: 1.0,
        latent_deviation: 1.0,
        lr: 1e-3,
        samples: 2,
        positives: 1,
        edited_share: 0.5,
        heldout_auc: 0.5,
    }
}
