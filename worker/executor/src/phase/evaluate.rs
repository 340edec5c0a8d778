//! Evaluate: look at the original and the copy on the same latents, which neither sampling nor training used, and at what the edit
//! makes of them: so what is left of the feature can be traced to its cause.
//!
//! Where there is a feature space, the original is also looked at on as many other latents: the distance between its own two
//! sets is what chance alone gives, and its images without the feature are what the copy should look like. What that is worth shows
//! beside rejection: as many of the original's images as the copy has, those with the feature replaced.

use std::rc::Rc;

use lethe_domain::{ArtifactRef, EvaluateOutput, SampleRange};
use lethe_models::{Edited, Editor, Features, Generator, Labeller, Stream, Target};
use tch::{Device, Kind, Tensor};

use super::Shard;
use super::edit::editor;
use super::report::{ideal, range, remaining};
use crate::error::Result;
use crate::measures::{Free, Measures, Space};
use crate::models::Original;
use crate::pairs::{CLASS_CHANGED, PAIRS, Tools};
use crate::verdict::{self, PositiveRule};
use crate::work::Work;

/// What to do when a batch does not fit.
const SMALLER: &str = "lower evaluate.batch, or run fewer slots on this machine";

/// How often an image with the feature is replaced before it is given up: where nine in ten show it, over half still are found one.
const REPLACED_AT_MOST: u64 = 8;

/// # Errors
/// Those of the models and of storage.
pub(super) fn run(
    work: &mut Work<'_>,
    shard: Shard,
    target: &ArtifactRef,
    weights: &ArtifactRef,
) -> Result<EvaluateOutput> {
    let target = work.target(target)?;
    let (original, storage) = (work.original()?, work.storage.clone());
    let copy = work.models.trained(&original, &weights.sha256, || storage.tensors(weights))?;
    let evaluator = Evaluator::new(work, &target, copy)?;
    if shard.is_first() {
        work.speaker.begin();
    }
    let batch = format!("a batch of {} images (evaluate.batch)", work.spec.evaluate.batch);
    let measures = evaluator.compare(work, shard).map_err(|error| error.too_large(&batch, SMALLER))?;
    let moments = work.storage.put(&work.shard_path(shard.index), measures.to_bytes()?)?;
    let count = |scores: &[f64]| {
        evaluator.line.cut().map(|cut| scores.iter().filter(|score| cut.is_positive(**score)).count() as u64)
    };
    let (before, after) = (count(&measures.before), count(&measures.after));
    Ok(EvaluateOutput { samples: shard.range.count, before, after, moments })
}

/// Everything that looks.
#[derive(Debug)]
pub(super) struct Evaluator {
    original: Rc<Original>,
    editor: Editor,
    copy: Rc<Generator>,
    judge: Rc<Labeller>,
    features: Option<Rc<Features>>,
    /// By which the judge says that the feature is there.
    line: PositiveRule,
}

impl Evaluator {
    /// Those of a job, for this copy.
    ///
    /// # Errors
    /// Those of the models.
    pub(super) fn new(work: &mut Work<'_>, target: &Target, copy: Rc<Generator>) -> Result<Self> {
        let (judge, line) = verdict::judge(&work.spec, target.cut)?;
        Ok(Self {
            editor: editor(&work.spec, target, &work.inputs, work.models, work.device)?,
            copy,
            judge: work.labeller(&judge)?,
            features: work.features()?,
            line,
            original: work.original()?,
        })
    }

    /// What measures of pairs need.
    ///
    /// # Errors
    /// Those of the models.
    pub(super) fn tools(&self, work: &mut Work<'_>) -> Result<Tools> {
        Tools::new(work.spec.generator.output.shape(), work.classes()?, work.device)
    }

    fn compare(&self, work: &mut Work<'_>, shard: Shard) -> Result<Measures> {
        let (tools, range) = (self.tools(work)?, shard.range);
        let mut measures = Measures::new(range.start);
        for part in range.in_steps_of(work.spec.evaluate.batch) {
            shard.step(work, part.start - range.start)?;
            self.look(work, &tools, part, &mut measures)?;
        }
        Ok(measures)
    }

