//! Labelled latents, split into folds by index, and their mean difference.

/// Parts the samples are split into, by index.
pub(super) const FOLDS: usize = 5;

/// Which samples to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    All,
    /// All but this fold.
    Without(usize),
}

/// Latents [N, D], row after row, with a label each.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    values: &'a [f32],
    pub(super) dimension: usize,
    positive: &'a [bool],
    /// Per fold: sum of its negative latents and of its positive ones, and how many.
    folds: [[(Vec<f64>, u64); 2]; FOLDS],
}

impl<'a> Rows<'a> {
    pub(super) fn new(values: &'a [f32], dimension: usize, positive: &'a [bool]) -> Self {
        let mut folds: [[(Vec<f64>, u64); 2]; FOLDS] =
            std::array::from_fn(|_| std::array::from_fn(|_| (vec![0.0; dimension], 0)));
        for (index, (row, label)) in values.chunks_exact(dimension).zip(positive).enumerate() {
            let (sum, count) = &mut folds[index % FOLDS][usize::from(*label)];
            for (total, entry) in sum.iter_mut().zip(row) {
                *total += f64::from(*entry);
            }
            *count += 1;
        }
        Self { values, dimension, positive, folds }
    }

    /// Latents and labels of a part, in the order of the index.
    pub(super) fn of(&self, part: Part) -> impl Iterator<Item = (&'a [f32], bool)> {
        let rows = self.values.chunks_exact(self.dimension).zip(self.positive).enumerate();
        rows.filter(move |(index, _)| part != Part::Without(index % FOLDS))
            .map(|(_, (row, label))| (row, *label))
    }

    /// Mean of the positive latents less mean of the negative ones.
    pub(super) fn mean_difference(&self, part: Part) -> Vec<f64> {
        let mean = |label: usize| {
            let (mut total, mut count) = (vec![0.0; self.dimension], 0);
            for (fold, sums) in self.folds.iter().enumerate() {
                if part != Part::Without(fold) {
                    let (sum, rows) = &sums[label];
                    total.iter_mut().zip(sum).for_each(|(total, entry)| *total += entry);
                    count += rows;
                }
            }
            total.into_iter().map(move |entry| entry / count as f64)
        };
        mean(1).zip(mean(0)).map(|(positive, negative)| positive - negative).collect()
    }

    /// Projects the latents of one fold onto a unit vector.
    pub(super) fn project(&self, unit: &[f64], fold: usize, projections: &mut [f64]) {
        for (row, place) in
            self.values.chunks_exact(self.dimension).zip(projections).skip(fold).step_by(FOLDS)
        {
            *place = dot(row, unit);
        }
    }
}

/// Inner product in f64, in the order of the entries.
pub(super) fn dot(row: &[f32], vector: &[f64]) -> f64 {
    row.iter().zip(vector).map(|(entry, weight)| f64::from(*entry) * weight).sum()
}
