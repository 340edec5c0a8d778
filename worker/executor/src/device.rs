//! The device a slot works on: named, opened, and chosen between it and the cpu for each job.

use std::fs;

use lethe_domain::{ErrorCode, spec};
use tch::{Cuda, Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::memory;

/// Reads `cpu`, `cuda` or `cuda:N`.
pub(crate) fn parse(text: &str) -> std::result::Result<Device, String> {
    match text {
        "cpu" => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda(0)),
        _ => text
            .strip_prefix("cuda:")
            .and_then(|index| index.parse().ok())
            .map(Device::Cuda)
            .ok_or_else(|| format!("found '{text}', expected cpu, cuda or cuda:N")),
    }
}

/// As [`parse`] reads it.
pub(crate) fn label(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

/// What a slot works on, by command line or environment.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct DeviceSettings {
    /// What to work on: cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu", value_parser = parse)]
    pub(crate) device: Device,
    /// Threads on a cpu, unless a job says otherwise.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: u32,
    /// On a GPU, multiply in TF32: faster, and less exact.
    #[arg(long, env = "LETHE_TF32")]
    pub(crate) tf32: bool,
}

/// What decides the bits that a slot computes, beside what it is told to compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arithmetic {
    /// As [`name`] gives it.
    pub(crate) device: String,
    /// What libtorch chooses its kernels for the cpu by.
    pub(crate) instructions: &'static str,
    /// Threads on a cpu.
    pub(crate) threads: u32,
    /// Whether a GPU multiplies in TF32.
    pub(crate) tf32: bool,
    /// The version of libtorch.
    pub(crate) torch: &'static str,
}

impl Arithmetic {
    /// That of work on this device with so many threads.
    pub(crate) fn of(device: Device, threads: u32, tf32: bool) -> Self {
        let torch = lethe_models::torch_version();
        let tf32 = tf32 && device.is_cuda();
        Self { device: name(device), instructions: instructions(), threads, tf32, torch }
    }
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> &'static str {
    if std::arch::is_x86_feature_detected!("avx512f") {
        "x86_64 avx512"
    } else if std::arch::is_x86_feature_detected!("avx2") {
        "x86_64 avx2"
    } else {
        "x86_64"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn instructions() -> &'static str {
    std::env::consts::ARCH
}

/// Makes the device ready and tries it. To be called once, before anything else of libtorch, on the thread that works.
///
/// # Errors
/// [`Error::Device`] when it does not exist or does not work.
pub(crate) fn open(settings: DeviceSettings) -> Result<()> {
    let DeviceSettings { device, threads, tf32 } = settings;
    memory::keep_freed();
    tch::set_num_threads(i32::try_from(threads).unwrap_or(1));
    // Operators of one model run one after the other anyway; a second pool of threads would only compete.
    tch::set_num_interop_threads(1);
    let refuse = |reason: String| Error::Device { device: label(device), reason };
    if let Device::Cuda(index) = device {
        lethe_collective::load_cuda().map_err(|error| refuse(error.to_string()))?;
        let count = Cuda::device_count();
        if index as i64 >= count {
            return Err(refuse(format!("this machine has {count} CUDA devices: is the driver installed?")));
        }
        lethe_models::repeat_on_gpu(tf32)?;
    }
    Tensor::f_ones([1], (Kind::Float, device))
        .and_then(|one| one.f_double_value(&[0]))
        .map(drop)
        .map_err(|error| refuse(lethe_models::Error::from(error).to_string()))
}

/// Where a job's work is done on this slot.
///
/// # Errors
/// A job that wants a GPU does not run on a slot without one.
pub(crate) fn choose(wanted: spec::Device, slot: Device) -> Result<Device> {
    match (wanted, slot) {
        (spec::Device::Cpu, _) => Ok(Device::Cpu),
        (spec::Device::Cuda, Device::Cuda(_)) | (spec::Device::Auto, _) => Ok(slot),
        (spec::Device::Cuda, _) => Err(Error::refused(
            ErrorCode::InvalidSpec,
            "resources.device is cuda, but this slot works on the cpu",
            "set resources.device to auto or cpu, or start a worker on a machine with a GPU",
        )),
    }
}

/// What the device is called in results: cpu, or the GPU's name where the driver tells it.
pub(crate) fn name(device: Device) -> String {
    let Device::Cuda(_) = device else { return label(device) };
    let gpus = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let mut models: Vec<String> = gpus
        .filter_map(|gpu| fs::read_to_string(gpu.path().join("information")).ok())
        .filter_map(|text| text.lines().find_map(|line| Some(line.strip_prefix("Model:")?.trim().to_owned())))
        .collect();
    models.dedup();
    // With GPUs of several kinds, the driver's order need not be CUDA's.
    match models.as_slice() {
        [only] => only.clone(),
        _ => label(device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for text in ["cpu", "cuda:0", "cuda:3"] {
            assert_eq!(label(parse(text).unwrap()), text);
        }
        assert_eq!(parse("cuda"), Ok(Device::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert!(parse(text).unwrap_err().contains("expected cpu, cuda or cuda:N"), "{text}");
        }
    }

    #[test]
    fn a_job_that_wants_a_gpu_is_refused_without_one() {
        assert_eq!(choose(spec::Device::Auto, Device::Cpu).unwrap(), Device::Cpu);
        assert_eq!(choose(spec::Device::Auto, Device::Cuda(1)).unwrap(), Device::Cuda(1));
        assert_eq!(choose(spec::Device::Cpu, Device::Cuda(1)).unwrap(), Device::Cpu);
        assert!(choose(spec::Device::Cuda, Device::Cpu).is_err());
    }
}
