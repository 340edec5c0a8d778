//! The environment that says how to reach an S3-compatible store: the one place where credentials come from.
//!
//! Not here: what the variables mean (`object_store` knows them).

use std::{fmt, time::Duration};

/// Variables by name, and how patient to be. Its debug form has no values: some are secrets.
#[derive(Clone)]
pub struct Environment {
    variables: Vec<(String, String)>,
    pub(crate) patience: Patience,
}

/// How long to wait for a store beyond this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For one answer.
    pub(crate) answer: Duration,
    /// From the first try to the last of one operation that fails in a way that may pass.
    pub(crate) operation: Duration,
    /// The same while a store is opened: somebody is waiting.
    pub(crate) open: Duration,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::new(std::env::vars_os().filter_map(text))
    }

    /// One of these variables alone. One that is empty is none.
    pub fn new(variables: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>) -> Self {
        let patience = Patience {
            answer: Duration::from_secs(30),
            operation: Duration::from_secs(60),
            open: Duration::from_secs(10),
        };
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let variables = variables.filter(|(_, value): &(String, String)| !value.is_empty()).collect();
        Self { variables, patience }
    }

    /// The same, giving up on every operation as soon as on opening a store: less than a client waits for its coordinator.
    #[must_use]
    pub fn while_somebody_waits(mut self) -> Self {
        let Patience { answer, operation, open } = self.patience;
        self.patience = Patience { answer: answer.min(2 * open), operation: operation.min(open), open };
        self
    }

    /// The same with other bounds: for one answer of a store, and for all tries of one operation.
    pub fn patience(mut self, answer: Duration, operation: Duration) -> Self {
        self.patience = Patience { answer, operation, open: self.patience.open.min(operation) };
        self
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            self.iter().map(|(name, _)| name).filter(|name| name.starts_with("AWS_")).collect();
        f.debug_tuple("Environment").field(&names).finish()
    }
}
