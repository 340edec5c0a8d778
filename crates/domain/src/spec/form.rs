//! Everything that is wrong with the form of a spec at once: keys nobody knows, keys that are missing, values of another type.
//!
//! What is wrong is said and replaced by something sound, so that the rest can be read and checked too; what then follows
//! from a replacement is never said. The keys are those of the JSON schema, the types are serde's. Not here: what values may
//! be (`check`).

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::load::whole_schema;
use super::{JobSpec, SpecProblem};

static SCHEMA: LazyLock<Value> = LazyLock::new(whole_schema);

/// Something sound for every key that must be there.
static SOUND: LazyLock<Value> = LazyLock::new(|| {
    let classifier = json!({"uri": "classifier", "output": "logits"});
    let scorer = json!({"uri": "scorer", "positive": {"above": 0}});
    json!({
        "name": "name",
        "generator": {"uri": "generator", "format": "torchscript", "latent": {"dimension": 1}, "prior": "normal",
                      "output": {"range": [0, 1], "channels": 1, "size": 28}},
        "feature": {"name": "feature", "classifier": classifier, "classifiers": [classifier, {"uri": "other", "output": "logits"}],
                    "scorer": scorer, "labels": {"uri": "labels"}},
        "direction": {"calibration": {"uri": "calibration"}},
        "evaluate": {"judge": {"classifier": classifier, "scorer": scorer}, "classifier": classifier,
                     "reference": {"uri": "reference"}},
        "unlearn": {"plateau": {"patience": 1, "min_delta": 0}},
        "publish": {"uri": "folder"},
    })
});

/// Keys that may be written in another way.
const ALIASES: [(&str, &str); 1] = [("index", "class")];

/// More faults than this are not told apart.
const REPAIRS: usize = 200;

/// A spec in the making.
#[derive(Debug)]
pub(super) struct Form {
    value: Value,
    pub(super) problems: Vec<SpecProblem>,
    /// What is missing about the generator, where its sidecar may say it.
    pub(super) unsaid: Vec<SpecProblem>,
}

impl Form {
    /// Reads a spec. None when it cannot be made sense of at all.
    pub(super) fn read(value: Value) -> (Option<JobSpec>, Self) {
        let mut form = Self { value, problems: Vec::new(), unsaid: Vec::new() };
        if !form.value.is_object() {
            let message = format!(
                "found {}, expected a mapping with the keys name, generator, feature",
                found(&form.value)
            );
            form.problem(&[], None, message);
            return (None, form);
        }
        let mut value = std::mem::take(&mut form.value);
        form.keys(&mut value, &SCHEMA, &mut Vec::new());
        form.value = value;
        (form.types(), form)
    }

    /// Keys that nobody knows go; those that are missing come.
    fn keys(&mut self, value: &mut Value, schema: &Value, path: &mut Vec<String>) {
        let schema = resolved(schema);
        if let Some(entries) = value.as_array_mut() {
            for (place, entry) in entries.iter_mut().enumerate() {
                path.push(place.to_string());
                self.keys(entry, &schema["items"], path);
                path.pop();
            }
            return;
        }
        let (Some(keys), Some(known)) = (value.as_object_mut(), schema["properties"].as_object()) else {
            return;
        };
        for (alias, key) in ALIASES {
            if known.contains_key(key)
                && !keys.contains_key(key)
                && let Some(value) = keys.remove(alias)
            {
                keys.insert(key.to_owned(), value);
            }
        }
        let foreign: Vec<String> = keys.keys().filter(|key| !known.contains_key(*key)).cloned().collect();
        for key in foreign {
            keys.remove(&key);
            self.problem(path, Some(&key), unknown(&key, known));
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !keys.contains_key(key) {
                let what = known[key]["description"].as_str().unwrap_or_default();
                let first = what.split_inclusive(['.', ':']).next().unwrap_or_default();
                let first = first.trim_end_matches(['.', ':']);
                let choices = choices(resolved(&known[key]))
                    .map_or_else(String::new, |names| format!(", expected {}", names.join(" or ")));
                if path.first().is_some_and(|top| top == "generator") && key != "uri" {
                    let remedy = "say it, or put the sidecar of tools/export beside the model";
                    let message = format!("missing ({first}){choices}: {remedy}");
                    self.unsaid.push(SpecProblem { path: format!("{}.{key}", path.join(".")), message });
                } else {
                    self.problem(path, Some(key), format!("missing ({first}){choices}"));
                }
                path.push(key.to_owned());
                if let Some(sound) = sound(path) {
                    keys.insert(key.to_owned(), sound.clone());
                }
                path.pop();
            }
        }
        for (key, value) in keys.iter_mut() {
            path.push(key.clone());
            self.keys(value, &known[key], path);
            path.pop();
        }
    }

