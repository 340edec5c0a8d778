//! What the files of a result are called, wherever they are written: by the executor, the coordinator, the command.

use crate::spec::ModelFormat;

/// The figures. Written last of all.
pub const RESULT: &str = "result.json";

/// The contact sheet.
pub const SHEET: &str = "before_after.png";

/// Every name that a result of some job may have.
pub const ALL: [&str; 6] = [
    generator(ModelFormat::TorchScript),
    sidecar(ModelFormat::TorchScript),
    generator(ModelFormat::Safetensors),
    sidecar(ModelFormat::Safetensors),
    SHEET,
    RESULT,
];

/// The unlearned generator, in the format it came in.
pub const fn generator(format: ModelFormat) -> &'static str {
    match format {
        ModelFormat::TorchScript => "generator.pt",
        ModelFormat::Safetensors => "generator.safetensors",
    }
}

/// The generator's description, beside it.
pub const fn sidecar(format: ModelFormat) -> &'static str {
    match format {
        ModelFormat::TorchScript => "generator.pt.json",
        ModelFormat::Safetensors => "generator.safetensors.json",
    }
}
