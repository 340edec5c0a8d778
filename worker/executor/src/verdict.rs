//! Who looks at images and which of their scores mean that the feature is there: the labeller, and the judge.
//!
//! Not here: loading them (`models`).

use lethe_domain::spec::{self, Judge, Labeller, Positive};
use lethe_domain::{Cut, JobSpec};

use crate::error::{Error, Result};

/// Where positive begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Line {
    /// Here.
    At(Cut),
    /// Where this share of all scores lies above: known when all are.
    Top(f64),
}

impl Line {
    /// The cut, if it is known already.
    pub(crate) fn cut(self) -> Option<Cut> {
        match self {
            Line::At(cut) => Some(cut),
            Line::Top(_) => None,
        }
    }

    /// The cut, now that all scores are there.
    ///
    /// # Errors
    /// As [`lethe_models::top_cut`].
    pub(crate) fn among(self, scores: &[f64]) -> Result<Cut> {
        match self {
            Line::At(cut) => Ok(cut),
            Line::Top(share) => Ok(lethe_models::top_cut(scores, share)?),
        }
    }
}

/// Where positive begins by the spec alone.
pub(crate) fn line(labeller: Labeller<'_>) -> Line {
    match labeller {
        Labeller::Classifier(classifier) => Line::At(classifier.cut()),
        Labeller::Scorer(scorer) => match scorer.positive {
            Positive::Above(threshold) => Line::At(Cut { sign: 1.0, threshold }),
            Positive::Below(threshold) => Line::At(Cut { sign: -1.0, threshold }),
            Positive::Top(share) => Line::Top(share),
        },
        // A label is a score of 0 or 1.
        Labeller::Labels(_) => Line::At(Cut { sign: 1.0, threshold: 0.5 }),
    }
}

/// Who labels the samples.
///
/// # Errors
/// For a spec that was never checked.
pub(crate) fn labeller(spec: &JobSpec) -> Result<Labeller<'_>> {
    spec.feature.labeller().ok_or_else(|| Error::internal("the job spec names no labeller"))
}

/// The labeller when it is a model, which can look at new images.
pub(crate) fn looking_labeller(spec: &JobSpec) -> Option<Judge> {
    match spec.feature.labeller()? {
        Labeller::Classifier(classifier) => {
            Some(Judge { classifier: Some(classifier.clone()), scorer: None })
        }
        Labeller::Scorer(scorer) => Some(Judge { classifier: None, scorer: Some(scorer.clone()) }),
        Labeller::Labels(_) => None,
    }
}

/// Who counts the feature in the result, and by which line. The labeller keeps the cut it had when the samples were
/// labelled, which the target carries; a judge of its own that takes the top share gets its cut from its scores of the
/// original's images.
///
/// # Errors
/// For a spec that was never checked.
pub(crate) fn judge(spec: &JobSpec, labelled_at: Cut) -> Result<(Judge, Line)> {
    let labeller = looking_labeller(spec);
    let judge = spec.evaluate.judge.clone().or_else(|| labeller.clone());
    let judge = judge.ok_or_else(|| Error::internal("the job spec names no judge"))?;
    if labeller.as_ref() == Some(&judge) {
        return Ok((judge, Line::At(labelled_at)));
    }
    let line = line(as_labeller(&judge)?);
    Ok((judge, line))
}

/// The judge in the form in which models are loaded.
///
/// # Errors
/// For a spec that was never checked.
pub(crate) fn as_labeller(judge: &Judge) -> Result<spec::Labeller<'_>> {
    judge.labeller().ok_or_else(|| Error::internal("evaluate.judge names no model"))
}

/// Where the judge's model is.
///
/// # Errors
/// For a spec that was never checked.
pub(crate) fn uri(judge: &Judge) -> Result<&str> {
    Ok(match as_labeller(judge)? {
        Labeller::Classifier(classifier) => &classifier.uri,
        Labeller::Scorer(scorer) => &scorer.uri,
        Labeller::Labels(labels) => &labels.uri,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Cut = Cut { sign: 1.0, threshold: 4.5 };

    fn spec(judge: &str) -> JobSpec {
        let text = format!(
            "{{name: x, generator: {{uri: g, format: safetensors, latent: {{dimension: 2}}, output: {{range: [0, 1], \
             channels: 1, size: 8}}}}, feature: {{name: f, scorer: {{uri: s, positive: {{top: 0.1}}}}}}{judge}}}"
        );
        JobSpec::parse(&text).unwrap()
    }

    #[test]
    fn the_labeller_as_judge_keeps_the_cut_of_the_samples() {
        let same = ", evaluate: {judge: {scorer: {uri: s, positive: {top: 0.1}}}}";
        for text in ["", same] {
            assert_eq!(judge(&spec(text), AT).unwrap().1, Line::At(AT), "{text}");
        }
    }

    #[test]
    fn another_judge_has_a_line_of_its_own() {
        let of = |text: &str| judge(&spec(&format!(", evaluate: {{judge: {{{text}}}}}")), AT).unwrap().1;
        assert_eq!(of("scorer: {uri: t, positive: {top: 0.1}}"), Line::Top(0.1));
        assert_eq!(
            of("scorer: {uri: s, positive: {below: 2}}"),
            Line::At(Cut { sign: -1.0, threshold: 2.0 })
        );
        // A classifier's threshold is a probability, its scores are log-odds.
        let classifier = "classifier: {uri: c, output: logits, class: 1, threshold: 0.75}";
        assert_eq!(of(classifier), Line::At(Cut { sign: 1.0, threshold: 3f64.ln() }));
    }
}
