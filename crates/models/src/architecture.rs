//! What a native architecture consists of: the names and shapes of its tensors, the images it gives.
//!
//! The layers themselves are in `native`.

use lethe_domain::{Architecture, OutputActivation};

/// One tensor of an architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    /// A weight; the others are statistics of batch normalisation.
    pub(crate) parameter: bool,
}

/// The tensors of an architecture, in the order in which a forward pass meets them.
pub(crate) fn tensors(architecture: &Architecture) -> Vec<TensorSpec> {
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[i64], parameter: bool| {
        tensors.push(TensorSpec { name, shape: shape.to_vec(), parameter });
    };
    match architecture {
        Architecture::Dcgan { latent, base, widths, channels, .. } => {
            let mut inputs = *latent;
            for (layer, width) in widths.iter().enumerate() {
                let kernel = if layer == 0 { *base } else { 4 };
                add(format!("layers.{layer}.conv.weight"), &[inputs, *width, kernel, kernel], true);
                for (part, parameter) in
                    [("weight", true), ("bias", true), ("running_mean", false), ("running_var", false)]
                {
                    add(format!("layers.{layer}.norm.{part}"), &[*width], parameter);
                }
                inputs = *width;
            }
            add(format!("layers.{}.conv.weight", widths.len()), &[inputs, *channels, 4, 4], true);
        }
        Architecture::MlpDecoder { latent, hidden, shape, .. } => {
            let mut inputs = *latent;
            let pixels = shape.iter().product();
            for (layer, width) in hidden.iter().chain([&pixels]).enumerate() {
                add(format!("layers.{layer}.weight"), &[*width, inputs], true);
                add(format!("layers.{layer}.bias"), &[*width], true);
                inputs = *width;
            }
        }
        Architecture::ConvDecoder { latent, base, stem, widths, channels, .. } => {
            let features = stem * base * base;
            add("stem.weight".to_owned(), &[features, *latent], true);
            add("stem.bias".to_owned(), &[features], true);
            let mut inputs = *stem;
            for (layer, width) in widths.iter().enumerate() {
                add(format!("layers.{layer}.weight"), &[inputs, *width, 4, 4], true);
                add(format!("layers.{layer}.bias"), &[*width], true);
                inputs = *width;
            }
            add("head.weight".to_owned(), &[*channels, inputs, 3, 3], true);
            add("head.bias".to_owned(), &[*channels], true);
        }
    }
    tensors
}

/// Entries of one latent.
pub(crate) fn latent(architecture: &Architecture) -> i64 {
    match architecture {
        Architecture::Dcgan { latent, .. }
        | Architecture::MlpDecoder { latent, .. }
        | Architecture::ConvDecoder { latent, .. } => *latent,
    }
}

/// [channels, height, width] of the images.
pub(crate) fn image_shape(architecture: &Architecture) -> [i64; 3] {
    match architecture {
        Architecture::MlpDecoder { shape, .. } => *shape,
        Architecture::Dcgan { base, widths, channels, .. }
        | Architecture::ConvDecoder { base, widths, channels, .. } => {
            let side = base << widths.len();
            [*channels, side, side]
        }
    }
}

/// Lowest and highest value a pixel can have.
pub(crate) fn range(architecture: &Architecture) -> [f64; 2] {
    match architecture {
        Architecture::Dcgan { output, .. }
        | Architecture::MlpDecoder { output, .. }
        | Architecture::ConvDecoder { output, .. } => match output {
            OutputActivation::Tanh => [-1.0, 1.0],
            OutputActivation::Sigmoid => [0.0, 1.0],
        },
    }
}

/// Whether every size in it makes sense; a sidecar is written by anybody.
pub(crate) fn problem(architecture: &Architecture) -> Option<String> {
    const LARGEST: i64 = 1 << 20;
    let (sizes, depth): (Vec<i64>, usize) = match architecture {
        Architecture::Dcgan { latent, base, widths, channels, .. } => {
            ([&[*latent, *base, *channels], widths.as_slice()].concat(), widths.len())
        }
        Architecture::MlpDecoder { latent, hidden, shape, .. } => {
            ([&[*latent], hidden.as_slice(), shape.as_slice()].concat(), 0)
        }
        Architecture::ConvDecoder { latent, base, stem, widths, channels, .. } => {
            ([&[*latent, *base, *stem, *channels], widths.as_slice()].concat(), widths.len())
        }
    };
    if let Some(size) = sizes.iter().find(|size| !(1..=LARGEST).contains(*size)) {
        return Some(format!("architecture holds the size {size}, expected 1 to {LARGEST}"));
    }
    if matches!(architecture, Architecture::Dcgan { widths, .. } if widths.is_empty()) {
        return Some("architecture.widths is empty, expected at least one width".to_owned());
    }
    (depth > 12).then(|| format!("architecture has {depth} doublings, expected at most 12"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_from_a_sidecar_cannot_overflow() {
        let dcgan = |latent, widths: &[i64]| Architecture::Dcgan {
            latent,
            base: 7,
            widths: widths.to_vec(),
            channels: 1,
            output: OutputActivation::Tanh,
        };
        assert_eq!(problem(&dcgan(64, &[128, 64])), None);
        assert!(problem(&dcgan(i64::MAX, &[128])).is_some());
        assert!(problem(&dcgan(64, &[0])).is_some());
        assert!(problem(&dcgan(64, &[])).is_some());
        assert!(problem(&dcgan(64, &[1; 70])).is_some());
    }
}
