//! Which slots this machine gives: a device and a number of threads each.
//!
//! GPUs are counted without CUDA, from what the driver shows in `/proc` and `/dev`: the agent links neither libtorch nor
//! CUDA, and a GPU that is there and does not work is found by the executor, which says so when it starts.

use std::path::Path;
use std::str::FromStr;
use std::{env, fs, thread};

use crate::{Error, Result};

/// What people may ask for.
const SYNTAX: &str = "expected auto, cpu, cuda, or a list such as cuda:0,cuda:1";

/// Which devices to offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A slot per GPU; without one, the CPU.
    #[default]
    Auto,
    /// The CPU, also when there are GPUs.
    Cpu,
    /// A slot per GPU, and no worker without one.
    Cuda,
    /// Exactly these, a slot each.
    Listed(Vec<String>),
}

/// The slots of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// A device per slot: cpu, cuda:0.
    pub devices: Vec<String>,
    /// CPU threads of each executor.
    pub threads: u32,
}

/// Plans the slots of this machine. `count` slots: on the CPU as many as asked for, 1 by default; of GPUs the first ones,
/// all by default. `threads` of each slot: the processors shared out evenly by default.
///
/// # Errors
/// [`Error::Devices`] for what this machine does not have.
pub fn plan_slots(choice: &DeviceChoice, count: Option<u32>, threads: Option<u32>) -> Result<Slots> {
    plan(&Hardware::detect(), choice, count, threads)
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason: String| Error::Devices { found: text.to_owned(), reason };
        match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda),
            _ => {}
        }
        let mut devices: Vec<String> = Vec::new();
        for device in text.split(',').map(str::trim) {
            let ordinal = device.strip_prefix("cuda:").map(str::parse::<u8>);
            if device != "cpu" && !matches!(ordinal, Some(Ok(_))) {
                return Err(refuse(SYNTAX.to_owned()));
            }
            if ordinal.is_some() && devices.iter().any(|other| other == device) {
                return Err(refuse(format!("{device} is named twice; a GPU is one slot")));
            }
            devices.push(device.to_owned());
        }
        Ok(Self::Listed(devices))
    }
}

/// What this machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hardware {
    gpus: u32,
    /// Processors this process may use.
    cores: u32,
}

impl Hardware {
    fn detect() -> Self {
        let visible = env::var("CUDA_VISIBLE_DEVICES").ok();
        Self {
            gpus: count_gpus(Path::new("/proc/driver/nvidia/gpus"), Path::new("/dev"), visible.as_deref()),
            cores: thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        }
    }
}

/// GPUs that CUDA will number from 0: those the driver lists and has a device file for, or those of them in
/// `CUDA_VISIBLE_DEVICES`, where the first entry that is none hides the rest. A container may see the whole machine's list
/// and only its own device files, or, where `/proc` is not the kernel's, no list; device files may not be made yet.
fn count_gpus(driver: &Path, dev: &Path, visible: Option<&str>) -> u32 {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    let is_gpu =
        |name: &String| name.strip_prefix("nvidia").is_some_and(|number| number.parse::<u8>().is_ok());
    let there = match (names(driver).count(), names(dev).filter(is_gpu).count()) {
        (0, count) | (count, 0) => count,
        (listed, files) => listed.min(files),
    };
    let shown = match visible {
        Some(text) => {
            text.split(',').map(str::trim).take_while(|entry| !entry.is_empty() && *entry != "-1").count()
        }
        None => there,
    };
    if there == 0 { 0 } else { u32::try_from(shown).unwrap_or(u32::MAX) }
}

