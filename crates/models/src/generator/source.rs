//! The file a generator comes from, what can be made of it, and the way back to a file.

use std::collections::BTreeMap;
use std::path::Path;

use lethe_domain::spec::{Generator as GeneratorSpec, ModelFormat};
use lethe_domain::{Architecture, ModelKind, Sidecar, SidecarLatent, SidecarOutput};
use tch::{Device, Kind, Tensor};

use super::leaves::Leaves;
use super::{Generator, Module, agreement};
use crate::architecture;
use crate::error::{Error, Result};
use crate::file::{ModelFile, RawModel, SIDECAR_VERSION, sha256};
use crate::native::Native;
use crate::script::Script;
use crate::weights::Tensors;

/// A generator's file, checked against the job spec as far as that goes without running it.
#[derive(Debug, Clone)]
pub struct GeneratorFile {
    file: ModelFile,
    spec: GeneratorSpec,
    /// Of safetensors files.
    architecture: Option<Architecture>,
}

/// A published generator: the model in the format it came in, and its sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The model file.
    pub model: Vec<u8>,
    /// `MODEL.json`.
    pub sidecar: Vec<u8>,
}

impl GeneratorFile {
    /// Reads the model and its sidecar.
    ///
    /// # Errors
    /// [`Error::Read`], and as [`GeneratorFile::new`].
    pub fn open(path: &Path, spec: &GeneratorSpec) -> Result<Self> {
        Self::read(RawModel::read(path)?, spec)
    }

    /// Takes a file that was read.
    ///
    /// # Errors
    /// As [`GeneratorFile::new`].
    pub fn read(raw: RawModel, spec: &GeneratorSpec) -> Result<Self> {
        Self::of(ModelFile::of(raw, ModelKind::Generator, spec.format)?, spec)
    }

    /// Takes bytes that were read elsewhere.
    ///
    /// # Errors
    /// As [`ModelFile::new`]; [`Error::Sidecar`] when safetensors come without one; [`Error::Mismatch`] when sidecar
    /// and spec contradict each other; [`Error::Tensors`] when the weights are not those of the architecture.
    pub fn new(name: &str, bytes: Vec<u8>, sidecar: Option<&[u8]>, spec: &GeneratorSpec) -> Result<Self> {
        Self::of(ModelFile::new(name, bytes, sidecar, ModelKind::Generator, spec.format)?, spec)
    }

    fn of(file: ModelFile, spec: &GeneratorSpec) -> Result<Self> {
        if let Some(sidecar) = &file.sidecar {
            agreement::compare(&file.name, sidecar, spec)?;
        }
        let architecture = match spec.format {
            ModelFormat::TorchScript => None,
            ModelFormat::Safetensors => Some(agreement::native_architecture(&file, spec)?),
        };
        let checked = Self { file, spec: spec.clone(), architecture };
        if let Some(architecture) = &checked.architecture {
            let weights = Tensors::from_bytes(&checked.file.bytes, &checked.file.name)?;
            agreement::check_tensors(&weights, &architecture::tensors(architecture))?;
        }
        Ok(checked)
    }

    /// What the job spec says about it.
    pub fn spec(&self) -> &GeneratorSpec {
        &self.spec
    }

    /// The original: no gradients.
    ///
    /// # Errors
    /// [`Error::Unreadable`], [`Error::NoForward`], [`Error::Memory`].
    pub fn frozen(&self, device: Device) -> Result<Generator> {
        let mut generator = self.load(device)?;
        generator.freeze()?;
        Ok(generator)
    }

    /// A trained copy for use: as [`GeneratorFile::frozen`], with the weights of `state` as a published file would hold them.
    ///
    /// # Errors
    /// As [`GeneratorFile::frozen`] and [`Generator::set_state`].
    pub fn frozen_with(&self, state: &Tensors, device: Device) -> Result<Generator> {
        let mut generator = self.load(device)?;
        generator.set_state(&self.as_stored(state)?)?;
        generator.freeze()?;
        generator.settle(false)?;
        Ok(generator)
    }

