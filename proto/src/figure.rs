//! Figures, who counted them, and what makes them doubtful.

use lethe_domain::{Better, Figure, JudgeSummary, JudgingModel, Unit, Versions, Warning, WarningCode};

use crate::conversion::{each, enumeration, list, required_choice};
use crate::{ConversionError, v1};

enumeration!(v1::Unit, Unit:
    Share = Share, Distance = Distance, PixelValue = PixelValue, Similarity = Similarity,
    Deviations = Deviations, Ratio = Ratio);
enumeration!(v1::Better, Better: Lower = Lower, Higher = Higher);

fn interval(bounds: Option<[f64; 2]>) -> Option<v1::Interval> {
    bounds.map(|[low, high]| v1::Interval { low, high })
}

fn bounds(interval: Option<v1::Interval>) -> Option<[f64; 2]> {
    interval.map(|v1::Interval { low, high }| [low, high])
}

impl From<Figure> for v1::Figure {
    fn from(figure: Figure) -> Self {
        Self {
            name: figure.name,
            group: figure.group,
            before: figure.before,
            after: figure.after,
            unit: v1::Unit::from(figure.unit).into(),
            ci95_before: interval(figure.ci95_before),
            ci95_after: interval(figure.ci95_after),
            better: v1::Better::from(figure.better).into(),
            samples: figure.samples,
            definition: figure.definition,
        }
    }
}

impl TryFrom<v1::Figure> for Figure {
    type Error = ConversionError;

    fn try_from(figure: v1::Figure) -> Result<Self, ConversionError> {
        Ok(Self {
            name: figure.name,
            group: figure.group,
            before: figure.before,
            after: figure.after,
            unit: required_choice::<v1::Unit, _>(figure.unit, "unit")?,
            ci95_before: bounds(figure.ci95_before),
            ci95_after: bounds(figure.ci95_after),
            better: required_choice::<v1::Better, _>(figure.better, "better")?,
            samples: figure.samples,
            definition: figure.definition,
        })
    }
}

impl From<JudgingModel> for v1::JudgingModel {
    fn from(JudgingModel { uri, sha256 }: JudgingModel) -> Self {
        Self { uri, sha256 }
    }
}

impl From<v1::JudgingModel> for JudgingModel {
    fn from(v1::JudgingModel { uri, sha256 }: v1::JudgingModel) -> Self {
        Self { uri, sha256 }
    }
}

impl From<JudgeSummary> for v1::Judge {
    fn from(JudgeSummary { uri, sha256, others, same_as_labeller }: JudgeSummary) -> Self {
        Self { uri, sha256, others: each(others), same_as_labeller }
    }
}

impl TryFrom<v1::Judge> for JudgeSummary {
    type Error = ConversionError;

    fn try_from(
        v1::Judge { uri, sha256, others, same_as_labeller }: v1::Judge,
    ) -> Result<Self, ConversionError> {
        Ok(Self { uri, sha256, others: list(others, "others")?, same_as_labeller })
    }
}

impl From<Warning> for v1::Warning {
    fn from(Warning { code, message, hint }: Warning) -> Self {
        Self { code: code.name().to_owned(), message, hint }
    }
}

impl TryFrom<v1::Warning> for Warning {
    type Error = ConversionError;

    fn try_from(v1::Warning { code, message, hint }: v1::Warning) -> Result<Self, ConversionError> {
        let unknown = || {
            ConversionError::bad("code", format_args!("found '{code}', expected a name from docs/result.md"))
        };
        Ok(Self { code: WarningCode::from_name(&code).ok_or_else(unknown)?, message, hint })
    }
}

impl From<Versions> for v1::Versions {
    fn from(Versions { lethe, torch, device }: Versions) -> Self {
        Self { lethe, torch, device }
    }
}

impl From<v1::Versions> for Versions {
    fn from(v1::Versions { lethe, torch, device }: v1::Versions) -> Self {
        Self { lethe, torch, device }
    }
}
