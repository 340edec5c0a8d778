//! Evaluate: look at the original and the copy on the same latents, which neither sampling nor training used.
//!
//! Where there is a feature space, the original is also looked at on as many other latents: the distance between its own two
//! sets is what chance alone gives, and its images without the feature are what the copy should look like.

use std::rc::Rc;

use lethe_domain::{ArtifactRef, Cut, EvaluateOutput};
use lethe_models::{Features, Generator, Labeller, Stream};
use tch::{Device, Kind, Tensor};

use super::Shard;
use super::report::range;
use crate::error::Result;
use crate::measures::{Free, Measures, Space};
use crate::models::Original;
use crate::pairs::{PAIRS, Tools};
use crate::verdict;
use crate::work::Work;

/// What to do when a batch does not fit.
const SMALLER: &str = "lower evaluate.batch, or run fewer slots on this machine";

/// # Errors
/// Those of the models and of storage.
pub(super) fn run(
    work: &mut Work<'_>,
    shard: Shard,
    target: &ArtifactRef,
    weights: &ArtifactRef,
) -> Result<EvaluateOutput> {
    let cut = work.target(target)?.cut;
    let (judge, line) = verdict::judge(&work.spec, cut)?;
    let original = work.original()?;
    let storage = work.storage.clone();
    let eyes = Eyes {
        copy: work.models.trained(&original, &weights.sha256, || storage.tensors(weights))?,
        judge: work.labeller(&judge)?,
        features: work.features()?,
        cut: line.cut(),
        original,
    };
    if shard.is_first() {
        work.speaker.begin();
    }
    let batch = format!("a batch of {} images (evaluate.batch)", work.spec.evaluate.batch);
    let measures = eyes.compare(work, shard).map_err(|error| error.too_large(&batch, SMALLER))?;
    let moments = work.storage.put(&work.shard_path(shard.index), measures.to_bytes()?)?;
    let count = |scores: &[f64]| {
        eyes.cut.map(|cut| scores.iter().filter(|score| cut.is_positive(**score)).count() as u64)
    };
    let (before, after) = (count(&measures.before), count(&measures.after));
    Ok(EvaluateOutput { samples: shard.range.count, before, after, moments })
}

/// Everything that looks.
#[derive(Debug)]
struct Eyes {
    original: Rc<Original>,
    copy: Rc<Generator>,
    judge: Rc<Labeller>,
    features: Option<Rc<Features>>,
    /// None while the judge's cut depends on all its scores.
    cut: Option<Cut>,
}

impl Eyes {
    fn compare(&self, work: &mut Work<'_>, shard: Shard) -> Result<Measures> {
        let tools = Tools::new(work.spec.generator.output.shape(), work.device)?;
        let (latents, batch) = (work.latents(), work.spec.evaluate.batch);
        let original = &self.original.generator;
        let range = shard.range;
        let mut measures = Measures::new(range.start);
        for part in range.in_steps_of(batch) {
            shard.step(work, part.start - range.start)?;
            let z = latents.batch(Stream::Evaluate, part.start, part.count, work.device)?;
            let (before, after) = (original.forward(&z)?, self.copy.forward(&z)?);
            for (row, images) in range::ROWS.into_iter().zip([&before, &after]) {
                measures.rows.entry(row.to_owned()).or_default().extend(numbers(&original.strays(images)?)?);
            }
            let (before, after) = (original.to_unit(&before)?, self.copy.to_unit(&after)?);
            measures.before.extend(self.judge.scores(&before)?);
            measures.after.extend(self.judge.scores(&after)?);
            for pair in &PAIRS {
                let values = numbers(&pair.of(&tools, &before, &after)?)?;
                measures.rows.entry(pair.name.to_owned()).or_default().extend(values);
            }
            let Some(features) = &self.features else { continue };
            let z = latents.batch(Stream::Noise, part.start, part.count, work.device)?;
            let noise = original.to_unit(&original.forward(&z)?)?;
            let scores = self.judge.scores(&noise)?;
            let [before, after, noise] = [before, after, noise].map(|images| features.of(&images));
            let (before, after, noise) = (before?, after?, noise?);
            let space = match &mut measures.space {
                Some(space) => space,
                none => none.insert(Space::new(before.size()[1], self.cut.is_some())?),
            };
            space.before.add(&before)?;
            space.after.add(&after)?;
            space.noise.add(&noise)?;
            self.put_aside(&mut space.free, scores, &noise)?;
        }
        Ok(measures)
    }

    fn put_aside(&self, free: &mut Free, scores: Vec<f64>, vectors: &Tensor) -> Result<()> {
        match (free, self.cut) {
            (Free::Picked(moments), Some(cut)) => {
                let keep: Vec<bool> = scores.iter().map(|score| !cut.is_positive(*score)).collect();
                Ok(moments.add_where(vectors, &keep)?)
            }
            (Free::Picked(moments), None) => Ok(moments.add(vectors)?),
            (Free::Open(all, kept), _) => {
                all.extend(scores);
                *kept = Tensor::f_cat(&[&*kept, &vectors.f_to_device(Device::Cpu)?], 0)?;
                Ok(())
            }
        }
    }
}

fn numbers(values: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(values.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_contiguous()?)?)
}
