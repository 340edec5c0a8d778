//! Where positive begins when it is the top share of all scores.

use lethe_domain::Cut;

use crate::error::{Error, Result};

/// The cut that makes the highest `share` of `scores` positive: the exact order statistic.
///
/// With n = round(share * N), at least 1, the threshold is the (n + 1)-th highest score, and scores above it are positive:
/// n of them, or fewer where scores tie with it. When the highest scores themselves tie so that none would be left, all that
/// tie are positive. The order of the scores does not matter.
///
/// # Errors
/// [`Error::NotFinite`]; [`Error::NoNegatives`] when all scores are equal or there are fewer than two.
pub fn top_cut(scores: &[f64], share: f64) -> Result<Cut> {
    if scores.iter().any(|score| !score.is_finite()) {
        return Err(Error::NotFinite { what: "the labeller gave NaN or infinity for some image".to_owned() });
    }
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let positives = ((share * sorted.len() as f64).round() as usize).max(1);
    let highest = sorted.first().copied().unwrap_or_default();
    let none = Error::NoNegatives { negatives: 0, samples: scores.len() as u64, needed: 1 };
    let threshold = match sorted.get(positives) {
        Some(&score) if score < highest => score,
        Some(_) => sorted.into_iter().find(|score| *score < highest).ok_or(none)?,
        None => return Err(none),
    };
    Ok(Cut { sign: 1.0, threshold })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positives(scores: &[f64], share: f64) -> usize {
        let cut = top_cut(scores, share).unwrap();
        scores.iter().filter(|score| cut.is_positive(**score)).count()
    }

    #[test]
    fn a_tenth_of_distinct_scores_is_a_tenth() {
        let scores: Vec<f64> = (0..1000_u32).map(|i| f64::from(i * 7 % 1000)).collect();
        assert_eq!(positives(&scores, 0.1), 100);
        assert_eq!(top_cut(&scores, 0.1).unwrap().threshold, 899.0);
        assert_eq!(positives(&scores, 0.0001), 1);
    }

    #[test]
    fn ties_are_all_in_or_all_out() {
        assert_eq!(positives(&[3.0, 2.0, 2.0, 2.0, 1.0], 0.4), 1);
        assert_eq!(positives(&[3.0, 3.0, 3.0, 2.0, 1.0], 0.2), 3);
        assert!(matches!(top_cut(&[1.0; 9], 0.3), Err(Error::NoNegatives { .. })));
        assert!(matches!(top_cut(&[1.0], 0.3), Err(Error::NoNegatives { .. })));
        assert!(matches!(top_cut(&[1.0, f64::NAN], 0.3), Err(Error::NotFinite { .. })));
    }
}
