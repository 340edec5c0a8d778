//! A student: a small network that learns, from the original's own images, what score a labeller gives them.
//!
//! Where a labeller has no gradient, as behind a threshold on pixels, its student has one. It leads the way; the labeller keeps saying
//! which images show the feature and where an edit ends. Convolutions of stride 2 down to a few pixels, then two linear layers: enough to
//! follow a score on images that one generator makes, and small beside what it looks at. Not here: when to teach one (worker/executor).

use rand_chacha::rand_core::Rng;
use rand_distr::{Distribution, StandardNormal, StandardUniform};
use tch::{Kind, Reduction, Tensor};

use crate::adam::Adam;
use crate::direction::{deviation, mean};
use crate::error::Result;
use crate::latents::{Latents, Stream, below, sent};
use crate::layer::{Layer, learn, named, pupil};
use crate::weights::Tensors;

/// Channels of the convolutions; the last goes on as often as it takes.
const WIDTHS: [i64; 3] = [24, 48, 64];
/// Sides of the kernels; likewise.
const KERNELS: [i64; 2] = [5, 3];
const STRIDE: i64 = 2;
/// Convolutions end when no side is longer.
const SMALLEST: i64 = 4;
/// Larger images are looked at through the mean of their pixels.
const LARGEST: i64 = 64;
const HIDDEN: i64 = 128;
const SLOPE: f64 = 0.2;

/// The network, f32: images [N, C, H, W] in [0, 1] to a labeller's scores [N, 1].
#[derive(Debug)]
pub struct Student {
    convolutions: Vec<Layer>,
    hidden: Layer,
    last: Layer,
    /// Of the scores it was taught: it gives them in standard deviations from their mean.
    mean: f64,
    deviation: f64,
}

fn convolve(layer: &Layer, x: &Tensor) -> Result<Tensor> {
    let border = layer.weight.size()[2] / 2;
    Ok(x.f_conv2d(&layer.weight, Some(&layer.bias), [STRIDE; 2], [border; 2], [1; 2], 1)?)
}

impl Student {
    fn new(shape: [i64; 3], random: &mut impl Rng, device: tch::Device) -> Result<Self> {
        let [mut channels, height, width] = shape;
        let pool = pooled_by(height, width);
        let mut sides = [height / pool, width / pool];
        let mut convolutions = Vec::new();
        while sides.iter().any(|side| *side > SMALLEST) {
            let of = |list: &[i64]| list[convolutions.len().min(list.len() - 1)];
            let (wide, kernel) = (of(&WIDTHS), of(&KERNELS));
            convolutions.push(Layer::new(&[wide, channels, kernel, kernel], random, device)?);
            channels = wide;
            sides = sides.map(|side| (side - 1) / STRIDE + 1);
        }
        let hidden = Layer::new(&[HIDDEN, channels * sides[0] * sides[1]], random, device)?;
        let last = Layer::new(&[1, HIDDEN], random, device)?;
        Ok(Self { convolutions, hidden, last, mean: 0.0, deviation: 1.0 })
    }

    fn layers(&self) -> impl Iterator<Item = (String, &Layer)> {
        let convolutions = self.convolutions.iter().enumerate();
        let named = convolutions.map(|(place, layer)| (format!("convolutions.{place}"), layer));
        named.chain([("hidden".to_owned(), &self.hidden), ("last".to_owned(), &self.last)])
    }

    fn weights(&self) -> Vec<(String, Tensor)> {
        named(self.layers())
    }

    /// Standardised scores [N, 1].
    fn standard(&self, images: &Tensor) -> Result<Tensor> {
        let size = images.size();
        let pool = pooled_by(size[2], size[3]);
        let mut x = match pool {
            1 => images.shallow_clone(),
            _ => images.f_avg_pool2d([pool; 2], [pool; 2], [0; 2], false, true, None)?,
        };
        for layer in &self.convolutions {
            x = leaky(&convolve(layer, &x)?)?;
        }
        self.last.linear(&leaky(&self.hidden.linear(&x.f_flatten(1, -1)?)?)?)
    }

    /// Scores [N, 1], in the labeller's units. Gradients pass.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn forward(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.standard(images)?.f_mul_scalar(self.deviation)?.f_add_scalar(self.mean)?)
    }

    /// Weights and scale, by name.
    pub fn state(&self) -> Tensors {
        let mut state = Tensors::new("student");
        for (name, weight) in self.weights() {
            state.insert(name, &weight);
        }
        state.insert_f64("mean", self.mean);
        state.insert_f64("deviation", self.deviation);
        state
    }

    /// The same on a device.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn on(&self, device: tch::Device) -> Result<Self> {
        Self::from_state(&self.state(), device)
    }

    /// What [`Student::state`] gave, on a device.
    ///
    /// # Errors
    /// [`Error::Tensors`] when a part is missing.
    pub fn from_state(state: &Tensors, device: tch::Device) -> Result<Self> {
        let layer = |name: &str| Layer::from_state(state, name, device);
        let count = state.iter().filter(|(name, _)| name.starts_with("convolutions.")).count() / 2;
        let convolutions = (0..count).map(|place| layer(&format!("convolutions.{place}")));
        Ok(Self {
            convolutions: convolutions.collect::<Result<_>>()?,
            hidden: layer("hidden")?,
            last: layer("last")?,
            mean: state.get_f64("mean")?,
            deviation: state.get_f64("deviation")?,
        })
    }
}

impl PartialEq for Student {
    fn eq(&self, other: &Self) -> bool {
        matches!((self.state().to_bytes(), other.state().to_bytes()), (Ok(one), Ok(two)) if one == two)
    }
}

