//! Area under the ROC curve.

/// Probability that a positive's value is higher than a negative's, ties counted half (the Mann-Whitney statistic).
///
/// 0.5 when either group is empty.
pub fn roc_auc(values: &[f64], positive: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let (mut below, mut wins, mut positives) = (0.0, 0.0, 0.0);
    let mut start = 0;
    while start < order.len() {
        let tied = order[start..].iter().take_while(|place| values[**place] == values[order[start]]).count();
        let hits = order[start..start + tied].iter().filter(|place| positive[**place]).count() as f64;
        let misses = tied as f64 - hits;
        wins += hits * (below + 0.5 * misses);
        below += misses;
        positives += hits;
        start += tied;
    }
    if positives == 0.0 || below == 0.0 { 0.5 } else { wins / (positives * below) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_counting_pairs() {
        let values: Vec<f64> = (0..60_u32).map(|i| f64::from((i * 37 + 11) % 17)).collect();
        let positive: Vec<bool> = (0..60_u32).map(|i| (i * i + i) % 7 < 3).collect();
        let (mut wins, mut pairs) = (0.0, 0.0);
        for (a, _) in values.iter().zip(&positive).filter(|(_, p)| **p) {
            for (b, _) in values.iter().zip(&positive).filter(|(_, p)| !**p) {
                pairs += 1.0;
                wins += if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                };
            }
        }
        assert!((roc_auc(&values, &positive) - wins / pairs).abs() < 1e-14);
    }

    #[test]
    fn extremes() {
        assert_eq!(roc_auc(&[1.0, 2.0, 3.0], &[false, false, true]), 1.0);
        assert_eq!(roc_auc(&[1.0, 2.0, 3.0], &[true, false, false]), 0.0);
        assert_eq!(roc_auc(&[1.0, 1.0], &[true, false]), 0.5);
        assert_eq!(roc_auc(&[1.0], &[true]), 0.5);
    }
}
