//! Where the feature is in latent space, on data whose direction is known.

use lethe_domain::spec::{Direction, DirectionMethod, ModelFormat, Selection, Threshold};
use lethe_domain::{Cut, WarningCode};
use lethe_models::{Defaults, Error, Latents, Located, Select, Stream, Target, locate, roc_auc};
use tch::{Device, Kind, Tensor};

use crate::fixture::{spec, values};

const CUT: Cut = Cut { sign: 1.0, threshold: 1.2816 };
const LR: f64 = 1e-3;
const DEFAULTS: Defaults = Defaults { select: Select::More(0.0), typical: 0.5 };

fn latents(dimension: i64, seed: u64) -> Latents {
    Latents::new(seed, &spec(ModelFormat::Safetensors, dimension, [1, 4, 4], [0.0, 1.0]))
}

/// A linear feature along the first axis, with noise from the second: about one latent in ten is beyond the cut.
fn scores(latents: &Latents, count: u64, noise: f64) -> Vec<f64> {
    let z = rows(latents, count);
    let scale = (1.0 + noise * noise).sqrt();
    values(&((z.select(1, 0) + z.select(1, 1) * noise) / scale))
}

fn rows(latents: &Latents, count: u64) -> Tensor {
    latents.batch(Stream::Sample, 0, count, Device::Cpu).unwrap().to_kind(Kind::Double)
}

fn direction(threshold: Threshold, selection: Selection) -> Direction {
    Direction { threshold, selection, recall: Some(0.0), ..Direction::default() }
}

fn found(latents: &Latents, scores: &[f64], spec: &Direction) -> Located {
    locate(latents, scores, CUT, spec, DEFAULTS, LR).unwrap()
}

/// The mean difference of the latents whose index is (not) in a fold, by tensor operations.
fn difference(z: &Tensor, scores: &[f64], keep: impl Fn(usize) -> bool) -> Tensor {
    let mean = |positive: bool| {
        let chosen: Vec<i64> = (0..scores.len())
            .filter(|i| keep(*i) && CUT.is_positive(scores[*i]) == positive)
            .map(|i| i as i64)
            .collect();
        z.index_select(0, &Tensor::from_slice(&chosen)).mean_dim(0, false, Kind::Double)
    };
    mean(true) - mean(false)
}

#[test]
fn the_mean_difference_and_its_held_out_thresholds() {
    let latents = latents(12, 7);
    let (z, scores) = (rows(&latents, 1003), scores(&latents, 1003, 0.5));
    let positive: Vec<bool> = scores.iter().map(|score| CUT.is_positive(*score)).collect();
    let whole = difference(&z, &scores, |_| true);
    let mut projections = vec![0.0; scores.len()];
    for fold in 0..5 {
        let outside = difference(&z, &scores, |index| index % 5 != fold);
        let onto = values(&z.matmul(&(&outside / outside.norm())));
        (fold..scores.len()).step_by(5).for_each(|index| projections[index] = onto[index]);
    }
    let of = |wanted: bool| {
        let chosen = projections.iter().zip(&positive).filter(|(_, p)| **p == wanted).map(|(v, _)| *v);
        Tensor::from_slice(&chosen.collect::<Vec<_>>())
    };
    let mean = |tensor: Tensor| tensor.mean(Kind::Double).double_value(&[]);
    for (rule, expected) in [
        (Threshold::Pooled, mean(Tensor::from_slice(&projections))),
        (Threshold::Midpoint, 0.5 * (mean(of(true)) + mean(of(false)))),
        (Threshold::Quantile(0.1), of(true).quantile_scalar(0.1, 0, false, "linear").double_value(&[])),
    ] {
        let target = found(&latents, &scores, &direction(rule, Selection::Projection)).target;
        let unit = values(&(&whole / whole.norm()));
        assert!(target.unit.iter().zip(&unit).all(|(a, b)| (a - b).abs() < 1e-12));
        assert!((target.raw_norm - whole.norm().double_value(&[])).abs() < 1e-12);
        assert!((target.threshold - expected).abs() < 1e-12, "{rule:?}: {} {expected}", target.threshold);
        let beyond = projections.iter().filter(|p| **p >= expected).count();
        assert!((target.edited_share * 1003.0 - beyond as f64).abs() < 1.5, "{rule:?}");
        assert!((target.heldout_auc - roc_auc(&projections, &positive)).abs() < 1e-12);
        assert_eq!(target.positives, positive.iter().filter(|p| **p).count() as u64);
    }
    let target = found(&latents, &scores, &direction(Threshold::Midpoint, Selection::Classifier)).target;
    assert_eq!(target.edited_share, target.positives as f64 / 1003.0);
    let deviation = Tensor::from_slice(&scores).std(false).double_value(&[]);
    assert!((target.score_deviation - deviation).abs() < 1e-12);
}

