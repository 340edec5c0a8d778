//! Loaded models, kept between tasks: a shard's work often takes less time than loading what it needs.
//!
//! A model is loaded again when its file or sidecar changed (size and time of change, or the store's mark), when the spec
//! says something else about it, when a job was accepted with another file, or for another device. Not here: what models
//! are (crate `models`), reading files and comparing them with those that jobs were accepted with (`input`).

use std::rc::Rc;

use lethe_domain::spec::{self, Calibration, Labeller as LabellerSpec, Reference as ReferenceSpec};
use lethe_domain::{ArtifactRef, Inputs};
use lethe_models::{
    Classes, Features, Generator, GeneratorFile, Guide, Labeller, Pool, RawModel, Reference, Target, Tensors,
};
use tch::Device;

use crate::error::Result;
use crate::input::{self, Pins, State};
use crate::verdict::{Judge, Model};

/// The original generator: its file, from which copies are made, and the frozen model.
#[derive(Debug)]
pub(crate) struct Original {
    pub(crate) file: GeneratorFile,
    pub(crate) generator: Generator,
}

/// The models of the last job or so.
#[derive(Debug, Default)]
pub(crate) struct Models {
    originals: Recent<Key<spec::Generator>, Original>,
    labellers: Recent<Vec<Key<Model>>, Labeller>,
    classes: Recent<Key<spec::Classes>, Classes>,
    differentiable: Recent<Vec<Key<Model>>, Labeller>,
    features: Recent<Key<()>, Features>,
    references: Recent<Key<[i64; 3]>, Reference>,
    calibrations: Recent<Key<[i64; 3]>, Reference>,
    trained: Option<Trained>,
    target: Option<(ArtifactRef, Rc<Target>)>,
    pool: Option<(Vec<ArtifactRef>, Rc<Pool>)>,
}

/// The trained copy of the last evaluation shard: the next one needs it again.
#[derive(Debug)]
struct Trained {
    sha256: String,
    original: Rc<Original>,
    generator: Rc<Generator>,
}

impl Models {
    /// # Errors
    /// As [`input::read`], [`GeneratorFile::read`] and [`GeneratorFile::frozen`].
    pub(crate) fn original(
        &mut self,
        spec: &spec::Generator,
        inputs: &Inputs,
        device: Device,
    ) -> Result<Rc<Original>> {
        self.originals.get(&spec.uri, inputs, device, spec.clone(), |raw| {
            let file = GeneratorFile::read(raw, spec)?;
            let generator = file.frozen(device)?;
            Ok(Original { file, generator })
        })
    }

    /// # Errors
    /// As [`input::read`] and [`Labeller::new`].
    pub(crate) fn labeller(
        &mut self,
        judge: &Judge,
        inputs: &Inputs,
        device: Device,
    ) -> Result<Rc<Labeller>> {
        self.labellers.look(judge, inputs, device, Labeller::new)
    }

    /// Who looks at images while they are edited, and while a copy is trained.
    ///
    /// # Errors
    /// As [`input::read`] and [`Labeller::new`].
    pub(crate) fn guide(&mut self, judge: &Judge, inputs: &Inputs, device: Device) -> Result<Guide> {
        let differentiable = self.differentiable.look(judge, inputs, device, Labeller::differentiable)?;
        Ok(Guide { labeller: self.labeller(judge, inputs, device)?, differentiable })
    }

    /// # Errors
    /// As [`input::read`] and [`Classes::new`].
    pub(crate) fn classes(
        &mut self,
        spec: &spec::Classes,
        inputs: &Inputs,
        device: Device,
    ) -> Result<Rc<Classes>> {
        self.classes.get(&spec.uri, inputs, device, spec.clone(), |raw| Ok(Classes::new(spec, raw, device)?))
    }

    /// # Errors
    /// As [`input::read`] and [`Features::new`].
    pub(crate) fn features(&mut self, uri: &str, inputs: &Inputs, device: Device) -> Result<Rc<Features>> {
        self.features.get(uri, inputs, device, (), |raw| Ok(Features::new(raw, device)?))
    }

    /// Real images of this [C, H, W]; they stay on the cpu.
    ///
    /// # Errors
    /// As [`input::read`] and [`Reference::from_bytes`].
    pub(crate) fn reference(
        &mut self,
        spec: &ReferenceSpec,
        inputs: &Inputs,
        shape: [i64; 3],
    ) -> Result<Rc<Reference>> {
        self.references.get(&spec.uri, inputs, Device::Cpu, shape, |raw| {
            Ok(Reference::from_bytes(&raw.bytes, &raw.name, shape)?)
        })
    }

    /// Images of this [C, H, W] that somebody says show the feature; they stay on the cpu.
    ///
    /// # Errors
    /// As [`input::read`] and [`Reference::labelled`].
    pub(crate) fn calibration(
        &mut self,
        spec: &Calibration,
        inputs: &Inputs,
        shape: [i64; 3],
    ) -> Result<Rc<Reference>> {
        self.calibrations.get(&spec.uri, inputs, Device::Cpu, shape, |raw| {
            Ok(Reference::labelled(&raw.bytes, &raw.name, shape)?)
        })
    }

