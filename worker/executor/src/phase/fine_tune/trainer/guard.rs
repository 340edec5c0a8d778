//! A guard over what should stay as it is: where the copy's images of unedited latents leave their band, the learning rate is halved.
//!
//! It looks at the latents of the steps themselves, most of which the copy has not seen before. What it knows is part of what a checkpoint
//! holds, so a run that was broken off decides as one that was not.

use lethe_models::{Tensors, l1};
use tch::{Device, Kind, Tensor};

use lethe_domain::spec::LossReduction;

use crate::error::Result;

/// Steps between two decisions.
const WINDOW: u64 = 50;

/// Where the copy is, and what follows for the rate.
#[derive(Debug)]
pub(super) struct Guard {
    /// The mean absolute difference per pixel on unedited latents that is too much; none when nobody minds.
    band: Option<f64>,
    /// Sum of the differences, and latents, of this window, f64 `[2]`.
    seen: Tensor,
    /// What the last whole window gave, NaN before there is one, and how often the rate was halved; f64 `[2]`.
    known: Tensor,
    /// The second of these at hand: a step does not wait for a device.
    halved: u32,
}

impl Guard {
    /// # Errors
    /// Lack of memory.
    pub(super) fn new(band: f64, device: Device) -> Result<Self> {
        Ok(Self {
            band: (band > 0.0).then_some(band),
            seen: Tensor::f_zeros([2], (Kind::Double, device))?,
            known: Tensor::f_from_slice(&[f64::NAN, 0.0])?.f_to_device(device)?,
            halved: 0,
        })
    }

    /// Of a part of a batch: the sum of the differences of unedited latents, and how many these are; f64 `[2]`.
    ///
    /// # Errors
    /// Lack of memory.
    pub(super) fn look(images: &Tensor, targets: &Tensor, places: &Tensor) -> Result<Tensor> {
        tch::no_grad(|| {
            let differences = l1(images, targets, LossReduction::Mean)?.f_to_kind(Kind::Double)?;
            let ones = differences.f_ones_like()?;
            let rows = Tensor::f_stack(&[&differences, &ones], 0)?.f_index_fill(1, places, 0.0)?;
            Ok(rows.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?)
        })
    }

    /// After `step` steps, of which the last gave `sum` over all ranks.
    ///
    /// # Errors
    /// Those of the device.
    pub(super) fn step(&mut self, step: u64, sum: &Tensor) -> Result<()> {
        let _ = self.seen.f_add_(sum)?;
        if !step.is_multiple_of(WINDOW) {
            return Ok(());
        }
        let seen = Vec::<f64>::try_from(self.seen.f_to_device(Device::Cpu)?)?;
        let drift = seen[0] / seen[1];
        let over = self.band.is_some_and(|band| drift > band);
        if over {
            tracing::warn!(
                "unedited images differ by {drift:.4} a pixel after {step} steps: the learning rate is halved"
            );
        }
        self.halved += u32::from(over);
        self.known.f_copy_(&Tensor::f_from_slice(&[drift, f64::from(self.halved)])?)?;
        let _ = self.seen.f_zero_()?;
        Ok(())
    }

    /// The difference that the last whole window gave; none before there is one.
    ///
    /// # Errors
    /// Those of the device.
    pub(super) fn drift(&self) -> Result<Option<f64>> {
        let known = Vec::<f64>::try_from(self.known.f_to_device(Device::Cpu)?)?;
        Ok(Some(known[0]).filter(|drift| drift.is_finite()))
    }

    /// How often the rate was halved.
    pub(super) fn halved(&self) -> u32 {
        self.halved
    }

    /// After somebody has changed [`Guard::state`] in place.
    ///
    /// # Errors
    /// Those of the device.
    pub(super) fn refresh(&mut self) -> Result<()> {
        self.halved = f64::try_from(self.known.f_get(1)?)? as u32;
        Ok(())
    }

    /// What it knows, sharing storage.
    pub(super) fn state(&self) -> [(&'static str, &Tensor); 2] {
        [("guard.seen", &self.seen), ("guard.known", &self.known)]
    }

    /// Copies what [`Guard::state`] gave, in place.
    ///
    /// # Errors
    /// When a part is missing or has another shape.
    pub(super) fn set_state(&mut self, state: &Tensors) -> Result<()> {
        self.seen.f_copy_(state.get_shaped("guard.seen", &[2], Kind::Double)?)?;
        self.known.f_copy_(state.get_shaped("guard.known", &[2], Kind::Double)?)?;
        self.refresh()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(values: [f64; 2]) -> Tensor {
        Tensor::from_slice(&values)
    }

    #[test]
    fn edited_latents_are_no_drift() {
        let of = |values: &[f32]| Tensor::from_slice(values).view([-1, 1, 1, 1]);
        let (images, targets) = (of(&[0.5, 0.1, 0.25]), of(&[0.5, 0.9, 0.0]));
        let look = |places: &[i64]| {
            Vec::<f64>::try_from(Guard::look(&images, &targets, &Tensor::from_slice(places)).unwrap())
                .unwrap()
        };
        assert_eq!(look(&[1]), [0.25, 2.0]);
        assert_eq!(look(&[0, 1, 2]), [0.0, 0.0]);
    }

    #[test]
    fn the_rate_is_halved_once_a_window_while_the_band_is_left_and_a_break_changes_nothing() {
        let mut guard = Guard::new(0.03, Device::Cpu).unwrap();
        let run = |guard: &mut Guard, steps: std::ops::RangeInclusive<u64>, drift: f64| {
            steps.for_each(|step| guard.step(step, &two([64.0 * drift, 64.0])).unwrap());
        };
        run(&mut guard, 1..=49, 0.04);
        assert_eq!((guard.halved(), guard.drift().unwrap()), (0, None));
        let mut state = Tensors::new("state");
        guard.state().into_iter().for_each(|(name, tensor)| state.insert(name, &tensor.copy()));
        let mut again = Guard::new(0.03, Device::Cpu).unwrap();
        again.set_state(&state).unwrap();
        run(&mut again, 50..=100, 0.04);
        assert_eq!(again.halved(), 2);
        run(&mut again, 101..=150, 0.02);
        assert!((again.drift().unwrap().unwrap() - 0.02).abs() < 1e-12 && again.halved() == 2);
        let mut careless = Guard::new(0.0, Device::Cpu).unwrap();
        run(&mut careless, 1..=50, 9.0);
        assert_eq!(careless.halved(), 0, "nobody minds");
    }
}
