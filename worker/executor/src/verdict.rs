//! Who looks at images and which of their scores mean that the feature is there: the labeller, and the judge.
//!
//! Not here: loading them (`models`).

use lethe_domain::spec::{self, Classes, Classifier, Labeller, Positive, Scorer};
use lethe_domain::{Cut, JobSpec};

use crate::error::{Error, Result};

/// Where positive begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PositiveRule {
    /// Here.
    At(Cut),
    /// Where this share of all scores lies above: known when all are.
    Top(f64),
}

impl PositiveRule {
    /// The cut, if it is known already.
    pub(crate) fn cut(self) -> Option<Cut> {
        match self {
            PositiveRule::At(cut) => Some(cut),
            PositiveRule::Top(_) => None,
        }
    }

    /// The cut, now that all scores are there.
    ///
    /// # Errors
    /// As [`lethe_models::top_cut`].
    pub(crate) fn among(self, scores: &[f64]) -> Result<Cut> {
        match self {
            PositiveRule::At(cut) => Ok(cut),
            PositiveRule::Top(share) => Ok(lethe_models::top_cut(scores, share)?),
        }
    }
}

/// Of several classifiers each score is less its own threshold.
const TOGETHER: PositiveRule = PositiveRule::At(Cut { sign: 1.0, threshold: 0.0 });

/// Where positive begins by the spec alone.
pub(crate) fn line(labeller: Labeller<'_>) -> PositiveRule {
    match labeller {
        Labeller::Classifier(classifier) => PositiveRule::At(classifier.cut()),
        Labeller::Classifiers(_) => TOGETHER,
        Labeller::Scorer(scorer) => match scorer.positive {
            Positive::Above(threshold) => PositiveRule::At(Cut { sign: 1.0, threshold }),
            Positive::Below(threshold) => PositiveRule::At(Cut { sign: -1.0, threshold }),
            Positive::Top(share) => PositiveRule::Top(share),
        },
        // A label is a score of 0 or 1.
        Labeller::Labels(_) => PositiveRule::At(Cut { sign: 1.0, threshold: 0.5 }),
    }
}

/// Who labels the samples.
///
/// # Errors
/// For a spec that was never checked.
pub(crate) fn labeller(spec: &JobSpec) -> Result<Labeller<'_>> {
    spec.feature.labeller().ok_or_else(|| Error::internal("the job spec names no labeller"))
}

/// A model that looks at images.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Model {
    Classifier(Classifier),
    Scorer(Scorer),
}

impl Model {
    /// In the form in which it is loaded.
    pub(crate) fn labeller(&self) -> Labeller<'_> {
        match self {
            Model::Classifier(classifier) => Labeller::Classifier(classifier),
            Model::Scorer(scorer) => Labeller::Scorer(scorer),
        }
    }

    /// What its score is less among others; of a scorer nothing, which labels alone.
    pub(crate) fn threshold(&self) -> f64 {
        match self {
            Model::Classifier(classifier) => classifier.cut().threshold,
            Model::Scorer(_) => 0.0,
        }
    }

    /// Where its file is.
    pub(crate) fn uri(&self) -> &str {
        match self {
            Model::Classifier(classifier) => &classifier.uri,
            Model::Scorer(scorer) => &scorer.uri,
        }
    }
}

/// Who looks at images and says which show the feature: one model, or several classifiers as one. The labeller is one, and the judge.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judge(Vec<Model>);

impl Judge {
    /// None for labels of a file, which cannot look.
    pub(crate) fn of(labeller: Labeller<'_>) -> Option<Self> {
        let classifier = |classifier: &Classifier| Model::Classifier(classifier.clone());
        match labeller {
            Labeller::Classifier(one) => Some(Self(vec![classifier(one)])),
            Labeller::Classifiers(several) => Some(Self(several.iter().map(classifier).collect())),
            Labeller::Scorer(scorer) => Some(Self(vec![Model::Scorer(scorer.clone())])),
            Labeller::Labels(_) => None,
        }
    }

    /// At least one.
    pub(crate) fn models(&self) -> &[Model] {
        &self.0
    }

    /// Where positive begins by the spec alone.
    fn line(&self) -> PositiveRule {
        match self.models() {
            [alone] => line(alone.labeller()),
            _ => TOGETHER,
        }
    }
}

/// The labeller when it can look at new images.
pub(crate) fn looking_labeller(spec: &JobSpec) -> Option<Judge> {
    spec.feature.labeller().and_then(Judge::of)
}

/// The judge that the spec names besides the labeller.
pub(crate) fn named_judge(spec: &JobSpec) -> Option<Judge> {
    spec.evaluate.judge.as_ref().and_then(spec::Judge::labeller).and_then(Judge::of)
}

/// Who counts the feature in the result, and by which line. The labeller keeps the cut it had when the samples were
/// labelled, which the target carries; a judge of its own that takes the top share gets its cut from its scores of the
/// original's images.
///
/// # Errors
/// For a spec that was never checked.
pub(crate) fn judge(spec: &JobSpec, labelled_at: Cut) -> Result<(Judge, PositiveRule)> {
    let labeller = looking_labeller(spec);
    let judge = named_judge(spec).or_else(|| labeller.clone());
    let judge = judge.ok_or_else(|| Error::internal("the job spec names no judge"))?;
    let line = if labeller.as_ref() == Some(&judge) { PositiveRule::At(labelled_at) } else { judge.line() };
    Ok((judge, line))
}

