//! L2-regularised logistic regression, by L-BFGS (Nocedal 1980) in f64.
//!
//! Minimises sum_i log(1 + exp(-y_i (w.z_i + b))) + |w|^2 / 2 over w and b: what scikit-learn's LogisticRegression minimises
//! with C = 1. The sums run in the order of the index, so that the same labels give the same bits.

use super::rows::{Part, Rows, dot};

const MEMORY: usize = 10;
const MOST_STEPS: usize = 500;
/// Of the gradient, relative to the number of samples.
const TOLERANCE: f64 = 1e-10;

/// The normal w of the separating plane; its length says how sharp the separation is.
pub(super) fn fit(rows: &Rows<'_>, part: Part) -> Vec<f64> {
    let samples = rows.of(part).count() as f64;
    let mut history = History::default();
    // w, then b.
    let mut point = vec![0.0; rows.dimension + 1];
    let (mut loss, mut gradient) = evaluate(rows, part, &point);
    for _ in 0..MOST_STEPS {
        if largest(&gradient) <= TOLERANCE * samples {
            break;
        }
        let mut step = history.direction(&gradient, samples);
        let mut slope = inner(&step, &gradient);
        if slope >= 0.0 {
            history = History::default();
            step = history.direction(&gradient, samples);
            slope = inner(&step, &gradient);
        }
        let Some((next, next_loss, next_gradient)) = descend(rows, part, &point, loss, &step, slope) else {
            break;
        };
        history.push(difference(&next, &point), difference(&next_gradient, &gradient));
        (point, loss, gradient) = (next, next_loss, next_gradient);
    }
    point.truncate(rows.dimension);
    point
}

/// The first of the steps 1, 1/2, 1/4, ... that lowers the loss enough (Armijo's rule).
fn descend(
    rows: &Rows<'_>,
    part: Part,
    point: &[f64],
    loss: f64,
    step: &[f64],
    slope: f64,
) -> Option<(Vec<f64>, f64, Vec<f64>)> {
    let mut length = 1.0;
    for _ in 0..40 {
        let next: Vec<f64> = point.iter().zip(step).map(|(x, d)| x + length * d).collect();
        let (next_loss, next_gradient) = evaluate(rows, part, &next);
        if next_loss <= loss + 1e-4 * length * slope {
            return Some((next, next_loss, next_gradient));
        }
        length *= 0.5;
    }
    None
}

/// Loss and gradient.
fn evaluate(rows: &Rows<'_>, part: Part, point: &[f64]) -> (f64, Vec<f64>) {
    let (weights, bias) = point.split_at(rows.dimension);
    let mut loss = 0.5 * inner(weights, weights);
    let mut gradient = weights.to_vec();
    gradient.push(0.0);
    for (row, positive) in rows.of(part) {
        let margin = dot(row, weights) + bias[0];
        let signed = if positive { margin } else { -margin };
        // log(1 + exp(-m)) without overflow.
        loss += (-signed.abs()).exp().ln_1p() + (-signed).max(0.0);
        let pull = 1.0 / (1.0 + (-margin).exp()) - f64::from(u8::from(positive));
        for (total, entry) in gradient.iter_mut().zip(row) {
            *total += pull * f64::from(*entry);
        }
        gradient[rows.dimension] += pull;
    }
    (loss, gradient)
}

/// The last moves and what they did to the gradient.
#[derive(Debug, Default)]
struct History {
    pairs: Vec<(Vec<f64>, Vec<f64>)>,
}

impl History {
    fn push(&mut self, moved: Vec<f64>, changed: Vec<f64>) {
        // On a strictly convex function the product is positive; rounding may spoil it at the very end.
        if inner(&moved, &changed) > 0.0 {
            if self.pairs.len() == MEMORY {
                self.pairs.remove(0);
            }
            self.pairs.push((moved, changed));
        }
    }

    /// Minus the approximate inverse Hessian times the gradient, by the two-loop recursion.
    fn direction(&self, gradient: &[f64], samples: f64) -> Vec<f64> {
        let mut q: Vec<f64> = gradient.iter().map(|entry| -entry).collect();
        let mut factors = Vec::with_capacity(self.pairs.len());
        for (moved, changed) in self.pairs.iter().rev() {
            let factor = inner(moved, &q) / inner(moved, changed);
            add(&mut q, -factor, changed);
            factors.push(factor);
        }
        // Without a history: latents have unit variance, so the Hessian is about samples / 4.
        let scale = self
            .pairs
            .last()
            .map_or(4.0 / samples, |(moved, changed)| inner(moved, changed) / inner(changed, changed));
        q.iter_mut().for_each(|entry| *entry *= scale);
        for ((moved, changed), factor) in self.pairs.iter().zip(factors.into_iter().rev()) {
            let correction = factor - inner(changed, &q) / inner(moved, changed);
            add(&mut q, correction, moved);
        }
        q
    }
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn add(to: &mut [f64], factor: f64, vector: &[f64]) {
    to.iter_mut().zip(vector).for_each(|(entry, other)| *entry += factor * other);
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x - y).collect()
}

fn largest(vector: &[f64]) -> f64 {
    vector.iter().fold(0.0, |most, entry| most.max(entry.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Tensors;

    #[test]
    fn weights_are_those_of_newtons_method_in_numpy() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/logistic.safetensors");
        let reference = Tensors::from_bytes(&std::fs::read(path).unwrap(), path).unwrap();
        let flat = |name: &str| reference.get(name).unwrap().flatten(0, -1);
        let values: Vec<f32> = Vec::try_from(flat("rows")).unwrap();
        let positive: Vec<bool> = Vec::try_from(flat("positive")).unwrap();
        let rows = Rows::new(&values, 7, &positive);
        for (found, name) in [
            (fit(&rows, Part::All), "all"),
            (fit(&rows, Part::Without(2)), "without_2"),
            (rows.mean_difference(Part::All), "difference"),
        ] {
            let expected: Vec<f64> = Vec::try_from(flat(name)).unwrap();
            let off = found.iter().zip(&expected).fold(0.0_f64, |most, (a, b)| most.max((a - b).abs()));
            assert!(off < 1e-8, "{name}: {found:?}, expected {expected:?}");
        }
    }
}
