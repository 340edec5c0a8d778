//! SSIM (Wang et al. 2004) and MS-SSIM (Wang, Simoncelli and Bovik 2003) of images in [0, 1], with gradients.
//!
//! Gaussian window of 11 pixels, sigma 1.5, no padding; K1 = 0.01, K2 = 0.03; 2x2 averaging between scales. The paper's five scales
//! need 161 pixels. Smaller images use the rule that follows, so that a size always means the same measure:
//! - as many of the five scales, from the finest, as keep the shorter side at 11 pixels or more, and at least one: 28 pixels
//!   have 2, 64 have 3, 128 have 4;
//! - the weights of those scales, divided by their sum;
//! - below 11 pixels a window of the largest odd number of pixels that fits, with the same sigma.

use tch::{Device, Kind, Tensor};

use crate::error::Result;

const WINDOW: i64 = 11;
const SIGMA: f64 = 1.5;
const WEIGHTS: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];
const C1: f64 = 0.01 * 0.01;
const C2: f64 = 0.03 * 0.03;
/// A power with an exponent below one has an infinite slope at zero, and none below it.
const LEAST: f64 = 1e-4;

/// The measure for images of one size.
#[derive(Debug)]
pub struct Similarity {
    weights: Vec<f64>,
    /// Per scale: filters for columns and for rows.
    filters: Vec<Filters>,
}

/// Windows along one axis as a matrix, so that filtering is a matrix product: on a cpu several times as fast as a convolution
/// of a single channel.
#[derive(Debug)]
struct Filters {
    /// [H', H].
    rows: Tensor,
    /// [W, W'].
    columns: Tensor,
}

impl Similarity {
    /// For images of this size, on this device.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn new(height: i64, width: i64, device: Device) -> Result<Self> {
        let side = height.min(width);
        let scales = (1..WEIGHTS.len()).take_while(|scale| side >> scale >= WINDOW).count() + 1;
        let total: f64 = WEIGHTS[..scales].iter().sum();
        let window = WINDOW.min(if side % 2 == 0 { side - 1 } else { side });
        let filters = (0..scales)
            .map(|scale| {
                let rows = band(height >> scale, window)?.f_to_device(device)?;
                let columns = band(width >> scale, window)?.f_transpose(0, 1)?.f_to_device(device)?;
                Ok(Filters { rows, columns })
            })
            .collect::<Result<_>>()?;
        Ok(Self { weights: WEIGHTS[..scales].iter().map(|weight| weight / total).collect(), filters })
    }

    /// Number of scales.
    pub fn scales(&self) -> usize {
        self.weights.len()
    }

    /// MS-SSIM of each pair of images, [N, C, H, W] in [0, 1] to `[N]`; 1 = identical. With one scale it is SSIM.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn ms_ssim(&self, one: &Tensor, other: &Tensor) -> Result<Tensor> {
        if self.scales() == 1 {
            return self.ssim(one, other);
        }
        let (mut one, mut other) = (one.shallow_clone(), other.shallow_clone());
        let mut product: Option<Tensor> = None;
        for (scale, weight) in self.weights.iter().enumerate() {
            if scale > 0 {
                one = halve(&one)?;
                other = halve(&other)?;
            }
            let last = scale + 1 == self.scales();
            // [N, C]: each channel has a product of its own, as in the common implementations.
            let measure = self.filters[scale].compare(&one, &other, last)?;
            let factor = measure.f_clamp_min(LEAST)?.f_pow_tensor_scalar(*weight)?;
            product = Some(match product {
                Some(product) => product.f_mul(&factor)?,
                None => factor,
            });
        }
        let product = product.unwrap_or_else(|| Tensor::from(1.0));
        mean(&product, &[1])
    }

    /// SSIM of each pair of images at full size.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn ssim(&self, one: &Tensor, other: &Tensor) -> Result<Tensor> {
        mean(&self.filters[0].compare(one, other, true)?, &[1])
    }
}

impl Filters {
    /// Mean over pixels of contrast times structure, and of luminance too when `whole`; [N, C].
    fn compare(&self, one: &Tensor, other: &Tensor, whole: bool) -> Result<Tensor> {
        // All five averages in one product.
        let stacked = Tensor::f_stack(
            &[
                one.shallow_clone(),
                other.shallow_clone(),
                one.f_square()?,
                other.f_square()?,
                one.f_mul(other)?,
            ],
            0,
        )?;
        let averages = self.rows.f_matmul(&stacked.f_matmul(&self.columns)?)?;
        let [mean1, mean2, square1, square2, cross] =
            [0, 1, 2, 3, 4].map(|place| averages.f_select(0, place));
        let (mean1, mean2) = (mean1?, mean2?);
        let both = mean1.f_mul(&mean2)?;
        let squares = mean1.f_square()?.f_add(&mean2.f_square()?)?;
        let covariance = cross?.f_sub(&both)?;
        let variances = square1?.f_add(&square2?)?.f_sub(&squares)?;
        let ratio = |product: &Tensor, sum: &Tensor, constant: f64| {
            product.f_mul_scalar(2.0)?.f_add_scalar(constant)?.f_div(&sum.f_add_scalar(constant)?)
        };
        let mut map = ratio(&covariance, &variances, C2)?;
        if whole {
            map = map.f_mul(&ratio(&both, &squares, C1)?)?;
        }
        mean(&map, &[2, 3])
    }
}

/// Row i holds the window's weights from column i on; [size - window + 1, size].
fn band(size: i64, window: i64) -> Result<Tensor> {
    let half = (window / 2) as f64;
    let weights: Vec<f64> =
        (0..window).map(|place| (-(place as f64 - half).powi(2) / (2.0 * SIGMA * SIGMA)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let (rows, size) = ((size - window + 1) as usize, size as usize);
    let mut matrix = vec![0.0; rows * size];
    for row in 0..rows {
        for (place, weight) in weights.iter().enumerate() {
            matrix[row * size + row + place] = (weight / total) as f32;
        }
    }
    Ok(Tensor::f_from_slice(&matrix)?.f_reshape([rows as i64, size as i64])?)
}

/// Averages squares of 2x2 pixels; an odd last row or column is dropped.
fn halve(images: &Tensor) -> Result<Tensor> {
    Ok(images.f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)?)
}

fn mean(tensor: &Tensor, dims: &[i64]) -> Result<Tensor> {
    Ok(tensor.f_mean_dim(dims, false, Kind::Float)?)
}
