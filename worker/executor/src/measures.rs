//! What an evaluation shard measures, folded shard by shard into what the report needs.
//!
//! One number per latent where a number is all there is (scores, distances): what follows from them may depend on a cut that is known
//! only when all shards are there. Moments of feature vectors otherwise.

use std::collections::BTreeMap;

use lethe_domain::Cut;
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
    /// Of the original's images of the edited latents.
    pub(crate) ideal: Moments,
    /// Of the original's images of other latents.
    pub(crate) noise: Moments,
    /// Of those of them that do not show the feature.
    pub(crate) free: Free,
    /// Of as many images of the original as the copy has, without the feature: what rejection gives.
    pub(crate) rejection: Free,
}

/// Images without the feature.
#[derive(Debug)]
pub(crate) enum Free {
    /// Picked out already.
    Picked(Moments),
    /// Not yet, since the judge's cut is not known: scores, and vectors [N, D] f32 of all.
    Open(Vec<f64>, Tensor),
}

impl Free {
    /// Of no images yet, for vectors of this length; `picked` when the judge's cut is known.
    fn new(dimension: i64, picked: bool) -> Result<Self> {
        Ok(if picked {
            Self::Picked(Moments::new(dimension))
        } else {
            Self::Open(Vec::new(), Tensor::f_zeros([0, dimension], (Kind::Float, tch::Device::Cpu))?)
        })
    }

    /// Looks at images with these scores and vectors [N, D]; `cut` as the others here were picked by.
    ///
    /// # Errors
    /// Lack of memory; `INTERNAL` without the cut that others were picked by.
    pub(crate) fn add(&mut self, scores: &[f64], vectors: &Tensor, cut: Option<Cut>) -> Result<()> {
        match (self, cut) {
            (Self::Picked(moments), Some(cut)) => Ok(moments.add_where(vectors, &absent(scores, cut))?),
            (Self::Open(all, kept), None) => {
                all.extend(scores);
                *kept = Tensor::f_cat(&[&*kept, &vectors.f_to_device(tch::Device::Cpu)?], 0)?;
                Ok(())
            }
            _ => Err(mixed()),
        }
    }

    /// Those without the feature.
    ///
    /// # Errors
    /// Lack of memory.
    pub(crate) fn picked(self, cut: Cut) -> Result<Moments> {
        match self {
            Self::Picked(moments) => Ok(moments),
            Self::Open(scores, vectors) => {
                let mut moments = Moments::new(vectors.size()[1]);
                moments.add_where(&vectors, &absent(&scores, cut))?;
                Ok(moments)
            }
        }
    }

    fn append(&mut self, next: Self) -> Result<()> {
        match (self, next) {
            (Self::Picked(moments), Self::Picked(next)) => Ok(moments.merge(&next)?),
            (Self::Open(scores, vectors), Self::Open(next_scores, next)) => {
                scores.extend(next_scores);
                *vectors = Tensor::f_cat(&[&*vectors, &next], 0)?;
                Ok(())
            }
            _ => Err(mixed()),
        }
    }

    fn to_tensors(&self) -> Result<Tensors> {
        let mut tensors = Tensors::new("images without the feature");
        match self {
            Self::Picked(moments) => tensors.nest("moments", moments.to_tensors()),
            Self::Open(scores, vectors) => {
                tensors.insert("scores", &Tensor::f_from_slice(scores)?);
                tensors.insert("vectors", vectors);
            }
        }
        Ok(tensors)
    }

    fn from_tensors(tensors: &Tensors) -> Result<Self> {
        match tensors.get("vectors") {
            Ok(vectors) => Ok(Self::Open(values(tensors, "scores")?, vectors.shallow_clone())),
            Err(ModelError::Tensors { .. }) => {
                Ok(Self::Picked(Moments::from_tensors(&tensors.nested("moments"))?))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn absent(scores: &[f64], cut: Cut) -> Vec<bool> {
    scores.iter().map(|score| !cut.is_positive(*score)).collect()
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
            tensors.nest("space.ideal", space.ideal.to_tensors());
            tensors.nest("space.noise", space.noise.to_tensors());
            tensors.nest("space.free", space.free.to_tensors()?);
            tensors.nest("space.rejection", space.rejection.to_tensors()?);
        }
        Ok(tensors.to_bytes()?)
    }

    /// What [`Measures::to_bytes`] wrote.
    ///
    /// # Errors
    /// As [`Tensors::get`].
    pub(crate) fn from_tensors(tensors: &Tensors) -> Result<Self> {
        let space = tensors.nested("space");
        let space = if space.is_empty() {
            None
        } else {
            let moments = |name: &str| Moments::from_tensors(&space.nested(name));
            let (before, after) = (moments("before")?, moments("after")?);
            let (ideal, noise) = (moments("ideal")?, moments("noise")?);
            let [free, rejection] = ["free", "rejection"].map(|name| Free::from_tensors(&space.nested(name)));
            Some(Space { before, after, ideal, noise, free: free?, rejection: rejection? })
        };
        let row =
            |(name, _): (&str, &Tensor)| Ok((name.to_owned(), values(tensors, &format!("rows.{name}"))?));
        let rows = tensors.nested("rows").iter().map(row).collect::<Result<_>>()?;
        Ok(Self {
            start: tensors.get_f64("start")? as u64,
            before: values(tensors, "before")?,
            after: values(tensors, "after")?,
            rows,
            space,
        })
    }
}

fn values(tensors: &Tensors, name: &str) -> Result<Vec<f64>> {
    Ok(Vec::try_from(tensors.get(name)?.f_to_kind(Kind::Double)?)?)
}

impl Space {
    /// Of no images yet, for vectors of this length; `picked` when the judge's cut is known.
    pub(crate) fn new(dimension: i64, picked: bool) -> Result<Self> {
        let (none, unseen) = (|| Moments::new(dimension), || Free::new(dimension, picked));
        let (free, rejection) = (unseen()?, unseen()?);
        Ok(Self { before: none(), after: none(), ideal: none(), noise: none(), free, rejection })
    }

    fn append(&mut self, next: Space) -> Result<()> {
        self.before.merge(&next.before)?;
        self.after.merge(&next.after)?;
        self.ideal.merge(&next.ideal)?;
        self.noise.merge(&next.noise)?;
        self.free.append(next.free)?;
        self.rejection.append(next.rejection)
    }
}

fn mixed() -> Error {
    Error::internal("evaluation shards of one job measured different things")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of six values lie above it.
    const CUT: Cut = Cut { sign: 1.0, threshold: 0.5 };

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
        space.ideal.add(&vectors).unwrap();
        space.noise.add(&vectors).unwrap();
        for free in [&mut space.free, &mut space.rejection] {
            free.add(&values, &vectors, picked.then_some(CUT)).unwrap();
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
            for free in [space.free, space.rejection] {
                assert_eq!(matches!(&free, Free::Picked(_)), picked);
                assert_eq!(free.picked(CUT).unwrap().count(), 4);
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
