//! What a step changes: weights, optimiser, running statistics. Given out, taken over, shared between ranks.

use lethe_domain::spec::BatchNorm;
use lethe_models::Tensors;
use tch::Tensor;

use super::Trainer;
use crate::error::{Error, Result};

impl Trainer {
    /// Parameters and buffers of the copy, sharing storage.
    pub(crate) fn weights(&self) -> Tensors {
        self.copy.state()
    }

    /// What is published: the averaged parameters, `strength` of the way from the original's to where training took them, and the buffers.
    ///
    /// # Errors
    /// Lack of memory.
    pub(crate) fn published(&self, strength: f64) -> Result<Tensors> {
        Ok(self.average.published(self.copy.state(), &self.anchor, strength)?)
    }

    /// The state of the optimiser and of the averages, sharing storage.
    pub(crate) fn optimiser(&self) -> Tensors {
        let mut state = self.adam.state();
        for (name, tensor) in self.average.state().iter() {
            state.insert(name, tensor);
        }
        for (name, tensor) in self.guard.state() {
            state.insert(name, tensor);
        }
        state
    }

    /// Takes over the state of a run that has done `steps`, in place.
    ///
    /// # Errors
    /// When it is not the state of this generator.
    pub(crate) fn restore(&mut self, generator: &Tensors, optimiser: &Tensors) -> Result<()> {
        self.copy.set_state(generator)?;
        self.adam.set_state(optimiser)?;
        self.guard.set_state(optimiser)?;
        Ok(self.average.set_state(optimiser)?)
    }

    /// Makes every rank's weights, optimiser and steps those of `root`, which has done `steps`. A collective.
    ///
    /// # Errors
    /// Those of the gang.
    pub(crate) fn share(&mut self, root: usize, steps: u64) -> Result<()> {
        self.steps = steps;
        let of = |state: &Tensors| state.iter().map(|(_, tensor)| tensor.shallow_clone()).collect::<Vec<_>>();
        self.group.broadcast(&mut of(&self.weights()), root)?;
        if steps > 0 {
            self.group.broadcast(&mut of(&self.optimiser()), root)?;
            self.guard.refresh()?;
        }
        Ok(())
    }

    /// The generator's and the optimiser's state after the last whole step, without the rest; none when a step was broken off while
    /// it was applied.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn into_state(self) -> Result<Option<(Tensors, Tensors)>> {
        if !self.whole {
            return Ok(None);
        }
        // Without the gradients that hang on the weights.
        let detached = |state: Tensors| {
            let mut bare = Tensors::new(state.label());
            for (name, tensor) in state.iter() {
                bare.insert(name, &tensor.f_detach()?);
            }
            Ok::<_, Error>(bare)
        };
        Ok(Some((detached(self.weights())?, detached(self.optimiser())?)))
    }

    /// Whether a forward pass changes the copy.
    pub(super) fn tracks_statistics(&self) -> bool {
        self.unlearn.batch_norm == BatchNorm::Train
    }

    /// A copy of the running statistics.
    pub(super) fn statistics(&self) -> Result<Vec<Tensor>> {
        let buffers = self.copy.buffers().iter();
        Ok(buffers.map(|(_, buffer)| buffer.f_detach_copy()).collect::<std::result::Result<_, _>>()?)
    }

    pub(super) fn set_statistics(&self, statistics: &[Tensor]) -> Result<()> {
        for ((_, buffer), value) in self.copy.buffers().iter().zip(statistics) {
            buffer.shallow_clone().f_copy_(value)?;
        }
        Ok(())
    }
}
