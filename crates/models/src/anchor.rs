//! What holds a copy near the original while it is trained: in every step each weight goes a small share of the way back.
//!
//! Adam moves a weight that nothing depends on as far as one that matters: without a hold such weights wander, and the images of latents that
//! nobody edited wander with them. It is weight decay towards the weights that training began with (L2-SP, Li, Grandvalet and Davoine 2018),
//! beside the gradient instead of in it (Loshchilov and Hutter 2019), so that Adam does not scale it.

use tch::Tensor;

use crate::error::Result;

/// Weights, and where they came from.
#[derive(Debug)]
pub struct Anchor {
    weights: Vec<Tensor>,
    origins: Vec<Tensor>,
}

impl Anchor {
    /// Of these weights, which somebody else changes; where they are now is where they are held.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn new(weights: &[(String, Tensor)]) -> Result<Self> {
        let copy = |(_, weight): &(String, Tensor)| Ok(weight.f_detach_copy()?);
        Ok(Self {
            weights: weights.iter().map(|(_, weight)| weight.shallow_clone()).collect(),
            origins: weights.iter().map(copy).collect::<Result<_>>()?,
        })
    }

    /// Where the weights are held, in their order.
    pub(crate) fn origins(&self) -> &[Tensor] {
        &self.origins
    }

    /// Takes every weight this share of its way back.
    ///
    /// # Errors
    /// [`crate::Error::Memory`].
    pub fn pull(&self, share: f64) -> Result<()> {
        for (weight, origin) in self.weights.iter().zip(&self.origins) {
            let way = origin.f_sub(&weight.f_detach()?)?.f_mul_scalar(share)?;
            weight.f_detach()?.f_copy_(&weight.f_detach()?.f_add(&way)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_go_back_by_their_share_and_end_where_they_were() {
        let weight = Tensor::from_slice(&[1.0_f32, -2.0]).set_requires_grad(true);
        let anchor = Anchor::new(&[("w".to_owned(), weight.shallow_clone())]).unwrap();
        weight.detach().copy_(&Tensor::from_slice(&[3.0_f32, -2.0]));
        for (share, expected) in [(0.25, 2.5), (0.0, 2.5), (1.0, 1.0)] {
            anchor.pull(share).unwrap();
            assert_eq!(Vec::<f32>::try_from(weight.detach()).unwrap(), [expected, -2.0]);
        }
    }
}
