//! Whether a generator's file, its sidecar and the job spec say the same, as far as that can be known without running it.

use lethe_domain::spec::Generator as GeneratorSpec;
use lethe_domain::{Architecture, Sidecar};

use crate::architecture;
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::precision::{dtype, is_floating};
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
    let problems = sidecar.contradictions("its sidecar", spec);
    if problems.is_empty() {
        return Ok(());
    }
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(Error::Mismatch {
        model: model.to_owned(),
        reason: format!("the job spec's {}", problems.join("; ")),
    })
}

/// Refuses weights that are not exactly those of the architecture, or that are no floating numbers.
pub(super) fn check_tensors(weights: &Tensors, tensors: &[architecture::TensorSpec]) -> Result<()> {
    let wanted: Vec<(&str, Vec<i64>)> =
        tensors.iter().map(|spec| (spec.name.as_str(), spec.shape.clone())).collect();
    same_tensors(weights, &wanted)?;
    for (name, tensor) in weights.iter() {
        let kind = tensor.f_kind()?;
        if !is_floating(kind) {
            let reason = format!("{name} has the dtype {}, expected a floating one", dtype(kind));
            return Err(Error::Tensors { file: weights.label().to_owned(), reason });
        }
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
