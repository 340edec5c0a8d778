//! A generator: the frozen original and the trainable copy made of one file, their state, their images.
//!
//! Not here: latents, losses, optimisers.

mod agreement;
mod leaves;
mod source;

use lethe_domain::spec::{BatchNorm, Generator as GeneratorSpec};
use tch::{Device, Kind, Tensor};

use crate::error::{CLAMP, Error, Result};
use crate::function;
use crate::native::Native;
use crate::script::Script;
use crate::weights::Tensors;
use leaves::Casts;

pub use source::{Exported, GeneratorFile};

/// Pixels that lie this far outside of the range on average, as a share of its width, are of another range.
const FAR: f64 = 0.1;

/// A generator that runs.
#[derive(Debug)]
pub struct Generator {
    name: String,
    spec: GeneratorSpec,
    device: Device,
    module: Module,
    parameters: Vec<(String, Tensor)>,
    buffers: Vec<(String, Tensor)>,
    untrained: Vec<String>,
    frozen: bool,
}

#[derive(Debug)]
enum Module {
    Script(Script, Casts),
    Native(Native),
}

impl Generator {
    /// [N, ...latent] to images [N, C, H, W] f32 in the declared range, flat or without channels in the file.
    ///
    /// # Errors
    /// [`Error::Forward`], [`Error::Mismatch`] when the output cannot be images of the declared shape,
    /// [`Error::Memory`].
    pub fn forward(&self, z: &Tensor) -> Result<Tensor> {
        let images = match &self.module {
            Module::Script(script, _) if self.frozen => script.forward(z)?,
            Module::Script(script, casts) => {
                casts.lay(script)?;
                casts.scaled(&script.forward(z)?)?
            }
            Module::Native(native) => native.forward(z)?,
        };
        let [channels, height, width] = self.spec.output.shape();
        let (count, found) = (z.size()[0], images.size());
        if found == [count, channels, height, width] {
            return Ok(images);
        }
        let flat = found == [count, channels * height * width];
        if flat || (channels == 1 && found == [count, height, width]) {
            return Ok(images.f_reshape([count, channels, height, width])?);
        }
        Err(Error::Mismatch {
            model: self.name.clone(),
            reason: format!(
                "gives {found:?} for {count} latents, the job spec says [{count}, {channels}, {height}, {width}]"
            ),
        })
    }

