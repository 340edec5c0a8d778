//! The canary: a small fixed model whose output is known. A slot whose device, driver or libtorch computes something else gets no
//! work.
//!
//! With `n(i, s) = ((5 i^2 + 3 i + s) mod 17 - 8) / 16`, entry i (row-major) of the tensor with salt s:
//!
//! | tensor | shape | salt |
//! |---|---|---|
//! | images | [2, 3, 8, 8] | 1 |
//! | kernel and bias of a convolution, stride 2, padding 1 | [4, 3, 3, 3], [4] | 2, 3 |
//! | weight, divided by 4, and bias of a linear layer | [8, 64], [8] | 4, 5 |
//! | a matrix | [8, 8] | 6 |
//!
//! The output is tanh(linear(tanh(conv(images)))) times the matrix: [2, 8]. `crates/models/tests/reference/canary.py` computes it
//! with plain loops in f64. Not here: computing it on a device (the executor), what follows from a wrong one (crate `engine`).

/// What the model gives, row by row.
pub const EXPECTED: [f32; 16] = [
    -0.289275, -0.1790157, 0.0896049, 0.1252804, 0.6987769, 0.5105052, 0.0892884, 0.2058927, 0.1166232,
    -0.2125726, -0.3281035, 0.2201868, 0.7664047, 0.2091104, 0.3156374, 0.4200918,
];

/// How far an entry may be off: this much, and this share of the expected value.
///
/// All inputs are multiples of 1/64 and exact even in TF32, whose products carry 11 bits; what is rounded are the activations,
/// by at most 2^-11 each. Over sums of 64 and 8 terms below one that makes less than 0.001 on the output; f32 stays below 1e-6.
/// A single
/// weight that is off by 1/4 moves the output further than that, but for three of 512 in the linear layer.
const TOLERANCE: f64 = 2e-3;

/// Whether this is what the canary must give.
///
/// # Errors
/// Names the entry that is furthest off, what was expected and what was found.
pub fn check(found: &[f32]) -> Result<(), String> {
    if found.len() != EXPECTED.len() {
        return Err(format!("the canary gave {} numbers, expected {}", found.len(), EXPECTED.len()));
    }
    // How many times further off than it may be; what is no number is off without bound.
    let off = |place: usize| {
        let (expected, found) = (f64::from(EXPECTED[place]), f64::from(found[place]));
        let off = (found - expected).abs() / (TOLERANCE + TOLERANCE * expected.abs());
        if off.is_finite() { off } else { f64::INFINITY }
    };
    let worst = (0..EXPECTED.len()).map(|place| (place, off(place))).max_by(|a, b| a.1.total_cmp(&b.1));
    match worst {
        Some((place, off)) if off > 1.0 => Err(format!(
            "the canary's entry {place} is {}, expected {} within {TOLERANCE} and {TOLERANCE} of it",
            found[place], EXPECTED[place]
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(place: usize, value: f32) -> Vec<f32> {
        let mut found = EXPECTED.to_vec();
        found[place] = value;
        found
    }

    #[test]
    fn the_expected_output_passes_and_so_does_rounding() {
        assert_eq!(check(&EXPECTED), Ok(()));
        let rounded: Vec<f32> = EXPECTED.iter().map(|value| value + 0.001 * value.signum()).collect();
        assert_eq!(check(&rounded), Ok(()));
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        for (place, value) in EXPECTED.iter().enumerate() {
            for wrong in [-value, value * 1.5 + 0.01, f32::NAN, f32::INFINITY, 0.0] {
                let text = check(&with(place, wrong)).unwrap_err();
                assert!(text.contains(&format!("entry {place} is {wrong}, expected {value}")), "{text}");
            }
        }
        let mut two = with(3, 9.0);
        two[5] = 90.0;
        assert!(check(&two).unwrap_err().contains("entry 5"), "the worst one is named");
    }

    #[test]
    fn another_length_is_wrong() {
        for length in [0, 15] {
            assert!(check(&EXPECTED[..length]).unwrap_err().contains(&format!("gave {length} numbers")));
        }
    }
}