    /// Values of another type are replaced, or left out where they may be.
    fn types(&mut self) -> Option<JobSpec> {
        let mut tried: Vec<Vec<String>> = Vec::new();
        for _ in 0..REPAIRS {
            let error = match serde_path_to_error::deserialize::<_, JobSpec>(self.value.clone()) {
                Ok(spec) => return Some(spec),
                Err(error) => error,
            };
            // An entry of a list is named like a key: a.1 for a[1].
            let named = error.path().to_string().replace('[', ".").replace(']', "");
            let mut place: Vec<String> =
                named.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            let known = place.join(".");
            if !self.is_said(&known) {
                let message = in_words(&error.into_inner().to_string());
                self.problems.push(SpecProblem { path: known, message });
            }
            // A part of a list cannot be left out: the list is.
            while tried.contains(&place) || !repair(&mut self.value, &place) {
                place.pop()?;
            }
            tried.push(place);
        }
        None
    }

    fn problem(&mut self, path: &[String], key: Option<&str>, message: String) {
        let path: Vec<&str> = path.iter().map(String::as_str).chain(key).collect();
        self.problems.push(SpecProblem { path: path.join("."), message });
    }

    fn is_said(&self, path: &str) -> bool {
        self.problems.iter().chain(&self.unsaid).any(|said| related(&said.path, path))
    }
}

/// Whether one of two keys lies within the other: then what is wrong with one may follow from the other.
pub(super) fn related(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    within(one, other) || within(other, one)
}

/// Puts something sound in a place, or leaves it out. False where there is no such key.
fn repair(value: &mut Value, place: &[String]) -> bool {
    let Some((key, parents)) = place.split_last() else { return false };
    let parent = parents.iter().try_fold(value, |at, key| {
        if at.is_array() { at.get_mut(key.parse::<usize>().ok()?) } else { at.get_mut(key) }
    });
    let Some(keys) = parent.and_then(Value::as_object_mut) else { return false };
    match sound(place) {
        Some(sound) => drop(keys.insert(key.clone(), sound.clone())),
        None => drop(keys.remove(key)),
    }
    true
}

/// Of a list, any entry is as good as another.
fn sound(path: &[String]) -> Option<&'static Value> {
    path.iter()
        .try_fold(&*SOUND, |at, key| at.as_array().map_or_else(|| at.get(key), |entries| entries.first()))
}

/// A schema behind references and behind what may be absent.
fn resolved(schema: &Value) -> &Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        return resolved(&SCHEMA["$defs"][name]);
    }
    let some = schema["anyOf"].as_array().and_then(|any| any.iter().find(|one| one["type"] != "null"));
    some.map_or(schema, resolved)
}

/// The names that a value may be, where a name is all that it may be.
fn choices(schema: &Value) -> Option<Vec<&str>> {
    schema["oneOf"].as_array()?.iter().map(|one| one["const"].as_str()).collect()
}

