//! What an evaluation shard measures, folded shard by shard into what the report needs.
//!
//! One number per latent where a number is all there is (scores, distances): what follows from them may depend on a cut that is known
//! only when all shards are there. Moments of feature vectors otherwise.

use std::collections::BTreeMap;

use lethe_models::{Error as ModelError, Moments, Tensors};
use tch::{Kind, Tensor};

use crate::error::{Error, Result};

/// Measurements on consecutive latents of the evaluation stream.
#[derive(Debug)]
pub(crate) struct Measures {
    /// Index of the first latent.
    pub(crate) start: u64,
    /// The judge's scores of the original's images.
    pub(crate) before: Vec<f64>,
    /// The judge's scores of the copy's images.
    pub(crate) after: Vec<f64>,
    /// What was measured on each pair of images, by name.
    pub(crate) rows: BTreeMap<String, Vec<f64>>,
    /// In the feature space, if there is one.
    pub(crate) space: Option<Space>,
}

/// Moments of feature vectors.
#[derive(Debug)]
pub(crate) struct Space {
    /// Of the original's images.
    pub(crate) before: Moments,
    /// Of the copy's.
    pub(crate) after: Moments,
    /// Of the original's images of other latents.
    pub(crate) noise: Moments,
    /// Of those of them that do not show the feature.
    pub(crate) free: Free,
}

/// Images without the feature.
#[derive(Debug)]
pub(crate) enum Free {
    /// Picked out already.
    Picked(Moments),
    /// Not yet, since the judge's cut is not known: scores, and vectors [N, D] f32 of all.
    Open(Vec<f64>, Tensor),
}

impl Measures {
    /// Of nothing yet, from this latent on.
    pub(crate) fn new(start: u64) -> Self {
        Self { start, before: Vec::new(), after: Vec::new(), rows: BTreeMap::new(), space: None }
    }

    /// What was measured on the pairs under this name, one value a latent.
    ///
    /// # Errors
    /// `INTERNAL` when nothing was.
    pub(crate) fn row(&self, name: &str) -> Result<&[f64]> {
        let row = self.rows.get(name).filter(|row| row.len() == self.before.len());
        let row = row.ok_or_else(|| Error::internal(format!("evaluation shards lack a row '{name}'")))?;
        Ok(row)
    }

    /// Adds those of the latents that follow.
    ///
    /// # Errors
    /// `INTERNAL` when they do not follow.
    pub(crate) fn append(&mut self, next: Measures) -> Result<()> {
        let expected = self.start + self.before.len() as u64;
        if next.start != expected {
            let reason = format!("measurements begin at latent {}, expected {expected}", next.start);
            return Err(Error::internal(reason));
        }
        self.before.extend(next.before);
        self.after.extend(next.after);
        for (name, values) in next.rows {
            self.rows.entry(name).or_default().extend(values);
        }
        match (&mut self.space, next.space) {
            (Some(space), Some(next)) => space.append(next),
            (None, None) => Ok(()),
            _ => Err(mixed()),
        }
    }

    /// As a file.
    ///
    /// # Errors
    /// Lack of memory.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut tensors = Tensors::new("measurements");
        tensors.insert_f64("start", self.start as f64);
        tensors.insert("before", &Tensor::f_from_slice(&self.before)?);
        tensors.insert("after", &Tensor::f_from_slice(&self.after)?);
        let mut rows = Tensors::new("rows");
        for (name, values) in &self.rows {
            rows.insert(name, &Tensor::f_from_slice(values)?);
        }
        tensors.nest("rows", rows);
        if let Some(space) = &self.space {
            tensors.nest("space.before", space.before.to_tensors());
            tensors.nest("space.after", space.after.to_tensors());
            tensors.nest("space.noise", space.noise.to_tensors());
            match &space.free {
                Free::Picked(moments) => tensors.nest("space.free", moments.to_tensors()),
                Free::Open(scores, vectors) => {
                    tensors.insert("space.scores", &Tensor::f_from_slice(scores)?);
                    tensors.insert("space.vectors", vectors);
                }
            }
        }
        Ok(tensors.to_bytes()?)
    }

    /// What [`Measures::to_bytes`] wrote.
    ///
    /// # Errors
    /// As [`Tensors::get`].
    pub(crate) fn from_tensors(tensors: &Tensors) -> Result<Self> {
        let values = |name: &str| -> Result<Vec<f64>> {
            Ok(Vec::try_from(tensors.get(name)?.f_to_kind(Kind::Double)?)?)
        };
        let space = tensors.nested("space");
        let space = if space.is_empty() {
            None
        } else {
            let moments = |name: &str| Moments::from_tensors(&space.nested(name));
            let free = match space.get("vectors") {
                Ok(vectors) => Free::Open(values("space.scores")?, vectors.shallow_clone()),
                Err(ModelError::Tensors { .. }) => Free::Picked(moments("free")?),
                Err(error) => return Err(error.into()),
            };
            let (before, after, noise) = (moments("before")?, moments("after")?, moments("noise")?);
            Some(Space { before, after, noise, free })
        };
        let row = |(name, _): (&str, &Tensor)| Ok((name.to_owned(), values(&format!("rows.{name}"))?));
        let rows = tensors.nested("rows").iter().map(row).collect::<Result<_>>()?;
        Ok(Self {
            start: tensors.get_f64("start")? as u64,
            before: values("before")?,
            after: values("after")?,
            rows,
            space,
        })
    }
}

