//! The edit that follows the labeller's gradient through the generator, down to the goal.
//!
//! Latents that the labeller calls free of the feature, but nearly shows, go by degrees less far. A classifier's score is lowered in favour of the class that the image shows most besides the feature: what else it is it stays.
//! Each step is as long as would reach the goal if the score were linear, within a radius that grows where the gradient kept its promise and
//! shrinks where it did not. What a move changes in the image counts, so that what has nothing to do with the feature stays. A surrogate has a say in where it goes: what the labeller's own gradient finds is the nearest image that this
//! labeller calls free of the feature, which the next one may not. A
//! latent of a normal prior keeps its length, one of a uniform prior its support, and none leaves a ball around its origin: beyond
//! these the generator never saw one. What the last step went too far is taken back by halving.
//!
//! Latents are moved a batch at a time, and how kernels add up depends on the size of a batch: the last digits of an edit depend on the
//! batch it is made in. Whoever wants them again makes the same batches, as shards of the pool do.

use std::rc::Rc;

use lethe_domain::spec::Prior;
use tch::{Kind, Tensor};

use super::method::{Aim, Method, Reached};
use crate::error::Result;
use crate::labeller::Labeller;
use crate::metric::Metric;
use crate::surrogate::Surrogate;

/// Most images looked at for one latent, before the last step is halved.
const LOOKS: usize = 25;
const HALVINGS: usize = 3;
/// Shortest step, longest first one, and longest of all: the radius lies between these two. In standard deviations of an entry of a latent.
const PACE: [f64; 3] = [0.02, 0.25, 1.0];
/// A step that lowers the score by more than the second share of what its gradient promised is followed by one that may be twice as
/// long; by less than the first, by one that may be half as long.
const KEPT: [f64; 2] = [0.25, 0.6];
/// Furthest from its origin that a latent may end, likewise.
const REACH: f64 = 4.0;
/// A gradient shorter than this leads nowhere.
const FLAT: f64 = 1e-9;
/// The exact gradient counts for at least this share of its length along the way between it and the surrogate's.
const LEAST_ALONG: f64 = 0.1;
/// Most latents moved at once.
const BATCH: i64 = 256;

/// Goes down the score.
#[derive(Debug)]
pub(super) struct Descent {
    /// The labeller, in a form that can be differentiated, or its student.
    pub(super) guide: Rc<Labeller>,
    /// What has a say besides, and how much of it, from 0 to 1.
    pub(super) surrogate: Option<(Surrogate, f64)>,
    /// What a move changes in the image; where it is missing, every move of a length costs the same.
    pub(super) metric: Option<Metric>,
    pub(super) prior: Prior,
    /// Standard deviation of an entry of a latent.
    pub(super) deviation: f64,
}

impl Method for Descent {
    fn reach(&self, aim: &Aim<'_>, z: &Tensor, before: &Tensor) -> Result<Reached> {
        let (mut latents, mut scores) = (Vec::new(), Vec::new());
        for (z, before) in z.f_split(BATCH, 0)?.iter().zip(before.f_split(BATCH, 0)?) {
            let origin = z.f_to_kind(Kind::Double)?.f_flatten(1, -1)?;
            let (last, low) = (origin.shallow_clone(), origin.shallow_clone());
            let mut path = Path { last, low, goals: aim.goals(&before)?, scores: before, origin };
            self.descend(aim, z, &mut path)?;
            self.halve(aim, z, &mut path)?;
            latents.push(like(z, &path.low)?);
            scores.push(path.scores);
        }
        Ok(Reached { latents: Tensor::f_cat(&latents, 0)?, scores: Tensor::f_cat(&scores, 0)? })
    }
}

/// Where some latents are, f64 [P, D].
struct Path {
    origin: Tensor,
    /// The place before the lowest one.
    last: Tensor,
    /// The place with the lowest score so far.
    low: Tensor,
    /// The scores to reach, f64 `[P]`.
    goals: Tensor,
    /// The scores there, f64 `[P]`.
    scores: Tensor,
}

