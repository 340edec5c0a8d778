//! Adam (Kingma and Ba 2015) over named weights, with a state that can be saved and gone on from bit by bit.
//!
//! One call of libtorch's fused operator per step; it walks the weights in an order that does not depend on the number of threads.

use std::ffi::c_void;

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result, classify};
use crate::ffi;
use crate::precision::dtype;
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

    /// Over these weights, f32 without gaps, which it changes in place.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] for other weights, of which libtorch's operator would change the wrong entries;
    /// [`crate::Error::Memory`].
    pub fn new(weights: &[(String, Tensor)]) -> Result<Self> {
        for (name, weight) in weights {
            let kind = weight.f_kind()?;
            if kind != Kind::Float || !weight.is_contiguous() {
                let reason = format!("{name}: is {} with strides {:?}", dtype(kind), weight.stride());
                return Err(Error::Torch { reason });
            }
        }
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
    /// beta2^t)); f64 [weights], where the weights are, so that nobody waits for a GPU. 0 before the first step. It follows from
    /// the state alone.
    ///
    /// # Errors
    /// [`crate::Error::Torch`], [`crate::Error::Memory`].
    pub fn magnitudes(&self) -> Result<Tensor> {
        let largest: Vec<Tensor> =
            self.squares.iter().map(Tensor::f_max).collect::<std::result::Result<_, _>>()?;
        let stacked =
            |tensors: &[Tensor]| Ok::<_, Error>(Tensor::f_stack(tensors, 0)?.f_to_kind(Kind::Double)?);
        let (squares, steps) = (stacked(&largest)?, stacked(&self.steps)?);
        if squares.device() == Device::Cpu {
            let corrected = |(square, step): (f64, f64)| {
                if step > 0.0 { (square / (1.0 - Self::BETA2.powf(step))).sqrt() } else { 0.0 }
            };
            let (squares, steps) = (Vec::<f64>::try_from(squares)?, Vec::<f64>::try_from(steps)?);
            return Ok(Tensor::f_from_slice(
                &squares.into_iter().zip(steps).map(corrected).collect::<Vec<f64>>(),
            )?);
        }
        corrected(&squares, &steps)
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

/// What the host computes, in tensors.
fn corrected(squares: &Tensor, steps: &Tensor) -> Result<Tensor> {
    let correction = Tensor::f_pow_scalar(Adam::BETA2, steps)?.f_neg()?.f_add_scalar(1.0)?;
    let magnitudes = squares.f_div(&correction)?.f_sqrt()?;
    Ok(magnitudes.f_where_scalarother(&steps.f_gt(0.0)?, 0.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magnitudes_are_the_same_in_tensors_as_on_the_host() {
        let weight = Tensor::from_slice(&[1.0_f32, -2.0]).set_requires_grad(true);
        let mut adam = Adam::new(&[("w".to_owned(), weight.shallow_clone())]).unwrap();
        let both = |adam: &Adam| {
            let host = adam.magnitudes().unwrap().double_value(&[0]);
            let square = adam.squares[0].max().view([1]).to_kind(Kind::Double);
            let step = adam.steps[0].view([1]).to_kind(Kind::Double);
            (host, corrected(&square, &step).unwrap().double_value(&[0]))
        };
        assert_eq!(both(&adam), (0.0, 0.0));
        for step in 0..5 {
            weight.shallow_clone().zero_grad();
            weight.square().sum(Kind::Float).backward();
            adam.step(1e-2).unwrap();
            let (host, tensors) = both(&adam);
            assert!((host - tensors).abs() < 1e-12 * host && host > 0.0, "{step}: {host} {tensors}");
        }
    }
}
