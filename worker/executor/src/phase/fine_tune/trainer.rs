//! The training step: forward passes of the original and the copy, the loss, gradients summed over the ranks, Adam.
//!
//! A part of the batch is computed by itself, edit included: how fast kernels add up depends on the size of what they are
//! given. So which rank has it makes no difference to a bit of it, nor does it to the sum (see `lethe_collective::Reducer`).
//!
//! Nothing here waits for a number: losses stay tensors until a window of them is asked for. Not here: when to stop, what to
//! save.

use std::ops::Range;
use std::rc::Rc;

use lethe_collective::{Group, Reducer, ReducerOptions};
use lethe_domain::JobSpec;
use lethe_domain::spec::{BatchNorm, Unlearn};
use lethe_models::{Adam, Editor, Generator, Labeller, Latents, Loss, Stream, Target, Tensors};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::models::Original;

/// One rank's side of training.
#[derive(Debug)]
pub(crate) struct Trainer {
    latents: Latents,
    editor: Editor,
    original: Rc<Original>,
    copy: Generator,
    loss: Loss,
    adam: Adam,
    // Dropped before the group, which it sends through.
    reducer: Reducer,
    group: Group,
    unlearn: Unlearn,
    /// The parts of a global batch that this rank takes.
    own: Range<u64>,
    steps: u64,
    /// Losses of this rank's samples that nobody has asked for yet, one f64 scalar per step.
    pending: Vec<Tensor>,
}

/// Piece `place` of `count` things cut into `pieces`: contiguous, and of equal size to within one.
fn piece(count: u64, place: u64, pieces: u64) -> Range<u64> {
    count * place / pieces..count * (place + 1) / pieces
}

impl Trainer {
    /// At step 0, with the original's weights.
    ///
    /// # Errors
    /// Those of the models, and of the gang: every rank makes its trainer at the same time.
    pub(crate) fn new(
        spec: &JobSpec,
        target: &Target,
        original: Rc<Original>,
        labeller: Option<Labeller>,
        group: Group,
    ) -> Result<Self> {
        let device = original.generator.device();
        let parts = spec.unlearn.parts();
        let own = piece(parts, group.rank() as u64, group.world() as u64);
        if own.is_empty() {
            return Err(Error::internal(format!("{}: {parts} parts leave it none", group.place())));
        }
        let latents = Latents::new(spec.sample.seed, &spec.generator);
        let editor = Editor::new(target, &spec.direction, labeller, device)?;
        let loss = Loss::new(&spec.unlearn, spec.generator.output.shape(), device)?;
        let mut copy = original.file.trainable(device)?;
        let trained = trained(&copy, &latents, device)?;
        copy.set_batch_norm(spec.unlearn.batch_norm)?;
        let weights: Vec<Tensor> = trained.iter().map(|(_, weight)| weight.shallow_clone()).collect();
        let adam = Adam::new(&trained)?;
        let reducer = Reducer::new(&group, &weights, ReducerOptions::default())?;
        Ok(Self {
            latents,
            editor,
            original,
            copy,
            loss,
            adam,
            reducer,
            group,
            unlearn: spec.unlearn.clone(),
            own,
            steps: 0,
            pending: Vec::new(),
        })
    }

    /// The gang, for what is not part of a step.
    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// Steps done, over the whole run.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// One step.
    ///
    /// # Errors
    /// Those of the models and of the gang.
    pub(crate) fn step(&mut self) -> Result<()> {
        let mut losses = Vec::new();
        let mut statistics = None;
        for part in self.own.clone() {
            let loss = self.loss(part)?;
            let mean = loss.f_div_scalar(self.unlearn.global_batch as f64)?;
            if part + 1 < self.own.end {
                self.reducer.accumulate(&mean)?;
            } else {
                self.reducer.finish(&mean)?;
            }
            losses.push(loss.f_detach()?);
            if part == 0 && self.unlearn.batch_norm == BatchNorm::Train {
                statistics = Some(self.statistics()?);
            }
        }
        if let Some(statistics) = statistics {
            // The first part's are kept, which one rank has whatever their number.
            for ((_, now), first) in self.copy.buffers().iter().zip(&statistics) {
                now.shallow_clone().f_copy_(first)?;
            }
        }
        self.adam.step(self.unlearn.lr * self.unlearn.lr_schedule.factor(self.steps, self.unlearn.steps))?;
        self.pending.push(Tensor::f_stack(&losses, 0)?.f_sum(Kind::Double)?);
        self.steps += 1;
        Ok(())
    }

