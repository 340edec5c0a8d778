//! The Frechet distances, in one feature space.

use lethe_domain::spec::{Judge, Reference};
use lethe_domain::{Better, Cut, Figure, SampleRange, Unit};
use lethe_models::{Moments, frechet_distance};

use super::everywhere;
use crate::error::{Error, Result};
use crate::measures::{Free, Space};
use crate::work::Work;

/// A set of real images in the feature space: all of it, and the part without the feature.
pub(super) struct Sets {
    name: String,
    whole: Moments,
    free: Moments,
}

/// Looks at the reference set.
///
/// # Errors
/// `NO_NEGATIVES` when the judge sees the feature everywhere; those of the models.
pub(super) fn look(work: &mut Work<'_>, reference: &Reference, judge: &Judge, cut: Cut) -> Result<Sets> {
    let images = work.models.reference(reference, &work.inputs, work.spec.generator.output.shape())?;
    let (judge, features) = (work.labeller(judge)?, work.features()?);
    let features = features.ok_or_else(|| Error::internal("a reference set without a feature space"))?;
    let mut sets: Option<Sets> = None;
    let all = SampleRange { start: 0, count: images.len() };
    for part in all.in_steps_of(work.spec.evaluate.batch) {
        work.step(part.start, all.count)?;
        let batch = images.batch(part.start, part.count, work.device)?;
        let vectors = features.of(&batch)?;
        let keep: Vec<bool> =
            judge.scores(&batch)?.into_iter().map(|score| !cut.is_positive(score)).collect();
        let sets = sets.get_or_insert_with(|| {
            let none = || Moments::new(vectors.size()[1]);
            Sets { name: reference.uri.clone(), whole: none(), free: none() }
        });
        sets.whole.add(&vectors)?;
        sets.free.add_where(&vectors, &keep)?;
    }
    let sets = sets.ok_or_else(|| Error::internal("an empty reference set"))?;
    match sets.free.count() {
        0 | 1 => Err(everywhere("reference images", all.count)),
        _ => Ok(sets),
    }
}

/// The distances, the one that matters most first.
///
/// # Errors
/// `NO_NEGATIVES` when the judge sees the feature in nearly all images; [`Error::Stopped`].
pub(super) fn figures(work: &Work<'_>, space: Space, sets: Option<Sets>, cut: Cut) -> Result<Vec<Figure>> {
    let Space { before, after, noise, free } = space;
    let free = match free {
        Free::Picked(moments) => moments,
        Free::Open(scores, vectors) => {
            let keep: Vec<bool> = scores.into_iter().map(|score| !cut.is_positive(score)).collect();
            let mut moments = Moments::new(noise.dimension());
            moments.add_where(&vectors, &keep)?;
            moments
        }
    };
    if free.count() < 2 {
        return Err(everywhere("images of the original", noise.count()));
    }
    let space = &work.spec.evaluate.space;
    let figure = |name: &str, to: &Moments, what: &str| -> Result<Figure> {
        let distance = |from: &Moments| -> Result<f64> {
            work.stop.check()?;
            Ok(frechet_distance(from, to)?)
        };
        Ok(Figure {
            name: name.to_owned(),
            group: "fidelity".to_owned(),
            before: Some(distance(&before)?),
            after: Some(distance(&after)?),
            unit: Unit::Distance,
            ci95_before: None,
            ci95_after: None,
            better: Better::Lower,
            samples: before.count(),
            definition: format!("Frechet distance ({space}) to {what}"),
        })
    };
    let mut figures = Vec::new();
    if let Some(Sets { name, whole, free }) = &sets {
        let name = name.rsplit('/').next().unwrap_or(name);
        let what = format!("those of the {} images of {name} that do not show the feature", free.count());
        figures.push(figure("feature_free_distance", free, &what)?);
        figures.push(figure("distance", whole, &format!("the {} images of {name}", whole.count()))?);
    }
    let own = "images of the original at other latents";
    figures.push(figure(
        "own_feature_free_distance",
        &free,
        &format!("those {own} that do not show the feature"),
    )?);
    let what = format!("{own}: before is what chance alone gives, the noise floor");
    figures.push(figure("own_distance", &noise, &what)?);
    Ok(figures)
}
