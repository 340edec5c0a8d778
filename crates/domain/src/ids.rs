//! Names of things. Each is a newtype: a job is never mistaken for a worker, a rank never for a slot.
//!
//! Not here: how ids are made up (the drivers do that, with their own randomness).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} id '{found}' is not valid: use 1 to 63 lower-case letters, digits and '-', starting with a letter or digit"
)]
pub struct IdError {
    kind: &'static str,
    found: String,
}

fn check_name(kind: &'static str, text: &str) -> Result<(), IdError> {
    let letters = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if text.is_empty() || text.len() > 63 || !letters || text.starts_with('-') {
        return Err(IdError { kind, found: text.to_owned() });
    }
    Ok(())
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// The name, checked: it becomes part of paths and keys.
            ///
            /// # Errors
            /// [`IdError`] when the text is not a DNS label.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check_name($kind, &text)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

name_id!(
    /// A job: one feature removed from one generator.
    JobId,
    "job"
);
name_id!(
    /// A worker: one machine, one agent.
    WorkerId,
    "worker"
);
name_id!(
    /// Who asks for something: a person, or a program for one.
    Principal,
    "principal"
);
number_id!(
    /// A device of a worker, counted from 0.
    SlotIndex(u32)
);
number_id!(
    /// Position of a shard within its phase, counted from 0. Results are folded in this order.
    ShardIndex(u32)
);
number_id!(
    /// How often a shard has been granted, counted from 1. A result of an older attempt is as good as a newer one.
    Attempt(u32)
);
number_id!(
    /// One incarnation of a gang. Never reused within a job.
    Generation(u32)
);
number_id!(
    /// Position of a slot within a gang, counted from 0.
    Rank(u32)
);
number_id!(
    /// The leader's fencing token: a worker refuses commands of an older epoch.
    Epoch(u64)
);

impl Default for Principal {
    /// Somebody who has not said who they are.
    fn default() -> Self {
        Self(Self::ANONYMOUS.to_owned())
    }
}

impl Principal {
    const ANONYMOUS: &str = "anonymous";

    /// Whether it may do something to what this owner has: everybody may for themselves; where nobody has to say who they are,
    /// whoever has not may for all.
    pub fn may_act_for(&self, owner: &str) -> bool {
        self.0 == owner || self.0 == Self::ANONYMOUS
    }
}

/// A slot anywhere in the fleet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotRef {
    /// The machine.
    pub worker: WorkerId,
    /// The device on it.
    pub slot: SlotIndex,
}

impl fmt::Display for SlotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.worker, self.slot)
    }
}

/// A shard granted to a slot: which work, and the how-manieth try of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId {
    /// The job.
    pub job: JobId,
    /// The phase.
    pub phase: crate::Phase,
    /// The shard; in a gang, the rank.
    pub shard: ShardIndex,
    /// The try; in a gang, the generation.
    pub attempt: Attempt,
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}#{}", self.job, self.phase, self.shard, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_path_so_it_is_checked() {
        assert!(JobId::new("thick-vae-1").is_ok());
        for bad in ["", "../x", "A", "a b", "-a", &"a".repeat(64)] {
            assert!(JobId::new(bad).is_err(), "{bad}");
            assert!(serde_json::from_value::<JobId>(serde_json::json!(bad)).is_err(), "{bad}");
        }
    }
}
