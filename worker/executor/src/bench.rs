//! The hot loops by themselves, for measuring: `bench-train` and `bench-sample` print one JSON line each.
//!
//! Nothing is stored and nobody is asked. Not here: what they are compared with (tests/bench).

use std::env;
use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lethe_collective::{Abort, Backend, Group, GroupOptions, Place, Store};
use lethe_domain::{Inputs, JobSpec, SampleRange};
use lethe_models::{Latents, Target};
use serde_json::{Value, json};
use tch::Device;

use crate::device::DeviceSettings;
use crate::error::{Error, Result};
use crate::link::Wishes;
use crate::models::Models;
use crate::phase::edit;
use crate::phase::fine_tune::stall;
use crate::phase::fine_tune::trainer::Trainer;
use crate::phase::sample::score;
use crate::{device, verdict};

/// How long ranks wait for each other.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Train {
    /// A job spec.
    job: PathBuf,
    /// A target vector, as the direction phase writes it.
    #[arg(long)]
    target: PathBuf,
    /// Processes that train together.
    #[arg(long, default_value_t = 1)]
    ranks: usize,
    /// Steps that are measured.
    #[arg(long, default_value_t = 100)]
    steps: u64,
    /// Steps before that.
    #[arg(long, default_value_t = 10)]
    warmup: u64,
    /// Join a group with one rank too, instead of a loopback.
    #[arg(long)]
    join: bool,
    /// Have all ranks share the device. NCCL refuses that, unless it is told that each rank is on a machine of its own.
    #[arg(long)]
    share: bool,
    /// Latents that are labelled and edited before that, by every rank.
    #[arg(long, default_value_t = 1000)]
    pool: u64,
    /// How many looks of a guided edit between asking the device which searches are over.
    #[arg(long)]
    looks_per_sync: Option<usize>,
    /// Where rank 0 writes the weights, a safetensors file.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// RANK@HOST:PORT: be one of the ranks. Given by the process that starts them.
    #[arg(long, hide = true)]
    seat: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Sample {
    /// A job spec.
    job: PathBuf,
    /// Samples that are measured.
    #[arg(long, default_value_t = 5000)]
    count: u64,
    /// Samples before that.
    #[arg(long, default_value_t = 500)]
    warmup: u64,
}

/// Trains with one process per rank; rank 0 prints `{"ranks", "steps", "seconds", "steps_per_second", "samples_per_second",
/// "loss_first", "loss_last", "edit_seconds"}`.
///
/// # Errors
/// Those of the models and of the gang.
pub(crate) fn train(args: &Train, settings: DeviceSettings) -> Result<()> {
    let Some(seat) = &args.seat else { return start_ranks(args) };
    let wrong = || Error::internal(format!("--seat {seat}: expected RANK@HOST:PORT"));
    let (rank, address) = seat.split_once('@').ok_or_else(wrong)?;
    let place = Place { rank: rank.parse().map_err(|_| wrong())?, world: args.ranks, generation: 1 };
    device::open(settings)?;
    let DeviceSettings { device: on, threads, .. } = settings;
    let spec = read(&args.job)?;
    let target = read_target(&args.target)?;
    let mut models = Models::default();
    let original = models.original(&spec.generator, &Inputs::default(), on)?;
    let mut editor = edit::editor(&spec, &target, &Inputs::default(), &mut models, on)?;
    if let Some(looks) = args.looks_per_sync {
        editor.set_looks_per_sync(looks);
    }
    let begun = Instant::now();
    let pool = edit::small_pool(&spec, &original, &editor, args.pool)?;
    let edit_seconds = begun.elapsed().as_secs_f64();
    let group = if args.ranks == 1 && !args.join {
        Group::loopback()
    } else {
        let backend = match on {
            Device::Cuda(device) => Backend::Nccl { device },
            _ => Backend::Gloo,
        };
        Group::join(
            &Store::connect(address, PATIENCE, &Abort::new())?,
            backend,
            place,
            GroupOptions::default(),
        )?
    };
    let mut trainer = Trainer::new(&spec, &target, pool, original, None, group)?;
    for _ in 0..args.warmup {
        trainer.step(Wishes::default())?;
    }
    let mut losses = trainer.given()?;
    let begun = Instant::now();
    for _ in 0..args.steps {
        trainer.step(Wishes::default())?;
    }
    losses.extend(trainer.given()?);
    let seconds = begun.elapsed().as_secs_f64();
    trainer.group().barrier()?;
    if place.rank > 0 {
        return Ok(());
    }
    if let Some(file) = &args.weights {
        fs::write(file, trainer.weights().to_bytes()?).map_err(|source| unwritable(file, source))?;
    }
    print(&json!({
        "ranks": args.ranks,
        "threads": threads,
        "steps": args.steps,
        "seconds": seconds,
        "steps_per_second": args.steps as f64 / seconds,
        "samples_per_second": (args.steps * spec.unlearn.global_batch) as f64 / seconds,
        "loss_first": losses.first(),
        "loss_last": losses.last(),
        "edit_seconds": edit_seconds,
    }))
}

