//! The edit alone, without the copy: how like images without the feature the edited ones are, and what else changed in them.
//!
//! A copy that fits the edit perfectly would have these figures. Its distance stands among the distances (`fidelity`), what it would leave of the
//! feature among the parts (`remaining`: missed and edit).

use lethe_domain::{Better, Cut, Figure, Unit};

use super::remaining::{EDITED, SELECTED, UNRESOLVED};
use crate::error::Result;
use crate::measures::Measures;
use crate::pairs;

/// Row of [`Measures`]: whether the edit changed the class of a sure image, NaN where nobody was sure.
pub(in crate::phase) const CLASS_CHANGED: &str = "ideal.class_changed";

/// # Errors
/// As [`Measures::row`].
pub(super) fn figures(measures: &Measures, cut: Cut) -> Result<Vec<Figure>> {
    Ok([typical(measures, cut)?, class_changed(measures, cut)?].into_iter().flatten().collect())
}

/// Where the middle one of the edited images is among the original's images without the feature, by the judge's scores.
fn typical(measures: &Measures, cut: Cut) -> Result<Option<Figure>> {
    let signed = |score: &f64| cut.sign * score;
    let (selected, unresolved) = (measures.row(SELECTED)?, measures.row(UNRESOLVED)?);
    let edited = measures.row(EDITED)?.iter().zip(selected.iter().zip(unresolved));
    let edited = edited.filter(|(_, (selected, unresolved))| **selected > 0.0 && **unresolved == 0.0);
    let mut edited: Vec<f64> = edited.map(|(score, _)| signed(score)).collect();
    let mut free: Vec<f64> =
        measures.before.iter().filter(|score| !cut.is_positive(**score)).map(signed).collect();
    edited.sort_by(f64::total_cmp);
    free.sort_by(f64::total_cmp);
    let Some(middle) = edited.get(edited.len() / 2).filter(|_| !free.is_empty()) else { return Ok(None) };
    let below = free.partition_point(|score| score < middle);
    Ok(Some(Figure {
        name: "typical".to_owned(),
        group: "edits".to_owned(),
        before: None,
        after: Some(below as f64 / free.len() as f64),
        unit: Unit::Share,
        ci95_before: None,
        ci95_after: None,
        better: Better::Lower,
        samples: edited.len() as u64,
        definition: "Share of the original's images without the feature that show it less than the median edited image, by the \
                     judge's scores: 50 % is typical of them, 100 % as near the feature as any"
            .to_owned(),
    }))
}

fn class_changed(measures: &Measures, cut: Cut) -> Result<Option<Figure>> {
    if !measures.rows.contains_key(CLASS_CHANGED) {
        return Ok(None);
    }
    let changed = measures.row(CLASS_CHANGED)?.iter().zip(&measures.before);
    let free = changed.filter(|(_, score)| !cut.is_positive(**score)).map(|(changed, _)| *changed);
    let figure = Figure {
        name: "ideal_class_changed".to_owned(),
        group: "edits".to_owned(),
        definition: "As the locality figure class_changed, from the original's image of the latent to that of the edited latent: \
                     what the edit alone changes"
            .to_owned(),
        ..pairs::CLASS_CHANGED.figure(free)
    };
    Ok((figure.samples > 0).then_some(figure))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measures() -> Measures {
        let mut measures = Measures::new(0);
        // Four without the feature, two with it, of which one was edited to just above two of the four.
        measures.before = vec![-4.0, -3.0, -2.0, -1.0, 5.0, 6.0];
        measures.after = measures.before.clone();
        let row = |values: [f64; 6]| values.to_vec();
        measures.rows.insert(EDITED.to_owned(), row([0.0, 0.0, 0.0, 0.0, -2.5, 6.0]));
        measures.rows.insert(SELECTED.to_owned(), row([0.0, 0.0, 0.0, 0.0, 1.0, 1.0]));
        measures.rows.insert(UNRESOLVED.to_owned(), row([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]));
        measures
    }

    #[test]
    fn edited_images_are_placed_among_those_without_the_feature() {
        let cut = Cut { sign: 1.0, threshold: 0.0 };
        let found = figures(&measures(), cut).unwrap();
        assert_eq!(
            (found.len(), found[0].after, found[0].samples),
            (1, Some(0.5), 1),
            "nobody tells classes"
        );

        let mut reversed = measures();
        reversed.before.iter_mut().for_each(|score| *score = -*score);
        reversed.rows.get_mut(EDITED).unwrap().iter_mut().for_each(|score| *score = -*score);
        let found = figures(&reversed, Cut { sign: -1.0, threshold: 0.0 }).unwrap();
        assert_eq!(found[0].after, Some(0.5), "a feature below its threshold");
    }

    #[test]
    fn sure_images_without_the_feature_are_counted() {
        let mut measures = measures();
        measures.rows.insert(CLASS_CHANGED.to_owned(), vec![0.0, 1.0, f64::NAN, 0.0, 1.0, 1.0]);
        let found = figures(&measures, Cut { sign: 1.0, threshold: 0.0 }).unwrap();
        assert_eq!((found[1].after, found[1].samples), (Some(1.0 / 3.0), 3));
    }
}