/// How high some latents are, and what points up.
struct Slope {
    /// The labeller's, f64 `[N]`.
    scores: Tensor,
    /// What is gone down: the guide's score, or its lead over the rivals; f64 `[N]`.
    heights: Tensor,
    /// Of the heights, f64 [N, D]. Zeros where they do not depend on the latent.
    gradient: Tensor,
}

impl Descent {
    fn descend(&self, aim: &Aim<'_>, z: &Tensor, path: &mut Path) -> Result<()> {
        let mut who = Tensor::f_arange(z.size()[0], (Kind::Int64, z.device()))?;
        let mut here = path.origin.shallow_clone();
        let (mut back, mut rivals, mut goals) = (here.shallow_clone(), None, path.goals.shallow_clone());
        let [least, first, most] = PACE.map(|pace| pace * self.deviation);
        let mut radius = Tensor::f_full([who.size()[0], 1], first, (Kind::Double, z.device()))?;
        let mut promise: Option<(Tensor, Tensor)> = None;
        for _ in 0..LOOKS {
            let Slope { scores, heights, gradient } = self.slope(aim, &like(z, &here)?, &mut rivals)?;
            path.lower(&who, &back, &here, &scores)?;
            if let Some((before, promised)) = &promise {
                let kept = before.f_sub(&heights)?.f_div(promised)?.f_unsqueeze(1)?;
                let wider = radius.f_mul_scalar(2.0)?.f_where_self(&kept.f_gt(KEPT[1])?, &radius)?;
                let narrower = radius.f_mul_scalar(0.5)?.f_where_self(&kept.f_lt(KEPT[0])?, &wider)?;
                radius = narrower.f_clamp(first, most)?;
            }
            let length = norm(&gradient)?;
            let leads = length.f_gt(FLAT)?.f_logical_and(&length.f_isfinite()?)?.f_view([-1])?;
            let on = scores.f_gt_tensor(&goals)?.f_logical_and(&leads)?.f_nonzero()?.f_view([-1])?;
            if on.numel() == 0 {
                break;
            }
            let of = |tensor: &Tensor| Ok::<_, crate::Error>(tensor.f_index_select(0, &on)?);
            (who, back, goals, radius) = (of(&who)?, of(&here)?, of(&goals)?, of(&radius)?);
            rivals = rivals.as_ref().map(of).transpose()?;
            let (gap, length) = (of(&scores)?.f_sub(&goals)?.f_unsqueeze(1)?, of(&length)?);
            let pace = gap.f_div(&length)?.f_clamp_min(least)?.f_minimum(&radius)?;
            promise = Some((of(&heights)?, pace.f_mul(&length)?.f_squeeze_dim(1)?));
            let moved = back.f_sub(&of(&gradient)?.f_mul(&pace.f_div(&length)?)?)?;
            here = self.allowed(&path.origin.f_index_select(0, &who)?, &moved)?;
        }
        Ok(())
    }

    /// Takes back what the last step went too far.
    fn halve(&self, aim: &Aim<'_>, z: &Tensor, path: &mut Path) -> Result<()> {
        for _ in 0..HALVINGS {
            let enough = path.goals.f_sub_scalar(aim.slack)?;
            let far = path.scores.f_lt_tensor(&enough)?.f_nonzero()?.f_view([-1])?;
            if far.numel() == 0 {
                break;
            }
            let of = |tensor: &Tensor| Ok::<_, crate::Error>(tensor.f_index_select(0, &far)?);
            let (last, low) = (of(&path.last)?, of(&path.low)?);
            let middle = self.allowed(&of(&path.origin)?, &last.f_add(&low)?.f_mul_scalar(0.5)?)?;
            let scores = Tensor::f_from_slice(&aim.scores(&like(z, &middle)?)?)?.f_to_device(z.device())?;
            let enough = scores.f_le_tensor(&of(&path.goals)?)?;
            let wide = enough.f_unsqueeze(1)?;
            path.low = path.low.f_index_copy(0, &far, &middle.f_where_self(&wide, &low)?)?;
            path.last = path.last.f_index_copy(0, &far, &last.f_where_self(&wide, &middle)?)?;
            path.scores =
                path.scores.f_index_copy(0, &far, &scores.f_where_self(&enough, &of(&path.scores)?)?)?;
        }
        Ok(())
    }

