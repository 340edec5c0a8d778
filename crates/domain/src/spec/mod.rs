//! The job spec: everything a person says about a job, in YAML, JSON or proto.
//!
//! The doc comments are the manual; the JSON schema is derived from the types. Not here: reading files, looking at models.

mod budget;
mod check;
mod draft;
mod effort;
mod feature;
mod form;
mod generator;
mod load;
mod work;

pub use budget::Costs;
pub use draft::Draft;
pub use effort::Effort;
pub use feature::{
    CLASSIFIERS, Classes, Classifier, ClassifierOutput, Evaluate, Feature, Judge, Labeller, Labels, Positive,
    Reference, Scorer,
};
pub(crate) use form::in_words;
pub use generator::{Generator, ImageOutput, Latent, ModelFormat, Prior, Size};
pub use load::{SpecError, SpecProblem, json_schema, value};
pub use work::{
    BatchNorm, Calibration, Checkpoint, Device, Direction, DirectionMethod, EditChoice, LossReduction,
    LrSchedule, Plateau, Pool, Publish, Queue, Resources, Sample, Selection, SlotRange, Threshold, Unlearn,
    Until,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Portions;

/// Samples after which sampling gives up, per wanted positive.
const AT_MOST_PER_POSITIVE: u64 = 100;

/// A job: one feature to remove from one generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// A name for people: 1 to 40 lower-case letters, digits and '-'.
    pub name: String,
    /// The pre-trained generator.
    pub generator: Generator,
    /// The feature to remove, and who says where it is.
    pub feature: Feature,
    /// How many samples to look at.
    #[serde(default)]
    pub sample: Sample,
    /// How the feature is located in latent space.
    #[serde(default)]
    pub direction: Direction,
    /// The latents that training passes over, edited once.
    #[serde(default)]
    pub pool: Pool,
    /// How the copy is trained.
    #[serde(default)]
    pub unlearn: Unlearn,
    /// How the result is measured.
    #[serde(default)]
    pub evaluate: Evaluate,
    /// What the job may use.
    #[serde(default)]
    pub resources: Resources,
    /// Whose job it is, and how urgent.
    #[serde(default)]
    pub queue: Queue,
    /// How often training is saved.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// Where the result goes besides the job's own folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publish>,
}

impl JobSpec {
    /// The share of samples that are positive by definition, where the scorer says so.
    pub fn share_wanted(&self) -> Option<f64> {
        match self.feature.scorer.as_ref()?.positive {
            Positive::Top(share) => Some(share),
            Positive::Above(_) | Positive::Below(_) => None,
        }
    }

    /// Samples after which sampling ends, whatever it found.
    pub fn samples_at_most(&self) -> u64 {
        match (self.sample.until, self.share_wanted()) {
            (Until::Total(total), _) => total,
            (Until::Positives(wanted), Some(share)) => (wanted as f64 / share).ceil() as u64,
            (Until::Positives(wanted), None) => {
                self.sample.at_most.unwrap_or(wanted.saturating_mul(AT_MOST_PER_POSITIVE))
            }
        }
    }

    /// How sampling is cut, and when it is enough.
    pub(crate) fn sample_portions(&self) -> Portions {
        let enough = match (self.sample.until, self.share_wanted()) {
            // The top q of the scores are positive by definition: the number of samples follows.
            (Until::Total(_), _) | (Until::Positives(_), Some(_)) => None,
            (Until::Positives(wanted), None) => Some(wanted),
        };
        let Sample { shard_size, batch, .. } = self.sample;
        Portions { samples: self.samples_at_most(), shard_size, batch, enough }
    }

    /// How the pool is cut.
    pub(crate) fn pool_portions(&self) -> Portions {
        let Pool { latents, shard_size, batch, .. } = self.pool;
        Portions { samples: latents, shard_size, batch, enough: None }
    }

    /// Whether the pool holds the images that the copy should show, so that training need not make them again in each pass over it. At
    /// two bytes a pixel, where all of them are small.
    pub fn stores_targets(&self) -> bool {
        const SMALL: u64 = 512 << 20;
        let pixels: i64 = self.generator.output.shape().iter().product();
        self.pool.latents.saturating_mul(2 * pixels.unsigned_abs()) <= SMALL
    }

