//! 95 % intervals of what is counted and averaged.

/// The 97.5 % point of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % interval of a proportion (Wilson 1927): `hits` of `total`.
pub fn proportion_ci95(hits: u64, total: u64) -> [f64; 2] {
    wilson(hits, total, Z)
}

fn wilson(hits: u64, total: u64, z: f64) -> [f64; 2] {
    if total == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (total as f64, hits as f64 / total as f64);
    let scale = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / scale;
    let half = z / scale * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // At the ends the bound is exact; rounding must not move it.
    let low = if hits == 0 { 0.0 } else { centre - half };
    let high = if hits == total { 1.0 } else { centre + half };
    [low, high]
}

/// Who shows something of the same things looked at twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Paired {
    /// Those that showed it both times.
    pub both: u64,
    /// Those that showed it before only.
    pub before_only: u64,
    /// Those that show it after only.
    pub after_only: u64,
}

impl Paired {
    /// Those that showed it before.
    pub fn before(&self) -> u64 {
        self.both + self.before_only
    }

    /// Those that show it after.
    pub fn after(&self) -> u64 {
        self.both + self.after_only
    }

    /// The share that is left, after / before; none when nobody showed it before.
    pub fn ratio(&self) -> Option<f64> {
        (self.before() > 0).then(|| self.after() as f64 / self.before() as f64)
    }

    /// Bonett and Price's 95 % interval of that ratio (Statistics in Medicine 25, 2006, 3039-3047; recommended by Fagerland, Lydersen
    /// and Laake, Statistics in Medicine 33, 2014): the two shares among those that showed it at all are correlated, so their
    /// Wilson intervals are narrowed until, combined, they have the ratio's own standard error. None when nobody showed it before:
    /// there is no upper end then.
    pub fn ratio_ci95(&self) -> Option<[f64; 2]> {
        if self.before() == 0 {
            return None;
        }
        let shown = self.both + self.before_only + self.after_only;
        let (before, after) = (self.before() as f64 + 1.0, self.after() as f64 + 1.0);
        let of_ratio = ((self.before_only + self.after_only) as f64 + 2.0) / (before * after);
        let of_share = |hits: f64| ((1.0 - hits / (shown as f64 + 2.0)) / hits).sqrt();
        let z = Z * of_ratio.sqrt() / (of_share(before) + of_share(after));
        let [before_low, before_high] = wilson(self.before(), shown, z);
        let [after_low, after_high] = wilson(self.after(), shown, z);
        Some([after_low / before_high, after_high / before_low])
    }
}

/// The 95 % interval of a mean by its standard error, for samples large enough that the mean is normal. None below two values.
pub fn mean_ci95(values: &[f64]) -> Option<[f64; 2]> {
    if values.len() < 2 {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = Z * (variance / n).sqrt();
    Some([mean - half, mean + half])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_interval_agrees_with_published_figures() {
        // statsmodels.stats.proportion.proportion_confint(10, 100, method="wilson") = (0.05522914, 0.17436566)
        let [low, high] = proportion_ci95(10, 100);
        assert!((low - 0.055_229_14).abs() < 1e-7 && (high - 0.174_365_66).abs() < 1e-7, "{low} {high}");
        let [low, high] = proportion_ci95(0, 10_000);
        assert!(low == 0.0 && (high - 0.000_384).abs() < 1e-6, "{high}");
    }

    /// Reference: the 2.5 % and 97.5 % quantiles of 200,000 resamples of 10,000 (or 1,000) latents,
    /// `t = numpy.random.default_rng(1).multinomial(n, p, size=200_000)` for all rows in turn, of `(t[0] + t[2]) / (t[0] + t[1])`.
    #[test]
    fn the_interval_of_a_remaining_share_agrees_with_a_bootstrap() {
        for (both, before_only, after_only, expected) in [
            (40, 1000, 10, [0.035_37, 0.061_62]),
            (30, 70, 5, [0.252_52, 0.454_55]),
            (700, 50, 20, [0.938_50, 0.981_28]),
            (720, 30, 35, [0.985_66, 1.028_11]),
        ] {
            let paired = Paired { both, before_only, after_only };
            let [low, high] = paired.ratio_ci95().unwrap();
            // Of the interval's width: a bootstrap's quantiles are not centred on the score, and jump by whole counts.
            let near = |found: f64, expected: f64, width: f64| (found - expected).abs() < 0.08 * width;
            let width = expected[1] - expected[0];
            assert!(
                near(low, expected[0], width) && near(high, expected[1], width),
                "{paired:?}: {low} {high}"
            );
            assert!(low < paired.ratio().unwrap() && paired.ratio().unwrap() < high);
        }
    }

    /// Reference: the R package contingencytables, BonettPrice_hybrid_Wilson_score_CI_paired_2x2, on the counts of Cavo et al. 2012.
    #[test]
    fn the_interval_of_a_remaining_share_agrees_with_a_published_example() {
        let [low, high] = Paired { both: 59, before_only: 16, after_only: 6 }.ratio_ci95().unwrap();
        assert!((low - 0.7579).abs() < 5e-5 && (high - 0.9910).abs() < 5e-5, "{low} {high}");
    }

    #[test]
    fn a_ratio_at_the_ends() {
        let gone = Paired { before_only: 1000, ..Paired::default() };
        let [low, high] = gone.ratio_ci95().unwrap();
        assert!(low == 0.0 && high > 0.0 && high < 0.01, "{high}");
        let [low, high] = Paired { both: 75, ..Paired::default() }.ratio_ci95().unwrap();
        assert!(low < 1.0 && 1.0 < high && high < 1.1, "{low} {high}");
        let none = Paired { after_only: 5, ..Paired::default() };
        assert_eq!((none.ratio(), none.ratio_ci95()), (None, None), "nothing to divide by");
    }

    #[test]
    fn the_interval_of_a_mean() {
        // numpy: m, s = x.mean(), x.std(ddof=1) / 2 of x = [1, 2, 4, 7]; m -+ 1.959964 s
        let [low, high] = mean_ci95(&[1.0, 2.0, 4.0, 7.0]).unwrap();
        assert!((low - 0.907_211).abs() < 1e-5 && (high - 6.092_789).abs() < 1e-5, "{low} {high}");
        assert_eq!(mean_ci95(&[1.0]), None);
    }
}
