//! The edits of a training run, tallied: how many, how many found nothing to teach, and how long their steps were.
//!
//! A tally is a vector of whole numbers, so it adds up over parts and ranks in any order, and it travels with the losses: what a
//! step counted is there exactly when the step is.

use lethe_domain::{EditSummary, ErrorCode};
use lethe_models::Edited;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Standard deviations of a step per class.
const WIDTH: f64 = 1.0 / 32.0;
/// Classes of steps; the last is for all that are longer.
const CLASSES: usize = 256;
/// Entries of a tally: tried, unresolved, and the classes.
pub(super) const ENTRIES: usize = 2 + CLASSES;
/// So many edits that all failed are no accident.
const ENOUGH: u64 = 100;

/// The tally of one part of a batch of latents `z`, f64 `[ENTRIES]` on their device; `deviation` is that of an entry of a latent.
///
/// # Errors
/// Lack of memory.
pub(super) fn tally(z: &Tensor, edited: &Edited, deviation: f64) -> Result<Tensor> {
    let (double, places) = ((Kind::Double, z.device()), &edited.places);
    let moved = edited.latents.f_index_select(0, places)?.f_sub(&z.f_index_select(0, places)?)?;
    let moved = moved.f_to_kind(Kind::Double)?.f_flatten(1, -1)?;
    let lengths = moved.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?.f_sqrt()?;
    let classes = lengths.f_div_scalar(deviation * WIDTH)?.f_floor()?.f_clamp(0.0, (CLASSES - 1) as f64)?;
    let every = Tensor::f_arange(CLASSES as i64, double)?;
    let kept = edited.unresolved.f_logical_not()?.f_unsqueeze(1)?;
    let hits = classes.f_unsqueeze(1)?.f_eq_tensor(&every)?.f_logical_and(&kept)?;
    let counts = hits.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?;
    let tried = Tensor::f_full([1], edited.count() as f64, double)?;
    let unresolved = edited.unresolved.f_sum(Kind::Double)?.f_view([1])?;
    Ok(Tensor::f_cat(&[tried, unresolved, counts], 0)?)
}

/// Edits so far.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Edits(Vec<f64>);

impl Default for Edits {
    fn default() -> Self {
        Self(vec![0.0; ENTRIES])
    }
}

impl Edits {
    /// Adds a tally.
    pub(super) fn add(&mut self, tally: &[f64]) {
        self.0.iter_mut().zip(tally).for_each(|(total, count)| *total += count);
    }

    /// Adds those of further steps.
    pub(super) fn merge(&mut self, next: &Edits) {
        self.add(&next.0);
    }

    /// What is said of them in the result.
    pub(super) fn summary(&self) -> EditSummary {
        EditSummary {
            tried: self.0[0] as u64,
            unresolved: self.0[1] as u64,
            median_step: self.quantile(0.5),
            p99_step: self.quantile(0.99),
        }
    }

    /// The length of step that this share does not exceed, interpolated within its class; 0 without any.
    fn quantile(&self, share: f64) -> f64 {
        let classes = &self.0[2..];
        let wanted = share * classes.iter().sum::<f64>();
        let mut below = 0.0;
        for (class, count) in classes.iter().enumerate().filter(|(_, count)| **count > 0.0) {
            if below + count >= wanted {
                return WIDTH * (class as f64 + (wanted - below) / count);
            }
            below += count;
        }
        0.0
    }

    /// Whether any edit can succeed. `last`: there will be no more.
    ///
    /// # Errors
    /// `NO_EDITS` when all failed, and there were enough of them to tell.
    pub(super) fn check(&self, last: bool) -> Result<()> {
        let EditSummary { tried, unresolved, .. } = self.summary();
        if unresolved < tried || tried == 0 || (tried < ENOUGH && !last) {
            return Ok(());
        }
        Err(Error::refused(
            ErrorCode::NoEdits,
            format!("none of {tried} edits found an image without the feature: there is nothing to teach"),
            "lower direction.margin, raise sample.until or use direction.method: logistic for a better direction; a labeller that \
             calls every image along the direction positive cannot guide an edit",
        ))
    }