fn plan(
    hardware: &Hardware,
    choice: &DeviceChoice,
    count: Option<u32>,
    threads: Option<u32>,
) -> Result<Slots> {
    let cpus = |count: Option<u32>| vec!["cpu".to_owned(); count.unwrap_or(1).max(1) as usize];
    let gpus = |count: u32| (0..count).map(|ordinal| format!("cuda:{ordinal}")).collect();
    let devices = match choice {
        DeviceChoice::Cpu => cpus(count),
        DeviceChoice::Auto if hardware.gpus == 0 => cpus(count),
        DeviceChoice::Auto => {
            let wanted = count.unwrap_or(hardware.gpus);
            if wanted > hardware.gpus {
                tracing::warn!(wanted, gpus = hardware.gpus, "fewer slots than asked for: a GPU is one slot");
            }
            gpus(wanted.clamp(1, hardware.gpus))
        }
        DeviceChoice::Cuda => {
            let wanted = count.unwrap_or(hardware.gpus);
            if hardware.gpus == 0 || wanted > hardware.gpus {
                let reason = format!(
                    "this machine shows {} GPUs (/proc/driver/nvidia/gpus, /dev/nvidia*, CUDA_VISIBLE_DEVICES); {}",
                    hardware.gpus,
                    if hardware.gpus == 0 {
                        "use cpu, or install the driver"
                    } else {
                        "ask for fewer --slots"
                    }
                );
                return Err(Error::Devices { found: "cuda".to_owned(), reason });
            }
            gpus(wanted.max(1))
        }
        DeviceChoice::Listed(devices) => {
            let listed = u32::try_from(devices.len()).unwrap_or(u32::MAX);
            if count.is_some_and(|count| count != listed) {
                let reason = format!("{listed} devices are listed; leave --slots out, or make them agree");
                return Err(Error::Devices { found: devices.join(","), reason });
            }
            devices.clone()
        }
    };
    let slots = u32::try_from(devices.len()).unwrap_or(u32::MAX).max(1);
    let threads = threads.unwrap_or(hardware.cores / slots).max(1);
    Ok(Slots { devices, threads })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAPTOP: Hardware = Hardware { gpus: 0, cores: 8 };
    const SERVER: Hardware = Hardware { gpus: 2, cores: 32 };

    fn planned(hardware: &Hardware, choice: &str, count: Option<u32>) -> Result<(String, u32)> {
        let slots = plan(hardware, &choice.parse()?, count, None)?;
        Ok((slots.devices.join(" "), slots.threads))
    }

    #[test]
    fn slots_follow_the_machine() {
        for (hardware, choice, count, devices, threads) in [
            (&LAPTOP, "auto", None, "cpu", 8),
            (&LAPTOP, "auto", Some(3), "cpu cpu cpu", 2),
            (&LAPTOP, "cpu", Some(20), &["cpu"; 20].join(" "), 1),
            (&SERVER, "auto", None, "cuda:0 cuda:1", 16),
            (&SERVER, "auto", Some(1), "cuda:0", 32),
            (&SERVER, "auto", Some(5), "cuda:0 cuda:1", 16),
            (&SERVER, "cpu", Some(2), "cpu cpu", 16),
            (&SERVER, "cuda", None, "cuda:0 cuda:1", 16),
            (&SERVER, "cuda:1", None, "cuda:1", 32),
            (&SERVER, "cuda:1,cpu,cpu", Some(3), "cuda:1 cpu cpu", 10),
        ] {
            assert_eq!(
                planned(hardware, choice, count).unwrap(),
                (devices.to_owned(), threads),
                "{choice} {count:?}"
            );
        }
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        for (hardware, choice, count, says) in [
            (&LAPTOP, "cuda", None, "shows 0 GPUs"),
            (&SERVER, "cuda", Some(3), "shows 2 GPUs"),
            (&SERVER, "cuda:0,cuda:0", None, "named twice"),
            (&SERVER, "cuda:0,cuda:1", Some(1), "2 devices are listed"),
            (&SERVER, "gpu", None, SYNTAX),
            (&SERVER, "cuda:", None, SYNTAX),
            (&SERVER, "", None, SYNTAX),
        ] {
            let error = planned(hardware, choice, count).unwrap_err().to_string();
            assert!(error.contains(says), "{choice}: {error}");
        }
    }

    #[test]
    fn gpus_are_those_the_driver_lists_and_cuda_shows() {
        let folder = tempfile::tempdir().unwrap();
        let (driver, dev, none) =
            (folder.path().join("driver"), folder.path().join("dev"), folder.path().join("none"));
        assert_eq!(count_gpus(&driver, &dev, Some("0,1")), 0);
        for address in ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0"] {
            fs::create_dir_all(driver.join(address)).unwrap();
        }
        for (visible, gpus) in [
            (None, 3),
            (Some(""), 0),
            (Some("2"), 1),
            (Some("0, 1"), 2),
            (Some("0,-1,1"), 1),
            (Some("GPU-8932f937,GPU-1"), 2),
        ] {
            assert_eq!(count_gpus(&driver, &none, visible), gpus, "{visible:?}");
        }
        fs::create_dir(&dev).unwrap();
        for name in ["nvidia0", "nvidia7", "nvidiactl", "nvidia-uvm", "null"] {
            fs::write(dev.join(name), "").unwrap();
        }
        assert_eq!(count_gpus(&driver, &dev, None), 2, "a container with two of the machine's three");
        assert_eq!(count_gpus(&none, &dev, None), 2, "and without a list");
    }
}