/// The first labeller that tells several classes apart, as a whole: by it whoever steers training may see what else changes.
pub(crate) fn labellers_classes(spec: &JobSpec) -> Option<Classes> {
    let labellers = spec.feature.classifier.iter().chain(&spec.feature.classifiers);
    let found = labellers.into_iter().find(|classifier| classifier.class.is_some());
    found.map(|found| Classes { uri: found.uri.clone(), output: found.output })
}

/// Whose classes should stay where the feature is not: the classifier that the spec names for it, else the judge, else the labeller. Of
/// these, one that has a class for the feature has others too.
pub(crate) fn classes(spec: &JobSpec) -> Option<Classes> {
    let judge = spec.evaluate.judge.as_ref().and_then(|judge| judge.classifier.as_ref());
    let judge = judge.filter(|classifier| classifier.class.is_some());
    let whole = |found: &Classifier| Classes { uri: found.uri.clone(), output: found.output };
    spec.evaluate.classifier.clone().or_else(|| judge.map(whole)).or_else(|| labellers_classes(spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Cut = Cut { sign: 1.0, threshold: 4.5 };

    fn of(labeller: &str, judge: &str) -> JobSpec {
        let text = format!(
            "{{name: x, generator: {{uri: g, format: safetensors, latent: {{dimension: 2}}, output: {{range: [0, 1], \
             channels: 1, size: 8}}}}, feature: {{name: f, {labeller}}}{judge}}}"
        );
        JobSpec::parse(&text).unwrap()
    }

    fn spec(judge: &str) -> JobSpec {
        of("scorer: {uri: s, positive: {top: 0.1}}", judge)
    }

    #[test]
    fn several_classifiers_judge_together_where_they_label_and_nobody_else_is_named() {
        let several =
            "classifiers: [{uri: a, output: logits, threshold: 0.9}, {uri: b, output: logits, class: 3}]";
        let (together, at) = judge(&of(several, ""), Cut { sign: 1.0, threshold: 0.0 }).unwrap();
        let uris: Vec<&str> = together.models().iter().map(Model::uri).collect();
        assert_eq!((uris, at, together.line()), (vec!["a", "b"], TOGETHER, TOGETHER));
        assert_eq!(classes(&of(several, "")).unwrap().uri, "b", "the first with several classes");
        let named =
            of(several, ", evaluate: {judge: {classifier: {uri: a, output: logits, threshold: 0.75}}}");
        let (alone, at) = judge(&named, AT).unwrap();
        assert_eq!(
            (alone.models().len(), at),
            (1, PositiveRule::At(Cut { sign: 1.0, threshold: 3f64.ln() }))
        );
    }

    #[test]
    fn who_steers_sees_the_classes_of_a_labeller_and_never_the_judges() {
        let named = ", evaluate: {judge: {classifier: {uri: j, output: logits, class: 3}}, classifier: {uri: k, output: logits}}";
        let of = |labeller: &str| labellers_classes(&of(labeller, named)).map(|classes| classes.uri);
        assert_eq!(of("classifier: {uri: a, output: logits, class: 3}").as_deref(), Some("a"));
        assert_eq!(of("classifier: {uri: a, output: logits}"), None, "it knows the feature alone");
        assert_eq!(of("scorer: {uri: s, positive: {top: 0.1}}"), None);
    }

    #[test]
    fn the_labeller_as_judge_keeps_the_cut_of_the_samples() {
        let same = ", evaluate: {judge: {scorer: {uri: s, positive: {top: 0.1}}}}";
        for text in ["", same] {
            assert_eq!(judge(&spec(text), AT).unwrap().1, PositiveRule::At(AT), "{text}");
        }
    }

    #[test]
    fn the_classes_are_those_of_the_first_who_tells_some_apart() {
        let of = |text: &str| classes(&spec(text)).map(|classes| classes.uri);
        let judge = "judge: {classifier: {uri: c, output: logits, class: 3}}";
        assert_eq!(of(""), None, "a scorer has none");
        assert_eq!(of(&format!(", evaluate: {{{judge}}}")).as_deref(), Some("c"));
        let binary = ", evaluate: {judge: {classifier: {uri: c, output: logits}}}";
        assert_eq!(of(binary), None, "it knows the feature alone");
        let named = format!(", evaluate: {{{judge}, classifier: {{uri: d, output: probability}}}}");
        assert_eq!(of(&named).as_deref(), Some("d"));
    }

    #[test]
    fn another_judge_has_a_line_of_its_own() {
        let of = |text: &str| judge(&spec(&format!(", evaluate: {{judge: {{{text}}}}}")), AT).unwrap().1;
        assert_eq!(of("scorer: {uri: t, positive: {top: 0.1}}"), PositiveRule::Top(0.1));
        assert_eq!(
            of("scorer: {uri: s, positive: {below: 2}}"),
            PositiveRule::At(Cut { sign: -1.0, threshold: 2.0 })
        );
        // A classifier's threshold is a probability, its scores are log-odds.
        let classifier = "classifier: {uri: c, output: logits, class: 1, threshold: 0.75}";
        assert_eq!(of(classifier), PositiveRule::At(Cut { sign: 1.0, threshold: 3f64.ln() }));
    }
}
