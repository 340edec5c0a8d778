//! Named tensors as safetensors bytes: model states, optimiser states, target vectors, moments, reference images.
//!
//! The same tensors always give the same bytes. Not here: what the names mean.

use std::borrow::Cow;
use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, View};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::precision::dtype;

/// Named tensors, in the order of their names.
#[derive(Debug)]
pub struct Tensors {
    label: String,
    entries: BTreeMap<String, Tensor>,
}

impl Tensors {
    /// None yet. `label` (a file, or what the tensors are) is named in errors.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), entries: BTreeMap::new() }
    }

    /// What the tensors are, as errors name it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Adds a tensor. It is shared, not copied: later in-place changes show.
    pub fn insert(&mut self, name: impl Into<String>, tensor: &Tensor) {
        self.entries.insert(name.into(), tensor.shallow_clone());
    }

    /// Adds one number as f64, exactly.
    pub fn insert_f64(&mut self, name: impl Into<String>, value: f64) {
        self.entries.insert(name.into(), Tensor::from(value));
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// [`Error::Tensors`] when there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.entries.get(name).ok_or_else(|| self.refuse(format!("the tensor {name} is missing")))
    }

    /// The tensor of this name, if there is one.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.entries.get(name)
    }

    /// The tensor of this name, when it has this shape and kind.
    ///
    /// # Errors
    /// [`Error::Tensors`] when there is none, or another one.
    pub fn get_shaped(&self, name: &str, shape: &[i64], kind: Kind) -> Result<&Tensor> {
        let tensor = self.get(name)?;
        if tensor.size() != shape || tensor.f_kind()? != kind {
            return Err(self.refuse(format!(
                "the tensor {name} has the shape {:?} and the dtype {}, expected {shape:?} and {}",
                tensor.size(),
                dtype(tensor.f_kind()?),
                dtype(kind)
            )));
        }
        Ok(tensor)
    }

    /// One number.
    ///
    /// # Errors
    /// [`Error::Tensors`] when it is missing or is not a single number.
    pub fn get_f64(&self, name: &str) -> Result<f64> {
        let tensor = self.get(name)?;
        if tensor.numel() != 1 {
            return Err(
                self.refuse(format!("the tensor {name} has shape {:?}, expected one number", tensor.size()))
            );
        }
        Ok(f64::try_from(tensor)?)
    }

    fn refuse(&self, reason: String) -> Error {
        Error::Tensors { file: self.label.clone(), reason }
    }

    /// Name and tensor, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// How many tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes in all of `other` under `prefix.NAME`.
    pub fn nest(&mut self, prefix: &str, other: Tensors) {
        self.entries
            .extend(other.entries.into_iter().map(|(name, tensor)| (format!("{prefix}.{name}"), tensor)));
    }

    /// Those under `prefix.NAME`, by NAME.
    pub fn nested(&self, prefix: &str) -> Tensors {
        let start = format!("{prefix}.");
        let entries = self.entries.iter().filter_map(|(name, tensor)| {
            name.strip_prefix(&start).map(|rest| (rest.to_owned(), tensor.shallow_clone()))
        });
        Tensors { label: self.label.clone(), entries: entries.collect() }
    }

    /// A copy with its own storage on the cpu.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Torch`].
    pub fn snapshot(&self) -> Result<Tensors> {
        let copy = |(name, tensor): (&String, &Tensor)| {
            let kind = tensor.f_kind()?;
            Ok((name.clone(), tensor.f_detach()?.f_to_device_(Device::Cpu, kind, false, true)?))
        };
        let entries = self.entries.iter().map(copy).collect::<Result<_>>()?;
        Ok(Tensors { label: self.label.clone(), entries })
    }

    /// As [`Tensors::snapshot`], into the memory of an earlier one: fresh memory costs more time than the copying. A tensor of
    /// `earlier` that has another shape or kind is made anew.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Torch`].
    pub fn snapshot_into(&self, mut earlier: Tensors) -> Result<Tensors> {
        let mut entries = BTreeMap::new();
        for (name, tensor) in &self.entries {
            let (tensor, kind) = (tensor.f_detach()?, tensor.f_kind()?);
            let room = earlier.entries.remove(name);
            let copy = match room {
                Some(mut room) if room.size() == tensor.size() && room.f_kind()? == kind => {
                    room.f_copy_(&tensor)?;
                    room
                }
                _ => tensor.f_to_device_(Device::Cpu, kind, false, true)?,
            };
            entries.insert(name.clone(), copy);
        }
        Ok(Tensors { label: self.label.clone(), entries })
    }

    /// SHA-256 over names, kinds, shapes and numbers: the same for the same tensors wherever they lie.
    ///
    /// # Errors
    /// As [`Tensors::to_bytes`].
    pub fn digest(&self) -> Result<[u8; 32]> {
        let mut digest = Sha256::new();
        for (name, tensor) in &self.entries {
            let blob = Blob::of(tensor)?;
            digest.update(format!("{name} {} {:?}\n", blob.dtype, blob.shape));
            digest.update(&blob.data);
        }
        Ok(digest.finalize().into())
    }

    /// As safetensors bytes.
    ///
    /// # Errors
    /// [`Error::Torch`] for a kind of number that the format does not have; [`Error::Memory`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let blobs = self.entries.iter().map(|(name, tensor)| Ok((name.as_str(), Blob::of(tensor)?)));
        let blobs = blobs.collect::<Result<Vec<_>>>()?;
        // No metadata: the format's library writes several entries in an order that differs from run to run.
        safetensors::serialize(blobs, None).map_err(|error| Error::Torch { reason: error.to_string() })
    }

    /// From safetensors bytes, onto the cpu. `file` is the label.
    ///
    /// # Errors
    /// [`Error::Unreadable`] for anything but sound safetensors; [`Error::Memory`].
    pub fn from_bytes(bytes: &[u8], file: &str) -> Result<Self> {
        let parsed = SafeTensors::deserialize(bytes).map_err(|error| unreadable(&error, bytes, file))?;
        let mut entries = BTreeMap::new();
        for (name, view) in parsed.iter() {
            let kind = kind_of(view.dtype()).ok_or_else(|| Error::Unreadable {
                file: file.to_owned(),
                reason: format!("the tensor {name} has the type {}, which Lethe does not use", view.dtype()),
            })?;
            let shape: Vec<i64> = view.shape().iter().map(|n| *n as i64).collect();
            let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)?;
            entries.insert(name.to_owned(), tensor);
        }
        Ok(Self { label: file.to_owned(), entries })
    }
}

