//! Sample: generate a range of images and have the labeller score them.
//!
//! The scores are stored, not what follows from them: which of them are positive may depend on all shards, and latents can be
//! made again from their index.

use lethe_domain::spec::{Labels, Until};
use lethe_domain::{ArtifactRef, Cut, Inputs, SampleOutput, SampleRange};
use lethe_models::{Labeller, Latents, Scores, Stream, Tensors};
use tch::{Kind, Tensor};

use super::Shard;
use crate::error::{Error, Result};
use crate::input::{self, Pins};
use crate::models::Original;
use crate::verdict;
use crate::work::Work;

/// What to do when a batch does not fit.
pub(super) const SMALLER: &str = "lower sample.batch, or run fewer slots on this machine";

/// # Errors
/// Those of the models and of storage.
pub(super) fn run(work: &mut Work<'_>, shard: Shard) -> Result<SampleOutput> {
    let range = shard.range;
    let spec = work.spec.clone();
    let labeller = verdict::labeller(&spec)?;
    let samples = match labeller {
        lethe_domain::spec::Labeller::Labels(labels) => {
            let scores = given(labels, &work.inputs, &spec.sample.until, range)?;
            Samples { scores, opinions: Vec::new() }
        }
        _ => look(work, shard)?,
    };
    let cut = verdict::line(labeller).cut();
    let count = |cut: Cut| samples.scores.together.iter().filter(|score| cut.is_positive(**score)).count();
    let positives = cut.map(|cut| count(cut) as u64);
    let stored = work.storage.put(&work.shard_path(shard.index), encode(range.start, &samples)?)?;
    Ok(SampleOutput { samples: range.count, positives, scores: stored })
}

/// What is said of some samples.
#[derive(Default)]
pub(crate) struct Samples {
    /// How much each shows the feature.
    pub(crate) scores: Scores,
    /// All that each model says of them, f32 [N, K] each; a file says no more than its labels.
    pub(crate) opinions: Vec<Tensor>,
}

impl Samples {
    /// Adds what is said of more.
    fn extend(&mut self, scores: Scores, opinions: Vec<Tensor>) -> Result<()> {
        self.scores.extend(scores);
        self.opinions = match self.opinions.as_slice() {
            [] => opinions,
            known => {
                let both = known.iter().zip(&opinions);
                both.map(|(known, more)| Ok(Tensor::f_cat(&[known, more], 0)?)).collect::<Result<_>>()?
            }
        };
        Ok(())
    }
}

fn look(work: &mut Work<'_>, shard: Shard) -> Result<Samples> {
    let judge = verdict::looking_labeller(&work.spec)
        .ok_or_else(|| Error::internal("the labeller cannot look at images"))?;
    let (original, labeller) = (work.original()?, work.labeller(&judge)?);
    let (latents, batch) = (work.latents(), work.spec.sample.batch);
    if shard.is_first() {
        work.speaker.begin();
    }
    let scored = score(&original, &labeller, &latents, shard.range, batch, |done| shard.step(work, done));
    scored.map_err(|error| error.too_large(&format!("a batch of {batch} images (sample.batch)"), SMALLER))
}

/// What a labeller says of a range of samples, in order of the index. `step` is called before each batch with the samples done.
///
/// # Errors
/// Those of the models and of `step`.
pub(crate) fn score(
    original: &Original,
    labeller: &Labeller,
    latents: &Latents,
    range: SampleRange,
    batch: u64,
    mut step: impl FnMut(u64) -> Result<()>,
) -> Result<Samples> {
    let generator = &original.generator;
    let mut samples = Samples::default();
    for part in range.in_steps_of(batch) {
        step(part.start - range.start)?;
        let z = latents.batch(Stream::Sample, part.start, part.count, generator.device())?;
        let (scores, opinions) = labeller.look(&generator.to_unit(&generator.forward(&z)?)?)?;
        samples.extend(scores, opinions)?;
    }
    Ok(samples)
}

/// Labels of a file as scores: 0 or 1.
fn given(labels: &Labels, inputs: &Inputs, until: &Until, range: SampleRange) -> Result<Scores> {
    let labels = read_labels(labels, inputs, until)?;
    let mine = labels.iter().skip(range.start as usize).take(range.count as usize);
    Ok(Scores { together: mine.map(|label| f64::from(u8::from(*label))).collect(), each: Vec::new() })
}

/// The labels of every sample.
///
/// # Errors
/// As [`lethe_models::parse_labels`]; [`lethe_models::Error::Read`].
pub(super) fn read_labels(labels: &Labels, inputs: &Inputs, until: &Until) -> Result<Vec<bool>> {
    let (file, raw) = input::read(&labels.uri, &Pins::of(inputs, &labels.uri))?;
    let text = String::from_utf8_lossy(&raw.bytes);
    let (Until::Total(total) | Until::Positives(total)) = *until;
    lethe_models::parse_labels(&text, &raw.name, total)
        .map_err(|error| Error::from(error).about(&labels.uri, &file))
}

/// Under which the scores of each of several classifiers are kept, `each.0` and so on, and what each model says.
const EACH: &str = "each";
const OPINIONS: &str = "opinions";

fn encode(start: u64, Samples { scores, opinions }: &Samples) -> Result<Vec<u8>> {
    let mut tensors = Tensors::new("scores");
    tensors.insert_f64("start", start as f64);
    tensors.insert("scores", &Tensor::f_from_slice(&scores.together)?);
    for (place, scores) in scores.each.iter().enumerate() {
        tensors.insert(format!("{EACH}.{place}"), &Tensor::f_from_slice(scores)?);
    }
    for (place, opinions) in opinions.iter().enumerate() {
        tensors.insert(format!("{OPINIONS}.{place}"), opinions);
    }
    Ok(tensors.to_bytes()?)
}

/// What the shards say of all samples; they must follow one another from sample 0 on.
///
/// # Errors
/// Those of storage; `INTERNAL` for shards that do not follow one another.
pub(super) fn read(work: &mut Work<'_>, shards: &[ArtifactRef]) -> Result<Samples> {
    let mut samples = Samples::default();
    for (done, shard) in shards.iter().enumerate() {
        work.step(done as u64, shards.len() as u64)?;
        let tensors = work.storage.tensors(shard)?;
        let (start, expected) = (tensors.get_f64("start")?, samples.scores.together.len());
        if start != expected as f64 {
            let reason = format!("{}: begins at sample {start}, expected {expected}", shard.path);
            return Err(Error::internal(reason));
        }
        let numbers =
            |values: &Tensor| Ok::<_, Error>(Vec::<f64>::try_from(values.f_to_kind(Kind::Double)?)?);
        let stored = &tensors;
        let of =
            |kind: &'static str| (0..).map_while(move |place: usize| stored.find(&format!("{kind}.{place}")));
        let each = of(EACH).map(numbers).collect::<Result<_>>()?;
        let opinions = of(OPINIONS).map(Tensor::shallow_clone).collect();
        samples.extend(Scores { together: numbers(tensors.get("scores")?)?, each }, opinions)?;
    }
    Ok(samples)
}