    /// How the evaluation is cut.
    pub(crate) fn evaluate_portions(&self) -> Portions {
        let Evaluate { samples, shard_size, batch, .. } = self.evaluate;
        Portions { samples, shard_size, batch, enough: None }
    }

    /// Writes what can be said in two ways in the shorter one, so that equal jobs are equal specs.
    pub(crate) fn normalise(&mut self) {
        self.generator.latent = Latent::of(&self.generator.latent.shape());
        let (height, width) = self.generator.output.size.pixels();
        self.generator.output.size = Size::of(height, width);
    }

    /// Every file the job reads, with the path of its key.
    pub fn files(&self) -> Vec<(&'static str, &str)> {
        let mut files = vec![("generator.uri", self.generator.uri.as_str())];
        if let Some(classifier) = &self.feature.classifier {
            files.push(("feature.classifier.uri", &classifier.uri));
        }
        let several = self.feature.classifiers.iter().map(|classifier| classifier.uri.as_str());
        files.extend(CLASSIFIERS.into_iter().zip(several));
        if let Some(scorer) = &self.feature.scorer {
            files.push(("feature.scorer.uri", &scorer.uri));
        }
        if let Some(labels) = &self.feature.labels {
            files.push(("feature.labels.uri", &labels.uri));
        }
        if let Some(calibration) = &self.direction.calibration {
            files.push(("direction.calibration.uri", &calibration.uri));
        }
        if let Some(judge) = &self.evaluate.judge {
            if let Some(classifier) = &judge.classifier {
                files.push(("evaluate.judge.classifier.uri", &classifier.uri));
            }
            if let Some(scorer) = &judge.scorer {
                files.push(("evaluate.judge.scorer.uri", &scorer.uri));
            }
        }
        if let Some(classes) = &self.evaluate.classifier {
            files.push(("evaluate.classifier.uri", &classes.uri));
        }
        if let Some(features) = &self.evaluate.features {
            files.push(("evaluate.features", features));
        }
        if let Some(reference) = &self.evaluate.reference {
            files.push(("evaluate.reference.uri", &reference.uri));
        }
        files
    }

    /// The classifier whose file is named under this key, where one of its classes is the feature.
    pub fn classifier_at(&self, key: &str) -> Option<&Classifier> {
        match key {
            "feature.classifier.uri" => self.feature.classifier.as_ref(),
            "evaluate.judge.classifier.uri" => self.evaluate.judge.as_ref()?.classifier.as_ref(),
            _ => self.feature.classifiers.get(CLASSIFIERS.iter().position(|known| *known == key)?),
        }
    }

    /// The same spec with every file's uri passed through `map` (to make paths absolute, say).
    pub fn map_uris(mut self, mut map: impl FnMut(&str) -> String) -> Self {
        let mut apply = |uri: &mut String| *uri = map(uri);
        apply(&mut self.generator.uri);
        if let Some(classifier) = &mut self.feature.classifier {
            apply(&mut classifier.uri);
        }
        for classifier in &mut self.feature.classifiers {
            apply(&mut classifier.uri);
        }
        if let Some(scorer) = &mut self.feature.scorer {
            apply(&mut scorer.uri);
        }
        if let Some(labels) = &mut self.feature.labels {
            apply(&mut labels.uri);
        }
        if let Some(calibration) = &mut self.direction.calibration {
            apply(&mut calibration.uri);
        }
        if let Some(judge) = &mut self.evaluate.judge {
            if let Some(classifier) = &mut judge.classifier {
                apply(&mut classifier.uri);
            }
            if let Some(scorer) = &mut judge.scorer {
                apply(&mut scorer.uri);
            }
        }
        if let Some(classes) = &mut self.evaluate.classifier {
            apply(&mut classes.uri);
        }
        if let Some(features) = &mut self.evaluate.features {
            apply(features);
        }
        if let Some(reference) = &mut self.evaluate.reference {
            apply(&mut reference.uri);
        }
        if let Some(publish) = &mut self.publish {
            apply(&mut publish.uri);
        }
        self
    }
}
