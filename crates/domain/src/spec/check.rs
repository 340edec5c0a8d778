//! Everything about a spec that can be known without opening a file.
//!
//! Not here: whether files exist and models fit (coordinator, executor).

use super::{
    CLASSIFIERS, Classifier, Direction, EditChoice, Feature, Generator, JobSpec, Judge, Labeller, Latent,
    Positive, Prior, Sample, Scorer, Selection, SpecError, SpecProblem, Threshold, Unlearn, Until,
};
use crate::{Phase, Portions, Shape};

/// Collects problems under the paths of their keys.
struct Problems(Vec<SpecProblem>);

impl Problems {
    fn require(&mut self, holds: bool, path: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.0.push(SpecProblem { path: path.to_owned(), message: message() });
        }
    }

    fn positive(&mut self, value: u64, path: &str) {
        self.require(value > 0, path, || "found 0, expected at least 1".to_owned());
    }

    fn share(&mut self, value: f64, path: &str) {
        self.require(value > 0.0 && value < 1.0, path, || {
            format!("found {value}, expected a number between 0 and 1, both excluded")
        });
    }
}

/// More threads than any machine has.
const MOST_THREADS: u32 = 1024;

impl JobSpec {
    /// Checks what can be known without opening a file.
    ///
    /// # Errors
    /// Every problem found.
    pub fn check(&self) -> Result<(), SpecError> {
        let mut problems = Problems(Vec::new());
        let named = |name: &str| {
            !name.is_empty()
                && name.len() <= 40
                && !name.starts_with('-')
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        problems.require(named(&self.name), "name", || {
            format!("found '{}', expected 1 to 40 lower-case letters, digits and '-'", self.name)
        });
        check_generator(&self.generator, &mut problems);
        check_feature(&self.feature, &mut problems);
        check_sample(&self.sample, &mut problems);
        check_shards(self, &mut problems);
        problems.positive(self.pool.latents, "pool.latents");
        check_direction(&self.direction, &mut problems);
        check_unlearn(&self.unlearn, &mut problems);
        self.check_evaluate(&mut problems);
        let slots = self.resources.slots;
        problems.require(slots.min >= 1 && slots.min <= slots.max, "resources.slots", || {
            format!("found min {} and max {}, expected 1 <= min <= max", slots.min, slots.max)
        });
        problems.require(slots.spares <= 64, "resources.slots.spares", || {
            format!("found {}, expected at most 64", slots.spares)
        });
        problems.require((-100..=100).contains(&self.queue.priority), "queue.priority", || {
            format!("found {}, expected -100 to 100", self.queue.priority)
        });
        problems.require(is_label(&self.queue.owner), "queue.owner", || {
            format!(
                "found '{}', expected 1 to 63 lower-case letters, digits and '-', starting with a letter or digit",
                self.queue.owner
            )
        });
        problems.require(u64::from(slots.min) <= self.unlearn.parts(), "resources.slots.min", || {
            format!(
                "found {}, expected at most unlearn.micro_batches and unlearn.global_batch ({}): every rank needs a part",
                slots.min,
                self.unlearn.parts()
            )
        });
        problems.require(self.resources.threads <= MOST_THREADS, "resources.threads", || {
            format!("found {}, expected at most {MOST_THREADS}", self.resources.threads)
        });
        problems.require(self.checkpoint.keep >= 1, "checkpoint.keep", || {
            "found 0, expected at least 1".to_owned()
        });
        let (every, keep_every) = (self.checkpoint.every, self.checkpoint.keep_every);
        problems.require(
            keep_every == 0 || (every > 0 && keep_every.is_multiple_of(every)),
            "checkpoint.keep_every",
            || format!("found {keep_every}, expected a multiple of checkpoint.every ({every}): no other step is saved"),
        );
        self.check_combinations(&mut problems);
        if problems.0.is_empty() { Ok(()) } else { Err(SpecError { problems: problems.0 }) }
    }

    fn check_evaluate(&self, problems: &mut Problems) {
        problems.require(self.evaluate.samples >= 2, "evaluate.samples", || {
            format!("found {}, expected at least 2", self.evaluate.samples)
        });
        if let Some(judge) = &self.evaluate.judge {
            check_judge(judge, problems);
        }
        check_space(&self.evaluate.space, problems);
        problems.require(
            self.evaluate.reference.is_none() || self.evaluate.features.is_some(),
            "evaluate.reference",
            || {
                "a reference set needs evaluate.features, the space in which the distance is measured"
                    .to_owned()
            },
        );
    }

    fn check_combinations(&self, problems: &mut Problems) {
        if let Some(Labeller::Labels(_)) = self.feature.labeller() {
            problems.require(self.direction.calibration.is_none(), "direction.calibration", || {
                "found images, but feature.labels is a file and cannot look at them: leave it out".to_owned()
            });
            problems.require(self.direction.selection == Selection::Projection, "direction.selection", || {
                "found classifier, but feature.labels is a file and cannot look at new images: expected projection".to_owned()
            });
            problems.require(self.evaluate.judge.is_some(), "evaluate.judge", || {
                "missing, but feature.labels cannot count the feature in new images: expected a classifier or scorer".to_owned()
            });
            problems.require(matches!(self.sample.until, Until::Total(_)), "sample.until", || {
                "found positives, but feature.labels covers a fixed range of samples: expected total"
                    .to_owned()
            });
        }
    }
}

fn check_generator(generator: &Generator, problems: &mut Problems) {
    problems.require(!generator.uri.is_empty(), "generator.uri", || {
        "found an empty text, expected a file".to_owned()
    });
    let shape = generator.latent.shape();
    let path = match generator.latent {
        Latent::Dimension(_) => "generator.latent.dimension",
        Latent::Shape(_) => "generator.latent.shape",
    };
    problems.require(!shape.is_empty() && shape.iter().all(|side| *side > 0), path, || {
        format!("found {shape:?}, expected positive numbers")
    });
    if let Prior::Uniform(low, high) = generator.prior {
        problems.require(low < high && (high - low).is_finite(), "generator.prior.uniform", || {
            format!("found [{low}, {high}], expected [a, b] with a < b")
        });
    }
    let [low, high] = generator.output.range;
    problems.require(low < high && (high - low).is_finite(), "generator.output.range", || {
        format!("found [{low}, {high}], expected [lowest, highest] such as [0, 1] or [-1, 1]")
    });
    problems.require([1, 3].contains(&generator.output.channels), "generator.output.channels", || {
        format!("found {}, expected 1 or 3", generator.output.channels)
    });
    let (height, width) = generator.output.size.pixels();
    problems.require(height >= 4 && width >= 4, "generator.output.size", || {
        format!("found {height}x{width}, expected at least 4x4 pixels")
    });
}

fn check_feature(feature: &Feature, problems: &mut Problems) {
    let length = feature.name.chars().count();
    let printable = !feature.name.chars().any(char::is_control);
    problems.require((1..=64).contains(&length) && printable, "feature.name", || {
        format!("found {:?}, expected a name of 1 to 64 characters, all of them printable", feature.name)
    });
    problems.require(feature.labeller().is_some(), "feature", || {
        let given: Vec<&str> = [
            ("classifier", feature.classifier.is_some()),
            ("classifiers", !feature.classifiers.is_empty()),
            ("scorer", feature.scorer.is_some()),
            ("labels", feature.labels.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect();
        format!("found {}, expected exactly one of classifier, classifiers, scorer, labels", listed(&given))
    });
    if let Some(classifier) = &feature.classifier {
        check_classifier(classifier, "feature.classifier", problems);
    }
    check_classifiers(&feature.classifiers, problems);
    if let Some(scorer) = &feature.scorer {
        check_scorer(scorer, "feature.scorer", problems);
    }
}

/// Several that are one: of one there is nothing to take the mean of.
fn check_classifiers(classifiers: &[Classifier], problems: &mut Problems) {
    let (key, most) = ("feature.classifiers", CLASSIFIERS.len());
    problems.require(classifiers.is_empty() || (2..=most).contains(&classifiers.len()), key, || {
        format!("found {}, expected 2 to {most}; one alone is feature.classifier", classifiers.len())
    });
    for (place, classifier) in classifiers.iter().enumerate() {
        let path = format!("{key}.{place}");
        check_classifier(classifier, &path, problems);
        let same = |other: &&Classifier| (&other.uri, other.class) == (&classifier.uri, classifier.class);
        let before = classifiers.iter().take(place).position(|other| same(&other));
        problems.require(before.is_none(), &path, || {
            format!(
                "found the file and class of {key}.{} again, expected another",
                before.unwrap_or_default()
            )
        });
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none of them".to_owned() } else { names.join(" and ") }
}

fn check_judge(judge: &Judge, problems: &mut Problems) {
    problems.require(judge.labeller().is_some(), "evaluate.judge", || {
        let found = if judge.classifier.is_some() { "both of them" } else { "none of them" };
        format!("found {found}, expected exactly one of classifier, scorer")
    });
    if let Some(classifier) = &judge.classifier {
        check_classifier(classifier, "evaluate.judge.classifier", problems);
    }
    if let Some(scorer) = &judge.scorer {
        check_scorer(scorer, "evaluate.judge.scorer", problems);
    }
}

/// A distance is a FID, an IS or a KID only in the space of one published Inception network, with its own resizing. Nobody can
/// tell from a file of features that it is that one.
fn check_space(space: &str, problems: &mut Problems) {
    let length = space.chars().count();
    let printable = !space.chars().any(char::is_control);
    problems.require((1..=64).contains(&length) && printable, "evaluate.space", || {
        format!("found {space:?}, expected a name of 1 to 64 characters, all of them printable")
    });
    let words: Vec<String> = space
        .split(|letter: char| !letter.is_ascii_alphabetic())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let measure = |word: &String| ["fid", "kid", "is", "k", "score"].contains(&word.as_str());
    let inception = words.iter().any(|word| word.starts_with("inception") || word == "clean");
    problems.require(!inception && (words.is_empty() || !words.iter().all(measure)), "evaluate.space", || {
        format!(
            "found '{space}', a name for distances in the space of the Inception network; Lethe cannot know that \
             evaluate.features are its features: expected a name that says whose they are, such as classifier-FID"
        )
    });
}

fn check_classifier(classifier: &Classifier, path: &str, problems: &mut Problems) {
    problems.share(classifier.threshold, &format!("{path}.threshold"));
    if let Some(class) = classifier.class {
        problems.require(class >= 0, &format!("{path}.class"), || {
            format!("found {class}, expected a class counted from 0")
        });
    }
}

fn check_scorer(scorer: &Scorer, path: &str, problems: &mut Problems) {
    match scorer.positive {
        Positive::Top(share) => problems.share(share, &format!("{path}.positive.top")),
        Positive::Above(value) | Positive::Below(value) => {
            problems.require(value.is_finite(), &format!("{path}.positive"), || {
                format!("found {value}, expected a finite number")
            });
        }
    }
}

fn check_sample(sample: &Sample, problems: &mut Problems) {
    match sample.until {
        Until::Positives(count) => {
            problems.positive(count, "sample.until.positives");
            if let Some(at_most) = sample.at_most {
                problems.require(at_most >= count, "sample.at_most", || {
                    format!("found {at_most}, expected at least sample.until.positives ({count})")
                });
            }
        }
        Until::Total(count) => {
            problems
                .require(count >= 2, "sample.until.total", || format!("found {count}, expected at least 2"));
            problems.require(sample.at_most.is_none(), "sample.at_most", || {
                "only meant for sample.until.positives; with total, leave it out".to_owned()
            });
        }
    }
}

/// The most shards of one phase: a task and a request to etcd that name them all must not grow without bounds.
const SHARDS: u64 = 200_000;

/// Phases whose work is cut into shards keep their `shard_size` and `batch` in their group.
fn check_shards(spec: &JobSpec, problems: &mut Problems) {
    for phase in Phase::of(spec).filter(|phase| phase.shape() == Shape::Sharded) {
        let Portions { samples, shard_size, batch, enough: _ } = phase.portions(spec);
        let (size_key, batch_key) =
            (format!("{}.shard_size", phase.group()), format!("{}.batch", phase.group()));
        problems.positive(shard_size, &size_key);
        problems.positive(batch, &batch_key);
        problems.require(batch <= shard_size, &batch_key, || {
            format!("found {batch}, expected at most {size_key} ({shard_size})")
        });
        if spec.share_wanted().is_some_and(|share| share <= 0.0) {
            continue; // Said already.
        }
        let shards = samples.div_ceil(shard_size.max(1));
        problems.require(shards <= SHARDS, &size_key, || {
            format!(
                "up to {samples} images make {shards} shards of {shard_size}; expected at most {SHARDS}: raise it to {} or more",
                samples.div_ceil(SHARDS)
            )
        });
    }
}

fn check_direction(direction: &Direction, problems: &mut Problems) {
    if let Threshold::Quantile(q) = direction.threshold {
        problems.share(q, "direction.threshold.quantile");
    }
    for (value, path) in [
        (direction.margin, "direction.margin"),
        (direction.recall, "direction.recall"),
        (Some(direction.locality), "direction.locality"),
    ] {
        if let Some(value) = value {
            problems.require(value.is_finite() && value >= 0.0, path, || {
                format!("found {value}, expected 0 or more")
            });
        }
    }
    problems.require((0.0..=1.0).contains(&direction.surrogate), "direction.surrogate", || {
        format!("found {}, expected 0 <= surrogate <= 1", direction.surrogate)
    });
    let key = "direction.calibration";
    problems.require(direction.calibration.is_none() || direction.recall.is_none(), key, || {
        "found direction.recall too, which says how much is edited in its place: expected one of them"
            .to_owned()
    });
    if direction.selection == Selection::Projection {
        for (given, key) in [
            (direction.calibration.is_some(), key),
            (direction.recall.is_some(), "direction.recall"),
            (direction.margin.is_some(), "direction.margin"),
            (direction.edit != EditChoice::Auto, "direction.edit"),
        ] {
            problems.require(!given, key, || {
                "only meant for selection: classifier; with projection, leave it out".to_owned()
            });
        }
    }
    problems.require(
        !(direction.raw && direction.selection == Selection::Classifier),
        "direction.raw",
        || "the raw edit belongs to selection: projection".to_owned(),
    );
}

/// Whether a name fits into labels and keys as it is.
fn is_label(name: &str) -> bool {
    let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (1..=63).contains(&name.len()) && letters && !name.starts_with('-')
}

fn check_unlearn(unlearn: &Unlearn, problems: &mut Problems) {
    problems.positive(unlearn.steps, "unlearn.steps");
    problems.positive(unlearn.global_batch, "unlearn.global_batch");
    problems.positive(u64::from(unlearn.micro_batches), "unlearn.micro_batches");
    for (value, path) in [(unlearn.lr, "unlearn.lr"), (unlearn.alpha, "unlearn.alpha")] {
        let Some(value) = value else { continue };
        problems
            .require(value.is_finite() && value > 0.0, path, || format!("found {value}, expected above 0"));
    }
    if let Some(strength) = unlearn.strength {
        problems.require(strength > 0.0 && strength <= 2.0, "unlearn.strength", || {
            format!("found {strength}, expected 0 < strength <= 2")
        });
    }
    for (weight, path) in [
        (unlearn.labeller_term.unwrap_or_default(), "unlearn.labeller_term"),
        (unlearn.squares, "unlearn.squares"),
        (unlearn.contrast, "unlearn.contrast"),
        (unlearn.slot_minutes.unwrap_or_default(), "unlearn.slot_minutes"),
    ] {
        problems.require(weight.is_finite() && weight >= 0.0, path, || {
            format!("found {weight}, expected 0 or more")
        });
    }
    for (value, path) in [
        (unlearn.average, "unlearn.average"),
        (unlearn.near, "unlearn.near"),
        (unlearn.anchor, "unlearn.anchor"),
        (unlearn.drift, "unlearn.drift"),
    ] {
        problems.require((0.0..1.0).contains(&value), path, || {
            format!("found {value}, expected 0 <= {} < 1", &path[8..])
        });
    }
    problems.require(unlearn.trials != 1 && unlearn.trials <= JobSpec::MOST_TRIALS, "unlearn.trials", || {
        format!("found {}, expected 0 or 2 to {}", unlearn.trials, JobSpec::MOST_TRIALS)
    });
    if let Some(plateau) = unlearn.plateau {
        problems.positive(plateau.patience, "unlearn.plateau.patience");
        problems.require((0.0..1.0).contains(&plateau.min_delta), "unlearn.plateau.min_delta", || {
            format!("found {}, expected 0 <= min_delta < 1", plateau.min_delta)
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn good() -> Value {
        json!({
            "name": "thick-vae",
            "generator": {"uri": "vae.safetensors", "format": "safetensors", "latent": {"dimension": 20},
                          "output": {"range": [0, 1], "channels": 1, "size": 28}},
            "feature": {"name": "thick", "scorer": {"uri": "thickness.pt", "positive": {"top": 0.1}}},
        })
    }

    fn with(path: &str, value: Value) -> Value {
        let mut spec = good();
        let pointer = format!("/{}", path.replace('.', "/"));
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let mut at = &mut spec;
        for part in parent.split('/').skip(1) {
            at = at.as_object_mut().unwrap().entry(part).or_insert_with(|| json!({}));
        }
        at.as_object_mut().unwrap().insert(key.to_owned(), value);
        spec
    }

    #[test]
    fn a_short_spec_is_enough() {
        let spec = JobSpec::from_value(good()).unwrap();
        assert_eq!(spec.evaluate.samples, 10_000);
        assert_eq!(JobSpec::from_value(serde_json::to_value(&spec).unwrap()).unwrap(), spec);
    }

    #[test]
    fn yaml_says_the_same_as_json() {
        let yaml = "
name: thick-vae
generator:
  uri: vae.safetensors
  format: safetensors
  latent: {dimension: 20}
  output: {range: [0, 1], channels: 1, size: 28}
feature:
  name: thick
  scorer: {uri: thickness.pt, positive: {top: 0.1}}
";
        assert_eq!(JobSpec::parse(yaml).unwrap(), JobSpec::from_value(good()).unwrap());
    }

    #[test]
    fn each_fault_names_its_key_what_was_found_and_what_is_allowed() {
        let cases = [
            ("unlearn.stepz", json!(3), "unlearn.stepz", "did you mean steps?"),
            (
                "unlearn.steps",
                json!("many"),
                "unlearn.steps",
                "found the text \"many\", expected a whole number",
            ),
            ("unlearn.steps", json!(-1), "unlearn.steps", "found -1, expected a whole number, 0 or more"),
            (
                "generator.format",
                json!("pickle"),
                "generator.format",
                "found pickle, expected torchscript or safetensors",
            ),
            (
                "generator.output.size",
                json!("big"),
                "generator.output.size",
                "expected a number of pixels, or [height, width]",
            ),
            (
                "generator.output.range",
                json!([1, 0]),
                "generator.output.range",
                "found [1, 0], expected [lowest, highest]",
            ),
            (
                "generator.prior",
                json!({"uniform": [1, 1]}),
                "generator.prior.uniform",
                "expected [a, b] with a < b",
            ),
            (
                "feature.labels",
                json!({"uri": "l.csv"}),
                "feature",
                "found scorer and labels, expected exactly one",
            ),
            ("feature.scorer.positive", json!({"top": 1.5}), "feature.scorer.positive.top", "found 1.5"),
            ("sample.batch", json!(5000), "sample.batch", "expected at most sample.shard_size (500)"),
            ("evaluate.batch", json!(5000), "evaluate.batch", "expected at most evaluate.shard_size (500)"),
            ("evaluate.shard_size", json!(0), "evaluate.shard_size", "found 0, expected at least 1"),
            (
                "evaluate",
                json!({"samples": 200_001, "shard_size": 1, "batch": 1}),
                "evaluate.shard_size",
                "200001 shards of 1; expected at most 200000: raise it to 2 or more",
            ),
            ("resources.slots", json!({"min": 3, "max": 2}), "resources.slots", "found min 3 and max 2"),
            ("resources.slots.spares", json!(65), "resources.slots.spares", "found 65, expected at most 64"),
            ("queue.priority", json!(101), "queue.priority", "found 101, expected -100 to 100"),
            ("queue.owner", json!("Ann B"), "queue.owner", "found 'Ann B', expected 1 to 63"),
            (
                "evaluate.reference",
                json!({"uri": "r.safetensors"}),
                "evaluate.reference",
                "needs evaluate.features",
            ),
            (
                "checkpoint.keep_every",
                json!(150),
                "checkpoint.keep_every",
                "expected a multiple of checkpoint.every (100)",
            ),
            ("direction.threshold", json!({"quantile": 2}), "direction.threshold.quantile", "found 2"),
            (
                "evaluate.classifier",
                json!({"uri": "c.pt", "output": "logits", "class": 3}),
                "evaluate.classifier.class",
                "unknown key",
            ),
            ("evaluate.space", json!("FID"), "evaluate.space", "such as classifier-FID"),
            ("evaluate.space", json!("fid-50k"), "evaluate.space", "found 'fid-50k'"),
            ("evaluate.space", json!("KID"), "evaluate.space", "the Inception network"),
            ("evaluate.space", json!("Inception Score"), "evaluate.space", "the Inception network"),
            ("evaluate.space", json!("clean-FID"), "evaluate.space", "the Inception network"),
            ("evaluate.space", json!(""), "evaluate.space", "1 to 64 characters"),
            ("feature.name", json!("red\u{1b}[31m"), "feature.name", "all of them printable"),
            ("resources.threads", json!(4_000_000_000_u32), "resources.threads", "found 4000000000"),
            ("name", json!("No Spaces"), "name", "lower-case"),
        ];
        for (path, value, at, message) in cases {
            let error = JobSpec::from_value(with(path, value)).unwrap_err();
            assert!(
                error.problems.iter().any(|p| p.path.starts_with(at) && p.message.contains(message)),
                "{path}: expected {at}: {message}\nfound {error}"
            );
        }
    }

    #[test]
    fn what_a_projection_does_not_heed_is_refused() {
        for (key, value) in [("recall", json!(1)), ("margin", json!(1)), ("edit", json!("line"))] {
            let direction = json!({"selection": "projection", key: value});
            let error = JobSpec::from_value(with("direction", direction)).unwrap_err();
            assert_eq!(error.problems[0].path, format!("direction.{key}"));
            assert!(error.to_string().contains("with projection, leave it out"), "{error}");
        }
    }

    #[test]
    fn a_space_may_be_called_after_its_features() {
        for space in ["classifier-FID", "digits LeNet", "FID of our classifier", "faces/KID", "顔"] {
            assert!(JobSpec::from_value(with("evaluate.space", json!(space))).is_ok(), "{space}");
        }
    }

    #[test]
    fn a_range_without_an_end_is_refused() {
        let mut spec = JobSpec::from_value(good()).unwrap();
        spec.generator.output.range[1] = f64::INFINITY;
        assert_eq!(spec.check().unwrap_err().problems[0].path, "generator.output.range");
    }

    #[test]
    fn a_calibration_is_for_a_labeller_that_looks_and_selects_by_itself() {
        let calibration = json!({"uri": "known.safetensors"});
        let spec = JobSpec::from_value(with("direction.calibration", calibration.clone())).unwrap();
        assert_eq!(spec.files()[2], ("direction.calibration.uri", "known.safetensors"));
        assert_eq!(spec.map_uris(|uri| format!("/m/{uri}")).files()[2].1, "/m/known.safetensors");
        let refused = |direction: Value, words: &str| {
            let error = JobSpec::from_value(with("direction", direction)).unwrap_err();
            let [problem] = error.problems.as_slice() else { panic!("{error}") };
            assert!(problem.path == "direction.calibration" && problem.message.contains(words), "{error}");
        };
        refused(json!({"calibration": calibration, "recall": 1}), "found direction.recall too");
        refused(json!({"calibration": calibration, "selection": "projection"}), "leave it out");
        let mut spec = with("direction", json!({"calibration": calibration, "selection": "projection"}));
        spec["feature"] = json!({"name": "thick", "labels": {"uri": "labels.csv"}});
        let said = JobSpec::from_value(spec).unwrap_err().to_string();
        assert!(said.contains("direction.calibration: found images, but feature.labels is a file"), "{said}");
    }

    #[test]
    fn several_classifiers_are_two_to_four_that_differ() {
        let one = |uri: &str, class: i64| json!({"uri": uri, "output": "logits", "class": class});
        let of = |list: Value| {
            let mut spec = good();
            spec["feature"] = json!({"name": "smile", "classifiers": list});
            JobSpec::from_value(spec).map_err(|error| error.to_string())
        };
        let spec = of(json!([one("a.pt", 3), one("b.pt", 1), one("a.pt", 4)])).unwrap();
        let Some(Labeller::Classifiers(several)) = spec.feature.labeller() else { panic!("no labeller") };
        assert_eq!(several.len(), 3);
        assert_eq!(JobSpec::from_value(serde_json::to_value(&spec).unwrap()).unwrap(), spec);
        assert_eq!(spec.files()[3], ("feature.classifiers.2.uri", "a.pt"));
        assert_eq!(spec.classifier_at("feature.classifiers.1.uri").unwrap().class, Some(1));
        let moved = spec.map_uris(|uri| format!("/m/{uri}"));
        assert_eq!(moved.files()[2].1, "/m/b.pt");

        let five = Value::Array((0..5).map(|class| one("a.pt", class)).collect());
        for (list, words) in [
            (json!([one("a.pt", 3)]), "feature.classifiers: found 1, expected 2 to 4; one alone is"),
            (five, "feature.classifiers: found 5, expected 2 to 4"),
            (json!([one("a.pt", 3), one("a.pt", 3)]), "feature.classifiers.1: found the file and class of"),
            (json!([]), "found none of them, expected exactly one of classifier, classifiers, scorer"),
        ] {
            let said = of(list).unwrap_err();
            assert!(said.contains(words), "{words} is not in {said}");
        }
        let error = JobSpec::from_value(with("feature.classifiers", json!([one("a.pt", 0), one("b.pt", 0)])));
        assert!(
            error.unwrap_err().to_string().contains("found classifiers and scorer, expected exactly one")
        );
    }

    #[test]
    fn labels_from_a_file_exclude_what_needs_eyes() {
        let mut spec = good();
        spec["feature"] = json!({"name": "thick", "labels": {"uri": "labels.csv"}});
        let error = JobSpec::from_value(spec.clone()).unwrap_err();
        let paths: Vec<_> = error.problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["direction.selection", "evaluate.judge"]);
        spec["direction"] = json!({"selection": "projection"});
        spec["evaluate"] = json!({"judge": {"scorer": {"uri": "s.pt", "positive": {"above": 3}}}});
        assert!(JobSpec::from_value(spec).is_ok());
    }

    #[test]
    fn the_schema_knows_every_key() {
        let schema = super::super::json_schema();
        for key in [
            "name",
            "generator",
            "feature",
            "sample",
            "direction",
            "unlearn",
            "evaluate",
            "resources",
            "checkpoint",
            "publish",
        ] {
            assert!(schema["properties"].get(key).is_some(), "{key}");
        }
    }
}