/// This program again, once per rank, around a store that is served here.
fn start_ranks(args: &Train) -> Result<()> {
    let store = Store::serve("127.0.0.1", PATIENCE)?;
    let system = |source| Error::System { what: "a rank cannot be started", source };
    let program = env::current_exe().map_err(system)?;
    let start = |rank: usize| {
        Command::new(&program)
            .args(env::args_os().skip(1))
            .args(["--seat", &format!("{rank}@{}", store.address())])
            .envs(args.share.then(|| ("NCCL_HOSTID", format!("rank-{rank}"))))
            .stdin(Stdio::null())
            .spawn()
            .map_err(system)
    };
    let ranks: Vec<Child> = (0..args.ranks).map(start).collect::<Result<_>>()?;
    let mut failed = 0;
    for mut rank in ranks {
        failed += u32::from(!rank.wait().map_err(system)?.success());
    }
    if failed == 0 { Ok(()) } else { Err(Error::internal(format!("{failed} ranks failed: see above"))) }
}

/// Generates and scores; prints `{"samples", "seconds", "samples_per_second", "mean_score"}`.
///
/// # Errors
/// Those of the models.
pub(crate) fn sample(args: &Sample, settings: DeviceSettings) -> Result<()> {
    device::open(settings)?;
    let DeviceSettings { device: on, threads, .. } = settings;
    let spec = read(&args.job)?;
    let mut models = Models::default();
    let judge = verdict::looking_labeller(&spec);
    let judge = judge.ok_or_else(|| Error::internal("the job's labels come from a file"))?;
    let inputs = Inputs::default();
    let original = models.original(&spec.generator, &inputs, on)?;
    let labeller = models.labeller(&judge, &inputs, on)?;
    let latents = Latents::new(spec.sample.seed, &spec.generator);
    let run = |start, count| {
        let range = SampleRange { start, count };
        score(&original, &labeller, &latents, range, spec.sample.batch, |_| Ok(()))
    };
    run(0, args.warmup)?;
    let begun = Instant::now();
    let scores = run(args.warmup, args.count)?.scores.together;
    let seconds = begun.elapsed().as_secs_f64();
    print(&json!({
        "threads": threads,
        "samples": args.count,
        "seconds": seconds,
        "samples_per_second": args.count as f64 / seconds,
        "mean_score": scores.iter().sum::<f64>() / scores.len().max(1) as f64,
    }))
}

#[derive(Debug, clap::Args)]
pub(crate) struct Checkpoint {
    /// Where the checkpoints go; a folder of its own that is removed, unless given.
    #[arg(long)]
    artifacts: Option<String>,
    /// Checkpoints that are written.
    #[arg(long, default_value_t = 8)]
    count: u64,
    /// Steps between them, and as many before them without any.
    #[arg(long, default_value_t = 12)]
    every: u64,
}

/// Trains without checkpoints, then with them; prints `{"benchmark": "checkpoint_stall", "checkpoint_bytes",
/// "checkpoint_stall_ms", ...}`: the longest that a step waited for a snapshot, and steps per second without and while saving.
///
/// # Errors
/// Those of models and storage.
pub(crate) fn checkpoint(args: &Checkpoint, settings: DeviceSettings) -> Result<()> {
    device::open(settings)?;
    let DeviceSettings { device: on, .. } = settings;
    let folder = env::temp_dir().join(format!("lethe-bench-checkpoint-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|source| unreadable(&folder, source))?;
    let artifacts = args.artifacts.clone().unwrap_or_else(|| folder.join("artifacts").display().to_string());
    let line = stall::measure(&folder, &artifacts, args.count, args.every, on);
    // Left behind, it is only in the way.
    let _ = fs::remove_dir_all(&folder);
    print(&line?)
}

/// A spec whose paths are relative to its own folder.
pub(crate) fn read(path: &Path) -> Result<JobSpec> {
    let text = fs::read_to_string(path).map_err(|source| unreadable(path, source))?;
    let spec = JobSpec::parse(&text).map_err(|error| Error::internal(error.to_string()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let absolute = |uri: &str| {
        let plain = !uri.starts_with("file:");
        if plain { folder.join(uri).display().to_string() } else { uri.to_owned() }
    };
    Ok(spec.map_uris(absolute))
}

/// A target vector.
pub(crate) fn read_target(path: &Path) -> Result<Target> {
    let bytes = fs::read(path).map_err(|source| unreadable(path, source))?;
    Ok(Target::from_bytes(&bytes, &path.display().to_string())?)
}

pub(crate) fn unwritable(path: &Path, source: std::io::Error) -> Error {
    tracing::error!("{} cannot be written", path.display());
    Error::System { what: "cannot write a file", source }
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    lethe_models::Error::Read { file: path.display().to_string(), source }.into()
}

pub(crate) fn print(line: &Value) -> Result<()> {
    writeln!(stdout(), "{line}").map_err(|source| Error::System { what: "cannot write", source })
}