    /// The original with the weights of this digest, which `state` gives if they are not at hand.
    ///
    /// # Errors
    /// As [`GeneratorFile::frozen_with`], and those of `state`.
    pub(crate) fn trained(
        &mut self,
        original: &Rc<Original>,
        sha256: &str,
        state: impl FnOnce() -> Result<Tensors>,
    ) -> Result<Rc<Generator>> {
        let kept =
            self.trained.take_if(|kept| kept.sha256 != sha256 || !Rc::ptr_eq(&kept.original, original));
        drop(kept);
        if let Some(kept) = &self.trained {
            return Ok(Rc::clone(&kept.generator));
        }
        let generator = Rc::new(original.file.frozen_with(&state()?, original.generator.device())?);
        self.trained = Some(Trained {
            sha256: sha256.to_owned(),
            original: Rc::clone(original),
            generator: Rc::clone(&generator),
        });
        Ok(generator)
    }

    /// The target vector, which `load` reads if it is not at hand.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn target(
        &mut self,
        artifact: &ArtifactRef,
        load: impl FnOnce() -> Result<Target>,
    ) -> Result<Rc<Target>> {
        if let Some((known, target)) = &self.target
            && known == artifact
        {
            return Ok(Rc::clone(target));
        }
        let target = Rc::new(load()?);
        self.target = Some((artifact.clone(), Rc::clone(&target)));
        Ok(target)
    }

    /// The edits of a job, which `load` reads if they are not at hand.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn pool(
        &mut self,
        shards: &[ArtifactRef],
        load: impl FnOnce() -> Result<Pool>,
    ) -> Result<Rc<Pool>> {
        if let Some((known, pool)) = &self.pool
            && known == shards
        {
            return Ok(Rc::clone(pool));
        }
        self.pool = None;
        let pool = Rc::new(load()?);
        self.pool = Some((shards.to_vec(), Rc::clone(&pool)));
        Ok(pool)
    }
}

/// What a model was loaded from, and as what.
#[derive(Debug, PartialEq)]
struct Key<S> {
    spec: S,
    device: Device,
    uri: String,
    state: State,
    pins: Pins,
}

impl<S> Key<S> {
    /// The state first: what changes after it is noticed by the next task.
    fn new(uri: &str, inputs: &Inputs, device: Device, spec: S) -> Result<Self> {
        let (state, pins) = (input::state_of(uri)?, Pins::of(inputs, uri));
        Ok(Self { spec, device, uri: uri.to_owned(), state, pins })
    }

    fn load<T>(&self, load: impl FnOnce(RawModel) -> Result<T>) -> Result<T> {
        let (file, raw) = input::read(&self.uri, &self.pins)?;
        load(raw).map_err(|error| error.about(&self.uri, &file))
    }
}

/// The last two of a kind: a job has a labeller and a judge.
#[derive(Debug)]
struct Recent<K, T>(Vec<(K, Rc<T>)>);

impl<K, T> Default for Recent<K, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: PartialEq, T> Recent<K, T> {
    const ROOM: usize = 2;

    fn find(&mut self, key: K, load: impl FnOnce(&K) -> Result<T>) -> Result<Rc<T>> {
        if let Some(place) = self.0.iter().position(|(known, _)| *known == key) {
            let found = self.0.remove(place);
            self.0.insert(0, found);
        } else {
            // Room first: two generations of a large model need not be in memory together.
            self.0.truncate(Self::ROOM - 1);
            let loaded = Rc::new(load(&key)?);
            self.0.insert(0, (key, loaded));
        }
        Ok(Rc::clone(&self.0[0].1))
    }
}

impl<S: PartialEq, T> Recent<Key<S>, T> {
    /// What one file holds.
    fn get(
        &mut self,
        uri: &str,
        inputs: &Inputs,
        device: Device,
        spec: S,
        load: impl FnOnce(RawModel) -> Result<T>,
    ) -> Result<Rc<T>> {
        self.find(Key::new(uri, inputs, device, spec)?, |key| key.load(load))
    }
}

impl Recent<Vec<Key<Model>>, Labeller> {
    /// Who looks, of one file or several; `load` makes each of them.
    fn look(
        &mut self,
        judge: &Judge,
        inputs: &Inputs,
        device: Device,
        load: impl Fn(LabellerSpec<'_>, RawModel, Device) -> lethe_models::Result<Labeller>,
    ) -> Result<Rc<Labeller>> {
        let key = |model: &Model| Key::new(model.uri(), inputs, device, model.clone());
        let keys = judge.models().iter().map(key).collect::<Result<_>>()?;
        self.find(keys, |keys: &Vec<Key<Model>>| {
            let member = |key: &Key<Model>| {
                let model = key.load(|raw| Ok(load(key.spec.labeller(), raw, device)?))?;
                Ok((model, key.spec.threshold()))
            };
            Ok(Labeller::together(keys.iter().map(member).collect::<Result<Vec<_>>>()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_model_is_loaded_again_only_when_something_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.pt");
        fs::write(&file, "one").unwrap();
        let uri = file.to_str().unwrap();
        let mut recent: Recent<Key<u8>, String> = Recent::default();
        let mut loads = 0;
        let mut get = |spec, device| {
            let loaded = recent.get(uri, &Inputs::default(), device, spec, |raw| {
                loads += 1;
                Ok(String::from_utf8(raw.bytes).unwrap())
            });
            (loaded.unwrap().to_string(), loads)
        };
        assert_eq!(get(1, Device::Cpu), ("one".to_owned(), 1));
        assert_eq!(get(1, Device::Cpu), ("one".to_owned(), 1));
        assert_eq!(get(2, Device::Cpu).1, 2, "another spec");
        assert_eq!(get(1, Device::Cpu).1, 2, "both are kept");
        fs::write(&file, "three").unwrap();
        assert_eq!(get(1, Device::Cpu), ("three".to_owned(), 3));
        fs::write(folder.path().join("model.pt.json"), "{}").unwrap();
        assert_eq!(get(1, Device::Cpu).1, 4, "a sidecar appeared");
    }
}
