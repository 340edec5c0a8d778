//! The walks of many latents at once, as tensors on their device: what to do is decided by masks, so that nobody waits for the
//! device to know it.
//!
//! The same decisions as [`super::walk::Walk`] takes, in the same arithmetic: on a cpu the steps are the same to the bit.

use tch::Tensor;

use super::walk::Terms;
use crate::error::Result;

/// P searches. Ask [`Walks::next`] where to look, and [`Walks::tell`] what was seen.
#[derive(Debug)]
pub(super) struct Walks {
    /// Scores at step 0, f64 `[P]`.
    start: Tensor,
    /// Where to look first, f64 `[P]`.
    first: Tensor,
    /// The longest steps known to be too short, and their scores; f64 [2, P], as the next three.
    short: Tensor,
    /// The shortest steps known to be enough, and their scores; infinite where none is known.
    enough: Tensor,
    /// The steps with the lowest scores; the shortest of equals.
    lowest: Tensor,
    /// How far apart the first two were, one look ago and two looks ago; infinite before both were known.
    widths: Tensor,
}

/// Where to look next.
#[derive(Debug)]
pub(super) struct Looks {
    /// The steps, f64 `[P]`.
    pub(super) steps: Tensor,
    /// Which searches are not over, bool `[P]`; the steps of the others mean nothing.
    pub(super) open: Tensor,
}

impl Walks {
    /// From scores above the goal, with a guess at the steps; f64 `[P]`.
    ///
    /// # Errors
    /// [`crate::Error::Memory`], as the others here.
    pub(super) fn new(start: &Tensor, guess: &Tensor, terms: &Terms) -> Result<Self> {
        let least = terms.longest / 16.0;
        // What is no number is not greater.
        let first = guess.f_where_scalarother(&guess.f_gt(least)?, least)?.f_clamp_max(terms.longest)?;
        let short = Tensor::f_stack(&[start.f_zeros_like()?, start.shallow_clone()], 0)?;
        let unknown = short.f_full_like(f64::INFINITY)?;
        Ok(Self {
            start: start.shallow_clone(),
            first,
            enough: unknown.shallow_clone(),
            lowest: short.shallow_clone(),
            widths: unknown,
            short,
        })
    }

    /// The next steps to look at.
    pub(super) fn next(&self, terms: &Terms) -> Result<Looks> {
        let aim = terms.goal - 0.5 * terms.slack;
        let (short, score) = (self.short.f_get(0)?, self.short.f_get(1)?);
        let (enough, reached) = (self.enough.f_get(0)?, self.enough.f_get(1)?);
        let known = known(&enough)?;
        let above = score.f_sub_scalar(aim)?;

        let slope = self.start.f_sub(&score)?.f_div(&short)?;
        let wanted = short.f_add(&above.f_div(&slope)?)?;
        let wanted = wanted.f_where_scalarother(&slope.f_gt(0.0)?, f64::INFINITY)?;
        let (least, most) = (short.f_mul_scalar(1.25)?, short.f_mul_scalar(2.0)?);
        let beyond = wanted.f_clamp_tensor(Some(least), Some(most))?.f_clamp_max(terms.longest)?;
        let beyond = self.first.f_where_self(&short.f_eq(0.0)?, &beyond)?;

        let width = enough.f_sub(&short)?;
        let share = above.f_div(&score.f_sub(&reached)?)?.f_clamp(0.05, 0.95)?;
        let creeps = width.f_gt_tensor(&self.widths.f_get(1)?.f_mul_scalar(0.5)?)?;
        let share = Tensor::f_where_scalarself(&creeps, 0.5, &share)?;
        let between = short.f_add(&share.f_mul(&width)?)?;

        let apart = width.f_gt(terms.resolution)?;
        let beneath = reached.f_neg()?.f_add_scalar(terms.goal)?.f_gt(terms.slack)?;
        let open = apart.f_logical_and(&beneath)?.f_where_self(&known, &short.f_lt(terms.longest)?)?;
        Ok(Looks { steps: between.f_where_self(&known, &beyond)?, open })
    }

