//! The edit that asks the labeller: move only latents whose image shows the feature, or nearly shows it, so that the next judge may think
//! otherwise, to where it is gone.
//!
//! Not here: how to get there (`line`, `descent`).

use std::rc::Rc;

use tch::{Kind, Tensor};

use super::Edited;
use super::method::{Aim, Method};
use crate::direction::Target;
use crate::error::Result;
use crate::generator::Generator;
use crate::labeller::Labeller;

/// A score this little beyond the goal is near enough to it, in standard deviations of the scores.
const SLACK: f64 = 1.0 / 20.0;

/// What edits need besides the latents.
#[derive(Debug)]
pub(super) struct Guided {
    pub(super) labeller: Rc<Labeller>,
    pub(super) method: Box<dyn Method>,
}

/// The aim of edits.
pub(super) fn aim<'a>(target: &Target, original: &'a Generator, labeller: &'a Labeller) -> Aim<'a> {
    let sign = target.cut.sign;
    Aim {
        original,
        labeller,
        sign,
        select: sign * target.select,
        threshold: sign * target.cut.threshold,
        goal: sign * target.goal,
        slack: SLACK * target.score_deviation,
    }
}

impl Guided {
    /// Edits the latents whose score is beyond where the target selects.
    pub(super) fn edit(&self, target: &Target, original: &Generator, z: &Tensor) -> Result<Edited> {
        let (aim, sign) = (aim(target, original, &self.labeller), target.cut.sign);
        let images = aim.images(z)?;
        let scores = if z.device().is_cuda() {
            self.labeller.scores_on_device(&images)?.f_mul_scalar(sign)?
        } else {
            Tensor::f_from_slice(&self.labeller.scores(&images)?)?.f_mul_scalar(sign)?
        };
        let selected = scores.f_gt(sign * target.select)?;
        let places = selected.f_nonzero()?.f_view([-1])?;
        if places.numel() == 0 {
            let unresolved = places.f_to_kind(Kind::Bool)?;
            return Ok(Edited { latents: z.shallow_clone(), scores, places, unresolved, images });
        }
        let there = z.f_index_select(0, &places)?;
        let moved = self.method.reach(&aim, &there, &scores.f_index_select(0, &places)?)?;
        // What no move takes the feature from stays put.
        let unresolved = moved.scores.f_gt(sign * target.cut.threshold)?;
        let mut shape = vec![1_i64; z.dim()];
        shape[0] = -1;
        let kept = there.f_where_self(&unresolved.f_view(&shape[..])?, &moved.latents)?;
        let latents = z.f_index_copy(0, &places, &kept)?;
        let images = images.f_index_copy(0, &places, &aim.images(&kept)?)?;
        Ok(Edited { latents, scores, places, unresolved, images })
    }
}