/// For a linear feature of a tenth under N(0, I), theory expects cos = 0.79 at 100 dimensions and 500 samples, and 0.5 at 512.
#[test]
fn noise_is_what_theory_expects_and_is_told() {
    for (dimension, expected) in [(100, 0.79), (512, 0.50)] {
        let cosines: Vec<f64> = (0..8)
            .map(|seed| {
                let latents = latents(dimension, seed);
                let located = found(
                    &latents,
                    &scores(&latents, 500, 0.0),
                    &direction(Threshold::Midpoint, Selection::Projection),
                );
                if dimension == 512 {
                    assert!(
                        located.warnings[0].code == WarningCode::NoisyDirection,
                        "{:?}",
                        located.warnings
                    );
                }
                located.target.unit[0]
            })
            .collect();
        let mean = cosines.iter().sum::<f64>() / 8.0;
        assert!((mean - expected).abs() < 0.04, "{dimension}: {cosines:?}");
    }
    let latents = latents(20, 1);
    let located =
        found(&latents, &scores(&latents, 5000, 0.0), &direction(Threshold::Midpoint, Selection::Projection));
    assert_eq!(located.warnings, vec![]);
    assert!(located.target.unit[0] > 0.98 && located.target.heldout_auc > 0.99);
    let pooled =
        found(&latents, &scores(&latents, 5000, 0.0), &direction(Threshold::Pooled, Selection::Projection));
    assert!(pooled.warnings.iter().any(|warning| warning.code == WarningCode::BroadEdit));
}

