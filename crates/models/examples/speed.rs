//! Prints the processor time that the pieces of a training step take, one line each, on one thread.
//!
//! `cargo run --release -p lethe-models --example speed`. Processor time, so that a busy machine disturbs little.
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

use std::collections::BTreeMap;

use lethe_domain::EditMethod;
use lethe_domain::spec::{Generator, ImageOutput, Latent, LossReduction, ModelFormat, Prior, Size, Unlearn};
use lethe_domain::{Architecture, OutputActivation};
use lethe_models::{Adam, GeneratorFile, Latents, Loss, Result, Similarity, Stream, Tensors, l1};
use tch::{Device, Kind, Tensor};

fn main() -> Result<()> {
    tch::set_num_threads(1);
    latents();
    for (name, latent, base, widths, channels, batch) in
        [("mnist", 64, 7, vec![128, 64], 1, 64), ("64x64", 512, 4, vec![256, 128, 64, 32], 3, 32)]
    {
        let architecture = Architecture::Dcgan {
            latent,
            base,
            widths: widths.clone(),
            channels,
            output: OutputActivation::Tanh,
        };
        dcgan(name, latent, base, &widths, channels, batch, &architecture)?;
    }
    Ok(())
}

fn milliseconds(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let start = processor_seconds();
        work()?;
        best = best.min((processor_seconds() - start) * 1e3);
    }
    Ok(best)
}

fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn spec(latent: i64, channels: i64, side: i64) -> Generator {
    Generator {
        uri: "speed".into(),
        format: ModelFormat::Safetensors,
        latent: Latent::Dimension(latent),
        prior: Prior::Normal,
        output: ImageOutput { range: [-1.0, 1.0], channels, size: Size::Square(side), clamp: false },
    }
}

fn latents() {
    for (dimension, count) in [(20, 100_000), (64, 40_000), (512, 5_000)] {
        let latents = Latents::new(1, &spec(dimension, 1, 28));
        let start = processor_seconds();
        let values = latents.rows(Stream::Sample, (0..count).map(|index| index as u64));
        let rate = values.len() as f64 / (processor_seconds() - start) / 1e6;
        println!("latents of {dimension:>3}: {rate:.0} million values per second");
    }
}

/// Weights of the usual sizes; what they are does not matter here.
fn weights(latent: i64, base: i64, widths: &[i64], channels: i64) -> Result<Vec<u8>> {
    let options = (Kind::Float, Device::Cpu);
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut inputs = latent;
    for (layer, width) in widths.iter().enumerate() {
        let kernel = if layer == 0 { base } else { 4 };
        let name = |part: &str| format!("layers.{layer}.{part}");
        tensors.insert(name("conv.weight"), Tensor::randn([inputs, *width, kernel, kernel], options) * 0.05);
        tensors.insert(name("norm.weight"), Tensor::ones([*width], options));
        tensors.insert(name("norm.bias"), Tensor::zeros([*width], options));
        tensors.insert(name("norm.running_mean"), Tensor::zeros([*width], options));
        tensors.insert(name("norm.running_var"), Tensor::ones([*width], options));
        inputs = *width;
    }
    tensors.insert(
        format!("layers.{}.conv.weight", widths.len()),
        Tensor::randn([inputs, channels, 4, 4], options) * 0.05,
    );
    let mut file = Tensors::new("speed");
    tensors.iter().for_each(|(name, tensor)| file.insert(name, tensor));
    file.to_bytes()
}

fn dcgan(
    name: &str,
    latent: i64,
    base: i64,
    widths: &[i64],
    channels: i64,
    batch: i64,
    architecture: &Architecture,
) -> Result<()> {
    let bytes = weights(latent, base, widths, channels)?;
    let side = base << widths.len();
    let sidecar = serde_json::json!({
        "schema_version": 1, "kind": "generator", "format": "safetensors", "architecture": architecture,
        "sha256": lethe_models::sha256(&bytes), "source": "",
    });
    let file =
        GeneratorFile::new(name, bytes, Some(sidecar.to_string().as_bytes()), &spec(latent, channels, side))?;
    let frozen = file.frozen(Device::Cpu)?;
    let copy = file.trainable(Device::Cpu)?;
    let z = Tensor::randn([batch, latent], (Kind::Float, Device::Cpu));
    println!("{name}: {} parameters, batch {batch}", copy.parameter_count());
    let show = |what: &str, time: f64| println!("  {what:<28} {time:>8.2} ms");

    show("frozen forward", milliseconds(|| tch::no_grad(|| frozen.forward(&z).map(drop)))?);
    show("copy forward", milliseconds(|| tch::no_grad(|| copy.forward(&z).map(drop)))?);
    let mut adam = Adam::new(copy.parameters())?;
    let targets = tch::no_grad(|| frozen.to_unit(&frozen.forward(&z)?))?;
    show(
        "forward and backward, L1",
        milliseconds(|| {
            copy.parameters().iter().for_each(|(_, weight)| weight.shallow_clone().zero_grad());
            let images = copy.to_unit(&copy.forward(&z)?)?;
            l1(&images, &targets, LossReduction::Mean)?.sum(Kind::Float).backward();
            Ok(())
        })?,
    );
    show("adam", milliseconds(|| adam.step(2e-3))?);
    let loss = Loss::new(&Unlearn::default(), EditMethod::Gradient, [channels, side, side], Device::Cpu)?;
    for edited in [batch / 8, batch] {
        let places = Tensor::arange(edited, (Kind::Int64, Device::Cpu));
        let images = targets.detach().set_requires_grad(true);
        show(
            &format!("loss alone, {edited} edited"),
            milliseconds(|| {
                let even = Tensor::ones([batch], (Kind::Float, Device::Cpu));
                loss.sum(&images, &(1.0 - &targets), &places, &even)?.backward();
                Ok(())
            })?,
        );
    }
    let similarity = Similarity::new(side, side, Device::Cpu)?;
    show("MS-SSIM forward", milliseconds(|| similarity.ms_ssim(&targets, &(1.0 - &targets)).map(drop))?);
    Ok(())
}
