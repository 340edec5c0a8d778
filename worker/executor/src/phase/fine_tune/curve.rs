//! The loss of every step so far, and whether it still falls.

use lethe_domain::ErrorCode;
use lethe_domain::spec::Plateau;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Of a whole run, whichever generation made its steps.
#[derive(Debug, Clone, Default)]
pub(super) struct Curve {
    /// Losses of steps 1, 2, ...
    losses: Vec<f64>,
}

impl Curve {
    /// Steps done.
    pub(super) fn len(&self) -> u64 {
        self.losses.len() as u64
    }

    /// The loss of the last step.
    pub(super) fn last(&self) -> Option<f64> {
        self.losses.last().copied()
    }

    /// The losses of the first and the last step.
    pub(super) fn ends(&self) -> (f64, f64) {
        let of = |loss: Option<&f64>| loss.copied().unwrap_or_default();
        (of(self.losses.first()), of(self.losses.last()))
    }

    /// Adds the losses of further steps.
    ///
    /// # Errors
    /// `NOT_FINITE`, naming the step.
    pub(super) fn extend(&mut self, losses: Vec<f64>, lr: f64) -> Result<()> {
        if let Some(place) = losses.iter().position(|loss| !loss.is_finite()) {
            let step = self.losses.len() + place + 1;
            let before = place.checked_sub(1).map(|place| losses[place]).or(self.last());
            let before = before.map_or_else(String::new, |loss| format!(" (the step before: {loss:.4})"));
            return Err(Error::refused(
                ErrorCode::NotFinite,
                format!("the loss of step {step} is {}{before}: training diverged", losses[place]),
                format!("lower unlearn.lr (the rate was {lr}; try a third of it) or unlearn.alpha"),
            ));
        }
        self.losses.extend(losses);
        Ok(())
    }

    /// Whether the loss has stopped falling: its mean over the last `patience` steps is not lower, by the relative `min_delta`, than
    /// over the `patience` steps before. Looked at after every `patience` steps.
    pub(super) fn has_levelled(&self, plateau: Option<Plateau>) -> bool {
        let Some(Plateau { patience, min_delta }) = plateau else { return false };
        let patience = patience as usize;
        if !self.losses.len().is_multiple_of(patience) || self.losses.len() < 2 * patience {
            return false;
        }
        let mean = |steps: &[f64]| steps.iter().sum::<f64>() / steps.len() as f64;
        let (earlier, later) = self.losses[self.losses.len() - 2 * patience..].split_at(patience);
        mean(later) > mean(earlier) * (1.0 - min_delta)
    }

    /// As JSON: [[1, loss], [2, loss], ...].
    pub(super) fn to_json(&self) -> Vec<u8> {
        let steps: Vec<(usize, f64)> = (1..).zip(self.losses.iter().copied()).collect();
        // Finite numbers: nothing here can fail to be JSON.
        serde_json::to_vec(&steps).unwrap_or_default()
    }

    /// For a checkpoint, exactly: f64 [steps].
    ///
    /// # Errors
    /// Lack of memory.
    pub(super) fn to_tensor(&self) -> Result<Tensor> {
        Ok(Tensor::f_from_slice(&self.losses)?)
    }

    /// What [`Curve::to_tensor`] gives after this many steps, to be filled.
    ///
    /// # Errors
    /// Lack of memory.
    pub(super) fn blank(steps: u64) -> Result<Tensor> {
        Ok(Tensor::f_zeros([steps as i64], (Kind::Double, Device::Cpu))?)
    }

    /// What [`Curve::to_tensor`] gave.
    ///
    /// # Errors
    /// Lack of memory; when it is no list of numbers.
    pub(super) fn from_tensor(losses: &Tensor) -> Result<Self> {
        Ok(Self { losses: Vec::try_from(losses.f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?)? })
    }
}

#[cfg(test)]
mod tests {
    use lethe_domain::Failure;

    use super::*;

    fn curve(losses: &[f64]) -> Curve {
        let mut curve = Curve::default();
        curve.extend(losses.to_vec(), 0.001).unwrap();
        curve
    }

    #[test]
    fn a_curve_levels_when_a_window_is_not_lower_than_the_one_before() {
        let plateau = Some(Plateau { patience: 2, min_delta: 0.1 });
        assert!(!curve(&[4.0, 4.0, 2.0, 2.0]).has_levelled(plateau), "it halved");
        assert!(curve(&[4.0, 4.0, 3.7, 3.7]).has_levelled(plateau), "7.5 % is less than 10 %");
        assert!(!curve(&[4.0, 4.0, 3.7, 3.7, 3.7]).has_levelled(plateau), "not at the end of a window");
        assert!(!curve(&[4.0, 4.0]).has_levelled(plateau), "one window only");
        assert!(!curve(&[4.0, 4.0, 4.0, 4.0]).has_levelled(None));
    }

    #[test]
    fn the_first_bad_step_is_named_with_what_to_do() {
        let mut curve = curve(&[4.0, 3.0]);
        let error = curve.extend(vec![2.0, f64::NAN, f64::INFINITY], 0.001).unwrap_err();
        let failure = Failure::from(error);
        assert_eq!(failure.code, ErrorCode::NotFinite);
        assert_eq!(failure.message, "the loss of step 4 is NaN (the step before: 2.0000): training diverged");
        assert!(failure.hint.contains("the rate was 0.001"), "{}", failure.hint);
    }

    #[test]
    fn a_checkpoint_gives_the_curve_back_exactly() {
        let before = curve(&[1.0 / 3.0, 0.1, f64::MIN_POSITIVE]);
        let again = |curve: &Curve| Curve::from_tensor(&curve.to_tensor().unwrap()).unwrap();
        assert_eq!(again(&before).losses, before.losses);
        assert_eq!(curve(&[0.5, 0.25]).to_json(), b"[[1,0.5],[2,0.25]]");
        assert_eq!(again(&Curve::default()).len(), 0);
    }
}
