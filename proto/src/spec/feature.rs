//! The feature, who says where it is, and how the result is measured.

use lethe_domain::spec::{
    Classes, Classifier, ClassifierOutput, Evaluate, Feature, Judge, Labels, Positive, Reference, Scorer,
};

use crate::conversion::{each, enumeration, optional, read, required_choice};
use crate::{ConversionError, v1};

enumeration!(v1::ClassifierOutput, ClassifierOutput: Logits = Logits, Probability = Probability);

impl From<Feature> for v1::Feature {
    fn from(feature: Feature) -> Self {
        use v1::feature::Labeller;
        let several = (!feature.classifiers.is_empty()).then_some(feature.classifiers);
        let labeller = match (feature.classifier, several, feature.scorer, feature.labels) {
            (Some(classifier), ..) => Some(Labeller::Classifier(classifier.into())),
            (None, Some(several), ..) => {
                Some(Labeller::Classifiers(v1::Classifiers { members: each(several) }))
            }
            (None, None, Some(scorer), _) => Some(Labeller::Scorer(scorer.into())),
            (None, None, None, labels) => labels.map(|labels| Labeller::LabelsUri(labels.uri)),
        };
        Self { name: feature.name, labeller }
    }
}

impl TryFrom<v1::Feature> for Feature {
    type Error = ConversionError;

    fn try_from(wire: v1::Feature) -> Result<Self, ConversionError> {
        use v1::feature::Labeller;
        let mut feature =
            Self { name: wire.name, classifier: None, classifiers: Vec::new(), scorer: None, labels: None };
        match wire.labeller {
            Some(Labeller::Classifier(classifier)) => {
                feature.classifier = Some(read(classifier, "classifier")?)
            }
            Some(Labeller::Classifiers(v1::Classifiers { members })) => {
                let member = |(place, member): (usize, v1::Classifier)| {
                    read(member, &place.to_string()).map_err(|error| error.within("classifiers"))
                };
                feature.classifiers =
                    members.into_iter().enumerate().map(member).collect::<Result<_, _>>()?;
            }
            Some(Labeller::Scorer(scorer)) => feature.scorer = Some(read(scorer, "scorer")?),
            Some(Labeller::LabelsUri(uri)) => feature.labels = Some(Labels { uri }),
            None => {}
        }
        Ok(feature)
    }
}

impl From<Classifier> for v1::Classifier {
    fn from(classifier: Classifier) -> Self {
        Self {
            uri: classifier.uri,
            output: v1::ClassifierOutput::from(classifier.output).into(),
            class: classifier.class,
            threshold: Some(classifier.threshold),
        }
    }
}

impl TryFrom<v1::Classifier> for Classifier {
    type Error = ConversionError;

    fn try_from(classifier: v1::Classifier) -> Result<Self, ConversionError> {
        Ok(Self {
            uri: classifier.uri,
            output: required_choice::<v1::ClassifierOutput, _>(classifier.output, "output")?,
            class: classifier.class,
            threshold: classifier.threshold.unwrap_or(0.5),
        })
    }
}

impl From<Classes> for v1::Classes {
    fn from(Classes { uri, output }: Classes) -> Self {
        Self { uri, output: v1::ClassifierOutput::from(output).into() }
    }
}

impl TryFrom<v1::Classes> for Classes {
    type Error = ConversionError;

    fn try_from(classes: v1::Classes) -> Result<Self, ConversionError> {
        let output = required_choice::<v1::ClassifierOutput, _>(classes.output, "output")?;
        Ok(Self { uri: classes.uri, output })
    }
}

impl From<Scorer> for v1::Scorer {
    fn from(scorer: Scorer) -> Self {
        use v1::scorer::Positive as Wire;
        let positive = match scorer.positive {
            Positive::Above(value) => Wire::Above(value),
            Positive::Below(value) => Wire::Below(value),
            Positive::Top(share) => Wire::Top(share),
        };
        Self { uri: scorer.uri, positive: Some(positive) }
    }
}

impl TryFrom<v1::Scorer> for Scorer {
    type Error = ConversionError;

    fn try_from(scorer: v1::Scorer) -> Result<Self, ConversionError> {
        use v1::scorer::Positive as Wire;
        let positive = match scorer.positive.ok_or_else(|| ConversionError::missing("positive"))? {
            Wire::Above(value) => Positive::Above(value),
            Wire::Below(value) => Positive::Below(value),
            Wire::Top(share) => Positive::Top(share),
        };
        Ok(Self { uri: scorer.uri, positive })
    }
}

impl From<Evaluate> for v1::Evaluate {
    fn from(evaluate: Evaluate) -> Self {
        use v1::evaluate::Judge as Wire;
        let judge = evaluate.judge.and_then(|judge| match (judge.classifier, judge.scorer) {
            (Some(classifier), _) => Some(Wire::Classifier(classifier.into())),
            (None, scorer) => scorer.map(|scorer| Wire::Scorer(scorer.into())),
        });
        Self {
            samples: Some(evaluate.samples),
            shard_size: Some(evaluate.shard_size),
            batch: Some(evaluate.batch),
            judge,
            classes: evaluate.classifier.map(Into::into),
            features_uri: evaluate.features,
            space: Some(evaluate.space),
            reference_uri: evaluate.reference.map(|reference| reference.uri),
        }
    }
}

impl TryFrom<v1::Evaluate> for Evaluate {
    type Error = ConversionError;

    fn try_from(evaluate: v1::Evaluate) -> Result<Self, ConversionError> {
        let default = Self::default();
        Ok(Self {
            samples: evaluate.samples.unwrap_or(default.samples),
            shard_size: evaluate.shard_size.unwrap_or(default.shard_size),
            batch: evaluate.batch.unwrap_or(default.batch),
            judge: optional(evaluate.judge, "judge")?,
            classifier: optional(evaluate.classes, "classifier")?,
            features: evaluate.features_uri,
            space: evaluate.space.unwrap_or(default.space),
            reference: evaluate.reference_uri.map(|uri| Reference { uri }),
        })
    }
}

impl TryFrom<v1::evaluate::Judge> for Judge {
    type Error = ConversionError;

    fn try_from(judge: v1::evaluate::Judge) -> Result<Self, ConversionError> {
        use v1::evaluate::Judge as Wire;
        Ok(match judge {
            Wire::Classifier(wire) => Self { classifier: Some(read(wire, "classifier")?), scorer: None },
            Wire::Scorer(wire) => Self { classifier: None, scorer: Some(read(wire, "scorer")?) },
        })
    }
}
