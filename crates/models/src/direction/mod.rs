//! Where the feature is in latent space: a unit vector, and how far along it the edit begins.
//!
//! Everything is summed in f64, one latent after the other in the order of the index, on one thread: the same labels give the same
//! bits however the samples were sharded. Thresholds and quality come from projections that are held out: the samples are
//! split into five parts by index, and each part is projected onto the direction found without it, so that no label is
//! judged by a direction it helped to find, and none is lost to the split.

mod auc;
mod logistic;
mod recalled;
mod rows;
mod target;

use lethe_domain::spec::{self, DirectionMethod, Selection, Threshold};
use lethe_domain::{Cut, EditMethod, Warning, WarningCode};

use crate::error::{Error, Result};
use crate::latents::{Latents, Stream};

pub use auc::roc_auc;
pub use recalled::recalled;
pub use target::Target;

use rows::{FOLDS, Part, Rows};

/// A target vector, and what a person should know about it.
#[derive(Debug)]
pub struct Located {
    /// The target vector.
    pub target: Target,
    /// Reasons to doubt it.
    pub warnings: Vec<Warning>,
}

/// What counts where the spec leaves it open.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Which latents are edited; `spec.recall` says it as [`Select::More`].
    pub select: Select,
    /// An edited image is to score as this quantile of the images without the feature; `spec.margin` says it otherwise.
    pub typical: f64,
}

/// Which latents are edited: those with the feature, and of the others some that come near it, but none from the goal of edits on.
#[derive(Debug, Clone, Copy)]
pub enum Select {
    /// This times the share of those with the feature, as a share of the others.
    More(f64),
    /// Those whose score is beyond this.
    Beyond(f64),
}

/// Finds the feature from the scores of the samples 0 .. scores.len() of [`Stream::Sample`]. The target carries `lr` to whoever trains.
///
/// # Errors
/// [`Error::NotFinite`]; [`Error::NoPositives`] and [`Error::NoNegatives`] when either group is too small to be split.
pub fn locate(
    latents: &Latents,
    scores: &[f64],
    cut: Cut,
    spec: &spec::Direction,
    defaults: Defaults,
    lr: f64,
) -> Result<Located> {
    if scores.iter().any(|score| !score.is_finite()) {
        return Err(Error::NotFinite { what: "the labeller gave NaN or infinity for some image".to_owned() });
    }
    let positive: Vec<bool> = scores.iter().map(|score| cut.is_positive(*score)).collect();
    enough(&positive)?;
    let values = latents.rows(Stream::Sample, (0..positive.len()).map(|index| index as u64));
    let rows = Rows::new(&values, latents.numel(), &positive);

    let difference = rows.mean_difference(Part::All);
    let raw_norm = norm(&difference);
    let find = |part| match spec.method {
        DirectionMethod::MeanDifference => rows.mean_difference(part),
        DirectionMethod::Logistic => logistic::fit(&rows, part),
    };
    let unit = unit(find(Part::All))?;
    let mut projections = vec![0.0; positive.len()];
    for fold in 0..FOLDS {
        rows.project(&self::unit(find(Part::Without(fold)))?, fold, &mut projections);
    }
    let threshold = threshold(&projections, &positive, spec.threshold);
    let deviation = deviation(scores);
    let Aims { select, goal } = aims(scores, cut, deviation, spec, defaults);
    let is_selected = |score: &&f64| Cut { threshold: select, ..cut }.is_positive(**score);
    let (method, edited) = match spec.selection {
        Selection::Projection => {
            let beyond = projections.iter().filter(|projection| **projection >= threshold);
            (EditMethod::Projection, beyond.count())
        }
        Selection::Classifier => (EditMethod::Line, scores.iter().filter(is_selected).count()),
    };
    let target = Target {
        shape: latents.shape().to_vec(),
        raw_norm,
        threshold,
        cut,
        select,
        goal,
        method,
        student: None,
        surrogate: None,
        metric: None,
        score_deviation: deviation,
        latent_deviation: latents.deviation(),
        lr,
        samples: positive.len() as u64,
        positives: count(&positive) as u64,
        edited_share: edited as f64 / positive.len() as f64,
        heldout_auc: roc_auc(&projections, &positive),
        unit,
    };
    let warnings = warnings(&target, &difference, spec);
    Ok(Located { target, warnings })
}

/// Both groups must be left after any fifth of the samples is taken away.
fn enough(positive: &[bool]) -> Result<()> {
    const NEEDED: u64 = 2;
    let samples = positive.len() as u64;
    let positives = count(positive) as u64;
    let negatives = samples - positives;
    let splits = |wanted: bool| {
        let fold = |place: usize| place % FOLDS;
        let mut folds = (0..positive.len()).filter(|place| positive[*place] == wanted).map(fold);
        let first = folds.next();
        folds.any(|other| Some(other) != first)
    };
    if positives < NEEDED {
        return Err(Error::NoPositives { positives, samples, needed: NEEDED });
    }
    if negatives < NEEDED {
        return Err(Error::NoNegatives { negatives, samples, needed: NEEDED });
    }
    if splits(true) && splits(false) {
        return Ok(());
    }
    Err(Error::Unsplit { positives, negatives, apart: FOLDS })
}

