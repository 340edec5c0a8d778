//! A spec on its way to be accepted: as far as it could be read, and everything that is wrong with it.
//!
//! Whoever looks at its files adds what they find, so that all of it is told at once. Not here: looking at files.

use serde_json::Value;

use super::form::{Form, related};
use super::{Effort, JobSpec, SpecError, SpecProblem};

/// A spec as far as it could be read. Something sound stands in for the rest.
#[derive(Debug, Clone)]
pub struct Draft {
    spec: JobSpec,
    /// What is wrong with its form: for each, something else stands in.
    form: Vec<SpecProblem>,
    /// What it leaves out about the generator, and a sidecar might say. Something else stands in too.
    unsaid: Vec<SpecProblem>,
    /// What is wrong with its values.
    values: Vec<SpecProblem>,
    /// What is wrong with its files.
    files: Vec<SpecProblem>,
}

impl Draft {
    /// Reads a JSON value and checks it.
    ///
    /// # Errors
    /// [`SpecError`] for a value that cannot be made sense of at all.
    pub fn read(mut value: Value) -> Result<Self, SpecError> {
        Effort::write_out(&mut value);
        let (spec, Form { problems: form, unsaid, .. }) = Form::read(value);
        let Some(mut spec) = spec else { return Err(SpecError { problems: [form, unsaid].concat() }) };
        spec.normalise();
        let mut draft = Self { form, unsaid, ..Self::whole(spec) };
        let mut values = std::mem::take(&mut draft.values);
        values.retain(|problem| !draft.stands_in(&problem.path));
        draft.values = values;
        Ok(draft)
    }

    /// A spec that was read as a whole. Checks it.
    pub fn whole(spec: JobSpec) -> Self {
        let values = spec.check().err().map_or_else(Vec::new, |error| error.problems);
        Self { spec, form: Vec::new(), unsaid: Vec::new(), values, files: Vec::new() }
    }

    /// The spec as far as it could be read.
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// Whether something else stands in for what the spec should say under this key, or for a part of it.
    pub fn stands_in(&self, key: &str) -> bool {
        self.form.iter().chain(&self.unsaid).any(|said| related(&said.path, key))
    }

    /// Whether something is said to be wrong under this key already.
    pub fn is_refused(&self, key: &str) -> bool {
        self.values.iter().chain(&self.files).any(|said| said.path == key)
    }

    /// Adds what somebody found who looked at the files: one problem a key, and none about what only stands in.
    pub fn add(&mut self, found: impl IntoIterator<Item = SpecProblem>) {
        for problem in found {
            let known = !problem.path.is_empty() && self.is_refused(&problem.path);
            if !known && !self.stands_in(&problem.path) {
                self.files.push(problem);
            }
        }
    }

    /// The same with every file's uri passed through `map`.
    pub fn map_uris(mut self, map: impl FnMut(&str) -> String) -> Self {
        self.spec = self.spec.map_uris(map);
        self
    }

    /// Whether anything is wrong so far.
    pub fn is_sound(&self) -> bool {
        [&self.form, &self.unsaid, &self.values, &self.files].iter().all(|problems| problems.is_empty())
    }

    /// Whether anything is wrong with the spec itself, and not with the files it names alone.
    pub fn has_wrong_keys(&self) -> bool {
        let named: Vec<&str> = self.spec.files().into_iter().map(|(key, _)| key).collect();
        let of_a_file = |key: &str| named.contains(&key) || key == "publish.uri";
        !self.form.is_empty()
            || !self.values.is_empty()
            || !self.missing().is_empty()
            || self.files.iter().any(|problem| !of_a_file(&problem.path))
    }

    /// The spec, if nothing is wrong with it.
    ///
    /// # Errors
    /// [`SpecError`] with everything that is.
    pub fn finish(self) -> Result<JobSpec, SpecError> {
        if self.is_sound() {
            return Ok(self.spec);
        }
        let missing = self.missing().to_vec();
        Err(SpecError { problems: [self.form, missing, self.values, self.files].concat() })
    }

    /// What the generator's sidecar would have to say. Without the generator nobody knows what it says.
    fn missing(&self) -> &[SpecProblem] {
        let uri = "generator.uri";
        let lost = self.is_refused(uri) || self.form.iter().any(|said| related(&said.path, uri));
        if lost { &[] } else { &self.unsaid }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn draft(generator: Value, scorer: Value) -> Draft {
        Draft::read(json!({"name": "x", "generator": generator, "feature": {"name": "f", "scorer": scorer}}))
            .unwrap()
    }

    fn said(mut draft: Draft, found: &[(&str, &str)]) -> Vec<String> {
        let problem = |(path, message): &(&str, &str)| SpecProblem {
            path: (*path).to_owned(),
            message: (*message).to_owned(),
        };
        draft.add(found.iter().map(problem));
        draft.finish().unwrap_err().problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_generator_that_is_not_there_is_told_instead_of_what_its_sidecar_would_say() {
        let short = draft(json!({"uri": "g.pt"}), json!({"uri": "s.pt", "positive": {"above": 1}}));
        assert!(short.has_wrong_keys());
        let keys = said(short.clone(), &[]);
        assert_eq!(keys.len(), 3, "{keys:?}");
        let found =
            [("generator.uri", "gone"), ("generator.uri", "again"), ("feature.scorer.uri", "gone too")];
        assert_eq!(said(short.clone(), &found), ["generator.uri: gone", "feature.scorer.uri: gone too"]);
        let mut lost = short;
        lost.add([SpecProblem { path: "generator.uri".to_owned(), message: "gone".to_owned() }]);
        assert!(!lost.has_wrong_keys() && !lost.is_sound());
    }

    #[test]
    fn what_stands_in_for_a_key_is_no_file() {
        let wrong = draft(json!({"uri": 7}), json!({"positive": {"above": 1}}));
        let found =
            [("generator.uri", "no generator"), ("feature.scorer.uri", "no scorer"), ("publish.uri", "full")];
        let said = said(wrong, &found);
        let starts = ["generator.uri: found 7", "feature.scorer.uri: missing", "publish.uri: full"];
        for start in starts {
            assert!(said.iter().any(|line| line.starts_with(start)), "{start} is not in {said:?}");
        }
        assert_eq!(said.len(), starts.len(), "{said:?}");
    }
}
