//! Latents by address: sample i of stream s under seed k is the same on every machine, in every batch, for ever.
//!
//! ChaCha8 with the key seed | stream | 16 zero bytes (u64 little-endian each) and the stream number i; the entries are drawn in
//! row-major order as f64 and rounded to f32. Standard normal: ziggurat of `rand_distr`. Uniform over [a, b): a + (b - a) u
//! with u of 53 bits. Golden values in the tests hold the format still.

use lethe_domain::spec::{Generator, Prior};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal, StandardUniform};
use tch::{Device, Tensor};

use crate::error::Result;

/// What random numbers are for. Streams never share a latent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Looked at to find the feature.
    Sample = 0,
    /// Trained on.
    Train = 1,
    /// Measured on.
    Evaluate = 2,
    /// The original's second sample, for the noise floor.
    Noise = 3,
    /// The first look at a model.
    Probe = 4,
    /// No latents: which of those trained on a step takes.
    Draw = 5,
    /// No latents: what a student is taught with.
    Teach = 6,
    /// No latents: the way in which weights are moved to find the learning rate.
    Rate = 7,
    /// No latents: what a surrogate is taught with.
    Surrogate = 8,
    /// No latents: the white noise by which the metric of latents is told.
    Metric = 9,
}

/// The latents of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    seed: u64,
    shape: Vec<i64>,
    prior: Prior,
}

impl Latents {
    /// The latents that this generator takes, under this seed.
    pub fn new(seed: u64, generator: &Generator) -> Self {
        Self { seed, shape: generator.latent.shape(), prior: generator.prior }
    }

    /// Shape of one latent.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// Entries of one latent.
    pub fn numel(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// Standard deviation of an entry.
    pub fn deviation(&self) -> f64 {
        match self.prior {
            Prior::Normal => 1.0,
            Prior::Uniform(a, b) => (b - a) / 12_f64.sqrt(),
        }
    }

    /// The random numbers of this address.
    pub(crate) fn random(&self, stream: Stream, index: u64) -> ChaCha8Rng {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&(stream as u64).to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(index);
        random
    }

    /// -1 or 1 for each entry of a tensor of this size, f32.
    ///
    /// # Errors
    /// Lack of memory.
    pub(crate) fn signs(&self, stream: Stream, index: u64, size: &[i64], device: Device) -> Result<Tensor> {
        let mut random = self.random(stream, index);
        let mut bits = 0;
        let signs: Vec<f32> = (0..size.iter().product())
            .map(|entry: i64| {
                if entry % 64 == 0 {
                    bits = random.next_u64();
                }
                if bits >> (entry % 64) & 1 == 0 { -1.0 } else { 1.0 }
            })
            .collect();
        sent(&Tensor::f_from_slice(&signs)?.f_reshape(size)?, device)
    }

    /// Writes one latent, `numel` entries.
    pub fn write(&self, stream: Stream, index: u64, out: &mut [f32]) {
        let mut random = self.random(stream, index);
        match self.prior {
            Prior::Normal => {
                for entry in out {
                    let value: f64 = StandardNormal.sample(&mut random);
                    *entry = value as f32;
                }
            }
            Prior::Uniform(a, b) => {
                for entry in out {
                    let unit: f64 = StandardUniform.sample(&mut random);
                    *entry = (a + (b - a) * unit) as f32;
                }
            }
        }
    }

    /// The latents of these indices, one after the other: `indices.len() * numel` entries.
    pub fn rows(&self, stream: Stream, indices: impl ExactSizeIterator<Item = u64>) -> Vec<f32> {
        let numel = self.numel();
        let mut values = vec![0.0; indices.len() * numel];
        for (row, index) in values.chunks_exact_mut(numel).zip(indices) {
            self.write(stream, index, row);
        }
        values
    }

    /// Latents start, start + 1, ... as a tensor [count, ...shape], f32.
    ///
    /// # Errors
    /// Lack of memory.
    pub fn batch(&self, stream: Stream, start: u64, count: u64, device: Device) -> Result<Tensor> {
        // An iterator over u64 has no exact size in std; a step does.
        let indices = (0..count as usize).map(|step| start + step as u64);
        self.tensor(&self.rows(stream, indices), device)
    }

    /// The latents of these indices as a tensor [indices.len(), ...shape], f32.
    ///
    /// # Errors
    /// Lack of memory.
    pub fn gather(&self, stream: Stream, indices: &[u64], device: Device) -> Result<Tensor> {
        self.tensor(&self.rows(stream, indices.iter().copied()), device)
    }

    /// Entries of latents one after the other, as a tensor [N, ...shape].
    pub(crate) fn tensor(&self, values: &[f32], device: Device) -> Result<Tensor> {
        let mut shape = vec![(values.len() / self.numel()) as i64];
        shape.extend(&self.shape);
        sent(&Tensor::f_from_slice(values)?.f_reshape(&shape)?, device)
    }
}

/// A number below `count` out of 64 random bits.
pub(crate) fn below(bits: u64, count: usize) -> usize {
    ((u128::from(bits) * count as u128) >> 64) as usize
}

/// A tensor of this process on a device.
pub(crate) fn sent(tensor: &Tensor, device: Device) -> Result<Tensor> {
    if device == Device::Cpu {
        return Ok(tensor.shallow_clone());
    }
    // From locked memory a GPU fetches it when it comes to it; from any other, this process would wait for all that the GPU still
    // has to do.
    Ok(tensor.f_pin_memory(device)?.f_to_device_(device, tensor.f_kind()?, true, false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bits_reach_every_number_below_the_count() {
        assert_eq!([0, u64::MAX / 2, u64::MAX].map(|bits| below(bits, 10)), [0, 4, 9]);
    }
}
