//! Report: the measurements of all evaluation shards, folded in order into the figures of result.json.
//!
//! One file for each group of figures; what is measured on pairs of images lies in `pairs`.

mod feature;
mod fidelity;
pub(super) mod ideal;
mod judged;
pub(super) mod range;
pub(super) mod remaining;

use lethe_domain::{ArtifactRef, Cut, ErrorCode, Figure, ReportOutput};

use crate::error::{Error, Result};
use crate::measures::Measures;
use crate::pairs::{PAIRS, PairMeasure};
use crate::verdict;
use crate::work::Work;
use feature::Counts;
use remaining::Parts;

/// # Errors
/// `NO_NEGATIVES` when the judge sees the feature everywhere; those of models and storage.
pub(super) fn run(work: &mut Work<'_>, shards: &[ArtifactRef], target: &ArtifactRef) -> Result<ReportOutput> {
    let cut = work.target(target)?.cut;
    let (judge, line) = verdict::judge(&work.spec, cut)?;
    let measures = fold(work, shards)?;
    let cut = line.among(&measures.before)?;
    let counts = Counts::of(&measures, cut);
    let parts = Parts::of(&measures, cut)?;
    let mut figures: Vec<Figure> = counts.figures().into_iter().chain(parts.figures()).collect();
    let locality = locality(&measures, cut)?;
    let ideal = ideal::figures(&measures, cut)?;
    let (outside, strays) = range::figure(&measures, &work.spec.generator.output)?;
    if let Some(space) = measures.space {
        let reference = work.spec.evaluate.reference.clone();
        let sets = reference.map(|reference| fidelity::look(work, &reference, &judge, cut)).transpose()?;
        figures.extend(fidelity::figures(work, space, sets, cut)?);
    }
    figures.extend(locality);
    figures.push(outside);
    figures.extend(ideal);
    let judge = judged::judged_by(&work.spec, &work.inputs, &judge)?;
    let warnings: Vec<_> =
        [strays, counts.warnings(), judged::warning(&judge)].into_iter().flatten().collect();
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(ReportOutput { figures, warnings, judge, advice: parts.advice() })
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

/// On the latents whose original image does not show the feature, in the order of the index.
fn locality(measures: &Measures, cut: Cut) -> Result<Vec<Figure>> {
    let free = || measures.before.iter().enumerate().filter(|(_, score)| !cut.is_positive(**score));
    if free().next().is_none() {
        return Err(everywhere("evaluation images", measures.before.len() as u64));
    }
    let figure = |pair: &PairMeasure| {
        let row = measures.row(pair.name)?;
        Ok(pair.figure(free().map(|(place, _)| row[place])))
    };
    PAIRS.iter().filter(|pair| measures.rows.contains_key(pair.name)).map(figure).collect()
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
