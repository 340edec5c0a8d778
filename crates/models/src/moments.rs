//! Count, sum and sum of products of feature vectors: all that a Frechet distance needs, and mergeable.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::weights::Tensors;

/// Moments of a set of feature vectors, f64 on the cpu.
#[derive(Debug)]
pub struct Moments {
    count: u64,
    /// [D].
    sum: Tensor,
    /// Sum of x x^T, [D, D].
    products: Tensor,
}

impl Moments {
    /// Of no vectors yet.
    pub fn new(dimension: i64) -> Self {
        let options = (Kind::Double, Device::Cpu);
        Self {
            count: 0,
            sum: Tensor::zeros([dimension], options),
            products: Tensor::zeros([dimension, dimension], options),
        }
    }

    /// Vectors counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Length of a vector.
    pub fn dimension(&self) -> i64 {
        self.sum.size()[0]
    }

    /// Counts vectors [N, D].
    ///
    /// # Errors
    /// [`Error::Mismatch`] for vectors of another length, [`Error::Memory`].
    pub fn add(&mut self, vectors: &Tensor) -> Result<()> {
        self.same_dimension(*vectors.size().last().unwrap_or(&0))?;
        let vectors = vectors.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        self.count += vectors.size()[0] as u64;
        let _ = self.sum.f_add_(&vectors.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?)?;
        let _ = self.products.f_add_(&vectors.f_transpose(0, 1)?.f_matmul(&vectors)?)?;
        Ok(())
    }

    /// Counts the vectors with `keep` true only.
    ///
    /// # Errors
    /// As [`Moments::add`].
    pub fn add_where(&mut self, vectors: &Tensor, keep: &[bool]) -> Result<()> {
        let places: Vec<i64> = (0..).zip(keep).filter(|(_, keep)| **keep).map(|(place, _)| place).collect();
        if places.is_empty() {
            return Ok(());
        }
        let places = Tensor::f_from_slice(&places)?.f_to_device(vectors.device())?;
        self.add(&vectors.f_index_select(0, &places)?)
    }

    /// Counts everything `other` counted.
    ///
    /// # Errors
    /// As [`Moments::add`].
    pub fn merge(&mut self, other: &Moments) -> Result<()> {
        self.same_dimension(other.dimension())?;
        self.count += other.count;
        let _ = self.sum.f_add_(&other.sum)?;
        let _ = self.products.f_add_(&other.products)?;
        Ok(())
    }

    /// Mean `[D]` and unbiased covariance [D, D].
    ///
    /// # Errors
    /// [`Error::Mismatch`] for fewer than two vectors.
    pub fn gaussian(&self) -> Result<(Tensor, Tensor)> {
        if self.count < 2 {
            return Err(Error::Mismatch {
                model: "moments".to_owned(),
                reason: format!("{} images, a covariance needs at least 2", self.count),
            });
        }
        let count = self.count as f64;
        let mean = self.sum.f_div_scalar(count)?;
        let outer = mean.f_outer(&self.sum)?;
        let covariance = self.products.f_sub(&outer)?.f_div_scalar(count - 1.0)?;
        Ok((mean, covariance))
    }

    /// As named tensors, for [`Tensors::nest`].
    pub fn to_tensors(&self) -> Tensors {
        let mut tensors = Tensors::new("moments");
        tensors.insert("count", &Tensor::from(self.count as i64));
        tensors.insert("sum", &self.sum);
        tensors.insert("products", &self.products);
        tensors
    }

    /// What [`Moments::to_tensors`] gave.
    ///
    /// # Errors
    /// [`Error::Tensors`].
    pub fn from_tensors(tensors: &Tensors) -> Result<Self> {
        let dimension = tensors.get("sum")?.size().first().copied().unwrap_or(0);
        let sum = tensors.get_shaped("sum", &[dimension], Kind::Double)?.shallow_clone();
        let products = tensors.get_shaped("products", &[dimension, dimension], Kind::Double)?.shallow_clone();
        Ok(Self { count: tensors.get_f64("count")? as u64, sum, products })
    }

    fn same_dimension(&self, found: i64) -> Result<()> {
        if found == self.dimension() {
            return Ok(());
        }
        Err(Error::Mismatch {
            model: "features".to_owned(),
            reason: format!("vectors of length {found} among vectors of length {}", self.dimension()),
        })
    }
}