/// Where the edit begins, from held-out projections.
fn threshold(projections: &[f64], positive: &[bool], rule: Threshold) -> f64 {
    let of = |wanted: bool| {
        let chosen = projections.iter().zip(positive).filter(move |(_, label)| **label == wanted);
        chosen.map(|(projection, _)| *projection).collect::<Vec<_>>()
    };
    match rule {
        Threshold::Pooled => mean(projections),
        Threshold::Midpoint => 0.5 * (mean(&of(true)) + mean(&of(false))),
        Threshold::Quantile(q) => quantile(of(true), q),
    }
}

/// Scores where edits begin and end, in the labeller's own units.
struct Aims {
    select: f64,
    goal: f64,
}

fn aims(scores: &[f64], cut: Cut, deviation: f64, spec: &spec::Direction, defaults: Defaults) -> Aims {
    let signed = |score: &f64| cut.sign * score;
    let negatives: Vec<f64> = scores.iter().filter(|score| !cut.is_positive(**score)).map(signed).collect();
    let of_negatives = |q| quantile(negatives.clone(), q);
    let threshold = signed(&cut.threshold);
    let goal = match spec.margin {
        Some(margin) => threshold - margin * deviation,
        None => of_negatives(defaults.typical),
    };
    let select = match spec.recall.map_or(defaults.select, Select::More) {
        Select::More(recall) if recall > 0.0 => {
            let more = recall * (scores.len() - negatives.len()) as f64 / scores.len() as f64;
            of_negatives((1.0 - more).max(0.0)).max(goal)
        }
        Select::More(_) => threshold,
        Select::Beyond(score) => signed(&score).max(goal).min(threshold),
    };
    let [select, goal] = [select, goal].map(|score| cut.sign * score);
    Aims { select, goal }
}

/// Linear interpolation between order statistics (Hyndman and Fan 1996, type 7; numpy's default). 0 of nothing.
pub(crate) fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let place = q * (values.len() - 1) as f64;
    let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// An expected cosine with the true direction below this is mostly noise.
const LEAST_COSINE: f64 = 0.8;
/// Below this AUC one line through latent space hardly tells who shows the feature (0.8 to 0.9 is called excellent by Hosmer
/// and Lemeshow, Applied Logistic Regression, 2000).
const LEAST_AUC: f64 = 0.8;
/// What more than half of the images show is what the generator mostly makes, not a feature of some of them.
const COMMON: f64 = 0.5;
/// More than this share of all latents is no edit of a feature.
const BROAD: f64 = 0.4;

fn warnings(target: &Target, difference: &[f64], spec: &spec::Direction) -> Vec<Warning> {
    let mut found = Vec::new();
    let negatives = target.samples - target.positives;
    let share = target.positives as f64 / target.samples as f64;
    // A difference of means of n1 and n2 independent latents has a noise of variance s^2 (1/n1 + 1/n2) in each of d
    // dimensions; what is left of its length is the feature's.
    let variance = target.latent_deviation.powi(2);
    let noise = variance * difference.len() as f64 * (1.0 / target.positives as f64 + 1.0 / negatives as f64);
    let cosine = (1.0 - noise / target.raw_norm.powi(2)).max(0.0).sqrt();
    if spec.method == DirectionMethod::MeanDifference && cosine < LEAST_COSINE {
        found.push(Warning::new(
            WarningCode::NoisyDirection,
            format!(
                "the direction is noisy: its expected cosine with the true one is {cosine:.2} at {} positives, {negatives} \
                 negatives and {} latent dimensions",
                target.positives,
                difference.len()
            ),
            "raise sample.until",
        ));
    }
    if target.heldout_auc < LEAST_AUC {
        found.push(Warning::new(
            WarningCode::WeakDirection,
            format!(
                "one direction hardly tells the feature: held-out AUC {:.2} (0.5 is chance)",
                target.heldout_auc
            ),
            "raise sample.until, use direction.method: logistic, or choose a feature that the labeller tells better",
        ));
    }
    if share > COMMON {
        found.push(Warning::new(
            WarningCode::CommonFeature,
            format!("{:.0} % of the samples show the feature: what most images are is to be unlearned", 100.0 * share),
            "look at what the labeller calls positive (class, threshold, positive.above or below); the reverse may be meant",
        ));
    }
    if spec.selection == Selection::Projection && target.edited_share > BROAD {
        found.push(Warning::new(
            WarningCode::BroadEdit,
            format!(
                "{:.0} % of all latents will be edited though {:.1} % show the feature",
                100.0 * target.edited_share,
                100.0 * share
            ),
            "use direction.threshold: quantile or midpoint, or direction.selection: classifier",
        ));
    }
    found
}

fn count(flags: &[bool]) -> usize {
    flags.iter().filter(|flag| **flag).count()
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

pub(crate) fn deviation(values: &[f64]) -> f64 {
    let centre = mean(values);
    (values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|entry| entry * entry).sum::<f64>().sqrt()
}

fn unit(vector: Vec<f64>) -> Result<Vec<f64>> {
    let length = norm(&vector);
    if length > 0.0 && length.is_finite() {
        return Ok(vector.into_iter().map(|entry| entry / length).collect());
    }
    Err(Error::NotFinite {
        what: format!("the direction has length {length}: the labels do not depend on the latents"),
    })
}
