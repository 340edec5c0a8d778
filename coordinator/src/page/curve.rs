//! The loss of every training step as a small picture.

use lethe_artifacts::ArtifactStore;
use maud::{Markup, html};

use super::numbers::{grouped, significant};

/// A curve larger than this is not drawn.
const BYTES: u64 = 4 << 20;

/// Points drawn; more would lie on the same pixels.
const POINTS: usize = 300;

const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 160.0;

/// The loss of training steps, in order: (step, loss).
#[derive(Debug)]
pub(super) struct Curve(Vec<(f64, f64)>);

impl Curve {
    /// Reads a curve; none when it cannot be read or drawn.
    pub(super) async fn read(
        artifacts: &ArtifactStore,
        artifact: &lethe_artifacts::ArtifactRef,
    ) -> Option<Self> {
        if artifact.size > BYTES {
            return None;
        }
        let bytes = artifacts.get(artifact).await.ok()?;
        Self::new(serde_json::from_slice(&bytes).ok()?)
    }

    fn new(points: Vec<(f64, f64)>) -> Option<Self> {
        let drawable = points.iter().all(|(step, loss)| step.is_finite() && loss.is_finite());
        (points.len() > 1 && drawable).then_some(Self(points))
    }

    pub(super) fn render(&self) -> Markup {
        let [first, .., last] = self.0.as_slice() else { return html! {} };
        let losses = || self.0.iter().map(|(_, loss)| *loss);
        let (low, high) = losses()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), loss| (low.min(loss), high.max(loss)));
        let place =
            |value: f64, from: f64, to: f64| if to > from { (value - from) / (to - from) } else { 0.5 };
        let x = |step: f64| place(step, first.0, last.0) * WIDTH;
        let y = |loss: f64| (1.0 - place(loss, low, high)) * HEIGHT;
        let stride = self.0.len().div_ceil(POINTS);
        let kept = self.0.iter().step_by(stride).chain(std::iter::once(last));
        let line: Vec<String> = kept.map(|(step, loss)| format!("{:.1},{:.1}", x(*step), y(*loss))).collect();
        let line = line.join(" ");
        let label = format!(
            "loss from {} at step {} to {} at step {}",
            significant(first.1),
            grouped(first.0 as u64),
            significant(last.1),
            grouped(last.0 as u64)
        );
        html! {
            figure.curve {
                svg viewBox={ "0 -4 " (WIDTH) " " (HEIGHT + 8.0) } role="img" aria-label=(label) preserveAspectRatio="none" {
                    polygon points={ "0," (HEIGHT) " " (line) " " (WIDTH) "," (HEIGHT) } {}
                    polyline points=(line) {}
                }
                figcaption {
                    span { "step " (grouped(first.0 as u64)) ": " b { (significant(first.1)) } }
                    span { "lowest: " b { (significant(low)) } }
                    span { "step " (grouped(last.0 as u64)) ": " b { (significant(last.1)) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_fills_its_frame_and_keeps_both_ends() {
        let points: Vec<(f64, f64)> =
            (1..=1000).map(|step| (f64::from(step), 1.0 / f64::from(step))).collect();
        let svg = Curve::new(points).unwrap().render().into_string();
        let line = svg.split("polyline points=\"").nth(1).unwrap().split('"').next().unwrap();
        let points: Vec<&str> = line.split(' ').collect();
        assert!(points.len() <= POINTS + 1, "{}", points.len());
        assert_eq!((points[0], *points.last().unwrap()), ("0.0,0.0", "600.0,160.0"));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        assert!(Curve::new(vec![(1.0, 1.0)]).is_none());
        assert!(Curve::new(vec![(1.0, 1.0), (2.0, f64::NAN)]).is_none());
        let flat = Curve::new(vec![(1.0, 2.0), (2.0, 2.0)]).unwrap().render().into_string();
        assert!(flat.contains("0.0,80.0 600.0,80.0"), "{flat}");
    }
}
