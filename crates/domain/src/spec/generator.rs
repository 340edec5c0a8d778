//! The generator a job starts from: where it is, what it takes, what it gives.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The pre-trained generator (a GAN's generator, a VAE's decoder). What its sidecar `FILE.json` says need not be said again,
/// and must not be contradicted: everything but the uri.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Model file: a path relative to the spec, an absolute path, file:// or s3://bucket/key.
    pub uri: String,
    /// How the file is encoded.
    pub format: ModelFormat,
    /// Shape of one latent.
    pub latent: Latent,
    /// Distribution of the latent's entries; normal where nobody says otherwise.
    #[serde(default)]
    pub prior: Prior,
    /// The images it gives.
    pub output: ImageOutput,
}

/// How a model file is encoded. Pickles are not a format: convert them with tools/export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelFormat {
    /// A TorchScript archive with `forward`.
    #[serde(rename = "torchscript")]
    TorchScript,
    /// Weights of a native architecture, described by the sidecar `FILE.json`.
    Safetensors,
}

/// Shape of one latent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Latent {
    /// A vector of this length.
    Dimension(i64),
    /// A tensor of this shape.
    Shape(Vec<i64>),
}

impl Latent {
    /// The shorter way to say this shape.
    pub fn of(shape: &[i64]) -> Self {
        match shape {
            [length] => Self::Dimension(*length),
            _ => Self::Shape(shape.to_vec()),
        }
    }

    /// The shape of one latent, without the batch.
    pub fn shape(&self) -> Vec<i64> {
        match self {
            Latent::Dimension(length) => vec![*length],
            Latent::Shape(shape) => shape.clone(),
        }
    }

    /// Entries of one latent.
    pub fn numel(&self) -> i64 {
        self.shape().iter().product()
    }
}

/// Distribution of a latent's entries, independent of each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prior {
    /// Mean 0, variance 1.
    #[default]
    Normal,
    /// Uniform over [a, b).
    Uniform(f64, f64),
}

/// The images a generator gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageOutput {
    /// Lowest and highest value of a pixel, for example [-1, 1] after tanh, [0, 1] after a sigmoid.
    pub range: [f64; 2],
    /// 1 for grey, 3 for colour.
    pub channels: i64,
    /// Pixels: one number for a square, or [height, width]. Flat outputs, and grey ones without channels, are reshaped to it.
    pub size: Size,
    /// For a generator that goes a little beyond its range (one without tanh): whoever looks at its images sees them cut to
    /// the range. The published generator goes beyond it as before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clamp: bool,
}

impl ImageOutput {
    /// [channels, height, width].
    pub fn shape(&self) -> [i64; 3] {
        let (height, width) = self.size.pixels();
        [self.channels, height, width]
    }
}

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number of pixels, or [height, width]")]
pub enum Size {
    /// A square.
    Square(i64),
    /// [height, width].
    Rectangle([i64; 2]),
}

impl Size {
    /// The shorter way to say this size.
    pub fn of(height: i64, width: i64) -> Self {
        if height == width { Self::Square(height) } else { Self::Rectangle([height, width]) }
    }

    /// (height, width).
    pub fn pixels(self) -> (i64, i64) {
        match self {
            Size::Square(side) => (side, side),
            Size::Rectangle([height, width]) => (height, width),
        }
    }
}

// As they are written in a spec.

impl fmt::Display for ModelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TorchScript => "torchscript",
            Self::Safetensors => "safetensors",
        })
    }
}

impl fmt::Display for Latent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dimension(length) => write!(f, "dimension: {length}"),
            Self::Shape(shape) => write!(f, "shape: {shape:?}"),
        }
    }
}

impl fmt::Display for Prior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("normal"),
            Self::Uniform(low, high) => write!(f, "uniform: [{low}, {high}]"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Square(side) => write!(f, "{side}"),
            Self::Rectangle([height, width]) => write!(f, "[{height}, {width}]"),
        }
    }
}
