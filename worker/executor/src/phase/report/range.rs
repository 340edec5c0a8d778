//! Whether images keep to the range that the spec declares: the probe refuses a generator that does not, so the copy must, too.

use lethe_domain::spec::ImageOutput;
use lethe_domain::{Better, Figure, Unit, Warning, WarningCode, proportion_ci95};

use crate::error::Result;
use crate::measures::Measures;

/// Rows of [`Measures`]: 1 where some pixel of the image lies outside.
pub(in crate::phase) const ROWS: [&str; 2] = ["outside_before", "outside_after"];

/// The figure, and a warning when images of the copy lie outside although the spec does not say that they may (`clamp`).
///
/// # Errors
/// As [`Measures::row`].
pub(super) fn figure(measures: &Measures, output: &ImageOutput) -> Result<(Figure, Option<Warning>)> {
    let [low, high] = output.range;
    let samples = measures.before.len() as u64;
    let [before, after] =
        ROWS.map(|row| Ok::<_, crate::error::Error>(measures.row(row)?.iter().sum::<f64>() as u64));
    let (before, after) = (before?, after?);
    let share = |count: u64| Some(count as f64 / samples as f64);
    let figure = Figure {
        name: "outside_share".to_owned(),
        group: "range".to_owned(),
        before: share(before),
        after: share(after),
        unit: Unit::Share,
        ci95_before: Some(proportion_ci95(before, samples)),
        ci95_after: Some(proportion_ci95(after, samples)),
        better: Better::Lower,
        samples,
        definition: format!(
            "Share of images with a pixel outside the declared range {low} to {high} by more than a thousandth of its width"
        ),
    };
    let warning = (after > 0 && !output.clamp).then(|| {
        Warning::new(
            WarningCode::OutOfRange,
            format!(
                "{after} of {samples} images of the copy have pixels outside generator.output.range [{low}, {high}] (the original: {before})"
            ),
            "clamp what the generator gives, or end it with an activation that is bounded (a sigmoid, tanh); else lower unlearn.lr",
        )
    });
    Ok((figure, warning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_image_of_the_copy_outside_is_told() {
        let of = |after: [f64; 4]| {
            let mut measures = Measures::new(0);
            measures.before = vec![0.0; 4];
            let rows = [[1.0, 0.0, 0.0, 0.0], after];
            measures.rows =
                ROWS.iter().zip(rows).map(|(name, row)| ((*name).to_owned(), row.to_vec())).collect();
            let output = |clamp| {
                serde_json::from_value(
                    serde_json::json!({"range": [-1.0, 1.0], "channels": 1, "size": 2, "clamp": clamp}),
                )
                .unwrap()
            };
            let (_, quiet) = figure(&measures, &output(true)).unwrap();
            assert_eq!(quiet, None, "the spec says that they may");
            figure(&measures, &output(false)).unwrap()
        };
        let (figure, warning) = of([0.0; 4]);
        assert_eq!((figure.before, figure.after, warning), (Some(0.25), Some(0.0), None));
        let (_, warning) = of([0.0, 1.0, 0.0, 1.0]);
        let warning = warning.unwrap();
        assert!(
            warning.message.starts_with("2 of 4 images of the copy") && warning.message.contains("[-1, 1]"),
            "{warning}"
        );
    }
}