    /// For a checkpoint: f64 `[ENTRIES]`, exactly.
    ///
    /// # Errors
    /// Lack of memory.
    pub(super) fn to_tensor(&self) -> Result<Tensor> {
        Ok(Tensor::f_from_slice(&self.0)?)
    }

    /// What [`Edits::to_tensor`] gave.
    ///
    /// # Errors
    /// When it has another length.
    pub(super) fn from_tensor(tally: &Tensor) -> Result<Self> {
        let tally: Vec<f64> = Vec::try_from(tally.f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?)?;
        match tally.len() {
            ENTRIES => Ok(Self(tally)),
            found => {
                Err(Error::internal(format!("a tally of edits has {found} entries, expected {ENTRIES}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lethe_domain::Failure;

    use super::*;

    /// Five latents of deviation 0.5, moved by these lengths; -1 is unresolved, 0 is left alone.
    fn of(lengths: [f64; 5]) -> Edits {
        let z = Tensor::zeros([5, 3], (Kind::Float, Device::Cpu));
        let moved: Vec<f32> = lengths.iter().flat_map(|length| [0.0, length.max(0.0) as f32, 0.0]).collect();
        let positive = Tensor::from_slice(&lengths.map(|length| length != 0.0));
        let places = positive.nonzero().view(-1);
        let edited = Edited {
            latents: &z - Tensor::from_slice(&moved).view([5, 3]),
            images: z.shallow_clone(),
            edited: positive,
            unresolved: Tensor::from_slice(&lengths.map(|length| length < 0.0)).index_select(0, &places),
            places,
        };
        let mut edits = Edits::default();
        edits.add(&Vec::<f64>::try_from(tally(&z, &edited, 0.5).unwrap()).unwrap());
        edits
    }

    #[test]
    fn a_part_is_tallied_in_deviations() {
        let summary = of([0.5, 1.0, 0.0, -1.0, 100.0]).summary();
        assert_eq!((summary.tried, summary.unresolved), (4, 1));
        // 1, 2 and far more deviations: the median is the second.
        assert!((summary.median_step - 2.0).abs() <= WIDTH, "{summary:?}");
        assert!(
            (summary.p99_step - 8.0).abs() <= WIDTH,
            "longer steps are all in the last class: {summary:?}"
        );
        assert_eq!(Edits::default().summary(), EditSummary::default());
    }

    /// The quantiles of a thousand lengths, against those of the sorted list.
    #[test]
    fn quantiles_are_those_of_the_lengths() {
        let mut edits = Edits::default();
        let mut lengths: Vec<f64> =
            (0..1000).map(|i| 4.0 * (f64::from(i * 619 % 1000) / 1000.0).powi(3)).collect();
        for length in &lengths {
            let mut tally = vec![0.0; ENTRIES];
            (tally[0], tally[2 + (length / WIDTH) as usize]) = (1.0, 1.0);
            edits.add(&tally);
        }
        lengths.sort_by(f64::total_cmp);
        let summary = edits.summary();
        assert!((summary.median_step - lengths[499]).abs() < WIDTH, "{summary:?}");
        assert!((summary.p99_step - lengths[989]).abs() < WIDTH, "{summary:?}");
    }

    #[test]
    fn only_when_every_edit_fails_the_job_does() {
        let failed = |count: f64, of: f64| {
            let mut edits = Edits::default();
            edits.add(&[of, count]);
            edits
        };
        for (edits, last) in
            [(failed(0.0, 0.0), true), (failed(99.0, 99.0), false), (failed(500.0, 501.0), true)]
        {
            edits.check(last).unwrap();
        }
        for (edits, last) in [(failed(1.0, 1.0), true), (failed(100.0, 100.0), false)] {
            let failure = Failure::from(edits.check(last).unwrap_err());
            assert_eq!(failure.code, ErrorCode::NoEdits, "{failure}");
        }
    }

    #[test]
    fn a_checkpoint_gives_it_back() {
        let edits = of([0.5, 1.0, 0.0, -1.0, 100.0]);
        assert_eq!(Edits::from_tensor(&edits.to_tensor().unwrap()).unwrap(), edits);
        assert!(Edits::from_tensor(&Tensor::from_slice(&[1.0])).is_err());
    }
}
