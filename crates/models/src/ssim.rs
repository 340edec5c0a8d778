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
    /// Pixels in the window, and their weights.
    window: (i64, Tensor),
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
        Ok(Self {
            weights: WEIGHTS[..scales].iter().map(|weight| weight / total).collect(),
            window: (window, gaussian(window)?.f_to_device(device)?),
        })
    }

    /// Number of scales.
    pub fn scales(&self) -> usize {
        self.weights.len()
    }

    /// MS-SSIM of each pair of images, [N, C, H, W] in [0, 1] to [N]; 1 = identical. With one scale it is SSIM.
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
            let measure = self.compare(&one, &other, last)?;
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
        mean(&self.compare(one, other, true)?, &[1])
    }

    /// Mean over pixels of contrast times structure, and of luminance too when `whole`; [N, C].
    fn compare(&self, one: &Tensor, other: &Tensor, whole: bool) -> Result<Tensor> {
        // Only the sum of the two variances is needed, so four averages do.
        let squares = one.f_square()?.f_add(&other.f_square()?)?;
        let averages = self.average(&[one, other, &squares, &one.f_mul(other)?])?;
        let [mean1, mean2, squares, cross] = [0, 1, 2, 3].map(|place| averages.f_select(0, place));
        let (mean1, mean2) = (mean1?, mean2?);
        let both = mean1.f_mul(&mean2)?;
        let means = mean1.f_square()?.f_add(&mean2.f_square()?)?;
        let ratio = |product: &Tensor, sum: &Tensor, constant: f64| {
            product.f_mul_scalar(2.0)?.f_add_scalar(constant)?.f_div(&sum.f_add_scalar(constant)?)
        };
        let mut map = ratio(&cross?.f_sub(&both)?, &squares?.f_sub(&means)?, C2)?;
        if whole {
            map = map.f_mul(&ratio(&both, &means, C1)?)?;
        }
        mean(&map, &[2, 3])
    }

    /// The window's average around each pixel; maps [N, C, H, W] to [maps, N, C, H', W'].
    ///
    /// All maps are channels of one image, each filtered by itself, rows first: far the fastest way on a cpu.
    fn average(&self, maps: &[&Tensor]) -> Result<Tensor> {
        let size = maps[0].size();
        let channels = maps.len() as i64 * size[0] * size[1];
        let (length, weights) = (self.window.0, &self.window.1);
        let stacked = Tensor::f_stack(maps, 0)?.f_view([1, channels, size[2], size[3]])?;
        let along = |shape: [i64; 2]| {
            weights.f_view([1, 1, shape[0], shape[1]])?.f_expand([channels, 1, shape[0], shape[1]], false)
        };
        let none = None::<&Tensor>;
        let filter = |x: &Tensor, kernel: &Tensor| x.f_conv2d(kernel, none, [1, 1], [0, 0], [1, 1], channels);
        let filtered = filter(&filter(&stacked, &along([1, length])?)?, &along([length, 1])?)?;
        let (height, width) = (size[2] - length + 1, size[3] - length + 1);
        Ok(filtered.f_view([maps.len() as i64, size[0], size[1], height, width])?)
    }
}

/// Weights of the window along one axis, [window].
fn gaussian(window: i64) -> Result<Tensor> {
    let half = (window / 2) as f64;
    let weights: Vec<f64> =
        (0..window).map(|place| (-(place as f64 - half).powi(2) / (2.0 * SIGMA * SIGMA)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let weights: Vec<f32> = weights.iter().map(|weight| (weight / total) as f32).collect();
    Ok(Tensor::f_from_slice(&weights)?)
}

/// Averages squares of 2x2 pixels; an odd last row or column is dropped.
fn halve(images: &Tensor) -> Result<Tensor> {
    Ok(images.f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)?)
}

fn mean(tensor: &Tensor, dims: &[i64]) -> Result<Tensor> {
    Ok(tensor.f_mean_dim(dims, false, Kind::Float)?)
}
