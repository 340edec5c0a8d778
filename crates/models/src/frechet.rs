//! The Frechet distance between Gaussians fitted to two sets of feature vectors (Heusel et al. 2017).

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::moments::Moments;

/// |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2).
///
/// The trace of the root is the sum of the roots of the eigenvalues of C1^1/2 C2 C1^1/2, which is symmetric: exact for
/// singular covariances too (fewer images than dimensions), where a general matrix square root breaks down.
///
/// # Errors
/// [`Error::Mismatch`] for fewer than two vectors or different lengths; [`Error::NotFinite`]; [`Error::Memory`].
pub fn frechet_distance(one: &Moments, other: &Moments) -> Result<f64> {
    if one.dimension() != other.dimension() {
        return Err(Error::Mismatch {
            model: "features".to_owned(),
            reason: format!("vectors of length {} and of length {}", one.dimension(), other.dimension()),
        });
    }
    let ((mean1, cov1), (mean2, cov2)) = (one.gaussian()?, other.gaussian()?);
    for matrix in [&cov1, &cov2] {
        if !bool::try_from(matrix.f_isfinite()?.f_all()?)? {
            return Err(Error::NotFinite { what: "feature vectors have no finite covariance".to_owned() });
        }
    }
    let root = symmetric_root(&cov1)?;
    let product = root.f_matmul(&cov2)?.f_matmul(&root)?;
    let symmetric = product.f_add(&product.f_transpose(0, 1)?)?.f_mul_scalar(0.5)?;
    let eigenvalues = symmetric.f_linalg_eigvalsh("L")?;
    let cross = f64::try_from(eigenvalues.f_clamp_min(0.0)?.f_sqrt()?.f_sum(Kind::Double)?)?;
    let shift = f64::try_from(mean1.f_sub(&mean2)?.f_square()?.f_sum(Kind::Double)?)?;
    let spread = f64::try_from(cov1.f_trace()?)? + f64::try_from(cov2.f_trace()?)?;
    // Rounding can take the distance between equal sets a hair below zero.
    Ok((shift + spread - 2.0 * cross).max(0.0))
}

/// The positive square root of a symmetric matrix, negative eigenvalues (rounding) taken as zero.
fn symmetric_root(matrix: &Tensor) -> Result<Tensor> {
    let (values, vectors) = matrix.f_linalg_eigh("L")?;
    let roots = values.f_clamp_min(0.0)?.f_sqrt()?;
    Ok(vectors.f_mul(&roots)?.f_matmul(&vectors.f_transpose(0, 1)?)?)
}
