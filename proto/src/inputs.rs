//! The files a job reads, by role.

use lethe_domain::{Input, InputRole, Inputs};

use crate::{ConversionError, v1};

impl From<Inputs> for v1::Inputs {
    fn from(Inputs(inputs): Inputs) -> Self {
        let entry = |(role, Input { uri, sha256, size }): (InputRole, Input)| v1::Input {
            role: role.name().to_owned(),
            uri,
            sha256,
            size,
        };
        Self { inputs: inputs.into_iter().map(entry).collect() }
    }
}

impl TryFrom<v1::Inputs> for Inputs {
    type Error = ConversionError;

    fn try_from(wire: v1::Inputs) -> Result<Self, ConversionError> {
        let entry = |v1::Input { role, uri, sha256, size }| {
            let known = InputRole::from_name(&role);
            let known = known.ok_or_else(|| {
                ConversionError::bad("role", format_args!("found '{role}', which is no role of a file"))
            })?;
            Ok((known, Input { uri, sha256, size }))
        };
        wire.inputs.into_iter().map(entry).collect::<Result<_, _>>().map(Inputs)
    }
}
