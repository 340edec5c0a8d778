//! A job's result as a table for people.

use lethe_domain::JobResult;

use crate::units::{count, duration, percent};

/// The figures of a result, one line each.
pub(crate) fn render(result: &JobResult) -> String {
    let mut lines = vec![format!("{} ({}): {}", result.name, result.job, result.state)];
    if let Some(failure) = &result.failure {
        lines.push(format!("  failure             {failure}"));
    }
    if let Some(feature) = &result.feature {
        let interval = |[low, high]: [f64; 2]| format!("[{}, {}]", percent(low), percent(high));
        lines.push(format!("  feature '{}' in {} samples", feature.name, count(feature.samples)));
        lines.push(format!(
            "    before            {:>9}  {}",
            percent(feature.before),
            interval(feature.ci95_before)
        ));
        lines.push(format!(
            "    after             {:>9}  {}",
            percent(feature.after),
            interval(feature.ci95_after)
        ));
        lines.push(format!("    remaining share   {:>9}", percent(feature.remaining_share)));
    }
    if let Some(fidelity) = &result.fidelity {
        let change = |before: f64, after: f64| {
            format!("{before:>9.3} -> {after:.3} ({:+.1} %)", (after / before - 1.0) * 100.0)
        };
        let reference = std::path::Path::new(&fidelity.reference)
            .file_name()
            .map_or(fidelity.reference.as_str().into(), |name| name.to_string_lossy());
        lines.push(format!("  {} to {reference}, lower is nearer", fidelity.space));
        lines.push(format!(
            "    without feature   {}",
            change(fidelity.feature_free_before, fidelity.feature_free_after)
        ));
        lines.push(format!("    all of it         {}", change(fidelity.before, fidelity.after)));
        lines.push(format!("    noise floor       {:>9.3}", fidelity.noise_floor));
    }
    if let Some(locality) = &result.locality {
        lines.push(format!(
            "  images that never showed it: L1 {:.4} per pixel, MS-SSIM {:.4}",
            locality.l1, locality.ms_ssim
        ));
    }
    if let Some(direction) = &result.direction {
        lines.push(format!(
            "  direction           edits {} of latents, held-out AUC {:.3}",
            percent(direction.edited_share),
            direction.heldout_auc
        ));
        lines.extend(direction.warnings.iter().map(|warning| format!("    warning: {warning}")));
    }
    if let Some(train) = &result.train {
        lines.push(format!(
            "  training            {} steps on {} slots, {} samples/s, loss {:.4} -> {:.4}",
            count(train.steps),
            train.world_size,
            count(train.samples_per_second as u64),
            train.loss_first,
            train.loss_last
        ));
    }
    let total: f64 = result.seconds.values().sum();
    let phases: Vec<String> = lethe_domain::Phase::ALL
        .iter()
        .filter_map(|phase| {
            result.seconds.get(phase.name()).map(|seconds| format!("{phase} {}", duration(*seconds)))
        })
        .collect();
    lines.push(format!("  time                {} ({})", duration(total), phases.join(", ")));
    for (name, path) in
        [("generator", &result.artifacts.generator), ("before and after", &result.artifacts.before_after_png)]
    {
        if let Some(path) = path {
            lines.push(format!("  {name:<20}{path}"));
        }
    }
    lines.join("\n")
}
