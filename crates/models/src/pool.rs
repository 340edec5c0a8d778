//! The pool: the latents that training passes over, each labelled and edited once, and how a step draws its batch from it.
//!
//! What a step draws is a function of seed, step and place: it does not matter which rank asks. A larger part of a batch comes from where
//! the feature is or nearly is, which is where the copy has to learn something; weights make up for it, so that the expected loss is that of
//! latents drawn evenly. Not here: making an edit (`edit`), who makes which shard (worker/executor).

use std::ops::Range;
use std::rc::Rc;

use lethe_domain::{Cut, EditSummary};
use rand_chacha::rand_core::Rng;
use tch::{Device, Kind, Tensor};

use crate::direction::quantile;
use crate::edit::Edited;
use crate::error::{Error, Result};
use crate::latents::{Latents, Stream, below, sent};
use crate::weights::Tensors;

/// Of the latents that stay as they are, those above this quantile of their scores are near it.
const BORDER: f64 = 0.9;

/// Some latents in a row, labelled and edited.
#[derive(Debug)]
pub struct PoolShard {
    /// Index of the first in [`Stream::Train`].
    start: u64,
    /// How much each shows the feature, by the labeller (or along the direction): higher is more.
    scores: Vec<f64>,
    /// Which were to be edited, counted from the first.
    places: Vec<i64>,
    /// The edited latents, one after the other.
    edits: Vec<f32>,
    /// Which of them no edit takes the feature from.
    unresolved: Vec<bool>,
    /// How far each was moved, in standard deviations of an entry.
    steps: Vec<f64>,
    /// What the copy should show for each latent, f16 [N, C, H, W] in [0, 1], in the batches they were made in; none where the original is to
    /// be asked again.
    targets: Option<Vec<Tensor>>,
}

impl PoolShard {
    /// None yet; the first will be latent `start`. It keeps the images of edited latents if `with_targets`.
    pub fn new(start: u64, with_targets: bool) -> Self {
        let (scores, places, edits, unresolved, steps) = Default::default();
        Self { start, scores, places, edits, unresolved, steps, targets: with_targets.then(Vec::new) }
    }

    /// Adds the next latents `z`, [N, ...latent], and what became of them; `deviation` is that of an entry.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn add(&mut self, z: &Tensor, edited: &Edited, deviation: f64) -> Result<()> {
        let moved = edited.latents.f_index_select(0, &edited.places)?;
        let way =
            moved.f_sub(&z.f_index_select(0, &edited.places)?)?.f_to_kind(Kind::Double)?.f_flatten(1, -1)?;
        let lengths = way.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?.f_sqrt()?;
        let before = self.scores.len() as i64;
        let places = Vec::<i64>::try_from(host(&edited.places)?)?;
        self.scores.extend(Vec::<f64>::try_from(host(&edited.scores)?)?);
        self.places.extend(places.into_iter().map(|place| before + place));
        self.edits.extend(Vec::<f32>::try_from(host(&moved)?.f_flatten(0, -1)?)?);
        self.unresolved.extend(Vec::<bool>::try_from(host(&edited.unresolved)?)?);
        self.steps.extend(Vec::<f64>::try_from(host(&lengths.f_div_scalar(deviation)?)?)?);
        if let Some(targets) = &mut self.targets {
            targets.push(host(&edited.images.f_to_kind(Kind::Half)?)?);
        }
        Ok(())
    }

    /// As a safetensors file; `latents` are those it was made of.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn to_bytes(&self, latents: &Latents) -> Result<Vec<u8>> {
        let mut tensors = Tensors::new("edits");
        tensors.insert_f64("start", self.start as f64);
        tensors.insert("scores", &Tensor::f_from_slice(&self.scores)?);
        tensors.insert("places", &Tensor::f_from_slice(&self.places)?);
        let shape: Vec<i64> = [self.places.len() as i64].iter().chain(latents.shape()).copied().collect();
        tensors.insert("edits", &Tensor::f_from_slice(&self.edits)?.f_reshape(shape)?);
        tensors.insert("unresolved", &Tensor::f_from_slice(&self.unresolved)?);
        tensors.insert("steps", &Tensor::f_from_slice(&self.steps)?);
        if let Some(targets) = self.targets.as_ref().filter(|targets| !targets.is_empty()) {
            tensors.insert("targets", &Tensor::f_cat(targets, 0)?);
        }
        tensors.to_bytes()
    }

    /// What [`PoolShard::to_bytes`] wrote. `file` is named in errors.
    ///
    /// # Errors
    /// [`Error::Unreadable`]; [`Error::Tensors`] when parts are missing or do not fit together.
    pub fn from_bytes(bytes: &[u8], file: &str, latents: &Latents) -> Result<Self> {
        let tensors = Tensors::from_bytes(bytes, file)?;
        let refuse = |reason: &str| Error::Tensors { file: file.to_owned(), reason: reason.to_owned() };
        let of = |name, kind| Ok::<_, Error>(tensors.get(name)?.f_to_kind(kind)?.f_flatten(0, -1)?);
        let shard = Self {
            start: tensors.get_f64("start")? as u64,
            scores: Vec::try_from(of("scores", Kind::Double)?)?,
            places: Vec::try_from(of("places", Kind::Int64)?)?,
            edits: Vec::try_from(of("edits", Kind::Float)?)?,
            unresolved: Vec::try_from(of("unresolved", Kind::Bool)?)?,
            steps: Vec::try_from(of("steps", Kind::Double)?)?,
            targets: tensors.find("targets").map(|targets| vec![targets.shallow_clone()]),
        };
        let (count, edited) = (shard.scores.len(), shard.places.len());
        if !shard.places.is_sorted() || shard.places.iter().any(|place| !(0..count as i64).contains(place)) {
            return Err(refuse("its places are not those of its scores"));
        }
        if [shard.unresolved.len(), shard.steps.len()] != [edited; 2]
            || shard.edits.len() != edited * latents.numel()
        {
            return Err(refuse("it has not one edit for each place"));
        }
        if shard
            .targets
            .iter()
            .flatten()
            .any(|targets| targets.dim() != 4 || targets.size()[0] != count as i64)
        {
            return Err(refuse("it has not one target for each score"));
        }
        Ok(shard)
    }
}

