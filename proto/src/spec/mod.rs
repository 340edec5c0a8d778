//! The job spec. An absent message or optional field means the domain's default; paths in errors are those of the YAML form.
//!
//! The wire knows one form where YAML knows two: a latent of one entry is a dimension, an image of equal sides a square.
//! It carries at most one labeller and one judge, so a spec that names several must be refused (`JobSpec::check`) before
//! it is sent. Not here: that check, which whoever receives a spec must make too.

mod feature;
mod work;

use lethe_domain::JobSpec;
use lethe_domain::spec::{Generator, ImageOutput, Latent, ModelFormat, Prior, Publish, Size, Unlearn};

use crate::conversion::{enumeration, read, required, required_choice};
use crate::{ConversionError, v1};

enumeration!(v1::ModelFormat, ModelFormat: Torchscript = TorchScript, Safetensors = Safetensors);

impl From<JobSpec> for v1::JobSpec {
    fn from(spec: JobSpec) -> Self {
        Self {
            name: spec.name,
            generator: Some(spec.generator.into()),
            feature: Some(spec.feature.into()),
            sample: Some(spec.sample.into()),
            direction: Some(spec.direction.into()),
            pool: Some(spec.pool.into()),
            unlearn: Some(spec.unlearn.into()),
            evaluate: Some(spec.evaluate.into()),
            resources: Some(spec.resources.into()),
            checkpoint: Some(spec.checkpoint.into()),
            publish_uri: spec.publish.map(|publish| publish.uri),
            queue: Some(spec.queue.into()),
        }
    }
}

impl TryFrom<v1::JobSpec> for JobSpec {
    type Error = ConversionError;

    fn try_from(spec: v1::JobSpec) -> Result<Self, ConversionError> {
        let unlearn: Unlearn = read(spec.unlearn.unwrap_or_default(), "unlearn")?;
        Ok(Self {
            name: spec.name,
            generator: required(spec.generator, "generator")?,
            feature: required(spec.feature, "feature")?,
            sample: spec.sample.unwrap_or_default().into(),
            direction: read(spec.direction.unwrap_or_default(), "direction")?,
            pool: work::pool(spec.pool.unwrap_or_default(), unlearn.effort),
            unlearn,
            evaluate: read(spec.evaluate.unwrap_or_default(), "evaluate")?,
            resources: read(spec.resources.unwrap_or_default(), "resources")?,
            checkpoint: spec.checkpoint.unwrap_or_default().into(),
            publish: spec.publish_uri.map(|uri| Publish { uri }),
            queue: spec.queue.unwrap_or_default().into(),
        })
    }
}

impl From<Generator> for v1::Generator {
    fn from(generator: Generator) -> Self {
        let (height, width) = generator.output.size.pixels();
        let [output_low, output_high] = generator.output.range;
        Self {
            uri: generator.uri,
            format: v1::ModelFormat::from(generator.format).into(),
            latent_shape: generator.latent.shape(),
            uniform_prior: match generator.prior {
                Prior::Normal => None,
                Prior::Uniform(low, high) => Some(v1::Uniform { low, high }),
            },
            output_low,
            output_high,
            channels: generator.output.channels,
            height,
            width,
            clamp: generator.output.clamp,
        }
    }
}

impl TryFrom<v1::Generator> for Generator {
    type Error = ConversionError;

    fn try_from(generator: v1::Generator) -> Result<Self, ConversionError> {
        let (height, width) = (generator.height, generator.width);
        Ok(Self {
            format: required_choice::<v1::ModelFormat, _>(generator.format, "format")?,
            latent: match generator.latent_shape.as_slice() {
                [length] => Latent::Dimension(*length),
                _ => Latent::Shape(generator.latent_shape),
            },
            prior: match generator.uniform_prior {
                None => Prior::Normal,
                Some(v1::Uniform { low, high }) => Prior::Uniform(low, high),
            },
            output: ImageOutput {
                range: [generator.output_low, generator.output_high],
                channels: generator.channels,
                size: if height == width { Size::Square(height) } else { Size::Rectangle([height, width]) },
                clamp: generator.clamp,
            },
            uri: generator.uri,
        })
    }
}