    /// What the steps that [`Walks::next`] gave led to; f64 `[P]`, of which those of closed searches mean nothing.
    pub(super) fn tell(&mut self, looks: &Looks, scores: &Tensor, terms: &Terms) -> Result<()> {
        let open = &looks.open;
        let told = Tensor::f_stack(&[&looks.steps, scores], 0)?;
        let lower = scores.f_lt_tensor(&self.lowest.f_get(1)?)?.f_logical_and(open)?;
        self.lowest = told.f_where_self(&lower, &self.lowest)?;

        let enough = self.enough.f_get(0)?;
        let width = enough.f_sub(&self.short.f_get(0)?)?;
        let widths = Tensor::f_stack(&[width, self.widths.f_get(0)?], 0)?;
        self.widths = widths.f_where_self(&known(&enough)?.f_logical_and(open)?, &self.widths)?;

        let low = scores.f_le(terms.goal)?;
        self.enough = told.f_where_self(&low.f_logical_and(open)?, &self.enough)?;
        self.short = told.f_where_self(&low.f_logical_not()?.f_logical_and(open)?, &self.short)?;
        Ok(())
    }

    /// The steps to take, and their scores; f64 `[P]`.
    pub(super) fn result(&self) -> Result<(Tensor, Tensor)> {
        let known = known(&self.enough.f_get(0)?)?;
        let taken = self.enough.f_where_self(&known, &self.lowest)?;
        Ok((taken.f_get(0)?, taken.f_get(1)?))
    }
}

/// Where a step is known to be enough.
fn known(enough: &Tensor) -> Result<Tensor> {
    Ok(enough.f_lt(f64::INFINITY)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tch::Kind;

    use super::super::walk::Walk;
    use super::*;

    const TERMS: Terms = Terms { goal: 1.0, slack: 0.05, longest: 4.0, resolution: 1.0 / 32.0 };

    /// A score that changes from knot to knot, half a unit apart.
    fn score(start: f64, changes: &[f64], step: f64) -> f64 {
        let whole = ((step * 2.0) as usize).min(changes.len() - 1);
        start + changes[..whole].iter().sum::<f64>() + changes[whole] * (step * 2.0 - whole as f64)
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double)).unwrap()
    }

    /// Bits of the steps, and of their scores, after each number of looks.
    type Trail = Vec<(Vec<u64>, Vec<u64>)>;

    fn bits(steps: impl IntoIterator<Item = f64>) -> Vec<u64> {
        steps.into_iter().map(f64::to_bits).collect()
    }

    fn one_by_one(lines: &[(f64, f64, Vec<f64>)]) -> Trail {
        let mut walks: Vec<Walk> = lines.iter().map(|(start, guess, _)| Walk::new(*start, *guess)).collect();
        let look = |_| {
            for (walk, (start, _, changes)) in walks.iter_mut().zip(lines) {
                if let Some(step) = walk.next(&TERMS) {
                    walk.tell(step, score(*start, changes, step), &TERMS);
                }
            }
            let results: Vec<_> = walks.iter().map(Walk::result).collect();
            (bits(results.iter().map(|(step, _)| *step)), bits(results.iter().map(|(_, score)| *score)))
        };
        (0..18).map(look).collect()
    }

    fn at_once(lines: &[(f64, f64, Vec<f64>)]) -> Trail {
        let starts: Vec<f64> = lines.iter().map(|line| line.0).collect();
        let guesses: Vec<f64> = lines.iter().map(|line| line.1).collect();
        let mut walks =
            Walks::new(&Tensor::from_slice(&starts), &Tensor::from_slice(&guesses), &TERMS).unwrap();
        let look = |_| {
            let looks = walks.next(&TERMS).unwrap();
            let scores: Vec<f64> = values(&looks.steps)
                .iter()
                .zip(lines)
                .map(|(step, (start, _, changes))| score(*start, changes, step.clamp(0.0, 4.0)))
                .collect();
            walks.tell(&looks, &Tensor::from_slice(&scores), &TERMS).unwrap();
            let (steps, scores) = walks.result().unwrap();
            (bits(values(&steps)), bits(values(&scores)))
        };
        (0..18).map(look).collect()
    }

    proptest! {
        #[test]
        fn many_at_once_walk_as_one_by_one(
            lines in prop::collection::vec(
                (1.01..6.0_f64, -1.0..6.0_f64, prop::collection::vec(-2.0..1.0_f64, 8)), 1..12
            )
        ) {
            prop_assert_eq!(at_once(&lines), one_by_one(&lines));
        }
    }

    #[test]
    fn a_guess_that_is_no_number_and_a_cliff_are_walked_alike() {
        let cliff = |place: usize| (0..8).map(|knot| if knot == place { -5.0 } else { 0.0 }).collect();
        let lines = [(5.0, f64::NAN, cliff(3)), (5.0, f64::INFINITY, cliff(7)), (5.0, 0.0, vec![0.0; 8])];
        assert_eq!(at_once(&lines), one_by_one(&lines));
    }
}