fn leaky(x: &Tensor) -> Result<Tensor> {
    // max(x, slope x).
    Ok(x.f_maximum(&x.f_mul_scalar(SLOPE)?)?)
}

/// The side of the squares of pixels that are averaged.
fn pooled_by(height: i64, width: i64) -> i64 {
    ((height.max(width) - 1) / LARGEST + 1).min(height.min(width))
}

/// Lessons of a student: images of the original, and what the labeller says of them.
#[derive(Debug)]
pub struct Lessons {
    student: Student,
    adam: Adam,
    latents: Latents,
    /// u8 [N, C, H, W].
    images: Tensor,
    /// Standardised scores, f32 `[N]`.
    wanted: Tensor,
    /// Images it is taught on; the rest is for the test.
    taught: i64,
    done: u64,
}

impl Lessons {
    const STEPS: u64 = 1_000;
    /// Most times that it sees an image.
    const PASSES: u64 = 20;
    const BATCH: usize = 128;
    const RATE: f64 = 2e-3;
    /// Steps until the rate is whole; from there on it falls to nothing along half a cosine.
    const RISE: f64 = 0.3;
    /// Images that the lessons leave out, of all: one in this many.
    const TESTED: i64 = 20;
    /// Largest standard deviation of the noise on an image: what looks the same is to be scored the same.
    const NOISE: f64 = 0.03;
    /// As in the loss of training: differences count squared up to this.
    const SMALL: f64 = 0.3;

    /// Of images u8 [N, C, H, W] and their scores; `latents` give the random numbers.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn new(latents: Latents, images: Tensor, scores: &[f64]) -> Result<Self> {
        let (size, device) = (images.size(), images.device());
        let (mean, deviation) = (mean(scores), deviation(scores).max(f64::MIN_POSITIVE));
        let wanted: Vec<f32> = scores.iter().map(|score| ((score - mean) / deviation) as f32).collect();
        let mut random = latents.random(Stream::Teach, 0);
        let student = Student::new([size[1], size[2], size[3]], &mut random, device)?;
        let adam = pupil(&student.weights())?;
        Ok(Self {
            student: Student { mean, deviation, ..student },
            adam,
            latents,
            wanted: sent(&Tensor::f_from_slice(&wanted)?, device)?,
            taught: (size[0] - size[0] / Self::TESTED).max(1),
            images,
            done: 0,
        })
    }

    /// Steps in all.
    pub fn steps(&self) -> u64 {
        (self.taught as u64 * Self::PASSES / Self::BATCH as u64).clamp(1, Self::STEPS)
    }

    /// The next step.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn step(&mut self) -> Result<()> {
        let device = self.images.device();
        let mut random = self.latents.random(Stream::Teach, self.done + 1);
        let rows: Vec<i64> =
            (0..Self::BATCH).map(|_| below(random.next_u64(), self.taught as usize) as i64).collect();
        let rows = sent(&Tensor::f_from_slice(&rows)?, device)?;
        let clean = unit(&self.images.f_index_select(0, &rows)?)?;
        let pixels = clean.numel() / Self::BATCH;
        let mut noise = Vec::with_capacity(clean.numel());
        for _ in 0..Self::BATCH {
            let strength: f64 = StandardUniform.sample(&mut random);
            for _ in 0..pixels {
                let draw: f64 = StandardNormal.sample(&mut random);
                noise.push((Self::NOISE * strength * draw) as f32);
            }
        }
        let noise = sent(&Tensor::f_from_slice(&noise)?.f_reshape(clean.size())?, device)?;
        let images = clean.f_add(&noise)?.f_clamp(0.0, 1.0)?;
        let wanted = self.wanted.f_index_select(0, &rows)?;
        let part = self.done as f64 / self.steps() as f64;
        let fall = ((part - Self::RISE) / (1.0 - Self::RISE)).max(0.0);
        let factor = (part / Self::RISE).clamp(0.04, 1.0) * (0.5 + 0.5 * (std::f64::consts::PI * fall).cos());
        learn(&mut self.adam, &self.student.weights(), Self::RATE * factor, || {
            let found = self.student.standard(&images)?.f_view([-1])?;
            Ok(found.f_smooth_l1_loss(&wanted, Reduction::Mean, Self::SMALL)?)
        })?;
        self.done += 1;
        Ok(())
    }

    /// The student, and how much of the scores' variance it explains on images that it was not taught.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn end(self) -> Result<(Student, f64)> {
        let student = Student::from_state(&self.student.state(), self.images.device())?;
        let count = self.images.size()[0] - self.taught;
        if count < 2 {
            return Ok((student, 0.0));
        }
        let tests = unit(&self.images.f_narrow(0, self.taught, count)?)?;
        let found: Vec<Tensor> = tests
            .f_split(Self::BATCH as i64, 0)?
            .iter()
            .map(|part| student.standard(part))
            .collect::<Result<_>>()?;
        let wanted = self.wanted.f_narrow(0, self.taught, count)?.f_to_kind(Kind::Double)?;
        let missed = Tensor::f_cat(&found, 0)?.f_view([-1])?.f_to_kind(Kind::Double)?.f_sub(&wanted)?;
        let (missed, all) = (f64::try_from(missed.f_var(false)?)?, f64::try_from(wanted.f_var(false)?)?);
        Ok((student, 1.0 - missed / all.max(f64::MIN_POSITIVE)))
    }
}

/// Images u8 as f32 in [0, 1].
fn unit(images: &Tensor) -> Result<Tensor> {
    Ok(images.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?)
}