fn unreadable(error: &SafeTensorError, bytes: &[u8], file: &str) -> Error {
    use SafeTensorError as E;
    let reason = match error {
        E::HeaderTooSmall | E::InvalidHeaderLength | E::MetadataIncompleteBuffer => {
            format!("is truncated or not safetensors ({error}; {} bytes)", bytes.len())
        }
        other => format!("is damaged or not safetensors: {other}"),
    };
    Error::Unreadable { file: file.to_owned(), reason }
}

/// One tensor's bytes, as the safetensors library wants them.
struct Blob {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Blob {
    fn of(tensor: &Tensor) -> Result<Self> {
        let kind = tensor.f_kind()?;
        let dtype = dtype_of(kind)
            .ok_or_else(|| Error::Torch { reason: format!("safetensors has no type for {}", dtype(kind)) })?;
        let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
        let count = tensor.numel();
        let mut data = vec![0; count * kind.elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut data, count)?;
        Ok(Self { dtype, shape: tensor.size().iter().map(|n| *n as usize).collect(), data })
    }
}

impl View for Blob {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

const KINDS: [(Kind, Dtype); 10] = [
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int64, Dtype::I64),
    (Kind::Int, Dtype::I32),
    (Kind::Int16, Dtype::I16),
    (Kind::Int8, Dtype::I8),
    (Kind::Uint8, Dtype::U8),
    (Kind::Bool, Dtype::BOOL),
];

/// Whether a tensor of this kind can be written to a file.
pub(crate) fn is_stored(kind: Kind) -> bool {
    dtype_of(kind).is_some()
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    KINDS.iter().find(|pair| pair.0 == kind).map(|pair| pair.1)
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    KINDS.iter().find(|pair| pair.1 == dtype).map(|pair| pair.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Tensors {
        let mut tensors = Tensors::new("x");
        for name in ["b", "a.c", "d"] {
            tensors
                .insert(name, &Tensor::arange(6, (Kind::Float, Device::Cpu)).reshape([2, 3]).transpose(0, 1));
        }
        tensors.insert("count", &Tensor::from_slice(&[7_i64]));
        tensors.insert_f64("third", 1.0 / 3.0);
        tensors
    }

    #[test]
    fn bytes_are_the_same_every_time_and_come_back() {
        let bytes = some().to_bytes().unwrap();
        assert_eq!(bytes, some().to_bytes().unwrap());
        let back = Tensors::from_bytes(&bytes, "x").unwrap();
        assert_eq!(back.len(), 5);
        assert_eq!(back.get("b").unwrap().size(), [3, 2]);
        assert_eq!(back.get("b").unwrap().double_value(&[1, 1]), 4.0);
        assert_eq!(back.get_f64("third").unwrap(), 1.0 / 3.0);
        assert_eq!(back.nested("a").iter().map(|(name, _)| name).collect::<Vec<_>>(), ["c"]);
        assert_eq!(back.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn a_snapshot_into_an_earlier_one_is_a_copy_in_the_same_memory() {
        let tensors = some();
        let first = tensors.snapshot().unwrap();
        let place = first.get("b").unwrap().data_ptr();
        let _ = tensors.get("b").unwrap().shallow_clone().f_add_scalar_(1.0).unwrap();
        let second = tensors.snapshot_into(first).unwrap();
        assert_eq!(second.get("b").unwrap().data_ptr(), place, "no fresh memory");
        assert_eq!(second.to_bytes().unwrap(), tensors.to_bytes().unwrap());

        let mut other = Tensors::new("other");
        other.insert("b", &Tensor::zeros([9], (Kind::Float, Device::Cpu)));
        other.insert("gone", &Tensor::zeros([9], (Kind::Float, Device::Cpu)));
        let third = tensors.snapshot_into(other).unwrap();
        assert_eq!(third.to_bytes().unwrap(), tensors.to_bytes().unwrap());
    }

    #[test]
    fn a_digest_tells_a_single_bit_a_name_and_a_shape() {
        let of = |name: &str, numbers: &[f32], shape: &[i64]| {
            let mut tensors = Tensors::new("x");
            tensors.insert(name, &Tensor::from_slice(numbers).reshape(shape));
            tensors.digest().unwrap()
        };
        let whole = of("a", &[1.0, 2.0], &[2]);
        assert_eq!(whole, of("a", &[1.0, 2.0], &[2]));
        assert_ne!(whole, of("a", &[1.0, f32::from_bits(2.0_f32.to_bits() ^ 1)], &[2]));
        assert_ne!(whole, of("b", &[1.0, 2.0], &[2]));
        assert_ne!(whole, of("a", &[1.0, 2.0], &[1, 2]));
    }

    #[test]
    fn every_truncation_is_refused_and_names_the_file() {
        let bytes = some().to_bytes().unwrap();
        for end in 0..bytes.len() {
            let error = Tensors::from_bytes(&bytes[..end], "weights.safetensors").unwrap_err();
            assert!(error.to_string().starts_with("weights.safetensors: is "), "{error}");
        }
    }
}
