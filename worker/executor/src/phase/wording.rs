//! What was measured, in words, for whatever is published: it says what came out, not what was wished for.

use lethe_domain::{Figure, JudgeSummary, REMAINING_SHARE, ReportOutput, Unit};

/// How often the feature was seen before and after, and what is left of it.
pub(super) fn counted(feature: &str, report: &ReportOutput) -> String {
    let (group, name) = REMAINING_SHARE;
    let figure =
        |name: &str| report.figures.iter().find(|figure| figure.group == group && figure.name == name);
    let Some(share) = figure("share") else { return format!("'{feature}' was not counted") };
    let show = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |value| Unit::Share.show(value));
    let left = match figure(name) {
        Some(Figure { after: Some(left), ci95_after, .. }) => {
            let interval =
                ci95_after.map(|ci95| format!(" (95 % interval {})", Unit::Share.show_interval(ci95)));
            format!("remaining share {}{}", Unit::Share.show(*left), interval.unwrap_or_default())
        }
        _ => "so nothing is shown to be gone".to_owned(),
    };
    format!(
        "'{feature}' in {} of {} images before, in {} after, {left}",
        show(share.before),
        share.samples,
        show(share.after)
    )
}

/// Who counted.
pub(super) fn judged(judge: &JudgeSummary) -> String {
    let model = |(uri, sha256): (&str, &str)| {
        let name = uri.rsplit('/').next().unwrap_or(uri);
        format!("{name} (sha256 {})", &sha256[..sha256.len().min(12)])
    };
    let models: Vec<String> = judge.models().map(model).collect();
    let same = if judge.same_as_labeller {
        ", the labeller that steered the edit"
    } else {
        ", which is not the labeller"
    };
    format!("judged by {}{same}", models.join(" and "))
}

/// The warnings' names; none without any.
pub(super) fn doubts(report: &ReportOutput) -> Option<String> {
    let codes: Vec<&str> = report.warnings.iter().map(|warning| warning.code.name()).collect();
    (!codes.is_empty()).then(|| format!("warnings: {}", codes.join(", ")))
}

#[cfg(test)]
mod tests {
    use lethe_domain::{Better, Warning, WarningCode};

    use super::*;

    fn report(before: f64, after: f64, left: Option<f64>) -> ReportOutput {
        let share = Figure {
            name: "share".to_owned(),
            group: "feature".to_owned(),
            before: Some(before),
            after: Some(after),
            unit: Unit::Share,
            ci95_before: None,
            ci95_after: None,
            better: Better::Lower,
            samples: 1000,
            definition: String::new(),
        };
        let remaining = Figure {
            name: "remaining_share".to_owned(),
            before: None,
            after: left,
            ci95_after: left.map(|left| [left / 2.0, left * 2.0]),
            ..share.clone()
        };
        let judge = JudgeSummary {
            uri: "/m/t.pt".to_owned(),
            sha256: "ab".repeat(32),
            others: vec![],
            same_as_labeller: true,
        };
        let warnings = vec![Warning::new(WarningCode::NotRemoved, "", "")];
        ReportOutput { figures: vec![share, remaining], warnings, judge, advice: None }
    }

    #[test]
    fn a_feature_that_stayed_is_not_called_removed() {
        let report = report(0.075, 0.075, Some(1.0));
        let words = counted("thick", &report);
        let expected = "'thick' in 7.50 % of 1000 images before, in 7.50 % after, remaining share 100.0 % (95 % interval 50.0 % to 200.0 %)";
        assert_eq!(words, expected);
        assert_eq!(doubts(&report).unwrap(), "warnings: NOT_REMOVED");
        assert_eq!(
            judged(&report.judge),
            "judged by t.pt (sha256 abababababab), the labeller that steered the edit"
        );
    }

    #[test]
    fn what_was_never_there_is_not_called_gone() {
        assert!(
            counted("thick", &report(0.0, 0.0, None))
                .ends_with("0.00 % after, so nothing is shown to be gone")
        );
    }
}
