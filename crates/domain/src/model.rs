//! What a model file is: its architecture, and the sidecar description that lies beside it (`MODEL.json`).
//!
//! Not here: weights, tensors, loading (crate `models`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::{ModelFormat, Prior};

/// A native architecture: enough to build the module that the safetensors weights belong to.
///
/// Layers and tensor names are written down in tools/export/README.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Architecture {
    /// Transposed convolutions with batch normalisation (Radford et al. 2015). Image side = base * 2^widths.len().
    Dcgan {
        /// Latent dimensions.
        latent: i64,
        /// Side of the first feature map, pixels.
        base: i64,
        /// Channels of each feature map, first to last.
        widths: Vec<i64>,
        /// Image channels.
        channels: i64,
        /// Last activation.
        output: OutputActivation,
    },
    /// Linear layers.
    MlpDecoder {
        /// Latent dimensions.
        latent: i64,
        /// Width of each hidden layer.
        hidden: Vec<i64>,
        /// Activation of the hidden layers.
        activation: HiddenActivation,
        /// Last activation.
        output: OutputActivation,
        /// Image as [channels, height, width].
        shape: [i64; 3],
    },
    /// A linear stem, then transposed convolutions, then a 3x3 head. Image side = base * 2^widths.len().
    ConvDecoder {
        /// Latent dimensions.
        latent: i64,
        /// Side of the stem's feature map, pixels.
        base: i64,
        /// Channels of the stem's feature map.
        stem: i64,
        /// Channels of each further feature map.
        widths: Vec<i64>,
        /// Image channels.
        channels: i64,
        /// Last activation.
        output: OutputActivation,
    },
}

/// The last activation of a generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputActivation {
    /// Into [-1, 1].
    Tanh,
    /// Into [0, 1].
    Sigmoid,
}

/// The activation between hidden layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HiddenActivation {
    /// max(x, 0).
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// x where positive, 0.2 x elsewhere.
    LeakyRelu,
}

/// What a model file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// Latents to images.
    Generator,
    /// Images to class logits or probabilities.
    Classifier,
    /// Images to one score each.
    Scorer,
    /// Images to feature vectors.
    Features,
}

impl std::fmt::Display for ModelKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Generator => "generator",
            Self::Classifier => "classifier",
            Self::Scorer => "scorer",
            Self::Features => "features",
        })
    }
}

/// The description beside a model file, written by the exporter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sidecar {
    /// Version of this description: 1.
    pub schema_version: u32,
    /// What the model is for.
    pub kind: ModelKind,
    /// How the file is encoded.
    pub format: ModelFormat,
    /// The native architecture; none for TorchScript.
    #[serde(default)]
    pub architecture: Option<Architecture>,
    /// Latents a generator takes.
    #[serde(default)]
    pub latent: Option<SidecarLatent>,
    /// Images a generator gives.
    #[serde(default)]
    pub output: Option<SidecarOutput>,
    /// Classes of a classifier.
    #[serde(default)]
    pub classes: Option<i64>,
    /// Length of a feature vector.
    #[serde(default)]
    pub dimension: Option<i64>,
    /// SHA-256 of the model file, lower-case hexadecimal.
    pub sha256: String,
    /// Where the weights come from, and their licence.
    #[serde(default)]
    pub source: String,
}

/// Latents a generator takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SidecarLatent {
    /// Shape of one latent.
    pub shape: Vec<i64>,
    /// Distribution of its entries.
    pub prior: Prior,
}

/// Images a generator gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SidecarOutput {
    /// Lowest and highest value of a pixel.
    pub range: [f64; 2],
    /// Image channels.
    pub channels: i64,
    /// Pixels.
    pub height: i64,
    /// Pixels.
    pub width: i64,
    /// Whether pixels may lie a little beyond the range, and are to be cut to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clamp: bool,
}
