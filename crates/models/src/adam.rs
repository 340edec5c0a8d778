//! Adam (Kingma and Ba 2015) over named weights, with a state that can be saved and gone on from bit by bit.
//!
//! One call of libtorch's fused operator per step; it walks the weights in an order that does not depend on the number of threads.

use std::ffi::c_void;

use tch::{Kind, Tensor};

use crate::error::{Result, classify};
use crate::ffi;
use crate::weights::Tensors;

/// The optimiser with its moments.
#[derive(Debug)]
pub struct Adam {
    names: Vec<String>,
    weights: Vec<Tensor>,
    means: Vec<Tensor>,
    squares: Vec<Tensor>,
    /// Steps done, one f32 for each weight: what the operator wants.
    steps: Vec<Tensor>,
}

impl Adam {
    const BETA1: f64 = 0.9;
    const BETA2: f64 = 0.999;
    const EPS: f64 = 1e-8;

    /// Over these weights, which it changes in place.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn new(weights: &[(String, Tensor)]) -> Result<Self> {
        let zeros =
            || weights.iter().map(|(_, w)| Ok(w.f_detach()?.f_zeros_like()?)).collect::<Result<Vec<_>>>();
        let step = |(_, w): &(String, Tensor)| Ok(Tensor::f_zeros([], (Kind::Float, w.device()))?);
        Ok(Self {
            names: weights.iter().map(|(name, _)| name.clone()).collect(),
            weights: weights.iter().map(|(_, w)| w.shallow_clone()).collect(),
            means: zeros()?,
            squares: zeros()?,
            steps: weights.iter().map(step).collect::<Result<_>>()?,
        })
    }

    /// One step along the gradients that are there, with this learning rate. A weight without a gradient stays, as does its state.
    ///
    /// # Errors
    /// [`crate::Error::Torch`], [`crate::Error::Memory`].
    pub fn step(&mut self, lr: f64) -> Result<()> {
        let gradients: Vec<Tensor> =
            self.weights.iter().map(Tensor::f_grad).collect::<std::result::Result<_, _>>()?;
        let present: Vec<usize> = (0..gradients.len()).filter(|place| gradients[*place].defined()).collect();
        let pick = |tensors: &[Tensor]| -> Vec<*mut c_void> {
            present.iter().map(|place| tensors[*place].as_ptr().cast_mut().cast()).collect()
        };
        let lists =
            [&self.weights, &gradients, &self.means, &self.squares, &self.steps].map(|list| pick(list));
        // SAFETY: five lists of `present.len()` pointers to tensors that live through the call. The operator writes
        // to weights, means, squares and steps, which this optimiser may change.
        let message = unsafe {
            ffi::lethe_adam_step(
                present.len(),
                lists[0].as_ptr(),
                lists[1].as_ptr(),
                lists[2].as_ptr(),
                lists[3].as_ptr(),
                lists[4].as_ptr(),
                lr,
                Self::BETA1,
                Self::BETA2,
                Self::EPS,
            )
        };
        ffi::check(message).map_err(|message| classify(&message))
    }

    /// The largest entry of each weight's gradient so far, as a root mean square over the last steps or so: sqrt(max v / (1 -
    /// beta2^t)). 0 before the first step. It follows from the state alone.
    ///
    /// # Errors
    /// [`crate::Error::Torch`], [`crate::Error::Memory`].
    pub fn magnitudes(&self) -> Result<Vec<f64>> {
        let largest: Vec<Tensor> =
            self.squares.iter().map(Tensor::f_max).collect::<std::result::Result<_, _>>()?;
        let steps: Vec<Tensor> = self.steps.iter().map(Tensor::shallow_clone).collect();
        // Two looks at the device, however many weights there are.
        let read = |tensors: &[Tensor]| -> Result<Vec<f64>> {
            let stacked = Tensor::f_stack(tensors, 0)?.f_to_kind(Kind::Double)?;
            Ok(Vec::try_from(stacked.f_to_device(tch::Device::Cpu)?)?)
        };
        let corrected = |(square, step): (f64, f64)| {
            if step > 0.0 { (square / (1.0 - Self::BETA2.powf(step))).sqrt() } else { 0.0 }
        };
        Ok(read(&largest)?.into_iter().zip(read(&steps)?).map(corrected).collect())
    }

    /// Moments and steps by the weights' names, sharing storage.
    pub fn state(&self) -> Tensors {
        let mut state = Tensors::new("optimiser state");
        for (place, name) in self.names.iter().enumerate() {
            state.insert(format!("mean.{name}"), &self.means[place]);
            state.insert(format!("square.{name}"), &self.squares[place]);
            state.insert(format!("step.{name}"), &self.steps[place]);
        }
        state
    }

    /// Copies what [`Adam::state`] gave, in place.
    ///
    /// # Errors
    /// [`crate::Error::Tensors`] when a tensor is missing or has another shape.
    pub fn set_state(&mut self, state: &Tensors) -> Result<()> {
        for (place, name) in self.names.iter().enumerate() {
            for (kind, tensor) in
                [("mean", &self.means[place]), ("square", &self.squares[place]), ("step", &self.steps[place])]
            {
                let found = state.get_shaped(&format!("{kind}.{name}"), &tensor.size(), Kind::Float)?;
                tensor.shallow_clone().f_copy_(found)?;
            }
        }
        Ok(())
    }
}
