//! From text to a checked spec, and the schema of that text.
//!
//! Every refusal names the path of the key, what was found and what is allowed.

use std::fmt;

use serde_json::{Value, json};
use serde_saphyr::{
    Error, MessageFormatter, NonFiniteFloatPolicy, UserMessageFormatter, from_str_with_options, options,
};

use super::{Draft, JobSpec};

/// One thing that is wrong with a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecProblem {
    /// Path of the key, `unlearn.lr`; empty for the whole document.
    pub path: String,
    /// What was found and what is allowed.
    pub message: String,
}

impl fmt::Display for SpecProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys are somebody's text: nothing in them moves a terminal's cursor.
        let said = |text: &str| text.replace(char::is_control, "\u{fffd}");
        if !self.path.is_empty() {
            write!(f, "{}: ", said(&self.path))?;
        }
        f.write_str(&said(&self.message))
    }
}

/// A spec that is refused, with everything found wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SpecError {
    /// At least one problem.
    pub problems: Vec<SpecProblem>,
}

impl SpecError {
    /// A refusal for one reason.
    pub fn one(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { problems: vec![SpecProblem { path: path.into(), message: message.into() }] }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.problems.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl JobSpec {
    /// Reads YAML (JSON is YAML too) and checks it.
    ///
    /// # Errors
    /// [`SpecError`]: every fault of form and of content; of a text that is no YAML, the first.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        Self::from_value(value(text)?)
    }

    /// Reads a JSON value and checks it.
    ///
    /// # Errors
    /// [`SpecError`]: every fault of form and of content.
    pub fn from_value(value: Value) -> Result<Self, SpecError> {
        Draft::read(value)?.finish()
    }
}

/// The value that a YAML text (JSON is YAML too) says.
///
/// # Errors
/// [`SpecError`] for a text that is no YAML, or says a key twice.
pub fn value(text: &str) -> Result<Value, SpecError> {
    // Not a number is no YAML to serde_json; as a text it is refused under its key, with everything else.
    let options = options! { non_finite_float_policy: NonFiniteFloatPolicy::AsString };
    from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let what = if let Error::DuplicateMappingKey { key: Some(key), .. } = error {
            format!("the key {key} is there twice")
        } else {
            format!("not YAML or JSON: {}", UserMessageFormatter.format_message(error))
        };
        let place = error
            .location()
            .map(|at| format!("line {}, column {}: ", at.line(), at.column()))
            .unwrap_or_default();
        SpecError::one("", format!("{place}{what}"))
    })
}

/// The JSON schema of a job spec as it is written, draft 2020-12: what a sidecar says of a generator may be left out.
pub fn json_schema() -> Value {
    let mut schema = whole_schema();
    schema["$defs"]["Generator"]["required"] = json!(["uri"]);
    schema["$defs"]["ImageOutput"]["required"] = json!([]);
    schema
}

/// The schema of a spec in which everything is said.
pub(super) fn whole_schema() -> Value {
    schemars::schema_for!(JobSpec).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_yaml_are_told_where_they_are_in_plain_words() {
        let said = |text: &str| JobSpec::parse(text).unwrap_err().to_string();
        assert_eq!(said("name: a\nname: b\n"), "line 2, column 1: the key name is there twice");
        assert!(said("name: [a\n").starts_with("line "), "{}", said("name: [a\n"));
        assert!(said("7").starts_with("found a number, expected a mapping"), "{}", said("7"));
        let number = said("unlearn: {lr: .nan}\n\"a\\eb\": 1\n");
        assert!(number.contains("unlearn.lr: found the text \".nan\", expected a number"), "{number}");
        assert!(number.contains("a\u{fffd}b: unknown key"), "{number}");
    }
}