    /// The loss summed over the latents of one part of this step's batch.
    fn loss(&self, part: u64) -> Result<Tensor> {
        let batch = self.unlearn.global_batch;
        let range = piece(batch, part, self.unlearn.parts());
        let start = self.steps * batch + range.start;
        let z = self.latents.batch(Stream::Train, start, range.end - range.start, self.copy.device())?;
        let edited = self.editor.edit(&self.original.generator, &z)?;
        let targets = self.copy.to_unit(&edited.images)?;
        let images = self.copy.to_unit(&self.copy.forward(&z)?)?;
        Ok(self.loss.sum(&images, &targets, &edited.edited, edited.count)?)
    }

    /// A copy of the running statistics.
    fn statistics(&self) -> Result<Vec<Tensor>> {
        Ok(self
            .copy
            .buffers()
            .iter()
            .map(|(_, buffer)| buffer.f_detach_copy())
            .collect::<std::result::Result<_, _>>()?)
    }

    /// Steps whose losses nobody has asked for.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The mean losses of those steps over the global batch, the same bits on every rank. A collective.
    ///
    /// # Errors
    /// Those of the gang.
    pub(crate) fn losses(&mut self) -> Result<Vec<f64>> {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let mut sums = Tensor::f_stack(&pending, 0)?;
        self.group.all_reduce_sum(&mut sums)?;
        Ok(Vec::try_from(sums.f_div_scalar(self.unlearn.global_batch as f64)?.f_to_device(Device::Cpu)?)?)
    }

    /// Parameters and buffers of the copy, sharing storage.
    pub(crate) fn weights(&self) -> Tensors {
        self.copy.state()
    }

    /// The optimiser's state, sharing storage.
    pub(crate) fn optimiser(&self) -> Tensors {
        self.adam.state()
    }

    /// Takes over the state of a run that has done `steps`, in place.
    ///
    /// # Errors
    /// When it is not the state of this generator.
    pub(crate) fn restore(&mut self, generator: &Tensors, optimiser: &Tensors) -> Result<()> {
        self.copy.set_state(generator)?;
        Ok(self.adam.set_state(optimiser)?)
    }

    /// Makes every rank's weights, optimiser and steps those of rank 0. A collective.
    ///
    /// # Errors
    /// Those of the gang.
    pub(crate) fn share(&mut self, steps: u64) -> Result<()> {
        self.steps = steps;
        let of = |state: &Tensors| state.iter().map(|(_, tensor)| tensor.shallow_clone()).collect::<Vec<_>>();
        self.group.broadcast(&mut of(&self.weights()), 0)?;
        if steps > 0 {
            self.group.broadcast(&mut of(&self.optimiser()), 0)?;
        }
        Ok(())
    }
}

/// The parameters that the image depends on, found by looking: the reducer waits for a gradient of each that it is given.
fn trained(copy: &Generator, latents: &Latents, device: Device) -> Result<Vec<(String, Tensor)>> {
    let z = latents.batch(Stream::Probe, 0, 2, device)?;
    copy.forward(&z)?.f_sum(Kind::Float)?.f_backward()?;
    let trained: Vec<(String, Tensor)> = copy
        .parameters()
        .iter()
        .filter(|(_, weight)| weight.grad().defined())
        .map(|(name, weight)| (name.clone(), weight.shallow_clone()))
        .collect();
    let unused = copy.parameters().len() - trained.len();
    if unused > 0 {
        tracing::info!(unused, "parameters that no image depends on stay as they are");
    }
    Ok(trained)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_cut_evenly_and_completely() {
        for (count, pieces) in [(128, 12), (12, 1), (12, 2), (12, 3), (12, 5), (7, 3), (3, 3), (1000, 7)] {
            let cut: Vec<_> = (0..pieces).map(|place| piece(count, place, pieces)).collect();
            assert_eq!((cut[0].start, cut[pieces as usize - 1].end), (0, count));
            assert!(cut.windows(2).all(|pair| pair[0].end == pair[1].start));
            let sizes = cut.iter().map(|piece| piece.end - piece.start);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1, "{count} in {pieces}");
        }
    }
}
