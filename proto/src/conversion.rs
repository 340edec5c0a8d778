//! Reading fields of a message into domain types, and the error of doing so: it names the path of the field.

use std::convert::Infallible;
use std::fmt;

use lethe_domain::{IdError, SpecError};

/// A message that does not mean anything in the domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {fault}")]
pub struct ConversionError {
    /// Path of the field, `feature.classifier.output`. In a job spec it is the path of the YAML form.
    pub path: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It must be given, and was not.
    Missing,
    /// It has a value nobody understands: what was found and what is allowed.
    Bad(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => f.write_str("missing"),
            Fault::Bad(message) => f.write_str(message),
        }
    }
}

impl ConversionError {
    /// A field that must be given.
    pub fn missing(path: impl Into<String>) -> Self {
        Self { path: path.into(), fault: Fault::Missing }
    }

    /// A field with a value nobody understands.
    pub fn bad(path: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { path: path.into(), fault: Fault::Bad(message.to_string()) }
    }

    /// The same error, seen from the message that holds `field`.
    #[must_use]
    pub fn within(mut self, field: &str) -> Self {
        self.path = match self.path.as_str() {
            "" => field.to_owned(),
            inner if inner.starts_with('[') => format!("{field}{inner}"),
            inner => format!("{field}.{inner}"),
        };
        self
    }
}

impl From<Infallible> for ConversionError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<IdError> for ConversionError {
    fn from(error: IdError) -> Self {
        Self::bad("", error)
    }
}

/// A job spec that cannot be read is a spec that is refused.
impl From<ConversionError> for SpecError {
    fn from(error: ConversionError) -> Self {
        SpecError::one(error.path, error.fault.to_string())
    }
}

/// Reads a value; an error in it is reported under `field`.
pub(crate) fn read<W, T>(value: W, field: &str) -> Result<T, ConversionError>
where
    T: TryFrom<W, Error: Into<ConversionError>>,
{
    T::try_from(value).map_err(|error| error.into().within(field))
}

/// Reads a message that may be absent.
pub(crate) fn optional<W, T>(value: Option<W>, field: &str) -> Result<Option<T>, ConversionError>
where
    T: TryFrom<W, Error: Into<ConversionError>>,
{
    value.map(|value| read(value, field)).transpose()
}

/// Reads a message that must be given.
pub(crate) fn required<W, T>(value: Option<W>, field: &str) -> Result<T, ConversionError>
where
    T: TryFrom<W, Error: Into<ConversionError>>,
{
    optional(value, field)?.ok_or_else(|| ConversionError::missing(field))
}

/// Reads every entry of a list; an error is reported under `field[index]`.
pub(crate) fn list<W, T>(values: Vec<W>, field: &str) -> Result<Vec<T>, ConversionError>
where
    T: TryFrom<W, Error: Into<ConversionError>>,
{
    let entry = |(index, value)| read(value, &format!("[{index}]")).map_err(|e| e.within(field));
    values.into_iter().enumerate().map(entry).collect()
}

/// Writes every entry of a list.
pub(crate) fn each<T, W: From<T>>(values: Vec<T>) -> Vec<W> {
    values.into_iter().map(W::from).collect()
}

/// Reads the number of an enum; `None` when it was left out.
pub(crate) fn choice<W, T>(number: i32, field: &str) -> Result<Option<T>, ConversionError>
where
    W: TryFrom<i32>,
    Option<T>: From<W>,
{
    W::try_from(number)
        .map(Option::from)
        .map_err(|_| ConversionError::bad(field, format_args!("found {number}, which has no meaning here")))
}

/// Reads the number of an enum that must be given.
pub(crate) fn required_choice<W, T>(number: i32, field: &str) -> Result<T, ConversionError>
where
    W: TryFrom<i32>,
    Option<T>: From<W>,
{
    choice::<W, T>(number, field)?.ok_or_else(|| ConversionError::missing(field))
}

/// Both ways between a wire enum, whose zero means "left out", and a domain enum.
macro_rules! enumeration {
    ($wire:ty, $domain:ty: $($from:ident = $to:ident),+ $(,)?) => {
        impl From<$domain> for $wire {
            fn from(value: $domain) -> Self {
                match value {
                    $(<$domain>::$to => <$wire>::$from,)+
                }
            }
        }

        impl From<$wire> for Option<$domain> {
            fn from(value: $wire) -> Self {
                match value {
                    <$wire>::Unspecified => None,
                    $(<$wire>::$from => Some(<$domain>::$to),)+
                }
            }
        }
    };
}
pub(crate) use enumeration;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_built_from_the_inside_out() {
        let error = ConversionError::missing("sha256").within("[2]").within("scores").within("direction");
        assert_eq!(error.to_string(), "direction.scores[2].sha256: missing");
        assert_eq!(ConversionError::bad("", "found x").within("lease").to_string(), "lease: found x");
    }
}