/// Labels with noise: logistic regression weighs every sample, the mean difference only asks which side it is on.
#[test]
fn logistic_finds_the_direction() {
    let latents = latents(20, 3);
    let spec = Direction { method: DirectionMethod::Logistic, ..Direction::default() };
    let target = found(&latents, &scores(&latents, 2000, 0.5), &spec).target;
    let truth = [1.0 / 1.25_f64.sqrt(), 0.5 / 1.25_f64.sqrt()];
    let cosine = target.unit[0] * truth[0] + target.unit[1] * truth[1];
    assert!(cosine > 0.99, "{cosine}");
    assert!((target.unit.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-12);
    assert_eq!(target, found(&latents, &scores(&latents, 2000, 0.5), &spec).target);
}

#[test]
fn low_scores_can_be_the_positive_ones() {
    let latents = latents(12, 7);
    let high = scores(&latents, 900, 0.0);
    let low: Vec<f64> = high.iter().map(|score| -score).collect();
    let below = Cut { sign: -1.0, threshold: -CUT.threshold };
    let spec = Direction::default();
    let (one, other) = (
        found(&latents, &high, &spec).target,
        locate(&latents, &low, below, &spec, DEFAULTS, LR).unwrap().target,
    );
    assert_eq!((one.unit, one.threshold, one.positives), (other.unit, other.threshold, other.positives));
}

#[test]
fn edits_end_among_the_negatives_and_as_many_of_these_are_edited_as_the_feature_is_frequent() {
    let latents = latents(12, 7);
    let high = scores(&latents, 1000, 0.0);
    let low: Vec<f64> = high.iter().map(|score| -score).collect();
    let mut negatives: Vec<f64> = high.iter().copied().filter(|score| !CUT.is_positive(*score)).collect();
    negatives.sort_by(f64::total_cmp);
    let positives = 1000 - negatives.len();
    for (scores, cut) in [(&high, CUT), (&low, Cut { sign: -1.0, threshold: -CUT.threshold })] {
        let found = |spec: Direction| locate(&latents, scores, cut, &spec, DEFAULTS, LR).unwrap().target;
        let target = found(Direction { recall: Some(1.0), ..Direction::default() });
        let beyond = |score: f64| negatives.iter().filter(|other| **other > cut.sign * score).count();
        assert!(beyond(target.goal).abs_diff(negatives.len() / 2) <= 1, "the median");
        let more = beyond(target.select);
        let wanted = positives * negatives.len() / 1000;
        assert!(more.abs_diff(wanted) <= 1, "{more} more, not {wanted}");
        assert_eq!(target.edited_share, (positives + more) as f64 / 1000.0);
        assert_eq!(target, Target::from_bytes(&target.to_bytes().unwrap(), "target").unwrap());

        let set = found(Direction { margin: Some(0.5), recall: Some(0.0), ..Direction::default() });
        assert!((set.goal - (cut.threshold - cut.sign * 0.5 * set.score_deviation)).abs() < 1e-12);
        assert_eq!((set.select, set.edited_share), (cut.threshold, positives as f64 / 1000.0));
        // Nobody is edited who is already where edits lead.
        let none = found(Direction { margin: Some(0.0), recall: Some(1.0), ..Direction::default() });
        assert_eq!([none.select, none.goal], [cut.threshold; 2]);
    }
}

#[test]
fn a_score_to_select_from_counts_between_the_cut_and_the_goal_unless_the_spec_says_more() {
    let latents = latents(12, 7);
    let high = scores(&latents, 1000, 0.0);
    let low: Vec<f64> = high.iter().map(|score| -score).collect();
    for (scores, cut) in [(&high, CUT), (&low, Cut { sign: -1.0, threshold: -CUT.threshold })] {
        let found = |beyond: f64, recall: Option<f64>| {
            let spec = Direction { recall, ..Direction::default() };
            let defaults = Defaults { select: Select::Beyond(cut.sign * beyond), typical: 0.5 };
            locate(&latents, scores, cut, &spec, defaults, LR).unwrap().target
        };
        let target = found(0.8, None);
        assert_eq!(target.select, cut.sign * 0.8);
        let beyond = high.iter().filter(|score| **score > 0.8).count();
        assert_eq!(target.edited_share, beyond as f64 / 1000.0);
        let positives = target.positives as f64 / 1000.0;
        assert_eq!((found(2.0, None).select, found(2.0, None).edited_share), (cut.threshold, positives));
        assert_eq!(found(-9.0, None).select, target.goal, "nobody is edited who is where edits lead");
        assert_eq!(found(0.8, Some(0.0)).select, cut.threshold, "the spec says so");
    }
}

#[test]
fn groups_that_are_too_small_are_refused() {
    let latents = latents(4, 0);
    let with = |positives: &[usize], count: usize| {
        let scores: Vec<f64> = (0..count).map(|i| if positives.contains(&i) { 2.0 } else { 0.0 }).collect();
        locate(&latents, &scores, CUT, &Direction::default(), DEFAULTS, LR)
    };
    assert!(matches!(with(&[], 50), Err(Error::NoPositives { positives: 0, samples: 50, needed: 2 })));
    assert!(matches!(with(&[3], 50), Err(Error::NoPositives { positives: 1, .. })));
    // Both in one fold: nothing would be left to hold out.
    assert!(matches!(with(&[3, 8], 50), Err(Error::Unsplit { positives: 2, negatives: 48, apart: 5 })));
    assert!(with(&[3, 9], 50).is_ok());
    let all: Vec<usize> = (0..50).collect();
    assert!(matches!(with(&all, 50), Err(Error::NoNegatives { negatives: 0, .. })));
    assert!(matches!(with(&all[1..], 50), Err(Error::NoNegatives { negatives: 1, .. })));
    assert!(matches!(
        locate(&latents, &[f64::NAN; 9], CUT, &Direction::default(), DEFAULTS, LR),
        Err(Error::NotFinite { .. })
    ));
}

#[test]
fn a_target_comes_back_from_its_bytes() {
    let latents = latents(12, 7);
    let target = found(&latents, &scores(&latents, 700, 0.3), &Direction::default()).target;
    let bytes = target.to_bytes().unwrap();
    assert_eq!(bytes, target.clone().to_bytes().unwrap());
    assert_eq!(Target::from_bytes(&bytes, "target").unwrap(), target);
    assert!(matches!(Target::from_bytes(&bytes[..bytes.len() - 8], "target"), Err(Error::Unreadable { .. })));
}