    /// Images from the declared range to [0, 1], cut to it.
    ///
    /// Where the spec says that they go beyond it (`clamp`), gradients pass as if nothing were cut: a pixel beyond the range
    /// could not come back otherwise.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn to_unit(&self, images: &Tensor) -> Result<Tensor> {
        let [low, high] = self.spec.output.range;
        let spans_unit = (low, high) == (0.0, 1.0);
        let mut unit = match spans_unit {
            true => images.shallow_clone(),
            false => images.f_sub_scalar(low)?.f_mul_scalar(1.0 / (high - low))?,
        };
        if self.spec.output.clamp && unit.requires_grad() {
            let cut = unit.f_detach()?.f_clamp(0.0, 1.0)?;
            return Ok(unit.f_sub(&unit.f_detach()?)?.f_add(&cut)?);
        }
        Ok(if spans_unit { unit.f_clamp(0.0, 1.0)? } else { unit.f_clamp_(0.0, 1.0)? })
    }

    /// Which of these images have a pixel outside the declared range, bool `[N]`.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn strays(&self, images: &Tensor) -> Result<Tensor> {
        let ([low, high], tolerance) = (self.spec.output.range, self.tolerance());
        let outside = images.f_lt(low - tolerance)?.f_logical_or(&images.f_gt(high + tolerance)?)?;
        Ok(outside.f_flatten(1, -1)?.f_any_dim(1, false)?)
    }

    /// So far outside the declared range rounding may take a pixel.
    fn tolerance(&self) -> f64 {
        let [low, high] = self.spec.output.range;
        1e-3 * (high - low)
    }

    /// Looks at finished images: lowest and highest pixel.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::Mismatch`] when pixels lie outside the declared range (far outside, where the spec says
    /// `clamp`), or so far inside that another range must be meant.
    pub fn check_images(&self, images: &Tensor) -> Result<[f64; 2]> {
        let extremes = Tensor::f_stack(&[images.f_min()?, images.f_max()?], 0)?;
        let [found_low, found_high] = [extremes.f_double_value(&[0])?, extremes.f_double_value(&[1])?];
        if !(found_low.is_finite() && found_high.is_finite()) {
            let what = format!("{}: gave images with NaN or infinite pixels", self.name);
            return Err(Error::NotFinite { what });
        }
        let [low, high] = self.spec.output.range;
        let tolerance = self.tolerance();
        let outside = found_low < low - tolerance || found_high > high + tolerance;
        // The two slips that stay inside: [0, 1] declared as [-1, 1], and [0, 1] declared as [0, 255].
        let narrower = low < 0.0 && found_low >= 0.0 && found_high <= 1.0;
        let smaller = high > 2.0 && found_high <= 1.0;
        let clamp = self.spec.output.clamp;
        let far = outside && self.excess(images)? > FAR;
        if (outside && !clamp) || far || narrower || smaller {
            let advice = match (outside && !far, clamp) {
                (true, false) => CLAMP,
                (false, true) if outside => ": too far beyond it for clamp",
                _ => "",
            };
            let reason = format!(
                "gives pixels from {found_low:.4} to {found_high:.4}, the job spec says generator.output.range is \
                 [{low}, {high}]{advice}"
            );
            return Err(Error::Mismatch { model: self.name.clone(), reason });
        }
        Ok([found_low, found_high])
    }

    /// What a cut to the declared range takes away from a pixel on average, as a share of the range's width.
    fn excess(&self, images: &Tensor) -> Result<f64> {
        let [low, high] = self.spec.output.range;
        let beyond = images.f_sub(&images.f_clamp(low, high)?)?.f_abs()?;
        Ok(f64::try_from(beyond.f_mean(Kind::Double)?)? / (high - low))
    }

    /// Runs it on a batch several times, whole and in parts.
    ///
    /// # Errors
    /// [`Error::NoFunction`] when an image depends on anything but its latent; as [`Generator::forward`].
    pub fn check_function(&self, z: &Tensor) -> Result<Tensor> {
        let precision = || match &self.module {
            Module::Script(script, _) => script.precision(),
            Module::Native(_) => Kind::Float,
        };
        function::check(&self.name, z, &self.buffers, precision, |z| self.forward(z))
    }

    /// Names of the floating parameters that training leaves as they are: their `requires_grad` is False in the file, and
    /// not that of all.
    pub fn untrained(&self) -> &[String] {
        &self.untrained
    }

    /// What is trained, by name, in the order of the module; sharing storage.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// Statistics of batch normalisation and the like, by name; sharing storage.
    pub fn buffers(&self) -> &[(String, Tensor)] {
        &self.buffers
    }

    /// Entries of all parameters.
    pub fn parameter_count(&self) -> u64 {
        self.parameters.iter().map(|(_, tensor)| tensor.numel() as u64).sum()
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What the job spec says about it.
    pub fn spec(&self) -> &GeneratorSpec {
        &self.spec
    }

    /// Whether batch normalisation keeps its statistics or uses each batch's own. Dropout stays off.
    ///
    /// # Errors
    /// [`Error::Torch`].
    pub fn set_batch_norm(&mut self, mode: BatchNorm) -> Result<()> {
        let training = mode == BatchNorm::Train;
        match &mut self.module {
            Module::Script(script, _) => script.set_batch_norm(training).map(drop),
            Module::Native(native) => {
                native.set_batch_norm(training);
                Ok(())
            }
        }
    }

    /// Every parameter and buffer, sharing storage.
    pub fn state(&self) -> Tensors {
        let mut state = Tensors::new(&self.name);
        for (name, tensor) in self.parameters.iter().chain(&self.buffers) {
            state.insert(name, tensor);
        }
        state
    }

    /// Copies every parameter and buffer from `state`, in place.
    ///
    /// # Errors
    /// [`Error::Tensors`] when a tensor is missing, superfluous, or of another shape or kind; nothing is copied then.
    pub fn set_state(&mut self, state: &Tensors) -> Result<()> {
        let own: Vec<(&str, Vec<i64>)> = self
            .parameters
            .iter()
            .chain(&self.buffers)
            .map(|(name, tensor)| (name.as_str(), tensor.size()))
            .collect();
        agreement::same_tensors(state, &own)?;
        for (name, tensor) in self.parameters.iter().chain(&self.buffers) {
            // The detached tensor shares the storage, so that writing to it writes the weight, unseen by autograd.
            tensor.f_detach()?.f_copy_(state.get(name)?)?;
        }
        Ok(())
    }

    /// No gradients. Freezing and folding were measured too: they gain nothing here, and cost that the original and an
    /// untrained copy give the same bits.
    fn freeze(&mut self) -> Result<()> {
        for (_, tensor) in &self.parameters {
            let _ = tensor.f_set_requires_grad(false)?;
        }
        self.frozen = true;
        Ok(())
    }

    /// Makes a script hold what its parameters are now, in its own precision; `trained` as the file will say.
    fn settle(&self, trained: bool) -> Result<()> {
        match &self.module {
            Module::Script(script, casts) => casts.settle(script, trained),
            Module::Native(_) => Ok(()),
        }
    }
}
