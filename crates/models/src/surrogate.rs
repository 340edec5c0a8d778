//! A surrogate: a small network that learns, from the latent alone, what the labeller says of the original's image of it.
//!
//! The labeller's own gradient through the generator is exact and short-sighted: it finds the nearest image that this labeller calls free of
//! the feature, which the next one may not. What a network has learnt from thousands of samples is smooth: its gradient points to
//! where images are free of the feature on the whole, and differs from place to place, as one direction for all does not. Not here: how far
//! an edit goes, which the labeller says (`edit`).

use rand_chacha::rand_core::Rng;
use tch::{Device, Kind, Reduction, Tensor};

use crate::adam::Adam;
use crate::error::{Error, Result};
use crate::latents::{Latents, Stream, below, sent};
use crate::layer::{self, Layer, named};
use crate::weights::Tensors;

const HIDDEN: i64 = 256;
const LAYERS: usize = 3;

/// The network, f32: latents [N, D], in standard deviations of an entry, to the opinions of every model side by side, [N, K].
#[derive(Debug)]
pub struct Surrogate {
    layers: Vec<Layer>,
    /// How many opinions are each model's.
    widths: Vec<i64>,
    /// Of each opinion it was taught, [K].
    means: Tensor,
    /// Of all of them, about these means.
    deviation: f64,
    /// Standard deviation of a latent's entry.
    entry: f64,
}

impl Surrogate {
    /// Latents with more entries are left alone: what there is to learn would drown in what there is to see.
    pub const MOST_ENTRIES: usize = 8_192;
    const STEPS: u64 = 1_400;
    const BATCH: usize = 128;
    const RATE: f64 = 2e-3;
    /// Samples that are left out of the lessons, of all: one in this many.
    const TESTED: usize = 10;
    /// Differences count squared up to this, in standard deviations.
    const SMALL: f64 = 0.3;

    /// Learns `opinions`, f32 [N, K] of each model, about the first N samples. Gives how much of their variance it explains where it was not taught, too.
    /// `step` is called before each step with how many are done.
    ///
    /// # Errors
    /// [`Error::Memory`], and those of `step`.
    pub fn teach<E: From<Error>>(
        latents: &Latents,
        opinions: &[Tensor],
        device: Device,
        mut step: impl FnMut(u64, u64) -> std::result::Result<(), E>,
    ) -> std::result::Result<(Self, f64), E> {
        let count = opinions.first().map_or(0, |opinions| opinions.size()[0]) as usize;
        let taught = (count - count / Self::TESTED).max(1);
        let mut random = latents.random(Stream::Surrogate, 0);
        let (pupil, wanted) = Self::new(latents, opinions, &mut random, device)?;
        let weights = pupil.weights();
        let mut adam = layer::pupil(&weights)?;
        for done in 0..Self::STEPS {
            step(done, Self::STEPS)?;
            let rows: Vec<u64> = (0..Self::BATCH).map(|_| below(random.next_u64(), taught) as u64).collect();
            let z = latents.gather(Stream::Sample, &rows, device)?;
            pupil.learn(&mut adam, &weights, &z, &wanted, &rows, done)?;
        }
        let pupil = Self::from_state(&pupil.state(), device)?;
        let explained = pupil.explained(latents, &wanted, taught..count, device)?;
        Ok((pupil, explained))
    }

    /// One that knows nothing, and the opinions in standard deviations.
    fn new(
        latents: &Latents,
        opinions: &[Tensor],
        random: &mut impl Rng,
        device: Device,
    ) -> Result<(Self, Tensor)> {
        let widths: Vec<i64> = opinions.iter().map(|opinions| opinions.size()[1]).collect();
        let opinions = sent(&Tensor::f_cat(opinions, 1)?.f_to_kind(Kind::Float)?, device)?;
        let means = opinions.f_mean_dim([0_i64].as_slice(), false, Kind::Float)?;
        let about = opinions.f_sub(&means)?;
        let deviation = f64::try_from(about.f_square()?.f_mean(Kind::Double)?)?.sqrt().max(f64::MIN_POSITIVE);
        let mut sizes = vec![latents.numel() as i64];
        sizes.extend([HIDDEN; LAYERS - 1]);
        sizes.push(opinions.size()[1]);
        let layers = sizes.windows(2).map(|pair| Layer::new(&[pair[1], pair[0]], random, device));
        let layers = layers.collect::<Result<_>>()?;
        Ok((
            Self { layers, widths, means, deviation, entry: latents.deviation() },
            about.f_div_scalar(deviation)?,
        ))
    }