fn host(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.f_to_device(Device::Cpu)?.f_contiguous()?)
}

/// Whether a latent of the pool is kept from trials of settings, to measure them on: every third.
fn is_held_out(index: u64) -> bool {
    index % 3 == 2
}

/// Whether a latent of the pool is kept from all training, to find on it how strong the copy has to be: every ninth, which no trial
/// has seen either.
fn is_kept(index: u64) -> bool {
    index % 9 == 8
}

/// Latents that a trial was not trained on: indices in [`Stream::Train`], ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOut {
    /// Those that the labeller calls positive, and that were edited.
    pub positive: Vec<u64>,
    /// Those that were not edited.
    pub unedited: Vec<u64>,
}

/// All shards of a job.
#[derive(Debug)]
pub struct Pool {
    latents: Latents,
    /// Latents that can be drawn, those near the feature first; an edit that failed has no image to teach.
    order: Vec<u64>,
    /// Those that are never drawn, and whose edit succeeded, in order.
    kept: Vec<u64>,
    /// Those that are never drawn, and not edited, in order.
    spared: Vec<u64>,
    /// How many of them are near it.
    near: usize,
    /// Share of a batch that is drawn from these, or more where more are near.
    near_share: f64,
    /// For each latent, its place among the edits if it is edited.
    rows: Rc<Vec<Option<usize>>>,
    /// The edited latents, one after the other.
    edits: Rc<Vec<f32>>,
    /// How much each latent shows the feature.
    scores: Rc<Vec<f64>>,
    /// What the copy should show for each latent, f16 [N, C, H, W]; none when a shard came without.
    targets: Option<Tensor>,
    summary: EditSummary,
}

/// Some places of a step's batch.
#[derive(Debug)]
pub struct Drawn {
    /// [N, ...latent].
    pub z: Tensor,
    /// The same, edited where they are to be: the original's images of these are what the copy should give.
    pub edited: Tensor,
    /// These images, f32 [N, C, H, W] in [0, 1], where the pool holds them; to three digits, as it holds them.
    pub targets: Option<Tensor>,
    /// Where that is, int64 `[P]`, in order.
    pub places: Tensor,
    /// What each counts, f32 `[N]`.
    pub weights: Tensor,
}

