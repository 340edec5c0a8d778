//! Where the selection begins, by images that are known, or said by somebody, to show the feature.

/// One in so many of these images may stay unselected.
const ONE_IN: usize = 100;

/// The score beyond which 99 % of these scores lie; none without scores. High scores are more of the feature where `sign` is 1, low ones
/// where it is -1. Of less than a hundred scores, all lie beyond it.
pub fn recalled(scores: &[f64], sign: f64) -> Option<f64> {
    let mut signed: Vec<f64> = scores.iter().map(|score| sign * score).collect();
    signed.sort_by(f64::total_cmp);
    // Beyond is more than, so the cut is the number before the least score that counts.
    signed.get(scores.len() / ONE_IN).map(|least| sign * least.next_down())
}

#[cfg(test)]
mod tests {
    use lethe_domain::Cut;

    use super::*;

    #[test]
    fn ninety_nine_in_a_hundred_lie_beyond_it_and_no_more() {
        for (count, missed) in [(1, 0), (20, 0), (99, 0), (100, 1), (1000, 10)] {
            for sign in [1.0, -1.0] {
                let scores: Vec<f64> = (0..count).map(|place| f64::from(place * 7 % count) - 3.5).collect();
                let cut = Cut { sign, threshold: recalled(&scores, sign).unwrap() };
                let beyond = scores.iter().filter(|score| cut.is_positive(**score)).count();
                assert_eq!(beyond as i32, count - missed, "{count} scores, sign {sign}");
            }
        }
        assert_eq!(recalled(&[], 1.0), None);
    }
}