fn unknown(key: &str, known: &Map<String, Value>) -> String {
    let near = known.keys().map(|name| (strsim::damerau_levenshtein(key, name), name)).min();
    match near {
        Some((distance, name)) if distance <= 2.max(name.len() / 3) => {
            format!("unknown key; did you mean {name}?")
        }
        _ => {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            format!("unknown key, expected one of {}", names.join(", "))
        }
    }
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// A sentence of serde in the words of people who write YAML.
pub(crate) fn in_words(message: &str) -> String {
    let mut words = message.replace('`', "");
    for (theirs, ours) in [
        ("invalid type: null", "found nothing"),
        ("invalid type: unit value", "found nothing"),
        ("invalid type: map", "found a mapping"),
        ("invalid value: map", "found a mapping"),
        ("invalid type: sequence", "found a list"),
        ("invalid type: string ", "found the text "),
        ("invalid type: integer ", "found "),
        ("invalid type: floating point ", "found "),
        ("invalid type: boolean ", "found "),
        ("invalid type: ", "found "),
        ("invalid value: string ", "found the text "),
        ("invalid value: integer ", "found "),
        ("invalid value: floating point ", "found "),
        ("invalid value: ", "found "),
        ("invalid length ", "found a list of "),
        ("unknown variant ", "found "),
        ("missing field ", "missing: "),
        ("unknown field ", "unknown key "),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected i64", "expected a whole number"),
        ("expected i32", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected a string", "expected a text"),
        ("expected a boolean", "expected true or false"),
        ("expected map with a single key", "expected one key and its value"),
        ("expected an array of length ", "expected a list of "),
        ("expected a sequence", "expected a list"),
        ("expected fewer elements in array", "expected fewer"),
    ] {
        words = words.replace(theirs, ours);
    }
    // struct Sample, enum Until, tuple variant Prior::Uniform with 2 elements
    for kind in ["struct ", "string or map", "tuple variant ", "enum "] {
        if let Some((before, after)) = words.split_once(&format!("expected {kind}")) {
            let what = match kind {
                "tuple variant " => after
                    .split_once(" with ")
                    .map_or("a list".to_owned(), |(_, count)| format!("a list of {count}")),
                "struct " => "a mapping of keys".to_owned(),
                _ => "a name, or one key and its value".to_owned(),
            };
            words = format!("{before}expected {what}");
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_for_what_is_missing_is_sound() {
        let mut sound = SOUND.clone();
        sound["feature"].as_object_mut().unwrap().retain(|key, _| ["name", "scorer"].contains(&key.as_str()));
        sound["evaluate"]["judge"].as_object_mut().unwrap().remove("classifier");
        sound["evaluate"]["features"] = json!("features");
        JobSpec::from_value(sound.clone()).unwrap();
        sound["feature"] = json!({"name": "f", "classifiers": SOUND["feature"]["classifiers"]});
        JobSpec::from_value(sound).unwrap();
    }

    #[test]
    fn every_fault_of_form_and_of_content_is_told_at_once() {
        let spec = json!({
            "nam": "x",
            "generator": {"uri": "g.pt", "latent": {"dimension": "many"}, "output": {"range": [0], "channels": 2, "size": 28},
                          "format": "pickle", "zip": true},
            "feature": {"name": "", "scorer": {"positive": {"over": 1}}, "classifer": 3},
            "sample": {"until": {"totl": 5}, "seed": -1, "batch": 5000},
            "unlearn": {"steps": null, "alpha": 0, "plateau": {"patience": 3}},
            "evaluate": 7,
            "verbose": true,
        });
        let error = JobSpec::from_value(spec).unwrap_err();
        let found: Vec<(&str, &str)> =
            error.problems.iter().map(|problem| (problem.path.as_str(), problem.message.as_str())).collect();
        let expected = [
            ("nam", "did you mean name?"),
            ("name", "missing (A name for people)"),
            ("verbose", "unknown key, expected one of checkpoint, "),
            ("generator.zip", "unknown key, expected one of"),
            ("generator.latent.dimension", "found the text \"many\", expected a whole number"),
            ("generator.output.range", "found a list of 1, expected a list of 2"),
            ("generator.output.channels", "found 2, expected 1 or 3"),
            ("generator.format", "found pickle, expected torchscript or safetensors"),
            ("feature.name", "found \"\", expected a name"),
            ("feature.scorer.uri", "missing"),
            ("feature.scorer.positive", "found over, expected one of above, below, top"),
            ("feature.classifer", "did you mean classifier?"),
            ("sample.until", "found totl, expected positives or total"),
            ("sample.seed", "found -1, expected a whole number, 0 or more"),
            ("sample.batch", "expected at most sample.shard_size"),
            ("unlearn.steps", "found nothing"),
            ("unlearn.alpha", "found 0, expected above 0"),
            ("unlearn.plateau.min_delta", "missing"),
            ("evaluate", "found 7, expected a mapping of keys"),
        ];
        for (key, part) in expected {
            let told = found.iter().any(|(path, message)| path.starts_with(key) && message.contains(part));
            assert!(told, "expected {key}: {part}\nfound {found:#?}");
        }
        assert_eq!(found.len(), expected.len(), "{found:#?}");
    }

    #[test]
    fn faults_within_a_list_are_told_by_their_place_in_it() {
        let mut spec = SOUND.clone();
        spec.as_object_mut().unwrap().remove("evaluate");
        spec["feature"] = json!({"name": "f", "classifiers": [
            {"uri": "a.pt", "output": "logit", "threshold": 2},
            {"output": "logits", "clas": 1, "index": -1},
            {"uri": "b.pt", "output": "logits", "threshold": "low", "class": "three"},
        ]});
        let said = JobSpec::from_value(spec.clone()).unwrap_err().to_string();
        let expected = [
            "feature.classifiers.1.clas: unknown key; did you mean class?",
            "feature.classifiers.1.uri: missing",
            "feature.classifiers.0.output: found logit, expected",
            "feature.classifiers.2.class: found the text \"three\", expected a whole number",
            "feature.classifiers.2.threshold: found the text \"low\", expected a number",
            "feature.classifiers.0.threshold: found 2, expected a number between 0 and 1",
            "feature.classifiers.1.class: found -1, expected a class",
        ];
        for line in expected {
            assert!(said.lines().any(|found| found.starts_with(line)), "{line} is not in\n{said}");
        }
        assert_eq!(said.lines().count(), expected.len(), "{said}");
        for (list, line) in [
            (json!(3), "feature.classifiers: found 3, expected a list"),
            (
                json!([{"uri": "a.pt", "output": "logits"}, 7]),
                "feature.classifiers.1: found 7, expected a mapping",
            ),
        ] {
            spec["feature"]["classifiers"] = list;
            let said = JobSpec::from_value(spec.clone()).unwrap_err().to_string();
            assert!(said.starts_with(line) && said.lines().count() == 1, "{said}");
        }
    }

    #[test]
    fn a_missing_name_is_one_of_those_there_are() {
        let mut spec = SOUND.clone();
        spec["feature"] = json!({"name": "f", "classifier": {"uri": "c.pt"}});
        spec["generator"].as_object_mut().unwrap().remove("format");
        let said = JobSpec::from_value(spec).unwrap_err().to_string();
        assert!(said.contains("(What the K numbers are), expected logits or probability"), "{said}");
        assert!(
            said.contains("(How the file is encoded), expected torchscript or safetensors: say it, or"),
            "{said}"
        );
    }

    #[test]
    fn a_class_may_be_called_index() {
        let classifier = json!({"uri": "c.pt", "output": "logits", "index": 3});
        let mut spec = SOUND.clone();
        spec["feature"] = json!({"name": "f", "classifier": classifier});
        spec.as_object_mut().unwrap().remove("evaluate");
        assert_eq!(JobSpec::from_value(spec).unwrap().feature.classifier.unwrap().class, Some(3));
    }
}
