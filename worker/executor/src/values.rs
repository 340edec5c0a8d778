//! What a device computes, written down: to be compared with what another one does (tests/gpu).
//!
//! Not here: the comparison.

use std::fs;
use std::path::PathBuf;

use lethe_collective::Group;
use lethe_domain::{Inputs, canary as expected};
use lethe_models::{Latents, Stream, Tensors};
use serde_json::json;
use tch::Kind;

use crate::bench::{print, read, read_target, unwritable};
use crate::device::{self, DeviceSettings};
use crate::error::{Error, Result};
use crate::link::Wishes;
use crate::models::Models;
use crate::phase::edit;
use crate::phase::fine_tune::trainer::Trainer;
use crate::{canary, verdict};

#[derive(Debug, clap::Args)]
pub(crate) struct Values {
    /// A job spec.
    job: PathBuf,
    /// A target vector, as the direction phase writes it.
    #[arg(long)]
    target: PathBuf,
    /// Where the values go, a safetensors file.
    #[arg(long)]
    out: PathBuf,
    /// Latents that are looked at.
    #[arg(long, default_value_t = 64)]
    count: u64,
    /// Latents that are labelled and edited for training.
    #[arg(long, default_value_t = 1000)]
    pool: u64,
    /// Steps of training.
    #[arg(long, default_value_t = 20)]
    steps: u64,
    /// How many looks of a guided edit between asking the device which searches are over.
    #[arg(long)]
    looks_per_sync: Option<usize>,
}

/// Writes canary, latents, images, scores, edits, the gradients of the first step, the losses of some, and the weights after them.
///
/// # Errors
/// Those of the models; a canary that sings wrong.
pub(crate) fn write(args: &Values, settings: DeviceSettings) -> Result<()> {
    device::open(settings)?;
    let on = settings.device;
    let mut values = Tensors::new("values");
    let song = canary::sing(on, &[])?;
    expected::check(&song).map_err(Error::internal)?;
    values.insert("canary", &tch::Tensor::from_slice(&song));

    let (spec, target) = (read(&args.job)?, read_target(&args.target)?);
    let mut models = Models::default();
    let original = models.original(&spec.generator, &Inputs::default(), on)?;
    let judge = verdict::looking_labeller(&spec);
    let judge = judge.ok_or_else(|| Error::internal("the job's labels come from a file"))?;
    let labeller = models.labeller(&judge, &Inputs::default(), on)?;
    let latents = Latents::new(spec.sample.seed, &spec.generator);
    let z = latents.batch(Stream::Sample, 0, args.count, on)?;
    let images = original.generator.forward(&z)?;
    values.insert("latents", &z);
    values.insert("images", &images);
    values.insert("copy.images", &original.file.trainable(on)?.forward(&z)?);
    let scores = labeller.scores(&original.generator.to_unit(&images)?)?;
    values.insert("scores", &tch::Tensor::from_slice(&scores));

    let z = latents.batch(Stream::Train, 0, args.count, on)?;
    let mut editor = edit::editor(&spec, &target, &Inputs::default(), &mut models, on)?;
    if let Some(looks) = args.looks_per_sync {
        editor.set_looks_per_sync(looks);
    }
    let edited = editor.edit(&original.generator, &z)?;
    values.insert("edited.latents", &edited.latents);
    values.insert("edited.images", &original.generator.forward(&edited.latents)?);
    values.insert("edited.scores", &edited.scores);
    values.insert("edited.places", &edited.places);
    values.insert("edited.unresolved", &edited.unresolved.f_to_kind(Kind::Int64)?);

    let pool = edit::small_pool(&spec, &original, &editor, args.pool)?;
    let mut trainer = Trainer::new(&spec, &target, pool, original, None, Group::loopback())?;
    for step in 0..args.steps {
        trainer.step(Wishes::default())?;
        if step == 0 {
            for (name, weight) in trainer.weights().iter().filter(|(_, weight)| weight.grad().defined()) {
                values.insert(format!("gradient.{name}"), &weight.grad());
            }
        }
    }
    values.insert("losses", &tch::Tensor::from_slice(&trainer.given()?));
    values.nest("weight", trainer.weights());
    fs::write(&args.out, values.to_bytes()?).map_err(|source| unwritable(&args.out, source))?;
    print(&json!({"device": device::label(on), "tensors": values.len(), "edited": edited.count()}))
}