    /// How high latents are and what points up; `rivals` are told when they are not known.
    fn slope(&self, aim: &Aim<'_>, z: &Tensor, rivals: &mut Option<Tensor>) -> Result<Slope> {
        tch::with_grad(|| {
            let z = z.f_detach()?.f_set_requires_grad(true)?;
            let images = aim.images(&z)?;
            let outputs = self.guide.outputs_with_gradient(&images)?;
            let slope = self.guide.read(&outputs)?.f_mul_scalar(aim.sign)?;
            if rivals.is_none() {
                *rivals = self.guide.rivals(&outputs)?;
            }
            let height = match rivals {
                Some(rivals) => self.guide.lead(&outputs, rivals)?.f_mul_scalar(aim.sign)?,
                None => slope.shallow_clone(),
            };
            let gradient = if height.requires_grad() {
                Tensor::f_run_backward(&[height.f_sum(Kind::Double)?], &[&z], false, false)?.swap_remove(0)
            } else {
                z.f_zeros_like()?
            };
            // A student leads the way, and the labeller says how far it has come.
            let scores = if self.guide.is_taught() {
                let scores = aim.labeller.scores(&images.f_detach()?)?;
                Tensor::f_from_slice(&scores)?.f_mul_scalar(aim.sign)?.f_to_device(z.device())?
            } else {
                slope.f_detach()?
            };
            let gradient = gradient.f_to_kind(Kind::Double)?.f_flatten(1, -1)?;
            let mut way = gradient.shallow_clone();
            if let Some((surrogate, share)) = &self.surrogate {
                way = between(&way, &self.smooth(aim, surrogate, &z.f_detach()?, rivals.as_ref())?, *share)?;
            }
            if let Some(metric) = &self.metric {
                way = metric.natural(&way)?;
            }
            let gradient = along(&gradient, &way)?;
            Ok(Slope { scores, heights: height.f_detach()?, gradient })
        })
    }

    /// The gradient of what the surrogate expects of latents, f64 [N, D].
    fn smooth(
        &self,
        aim: &Aim<'_>,
        surrogate: &Surrogate,
        z: &Tensor,
        rivals: Option<&Tensor>,
    ) -> Result<Tensor> {
        let z = z.f_set_requires_grad(true)?;
        let opinions = surrogate.opinions(&z)?;
        let height = match rivals {
            Some(rivals) => self.guide.lead_of(&opinions, rivals)?,
            None => aim.labeller.score_of(&opinions)?,
        };
        let sum = height.f_mul_scalar(aim.sign)?.f_sum(Kind::Double)?;
        let gradient = Tensor::f_run_backward(&[sum], &[&z], false, false)?.swap_remove(0);
        Ok(gradient.f_to_kind(Kind::Double)?.f_flatten(1, -1)?)
    }

    /// The longest of its first steps, in units of the latent.
    pub(super) fn longest_step(&self) -> f64 {
        PACE[1] * self.deviation
    }

    /// Signed scores after one such step down, f64 `[N]`: where the gradient leads nowhere, those of staying put.
    pub(super) fn step(&self, aim: &Aim<'_>, z: &Tensor) -> Result<Tensor> {
        let gradient = self.slope(aim, z, &mut None)?.gradient;
        let origin = z.f_to_kind(Kind::Double)?.f_flatten(1, -1)?;
        let way = gradient.f_mul(&norm(&gradient)?.f_clamp_min(FLAT)?.f_reciprocal()?)?;
        let way = way.f_nan_to_num(0.0, 0.0, 0.0)?.f_mul_scalar(self.longest_step())?;
        let moved = self.allowed(&origin, &origin.f_sub(&way)?)?;
        Ok(Tensor::f_from_slice(&aim.scores(&like(z, &moved)?)?)?)
    }

