//! The training step: forward passes of the original and the copy, the loss, gradients summed over the ranks, Adam.
//!
//! A part of the batch is computed by itself: how fast kernels add up depends on the size of what they are
//! given. So which rank has it makes no difference to a bit of it, nor does it to the sum (see `lethe_collective::Reducer`).
//!
//! A step is done on all ranks or on none: Adam comes last, after everything that a peer can break off. A rank may be one step
//! ahead of another then, but always has the state of a whole step. Losses are summed over the ranks as part of the step,
//! and stay tensors until a window of them is asked for. Not here: what a step draws (crate `models`), when to stop, what to save.

mod guard;
mod state;

use std::ops::Range;
use std::rc::Rc;

use lethe_collective::{Group, Reducer, ReducerOptions};
use lethe_domain::JobSpec;
use lethe_domain::spec::Unlearn;
use lethe_models::{Adam, Anchor, Average, Drawn, Generator, Latents, Loss, Pool, Stream, Target, Teacher};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::link::Wishes;
use crate::models::Original;

use guard::Guard;

/// How many times its root mean square so far a part's gradient may be before its sum may round.
const GRADIENT_ROOM: f64 = 512.0;

/// One rank's side of training.
#[derive(Debug)]
pub(crate) struct Trainer {
    pool: Rc<Pool>,
    original: Rc<Original>,
    copy: Generator,
    loss: Loss,
    adam: Adam,
    anchor: Anchor,
    average: Average,
    guard: Guard,
    // Dropped before the group, which it sends through.
    reducer: Reducer,
    group: Group,
    unlearn: Unlearn,
    /// Adam's, at the start.
    lr: f64,
    /// The parts of a global batch that this rank takes.
    own: Range<u64>,
    steps: u64,
    /// The losses that nobody has asked for yet, each summed over the global batch, f64 `[1]`.
    pending: Vec<Tensor>,
    /// False while a step is being applied: were it broken off there, the state would be none.
    whole: bool,
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
        pool: Rc<Pool>,
        original: Rc<Original>,
        teacher: Option<Teacher>,
        group: Group,
    ) -> Result<Self> {
        let device = original.generator.device();
        let parts = spec.unlearn.parts();
        let own = piece(parts, group.rank() as u64, group.world() as u64);
        if own.is_empty() {
            return Err(Error::internal(format!("{}: {parts} parts leave it none", group.place())));
        }
        let loss =
            Loss::new(&spec.unlearn, target.method, spec.generator.output.shape(), device)?.with(teacher);
        let mut copy = original.file.trainable(device)?;
        let trained = trained(&copy, &Latents::new(spec.sample.seed, &spec.generator), device)?;
        copy.set_batch_norm(spec.unlearn.batch_norm)?;
        let weights: Vec<Tensor> = trained.iter().map(|(_, weight)| weight.shallow_clone()).collect();
        let adam = Adam::new(&trained)?;
        let anchor = Anchor::new(&trained)?;
        let average = Average::new(&trained, spec.unlearn.average)?;
        let guard = Guard::new(spec.unlearn.drift, device)?;
        let reducer = Reducer::new(&group, &weights, ReducerOptions::default())?;
        Ok(Self {
            pool,
            original,
            copy,
            loss,
            adam,
            anchor,
            average,
            guard,
            reducer,
            group,
            unlearn: spec.unlearn.clone(),
            lr: spec.unlearn.lr.unwrap_or(target.lr),
            own,
            steps: 0,
            pending: Vec::new(),
            whole: true,
        })
    }

    /// The gang, for what is not part of a step.
    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// Adam's learning rate at the start.
    pub(crate) fn lr(&self) -> f64 {
        self.lr
    }

    /// What it goes by.
    pub(crate) fn unlearn(&self) -> &Unlearn {
        &self.unlearn
    }

    /// Steps done, over the whole run.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// One step. `own` is what this rank wants beside it; given back is what any rank of the gang wants, the same on all.
    ///
    /// # Errors
    /// Those of the models and of the gang. Weights, optimiser and running statistics are then those of the step before.
    pub(crate) fn step(&mut self, own: Wishes) -> Result<Wishes> {
        let before = self.tracks_statistics().then(|| self.statistics()).transpose()?;
        let (sums, wishes) = match self.gradients().and_then(|sums| self.sum(&sums, own)) {
            Ok(summed) => summed,
            Err(error) => {
                if let Some(before) = before {
                    self.whole = false;
                    self.set_statistics(&before)?;
                    self.whole = true;
                }
                return Err(error);
            }
        };
        self.whole = false;
        let factor = self.unlearn.lr_schedule.factor(self.steps, self.unlearn.steps);
        self.adam.step(self.lr * factor * 0.5_f64.powi(self.guard.halved() as i32))?;
        self.anchor.pull(self.unlearn.anchor * factor)?;
        self.steps += 1;
        self.average.step(self.steps)?;
        self.guard.step(self.steps, &sums.f_narrow(0, 1, 2)?)?;
        self.whole = true;
        self.pending.push(sums.f_narrow(0, 0, 1)?);
        Ok(wishes)
    }

    /// What any rank of the gang wants, the same on all, before the first step. A collective.
    ///
    /// # Errors
    /// Those of the gang.
    pub(crate) fn agree(&self, own: Wishes) -> Result<Wishes> {
        let nothing = Tensor::f_zeros([3], (Kind::Double, self.copy.device()))?;
        Ok(self.sum(&nothing, own)?.1)
    }

    /// Forward and backward passes of this rank's parts, gradients summed over the ranks. Gives the loss summed over the latents of
    /// this rank, and what [`Guard::look`] saw of them; f64 `[3]`.
    fn gradients(&mut self) -> Result<Tensor> {
        let mut sums = Vec::new();
        let mut statistics = None;
        // What an entry has been so far says what it will be: with this much room, sums are exact.
        let bounds = self.adam.magnitudes()?.f_mul_scalar(GRADIENT_ROOM)?;
        self.reducer.set_grid(&bounds, self.unlearn.parts())?;
        for part in self.own.clone() {
            let (loss, seen) = self.loss(part)?;
            let mean = loss.f_div_scalar(self.unlearn.global_batch as f64)?;
            if part + 1 < self.own.end {
                self.reducer.accumulate(&mean)?;
            } else {
                self.reducer.finish(&mean)?;
            }
            sums.push(Tensor::f_cat(&[&loss.f_detach()?.f_to_kind(Kind::Double)?.f_view([1])?, &seen], 0)?);
            if part == 0 && self.tracks_statistics() {
                statistics = Some(self.statistics()?);
            }
        }
        // The first part's are kept, which rank 0 has whatever the number of ranks; every rank keeps them, since any may be the
        // one whose memory the next generation goes on from.
        if let Some(statistics) = statistics {
            self.set_statistics(&statistics)?;
        }
        if self.tracks_statistics() {
            let buffers = self.copy.buffers().iter();
            let mut buffers: Vec<Tensor> = buffers.map(|(_, buffer)| buffer.shallow_clone()).collect();
            self.group.broadcast(&mut buffers, 0)?;
        }
        Ok(Tensor::f_stack(&sums, 0)?.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?)
    }

    /// The sums over all ranks, and what any of them wants. With peers the sum is waited for anyway, so looking at it costs
    /// nothing; alone, it stays on the device.
    fn sum(&self, own_sums: &Tensor, own: Wishes) -> Result<(Tensor, Wishes)> {
        if self.group.is_loopback() {
            return Ok((own_sums.shallow_clone(), own));
        }
        let wishes = [f64::from(u8::from(own.yields)), f64::from(u8::from(own.save))];
        let wishes = Tensor::f_from_slice(&wishes)?.f_to_device(own_sums.device())?;
        let mut sums = Tensor::f_cat(&[&wishes, own_sums], 0)?;
        self.group.all_reduce_sum(&mut sums)?;
        let wanted = Vec::<f64>::try_from(sums.f_narrow(0, 0, 2)?.f_to_device(Device::Cpu)?)?;
        let any = |place: usize| wanted.get(place).is_some_and(|count| *count > 0.0);
        Ok((sums.f_narrow(0, 2, 3)?, Wishes { yields: any(0), save: any(1) }))
    }

    /// The loss summed over the latents of one part of this step's batch, and what [`Guard::look`] saw of them.
    fn loss(&self, part: u64) -> Result<(Tensor, Tensor)> {
        let batch = self.unlearn.global_batch;
        let range = piece(batch, part, self.unlearn.parts());
        let Drawn { z, edited, targets, places, weights } =
            self.pool.draw(self.steps, batch, range, self.copy.device())?;
        let original = &self.original.generator;
        let targets = match targets {
            Some(targets) => targets,
            None => tch::no_grad(|| original.to_unit(&original.forward(&edited)?))?,
        };
        let images = self.copy.to_unit(&self.copy.forward(&z)?)?;
        let seen = Guard::look(&images, &targets, &places)?;
        Ok((self.loss.sum(&images, &targets, &places, &weights)?, seen))
    }

    /// How far images of unedited latents are from the original's, of late, and how often the rate was halved for it.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn drift(&self) -> Result<(Option<f64>, u32)> {
        Ok((self.guard.drift()?, self.guard.halved()))
    }

    /// Steps that nobody has asked about.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The mean losses of those steps over the global batch: the same bits on every rank.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn given(&mut self) -> Result<Vec<f64>> {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let sums = Vec::<f64>::try_from(Tensor::f_cat(&pending, 0)?.f_to_device(Device::Cpu)?)?;
        Ok(sums.into_iter().map(|sum| sum / self.unlearn.global_batch as f64).collect())
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
