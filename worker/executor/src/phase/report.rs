//! Report: the measurements of all evaluation shards, folded in order into the figures of result.json.

use lethe_domain::spec::Reference;
use lethe_domain::{
    ArtifactRef, Cut, ErrorCode, FeatureSummary, Fidelity, FrechetPair, Locality, ReportOutput, SampleRange,
    proportion_ci95,
};
use lethe_models::{Moments, frechet_distance};

use super::batches;
use crate::error::{Error, Result};
use crate::measures::{Free, Measures, Space};
use crate::verdict;
use crate::work::Work;

/// # Errors
/// `NO_NEGATIVES` when the judge sees the feature everywhere; those of models and storage.
pub(super) fn run(work: &mut Work<'_>, shards: &[ArtifactRef], target: &ArtifactRef) -> Result<ReportOutput> {
    let cut = work.target(target)?.cut;
    let (judge, line) = verdict::judge(&work.spec, cut)?;
    let measures = fold(work, shards)?;
    let cut = line.among(&measures.before)?;
    let feature = feature(&work.spec.feature.name, &measures, cut);
    let locality = locality(&measures, cut)?;
    let fidelity = match measures.space {
        Some(space) => {
            let reference = work.spec.evaluate.reference.clone();
            let sets = reference.map(|reference| look(work, &reference, &judge, cut)).transpose()?;
            Some(fidelity(work, space, sets, cut)?)
        }
        None => None,
    };
    Ok(ReportOutput { feature, fidelity, locality })
}

fn fold(work: &mut Work<'_>, shards: &[ArtifactRef]) -> Result<Measures> {
    let mut total: Option<Measures> = None;
    for (done, shard) in shards.iter().enumerate() {
        work.step(done as u64, shards.len() as u64)?;
        let next = Measures::from_tensors(&work.storage.tensors(shard)?)?;
        match &mut total {
            Some(total) => total.append(next)?,
            None => total = Some(next),
        }
    }
    total
        .filter(|total| total.start == 0)
        .ok_or_else(|| Error::internal("there is no first evaluation shard"))
}

fn feature(name: &str, measures: &Measures, cut: Cut) -> FeatureSummary {
    let count = |scores: &[f64]| scores.iter().filter(|score| cut.is_positive(**score)).count() as u64;
    let samples = measures.before.len() as u64;
    let (before, after) = (count(&measures.before), count(&measures.after));
    if before == 0 {
        tracing::warn!("the judge sees the feature in none of {samples} images of the original");
    }
    // Where there was nothing to see, nothing is shown to be gone.
    let remaining_share = if before == 0 { 1.0 } else { after as f64 / before as f64 };
    FeatureSummary {
        name: name.to_owned(),
        before: before as f64 / samples as f64,
        after: after as f64 / samples as f64,
        remaining_share,
        samples,
        ci95_before: proportion_ci95(before, samples),
        ci95_after: proportion_ci95(after, samples),
    }
}

/// On the latents whose original image does not show the feature, in the order of the index.
fn locality(measures: &Measures, cut: Cut) -> Result<Locality> {
    let (mut l1, mut ms_ssim, mut samples) = (0.0, 0.0, 0_u64);
    let negative = |(_, score): &(usize, &f64)| !cut.is_positive(**score);
    for (place, _) in measures.before.iter().enumerate().filter(negative) {
        l1 += measures.l1[place];
        ms_ssim += measures.ms_ssim[place];
        samples += 1;
    }
    if samples == 0 {
        return Err(everywhere("evaluation images", measures.before.len() as u64));
    }
    Ok(Locality { l1: l1 / samples as f64, ms_ssim: ms_ssim / samples as f64, samples })
}

fn everywhere(what: &str, count: u64) -> Error {
    Error::refused(
        ErrorCode::NoNegatives,
        format!(
            "the judge sees the feature in nearly all of {count} {what}: there is nothing to compare with"
        ),
        "raise the judge's threshold, or choose another judge",
    )
}

/// A set of real images in the feature space: all of it, and the part without the feature.
struct Sets {
    name: String,
    whole: Moments,
    free: Moments,
}

fn look(
    work: &mut Work<'_>,
    reference: &Reference,
    judge: &lethe_domain::spec::Judge,
    cut: Cut,
) -> Result<Sets> {
    let images = work.models.reference(reference, work.spec.generator.output.shape())?;
    let (judge, features) = (work.labeller(judge)?, work.features()?);
    let features = features.ok_or_else(|| Error::internal("a reference set without a feature space"))?;
    let mut sets: Option<Sets> = None;
    let all = SampleRange { start: 0, count: images.len() };
    for part in batches(all, work.spec.sample.batch) {
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

fn fidelity(work: &Work<'_>, space: Space, sets: Option<Sets>, cut: Cut) -> Result<Fidelity> {
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
    let distance = |one: &Moments, other: &Moments| -> Result<f64> {
        work.stop.check()?;
        Ok(frechet_distance(one, other)?)
    };
    let noise_floor = distance(&before, &noise)?;
    let own = FrechetPair {
        after: distance(&after, &noise)?,
        feature_free_before: distance(&before, &free)?,
        feature_free_after: distance(&after, &free)?,
    };
    let space = work.spec.evaluate.space.clone();
    Ok(match sets {
        Some(sets) => Fidelity {
            space,
            before: distance(&before, &sets.whole)?,
            after: distance(&after, &sets.whole)?,
            feature_free_before: distance(&before, &sets.free)?,
            feature_free_after: distance(&after, &sets.free)?,
            reference: sets.name,
            noise_floor,
            own,
        },
        None => Fidelity {
            space,
            reference: "generator".to_owned(),
            before: noise_floor,
            after: own.after,
            feature_free_before: own.feature_free_before,
            feature_free_after: own.feature_free_after,
            noise_floor,
            own,
        },
    })
}
