//! From text to a checked spec, and the schema of that text.
//!
//! Every refusal names the path of the key, what was found and what is allowed.

use std::fmt;

use serde::de::Error as _;
use serde_json::Value;

use super::JobSpec;

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
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
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
    /// [`SpecError`]: the first fault of form, or every fault of content.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let value: Value = serde_saphyr::from_str(text)
            .map_err(|error| SpecError::one("", format!("not YAML or JSON: {error}")))?;
        Self::from_value(value)
    }

    /// Reads a JSON value and checks it.
    ///
    /// # Errors
    /// As [`JobSpec::parse`].
    pub fn from_value(value: Value) -> Result<Self, SpecError> {
        if !value.is_object() {
            let error =
                serde_json::Error::custom("expected a mapping with the keys name, generator, feature");
            return Err(SpecError::one("", error.to_string()));
        }
        let mut spec: JobSpec = serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." { String::new() } else { path };
            SpecError::one(path, error.into_inner().to_string())
        })?;
        spec.normalise();
        spec.check()?;
        Ok(spec)
    }
}

/// The JSON schema of a job spec, draft 2020-12.
pub fn json_schema() -> Value {
    schemars::schema_for!(JobSpec).to_value()
}
