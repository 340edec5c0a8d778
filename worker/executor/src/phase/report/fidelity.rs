//! The Frechet distances, in one feature space.
//!
//! Beside f every removal looks like a gain where there is no feature, since f has it. The yardstick is rejection: what f gives when
//! its images with the feature are thrown away and replaced.

use lethe_domain::spec::Reference;
use lethe_domain::{Better, Cut, Figure, SampleRange, Unit};
use lethe_models::{Moments, frechet_distance};

use super::everywhere;
use crate::error::{Error, Result};
use crate::measures::Space;
use crate::verdict::Judge;
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
    let Space { before, after, ideal, noise, free, rejection } = space;
    let (free, rejection) = (free.picked(cut)?, rejection.picked(cut)?);
    if free.count() < 2 || rejection.count() < 2 {
        return Err(everywhere("images of the original", noise.count()));
    }
    let space = &work.spec.evaluate.space;
    let distance = |from: &Moments, to: &Moments| -> Result<f64> {
        work.stop.check()?;
        Ok(frechet_distance(from, to)?)
    };
    let figure = |name: &str, to: &Moments, what: &str| -> Result<Figure> {
        let definition = format!("Frechet distance ({space}) to {what}");
        let values = [distance(&before, to)?, distance(&after, to)?];
        Ok(fidelity(name, Some(values[0]), values[1], before.count(), definition))
    };
    // That distance, what rejection has, the one divided by the other, and how near an ideal copy would come.
    let beside_rejection = |name: &str, to: &Moments, what: &str| -> Result<[Figure; 4]> {
        let whole = figure(name, to, what)?;
        let rejected = distance(&rejection, to)?;
        let filtered = format!(
            "{} images of the original without the feature (those of the same latents that show it replaced by others)",
            rejection.count()
        );
        let over = |value: Option<f64>| value.filter(|_| rejected > 0.0).map(|value| value / rejected);
        let ratio = Figure {
            name: "distance_over_rejection".to_owned(),
            before: over(whole.before),
            after: over(whole.after),
            unit: Unit::Ratio,
            definition: format!(
                "The {} divided by the rejection distance: 1 = as good as filtering",
                whole.title()
            ),
            ..whole.clone()
        };
        let ideal = Figure {
            name: "ideal_distance_over_rejection".to_owned(),
            before: None,
            after: over(Some(distance(&ideal, to)?)),
            definition:
                "The same of the original's images of the edited latents: what a copy that fits the edit \
                         perfectly would have"
                    .to_owned(),
            ..ratio.clone()
        };
        let definition =
            format!("Frechet distance ({space}) from {filtered} to {what}: what filtering gives");
        let rejected = fidelity("rejection_distance", None, rejected, rejection.count(), definition);
        Ok([whole, ratio, ideal, rejected])
    };
    let own = "images of the original at other latents";
    let own_free = ("own_feature_free_distance", &free, format!("those {own} that do not show the feature"));
    let mut figures = Vec::new();
    if let Some(Sets { name, whole, free }) = &sets {
        let name = name.rsplit('/').next().unwrap_or(name);
        let what = format!("the {} images of {name} that do not show the feature", free.count());
        figures.extend(beside_rejection("feature_free_distance", free, &what)?);
        figures.push(figure("distance", whole, &format!("the {} images of {name}", whole.count()))?);
        figures.push(figure(own_free.0, own_free.1, &own_free.2)?);
    } else {
        figures.extend(beside_rejection(own_free.0, own_free.1, &own_free.2)?);
    }
    let what = format!("{own}: before is what chance alone gives, the noise floor");
    figures.push(figure("own_distance", &noise, &what)?);
    Ok(figures)
}

fn fidelity(name: &str, before: Option<f64>, after: f64, samples: u64, definition: String) -> Figure {
    Figure {
        name: name.to_owned(),
        group: "fidelity".to_owned(),
        before,
        after: Some(after),
        unit: Unit::Distance,
        ci95_before: None,
        ci95_after: None,
        better: Better::Lower,
        samples,
        definition,
    }
}