impl Pool {
    /// Of all its shards, in order. `near_share` of a batch is drawn near the feature, or more where more are.
    ///
    /// # Errors
    /// [`Error::Tensors`] when they do not follow one another, or when nothing is left to be drawn.
    pub fn new(latents: Latents, shards: Vec<PoolShard>, near_share: f64) -> Result<Self> {
        let refuse = |reason: String| Error::Tensors { file: "the pool of edits".to_owned(), reason };
        let (mut scores, mut rows, mut edits, mut steps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut failed, mut targets) = (vec![], Some(vec![]));
        for shard in shards {
            let first = rows.len();
            if shard.start != first as u64 {
                return Err(refuse(format!("a shard begins at latent {}, expected {first}", shard.start)));
            }
            rows.resize(first + shard.scores.len(), None);
            for ((place, unresolved), row) in shard.places.iter().zip(&shard.unresolved).zip(steps.len()..) {
                rows[first + *place as usize] = Some(row);
                failed.push(*unresolved);
            }
            scores.extend(shard.scores);
            edits.extend(shard.edits);
            steps.extend(shard.steps);
            targets = targets.zip(shard.targets).map(|(mut before, next)| {
                before.extend(next);
                before
            });
        }
        let targets = targets.filter(|targets| !targets.is_empty());
        let targets = targets.map(|targets| Tensor::f_cat(&targets, 0)).transpose()?;
        let stays = |index: &usize| rows[*index].is_none();
        let border = quantile((0..rows.len()).filter(stays).map(|index| scores[index]).collect(), BORDER);
        let is_near = |index: &usize| !stays(index) || scores[*index] > border;
        let sound = (0..rows.len()).filter(|index| rows[*index].is_none_or(|row| !failed[row]));
        let (kept, drawn): (Vec<usize>, Vec<usize>) = sound.partition(|index| is_kept(*index as u64));
        let (near, far): (Vec<usize>, Vec<usize>) = drawn.into_iter().partition(is_near);
        if near.is_empty() && far.is_empty() {
            return Err(refuse("no latent is left to train on".to_owned()));
        }
        let order = near.iter().chain(&far).map(|index| *index as u64).collect();
        let (kept, spared): (Vec<usize>, Vec<usize>) =
            kept.into_iter().partition(|index| rows[*index].is_some());
        let indices = |places: Vec<usize>| places.into_iter().map(|index| index as u64).collect();
        let (kept, spared) = (indices(kept), indices(spared));
        let made = steps.into_iter().zip(&failed).filter_map(|(step, failed)| (!failed).then_some(step));
        let made: Vec<f64> = made.collect();
        let summary = EditSummary {
            tried: failed.len() as u64,
            unresolved: (failed.len() - made.len()) as u64,
            median_step: quantile(made.clone(), 0.5),
            p99_step: quantile(made, 0.99),
        };
        let (rows, edits, scores) = (Rc::new(rows), Rc::new(edits), Rc::new(scores));
        Ok(Self {
            latents,
            order,
            kept,
            spared,
            near: near.len(),
            near_share,
            rows,
            edits,
            scores,
            targets,
            summary,
        })
    }

    /// The latents that a trial is trained on: two thirds of them.
    ///
    /// # Errors
    /// [`Error::Tensors`] when that is none.
    pub fn to_train_on(&self) -> Result<Self> {
        let (near, far) = self.order.split_at(self.near);
        let kept =
            |part: &[u64]| part.iter().copied().filter(|index| !is_held_out(*index)).collect::<Vec<_>>();
        let (near, far) = (kept(near), kept(far));
        if near.is_empty() && far.is_empty() {
            let reason = "no latent is left to try settings on: raise pool.latents".to_owned();
            return Err(Error::Tensors { file: "the pool of edits".to_owned(), reason });
        }
        Ok(Self {
            latents: self.latents.clone(),
            near: near.len(),
            order: [near, far].concat(),
            kept: self.kept.clone(),
            spared: self.spared.clone(),
            near_share: self.near_share,
            rows: Rc::clone(&self.rows),
            edits: Rc::clone(&self.edits),
            scores: Rc::clone(&self.scores),
            targets: self.targets.as_ref().map(Tensor::shallow_clone),
            summary: self.summary,
        })
    }

    /// At most so many of the others, the first ones; edits that failed are none of them.
    pub fn held_out(&self, most: usize, cut: Cut) -> HeldOut {
        let mut indices: Vec<u64> = self.order.iter().copied().filter(|index| is_held_out(*index)).collect();
        indices.sort_unstable();
        indices.truncate(most);
        let (edited, unedited): (Vec<u64>, Vec<u64>) =
            indices.into_iter().partition(|index| self.rows[*index as usize].is_some());
        HeldOut { positive: self.positive(edited, cut), unedited }
    }

    /// At most so many of those that nothing is trained on, the first ones that the labeller calls positive and that were edited.
    pub fn kept(&self, most: usize, cut: Cut) -> Vec<u64> {
        let mut kept = self.positive(self.kept.clone(), cut);
        kept.truncate(most);
        kept
    }

