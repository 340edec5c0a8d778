//! A running average of weights while they are trained: less of the last steps' noise, so it is what is published.
//!
//! A mean over the latest steps, with weights that fall off exponentially. At first it reaches back a tenth of the way only: the beginning
//! of training has no place in it.

use tch::{Kind, Tensor};

use crate::anchor::Anchor;
use crate::error::Result;
use crate::weights::Tensors;

/// Averages of named weights.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    names: Vec<String>,
    weights: Vec<Tensor>,
    means: Vec<Tensor>,
}

impl Average {
    /// Of these weights, which somebody else changes; so far they are their own average.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn new(weights: &[(String, Tensor)], decay: f64) -> Result<Self> {
        let copy = |(_, weight): &(String, Tensor)| Ok(weight.f_detach_copy()?);
        Ok(Self {
            decay,
            names: weights.iter().map(|(name, _)| name.clone()).collect(),
            weights: weights.iter().map(|(_, weight)| weight.shallow_clone()).collect(),
            means: weights.iter().map(copy).collect::<Result<_>>()?,
        })
    }

    /// Takes in the weights as they are after `step` steps.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn step(&mut self, step: u64) -> Result<()> {
        let decay = self.decay.min((1 + step) as f64 / (10 + step) as f64);
        for (mean, weight) in self.means.iter_mut().zip(&self.weights) {
            // With no decay exactly the weight.
            let way = weight.f_detach()?.f_sub(mean)?.f_mul_scalar(decay)?;
            mean.f_copy_(&weight.f_detach()?.f_sub(&way)?)?;
        }
        Ok(())
    }

    /// `state` with the averages in the place of the weights, taken `strength` of the way from where `anchor` holds them: at 1 they are
    /// the averages, above 1 they go on in the same line.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn published(&self, mut state: Tensors, anchor: &Anchor, strength: f64) -> Result<Tensors> {
        for ((name, mean), origin) in self.names.iter().zip(&self.means).zip(anchor.origins()) {
            // Exactly the average at 1.
            let further = mean.f_sub(origin)?.f_mul_scalar(strength - 1.0)?;
            state.insert(name, &mean.f_add(&further)?);
        }
        Ok(state)
    }

    /// Averages by the weights' names, sharing storage.
    pub fn state(&self) -> Tensors {
        let mut state = Tensors::new("averaged weights");
        for (name, mean) in self.names.iter().zip(&self.means) {
            state.insert(format!("average.{name}"), mean);
        }
        state
    }

    /// Copies what [`Average::state`] gave, in place.
    ///
    /// # Errors
    /// [`crate::Error::Tensors`] when a tensor is missing or has another shape.
    pub fn set_state(&mut self, state: &Tensors) -> Result<()> {
        for (name, mean) in self.names.iter().zip(&mut self.means) {
            mean.f_copy_(state.get_shaped(&format!("average.{name}"), &mean.size(), Kind::Float)?)?;
        }
        Ok(())
    }
}