    fn learn(
        &self,
        adam: &mut Adam,
        weights: &[(String, Tensor)],
        z: &Tensor,
        wanted: &Tensor,
        rows: &[u64],
        done: u64,
    ) -> Result<()> {
        let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        let wanted = wanted.f_index_select(0, &sent(&Tensor::f_from_slice(&rows)?, z.device())?)?;
        let way = std::f64::consts::PI * done as f64 / Self::STEPS as f64;
        layer::learn(adam, weights, Self::RATE * (0.5 + 0.5 * way.cos()), || {
            let found = self.standard(&self.input(z)?)?;
            Ok(found.f_smooth_l1_loss(&wanted, Reduction::Mean, Self::SMALL)?)
        })
    }

    /// Share of the variance of the opinions about these samples that it explains.
    fn explained(
        &self,
        latents: &Latents,
        wanted: &Tensor,
        samples: std::ops::Range<usize>,
        device: Device,
    ) -> Result<f64> {
        if samples.len() < 2 {
            return Ok(0.0);
        }
        let (start, count) = (samples.start as u64, samples.len() as u64);
        let found = self.standard(&self.input(&latents.batch(Stream::Sample, start, count, device)?)?)?;
        let wanted = wanted.f_narrow(0, start as i64, count as i64)?;
        let spread = |values: &Tensor| -> Result<f64> {
            let mean = values.f_mean_dim([0_i64].as_slice(), true, Kind::Float)?;
            Ok(f64::try_from(values.f_sub(&mean)?.f_square()?.f_sum(Kind::Double)?)?)
        };
        let missed = f64::try_from(found.f_sub(&wanted)?.f_square()?.f_sum(Kind::Double)?)?;
        Ok(1.0 - missed / spread(&wanted)?.max(f64::MIN_POSITIVE))
    }

    fn input(&self, z: &Tensor) -> Result<Tensor> {
        Ok(z.f_flatten(1, -1)?.f_to_kind(Kind::Float)?.f_div_scalar(self.entry)?)
    }

    fn standard(&self, input: &Tensor) -> Result<Tensor> {
        let mut x = input.shallow_clone();
        for (place, layer) in self.layers.iter().enumerate() {
            x = layer.linear(&x)?;
            if place + 1 < self.layers.len() {
                x = x.f_silu()?;
            }
        }
        Ok(x)
    }

    /// What each model says of the original's images of `z`, [N, ...latent], as far as this knows: as its opinions, f64 [N, K] each.
    /// Gradients pass.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn opinions(&self, z: &Tensor) -> Result<Vec<Tensor>> {
        let found = self.standard(&self.input(z)?)?.f_mul_scalar(self.deviation)?.f_add(&self.means)?;
        Ok(found.f_to_kind(Kind::Double)?.f_split_with_sizes(&self.widths, 1)?)
    }

    fn weights(&self) -> Vec<(String, Tensor)> {
        named(self.layers.iter().enumerate().map(|(place, layer)| (format!("layers.{place}"), layer)))
    }

    /// Weights and scale, by name.
    pub(crate) fn state(&self) -> Tensors {
        let mut state = Tensors::new("surrogate");
        for (name, weight) in self.weights() {
            state.insert(name, &weight);
        }
        state.insert("widths", &Tensor::from_slice(&self.widths));
        state.insert("means", &self.means);
        state.insert_f64("deviation", self.deviation);
        state.insert_f64("entry", self.entry);
        state
    }

    /// The same on a device.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn on(&self, device: Device) -> Result<Self> {
        Self::from_state(&self.state(), device)
    }

    /// What [`Surrogate::state`] gave, on a device.
    ///
    /// # Errors
    /// [`Error::Tensors`] when a part is missing.
    pub(crate) fn from_state(state: &Tensors, device: Device) -> Result<Self> {
        let layer = |place| Layer::from_state(state, &format!("layers.{place}"), device);
        Ok(Self {
            layers: (0..LAYERS).map(layer).collect::<Result<_>>()?,
            widths: Vec::try_from(state.get("widths")?.f_to_kind(Kind::Int64)?)?,
            means: state.get("means")?.f_to_device(device)?,
            deviation: state.get_f64("deviation")?,
            entry: state.get_f64("entry")?,
        })
    }
}

impl PartialEq for Surrogate {
    fn eq(&self, other: &Self) -> bool {
        matches!((self.state().to_bytes(), other.state().to_bytes()), (Ok(one), Ok(two)) if one == two)
    }
}
