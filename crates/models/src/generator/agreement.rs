//! Whether a generator's file, its sidecar and the job spec say the same, as far as that can be known without running it.

use lethe_domain::spec::Generator as GeneratorSpec;
use lethe_domain::{Architecture, Sidecar};
use tch::Kind;

use crate::architecture;
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::weights::Tensors;

pub(super) fn native_architecture(file: &ModelFile, spec: &GeneratorSpec) -> Result<Architecture> {
    let beside = format!("{}.json", file.name);
    let refuse = |reason: String| Error::Sidecar { file: beside.clone(), reason };
    let sidecar = file.sidecar.as_ref().ok_or_else(|| {
        refuse(
            "is missing: safetensors hold weights only, the sidecar says which architecture they belong to"
                .into(),
        )
    })?;
    let architecture = sidecar
        .architecture
        .clone()
        .ok_or_else(|| refuse("has no architecture: safetensors hold weights only".into()))?;
    if let Some(problem) = architecture::problem(&architecture) {
        return Err(refuse(problem));
    }
    let mismatch = |what: &str, found: String, expected: String| {
        let reason = format!("its architecture {what} {found}, the job spec says {expected}");
        Error::Mismatch { model: file.name.clone(), reason }
    };
    let (latent, wanted) = (architecture::latent(&architecture), spec.latent.numel());
    if latent != wanted {
        return Err(mismatch("takes latents of", latent.to_string(), wanted.to_string()));
    }
    let (shape, wanted) = (architecture::image_shape(&architecture), spec.output.shape());
    if shape != wanted {
        return Err(mismatch("gives images of", format!("{shape:?}"), format!("{wanted:?}")));
    }
    let range = architecture::range(&architecture);
    if range != spec.output.range {
        let found = format!("{range:?}");
        return Err(mismatch("gives pixels in", found, format!("{:?}", spec.output.range)));
    }
    Ok(architecture)
}

/// Refuses a sidecar that contradicts the spec.
pub(super) fn compare(model: &str, sidecar: &Sidecar, spec: &GeneratorSpec) -> Result<()> {
    let differ = |key: &str, found: String, wanted: String| {
        let reason = format!("its sidecar says {key} is {found}, the job spec says {wanted}");
        Err(Error::Mismatch { model: model.to_owned(), reason })
    };
    if let Some(latent) = &sidecar.latent {
        if latent.shape != spec.latent.shape() {
            return differ(
                "latent.shape",
                format!("{:?}", latent.shape),
                format!("{:?}", spec.latent.shape()),
            );
        }
        if latent.prior != spec.prior {
            return differ("latent.prior", format!("{:?}", latent.prior), format!("{:?}", spec.prior));
        }
    }
    if let Some(output) = &sidecar.output {
        let (found, wanted) = ([output.channels, output.height, output.width], spec.output.shape());
        if found != wanted {
            return differ("output (channels, height, width)", format!("{found:?}"), format!("{wanted:?}"));
        }
        if output.range != spec.output.range {
            return differ("output.range", format!("{:?}", output.range), format!("{:?}", spec.output.range));
        }
    }
    Ok(())
}

/// Refuses weights that are not exactly those of the architecture, all f32.
pub(super) fn check_tensors(weights: &Tensors, slots: &[architecture::Slot]) -> Result<()> {
    let wanted: Vec<(&str, Vec<i64>)> =
        slots.iter().map(|slot| (slot.name.as_str(), slot.shape.clone())).collect();
    same_tensors(weights, &wanted)?;
    for (name, shape) in wanted {
        let _ = weights.get_shaped(name, &shape, Kind::Float)?;
    }
    Ok(())
}

/// Compares names and shapes, and lists every difference.
pub(super) fn same_tensors(found: &Tensors, wanted: &[(&str, Vec<i64>)]) -> Result<()> {
    let mut problems = Vec::new();
    for (name, shape) in wanted {
        match found.iter().find(|(other, _)| other == name) {
            None => problems.push(format!("{name} is missing")),
            Some((_, tensor)) if tensor.size() != *shape => {
                problems.push(format!("{name} has shape {:?}, expected {shape:?}", tensor.size()));
            }
            Some(_) => {}
        }
    }
    let extra = found.iter().filter(|(name, _)| !wanted.iter().any(|(other, _)| other == name));
    problems.extend(extra.map(|(name, _)| format!("{name} is not part of the model")));
    if problems.is_empty() {
        return Ok(());
    }
    const SHOWN: usize = 6;
    let more = problems.len().saturating_sub(SHOWN);
    let mut reason = problems[..problems.len() - more].join("; ");
    if more > 0 {
        reason.push_str(&format!("; and {more} more"));
    }
    Err(Error::Tensors { file: found.label().to_owned(), reason })
}