    /// At most so many of those that nothing is trained on, the first ones that were not edited.
    pub fn spared(&self, most: usize) -> &[u64] {
        &self.spared[..most.min(self.spared.len())]
    }

    fn positive(&self, mut indices: Vec<u64>, cut: Cut) -> Vec<u64> {
        let bar = cut.sign * cut.threshold;
        indices.retain(|index| self.scores[*index as usize] > bar);
        indices
    }

    /// What became of the edits.
    pub fn summary(&self) -> EditSummary {
        self.summary
    }

    /// Places `range` of the batch of `size` latents that a step takes, counted from 0.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn draw(&self, step: u64, size: u64, range: Range<u64>, device: Device) -> Result<Drawn> {
        let strata = self.strata(size);
        let mut random = self.latents.random(Stream::Draw, step);
        let (mut indices, mut weights) = (Vec::new(), Vec::new());
        for place in 0..size {
            let stratum = &strata[usize::from(!is_near(place, size, strata[0].places))];
            let chosen = below(random.next_u64(), stratum.from.len());
            if range.contains(&place) {
                indices.push(self.order[stratum.from.start + chosen]);
                weights.push(stratum.weight);
            }
        }
        let numel = self.latents.numel();
        let z = self.latents.rows(Stream::Train, indices.iter().copied());
        let (mut edited, mut places) = (z.clone(), Vec::new());
        for (place, index) in indices.iter().enumerate() {
            if let Some(row) = self.rows[*index as usize] {
                edited[place * numel..][..numel].copy_from_slice(&self.edits[row * numel..][..numel]);
                places.push(place as i64);
            }
        }
        let shown = |targets: &Tensor| {
            let rows: Vec<i64> = indices.iter().map(|index| *index as i64).collect();
            let held = sent(&targets.f_index_select(0, &Tensor::f_from_slice(&rows)?)?, device)?;
            Ok::<_, Error>(held.f_to_kind(Kind::Float)?)
        };
        Ok(Drawn {
            targets: self.targets.as_ref().map(shown).transpose()?,
            z: self.latents.tensor(&z, device)?,
            edited: self.latents.tensor(&edited, device)?,
            places: sent(&Tensor::f_from_slice(&places)?, device)?,
            weights: sent(&Tensor::f_from_slice(&weights)?, device)?,
        })
    }

    /// What is near the feature and what is not, and how a batch of `size` is shared out between them.
    fn strata(&self, size: u64) -> [Stratum; 2] {
        let all = self.order.len();
        let share = self.near_share.max(self.near as f64 / all as f64);
        let places = match (size as f64 * share).round() as u64 {
            _ if self.near == 0 || self.near_share == 0.0 => 0,
            _ if self.near == all => size,
            // Too few places for both: drawn from all alike, as if all were far.
            places if places == 0 || places == size => 0,
            places => places,
        };
        let from = if places == 0 { [0..0, 0..all] } else { [0..self.near, self.near..all] };
        let weight = |count: usize, places: u64| {
            let (share, drawn) = (count as f64 / all as f64, places as f64 / size as f64);
            if places == 0 { 0.0 } else { (share / drawn) as f32 }
        };
        let [near, far] = from;
        [
            Stratum { weight: weight(near.len(), places), from: near, places },
            Stratum { weight: weight(far.len(), size - places), from: far, places: size - places },
        ]
    }
}

/// Latents that are drawn alike.
#[derive(Debug)]
struct Stratum {
    /// Where they are in the order.
    from: Range<usize>,
    /// Places of a batch that are theirs.
    places: u64,
    /// What one of them counts.
    weight: f32,
}

/// Whether a place of a batch is one of the `near` that are drawn near the feature: spread evenly, so that no part has more of
/// them than another.
fn is_near(place: u64, size: u64, near: u64) -> bool {
    (place + 1) * near / size > place * near / size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_near_the_feature_are_spread_evenly() {
        for (size, near) in [(128, 64), (25, 13), (7, 0), (6, 6), (24, 5)] {
            let chosen: Vec<bool> = (0..size).map(|place| is_near(place, size, near)).collect();
            let count = |places: &[bool]| places.iter().filter(|near| **near).count() as u64;
            assert_eq!(count(&chosen), near);
            let (first, second) = chosen.split_at(size as usize / 2);
            assert!(count(first).abs_diff(count(second)) <= 1 + size % 2, "{chosen:?}");
        }
    }
}