    /// The nearest place where the prior has latents and the ball ends.
    fn allowed(&self, origin: &Tensor, moved: &Tensor) -> Result<Tensor> {
        let way = moved.f_sub(origin)?;
        let furthest = REACH * self.deviation;
        let shorter = norm(&way)?.f_clamp_min(furthest)?.f_reciprocal()?.f_mul_scalar(furthest)?;
        let moved = origin.f_add(&way.f_mul(&shorter)?)?;
        Ok(match self.prior {
            Prior::Normal => moved.f_mul(&norm(origin)?.f_div(&norm(&moved)?.f_clamp_min(FLAT)?)?)?,
            Prior::Uniform(low, high) => moved.f_clamp(low, high)?,
        })
    }
}

impl Path {
    /// Notes where latents `who` are, and where they were before: the lowest place counts.
    fn lower(&mut self, who: &Tensor, back: &Tensor, here: &Tensor, scores: &Tensor) -> Result<()> {
        let known = self.scores.f_index_select(0, who)?;
        // What is no number is not lower.
        let lower = scores.f_lt_tensor(&known)?;
        let wide = lower.f_unsqueeze(1)?;
        let (last, low) = (self.last.f_index_select(0, who)?, self.low.f_index_select(0, who)?);
        self.last = self.last.f_index_copy(0, who, &back.f_where_self(&wide, &last)?)?;
        self.low = self.low.f_index_copy(0, who, &here.f_where_self(&wide, &low)?)?;
        self.scores = self.scores.f_index_copy(0, who, &scores.f_where_self(&lower, &known)?)?;
        Ok(())
    }
}

/// What points up between the exact gradient and a smooth one, f64 [N, D].
fn between(exact: &Tensor, smooth: &Tensor, share: f64) -> Result<Tensor> {
    Ok(unit(exact)?.f_mul_scalar(1.0 - share)?.f_add(&unit(smooth)?.f_mul_scalar(share)?)?)
}

/// `way`, as long as the exact gradient is along it, f64 [N, D].
fn along(exact: &Tensor, way: &Tensor) -> Result<Tensor> {
    let (way, length) = (unit(way)?, norm(exact)?);
    let along = exact.f_mul(&way)?.f_sum_dim_intlist([1_i64].as_slice(), true, Kind::Double)?;
    Ok(way.f_mul(&along.f_maximum(&length.f_mul_scalar(LEAST_ALONG)?)?)?)
}

/// The rows, f64 [N, D], of length 1.
fn unit(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.f_div(&norm(rows)?.f_clamp_min(FLAT)?)?)
}

/// Lengths of the rows, f64 [N, 1].
fn norm(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), true, Kind::Double)?.f_sqrt()?)
}

/// Rows f64 [N, D] as latents of the shape and kind of `z`.
fn like(z: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let mut shape = z.size();
    shape[0] = rows.size()[0];
    Ok(rows.f_to_kind(z.f_kind()?)?.f_reshape(shape)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([-1, 2])
    }

    #[test]
    fn the_way_lies_between_the_two_and_the_exact_gradient_says_how_steep_it_is() {
        let exact = rows(&[2.0, 0.0, 2.0, 0.0, 3.0, 0.0, 0.0, 0.0]);
        let smooth = rows(&[0.0, 5.0, 0.0, 5.0, -1.0, 0.0, 0.0, 5.0]);
        let of = |share| {
            let way = between(&exact, &smooth, share).unwrap();
            Vec::<f64>::try_from(along(&exact, &way).unwrap().view([-1])).unwrap()
        };
        let half = of(0.5);
        assert!((half[0] - 1.0).abs() < 1e-9 && (half[1] - 1.0).abs() < 1e-9, "{half:?}");
        assert_eq!(of(0.0)[..4], [2.0, 0.0, 2.0, 0.0]);
        // Where the two disagree it goes where the surrogate points, as if it were hardly steep.
        let all = of(1.0);
        assert!((all[4] + 0.3).abs() < 1e-9 && all[5] == 0.0, "{all:?}");
        assert_eq!(all[6..], [0.0, 0.0], "no gradient, no way");
    }
}