    /// A copy whose parameters gather gradients. Batch normalisation keeps its statistics.
    ///
    /// # Errors
    /// As [`GeneratorFile::frozen`]; [`Error::NothingToTrain`].
    pub fn trainable(&self, device: Device) -> Result<Generator> {
        let generator = self.load(device)?;
        if generator.parameters.is_empty() {
            return Err(Error::NothingToTrain { file: self.file.name.clone() });
        }
        Ok(generator)
    }

    /// The model with the weights of `state`, in the format it came in, with a sidecar of its own.
    ///
    /// # Errors
    /// As [`Generator::set_state`].
    pub fn export(&self, state: &Tensors, source: &str) -> Result<Exported> {
        let mut generator = self.load(Device::Cpu)?;
        let stored = self.as_stored(state)?;
        generator.set_state(&stored)?;
        generator.settle(true)?;
        let model = match &generator.module {
            Module::Script(script, _) => script.to_bytes()?,
            Module::Native(_) => stored.to_bytes()?,
        };
        let [channels, height, width] = self.spec.output.shape();
        let sidecar = Sidecar {
            schema_version: SIDECAR_VERSION,
            kind: ModelKind::Generator,
            format: self.spec.format,
            architecture: self.architecture.clone(),
            latent: Some(SidecarLatent { shape: self.spec.latent.shape(), prior: self.spec.prior }),
            output: Some(SidecarOutput {
                range: self.spec.output.range,
                channels,
                height,
                width,
                clamp: self.spec.output.clamp,
            }),
            classes: None,
            dimension: None,
            sha256: sha256(&model),
            source: source.to_owned(),
        };
        let mut text = serde_json::to_vec_pretty(&sidecar)
            .map_err(|error| Error::Torch { reason: format!("cannot write a sidecar: {error}") })?;
        text.push(b'\n');
        Ok(Exported { model, sidecar: text })
    }

    /// Weights of safetensors in the precision in which the file has them.
    fn as_stored(&self, state: &Tensors) -> Result<Tensors> {
        let mut stored = Tensors::new(state.label());
        let file = match self.spec.format {
            ModelFormat::TorchScript => Tensors::new(&self.file.name),
            ModelFormat::Safetensors => Tensors::from_bytes(&self.file.bytes, &self.file.name)?,
        };
        for (name, tensor) in state.iter() {
            match file.get(name) {
                Ok(there) => stored.insert(name, &tensor.f_detach()?.f_to_kind(there.f_kind()?)?),
                Err(_) => stored.insert(name, tensor),
            }
        }
        Ok(stored)
    }

    /// Parameters and buffers on the device, requiring gradients.
    fn load(&self, device: Device) -> Result<Generator> {
        let (module, leaves) = match &self.architecture {
            None => {
                let script = Script::load(&self.file.bytes, &self.file.name, device)?;
                let Leaves { parameters, buffers, untrained, casts } = Leaves::of(&script, &self.file.name)?;
                (Module::Script(script, casts), (parameters, buffers, untrained))
            }
            Some(architecture) => self.load_native(architecture, device)?,
        };
        let (parameters, buffers, untrained) = leaves;
        Ok(Generator {
            name: self.file.name.clone(),
            spec: self.spec.clone(),
            device,
            module,
            parameters,
            buffers,
            untrained,
            frozen: false,
        })
    }

    fn load_native(&self, architecture: &Architecture, device: Device) -> Result<(Module, Named)> {
        let weights = Tensors::from_bytes(&self.file.bytes, &self.file.name)?;
        let (mut parameters, mut buffers) = (Vec::new(), Vec::new());
        let mut by_name = BTreeMap::new();
        for spec in architecture::tensors(architecture) {
            let tensor = weights.get(&spec.name)?.f_to_device(device)?.f_to_kind(Kind::Float)?;
            by_name.insert(spec.name.clone(), tensor.shallow_clone());
            if spec.parameter {
                parameters.push((spec.name, tensor.f_set_requires_grad(true)?));
            } else {
                buffers.push((spec.name, tensor));
            }
        }
        Ok((Module::Native(Native::new(architecture, &by_name)), (parameters, buffers, Vec::new())))
    }
}

/// Parameters and buffers by name, and what is said about parameters that are not trained.
type Named = (Vec<(String, Tensor)>, Vec<(String, Tensor)>, Vec<String>);