    /// Adds what is seen on a batch of latents.
    ///
    /// # Errors
    /// Those of the models.
    pub(super) fn look(
        &self,
        work: &Work<'_>,
        tools: &Tools,
        part: SampleRange,
        measures: &mut Measures,
    ) -> Result<()> {
        let (latents, original) = (work.latents(), &self.original.generator);
        let z = latents.batch(Stream::Evaluate, part.start, part.count, work.device)?;
        let edited = self.editor.edit(original, &z)?;
        let (before, after) = (original.forward(&z)?, self.copy.forward(&z)?);
        for (row, images) in range::ROWS.into_iter().zip([&before, &after]) {
            measures.rows.entry(row.to_owned()).or_default().extend(numbers(&original.strays(images)?)?);
        }
        let (before, after) = (original.to_unit(&before)?, self.copy.to_unit(&after)?);
        let scores = self.judge.scores(&before)?;
        let (ideal, moved) = (&edited.images, edited.images.f_index_select(0, &edited.places)?);
        for (row, values) in self.trace(&edited, &moved, &scores)? {
            measures.rows.entry(row.to_owned()).or_default().extend(values);
        }
        if let Some(changed) = CLASS_CHANGED.of(tools, &before, ideal)? {
            measures.rows.entry(ideal::CLASS_CHANGED.to_owned()).or_default().extend(numbers(&changed)?);
        }
        measures.before.extend(&scores);
        measures.after.extend(self.judge.scores(&after)?);
        for pair in &PAIRS {
            if let Some(values) = pair.of(tools, &before, &after)? {
                measures.rows.entry(pair.name.to_owned()).or_default().extend(numbers(&values)?);
            }
        }
        let Some(features) = &self.features else { return Ok(()) };
        let z = latents.batch(Stream::Noise, part.start, part.count, work.device)?;
        let noise = original.to_unit(&original.forward(&z)?)?;
        let noise_scores = self.judge.scores(&noise)?;
        let [before, after, noise] = [before, after, noise].map(|images| features.of(&images));
        let (before, after, noise) = (before?, after?, noise?);
        let ideal = match edited.count() {
            0 => before.shallow_clone(),
            _ => before.f_index_copy(0, &edited.places, &features.of(&moved)?)?,
        };
        let space = match &mut measures.space {
            Some(space) => space,
            none => none.insert(Space::new(before.size()[1], self.line.cut().is_some())?),
        };
        space.before.add(&before)?;
        space.after.add(&after)?;
        space.ideal.add(&ideal)?;
        space.noise.add(&noise)?;
        space.free.add(&noise_scores, &noise, self.line.cut())?;
        space.rejection.add(&scores, &before, self.line.cut())?;
        self.replace(work, features, part, &scores, &mut space.rejection)
    }

    /// What the edit did to each latent, in rows; `moved` are the original's images of the latents to be edited, `scores` the judge's of the
    /// unedited images.
    fn trace(
        &self,
        edited: &Edited,
        moved: &Tensor,
        scores: &[f64],
    ) -> Result<[(&'static str, Vec<f64>); 3]> {
        let nothing = vec![0.0; scores.len()];
        let (mut selected, mut unresolved, mut reached) = (nothing.clone(), nothing, scores.to_vec());
        if edited.count() > 0 {
            let (places, failed) = (numbers(&edited.places)?, numbers(&edited.unresolved)?);
            for ((place, failed), score) in places.into_iter().zip(failed).zip(self.judge.scores(moved)?) {
                let place = place as usize;
                (selected[place], unresolved[place], reached[place]) = (1.0, failed, score);
            }
        }
        Ok([
            (remaining::SELECTED, selected),
            (remaining::UNRESOLVED, unresolved),
            (remaining::EDITED, reached),
        ])
    }

    /// Adds images of the original in place of those of `part` that show the feature: latent i gives way to i + N, i + 2N, ... of the N
    /// latents of the evaluation, so no two give way to the same one. While the judge's cut is not known, as many are drawn as
    /// the share that it will take.
    fn replace(
        &self,
        work: &Work<'_>,
        features: &Features,
        part: SampleRange,
        scores: &[f64],
        rejection: &mut Free,
    ) -> Result<()> {
        let original = &self.original.generator;
        let mut places: Vec<u64> = match self.line {
            PositiveRule::At(cut) => {
                let shows = (part.start..).zip(scores).filter(|(_, score)| cut.is_positive(**score));
                shows.map(|(place, _)| place).collect()
            }
            PositiveRule::Top(share) => {
                let wanted = (part.count as f64 * share / (1.0 - share)).ceil() as u64;
                (part.start..part.start + wanted.min(part.count)).collect()
            }
        };
        for _ in 0..REPLACED_AT_MOST {
            if places.is_empty() {
                break;
            }
            places.iter_mut().for_each(|place| *place += work.spec.evaluate.samples);
            let z = work.latents().gather(Stream::Evaluate, &places, work.device)?;
            let images = original.to_unit(&original.forward(&z)?)?;
            let (scores, cut) = (self.judge.scores(&images)?, self.line.cut());
            rejection.add(&scores, &features.of(&images)?, cut)?;
            let mut shows = scores.iter().map(|score| cut.is_some_and(|cut| cut.is_positive(*score)));
            places.retain(|_| shows.next() == Some(true));
        }
        Ok(())
    }
}

fn numbers(values: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(values.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_contiguous()?)?)
}