impl Space {
    /// Of no images yet, for vectors of this length; `picked` when the judge's cut is known.
    pub(crate) fn new(dimension: i64, picked: bool) -> Result<Self> {
        let none = || Moments::new(dimension);
        let free = if picked {
            Free::Picked(none())
        } else {
            Free::Open(Vec::new(), Tensor::f_zeros([0, dimension], (Kind::Float, tch::Device::Cpu))?)
        };
        Ok(Self { before: none(), after: none(), noise: none(), free })
    }

    fn append(&mut self, next: Space) -> Result<()> {
        self.before.merge(&next.before)?;
        self.after.merge(&next.after)?;
        self.noise.merge(&next.noise)?;
        match (&mut self.free, next.free) {
            (Free::Picked(moments), Free::Picked(next)) => Ok(moments.merge(&next)?),
            (Free::Open(scores, vectors), Free::Open(next_scores, next)) => {
                scores.extend(next_scores);
                *vectors = Tensor::f_cat(&[&*vectors, &next], 0)?;
                Ok(())
            }
            _ => Err(mixed()),
        }
    }
}

fn mixed() -> Error {
    Error::internal("evaluation shards of one job measured different things")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(start: u64, picked: bool) -> Measures {
        let mut measures = Measures::new(start);
        let values: Vec<f64> = (start..start + 3).map(|index| index as f64 / 7.0).collect();
        measures.before = values.clone();
        measures.after = values.iter().map(|value| -value).collect();
        measures.rows.insert("l1".to_owned(), values.clone());
        let vectors = Tensor::from_slice(&values).view([3, 1]).to_kind(Kind::Float).repeat([1, 2]);
        let mut space = Space::new(2, picked).unwrap();
        space.before.add(&vectors).unwrap();
        space.after.add(&vectors).unwrap();
        space.noise.add(&vectors).unwrap();
        match &mut space.free {
            Free::Picked(moments) => moments.add(&vectors).unwrap(),
            Free::Open(scores, all) => {
                scores.extend(&values);
                *all = vectors;
            }
        }
        measures.space = Some(space);
        measures
    }

    #[test]
    fn shards_come_back_from_their_files_and_add_up() {
        for picked in [true, false] {
            let mut total = Measures::new(0);
            total.space = Some(Space::new(2, picked).unwrap());
            for start in [0, 3] {
                let bytes = shard(start, picked).to_bytes().unwrap();
                let tensors = Tensors::from_bytes(&bytes, "shard").unwrap();
                total.append(Measures::from_tensors(&tensors).unwrap()).unwrap();
            }
            let expected: Vec<f64> = (0..6).map(|index| f64::from(index) / 7.0).collect();
            assert_eq!((total.before.as_slice(), total.row("l1").unwrap()), (&expected[..], &expected[..]));
            assert!(total.row("l2").is_err());
            assert_eq!(total.after[5], -expected[5]);
            let space = total.space.unwrap();
            assert_eq!(space.noise.count(), 6);
            match space.free {
                Free::Picked(moments) => assert_eq!(moments.count(), 6),
                Free::Open(scores, vectors) => assert_eq!((scores, vectors.size()), (expected, vec![6, 2])),
            }
        }
    }

    #[test]
    fn a_gap_between_shards_is_noticed() {
        let mut total = shard(0, true);
        let error = total.append(shard(4, true)).unwrap_err();
        assert!(error.to_string().contains("begin at latent 4, expected 3"), "{error}");
    }
}
