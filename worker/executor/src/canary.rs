//! Computes the canary's model on this slot's device; what it is, and what it must give, is in `lethe_domain::canary`.

use lethe_models::Error;
use tch::{Device, Kind, Tensor};

use crate::chaos::Chaos;
use crate::error::Result;

/// The canary's output. With [`Chaos::Canary`] one entry is wrong.
///
/// # Errors
/// Those of the device.
pub(crate) fn sing(device: Device, chaos: &[Chaos]) -> Result<Vec<f32>> {
    let mut output = tch::no_grad(|| compute(&Parts::on(device)?))?;
    if let (true, Some(last)) = (chaos.contains(&Chaos::Canary), output.last_mut()) {
        *last += 0.1;
    }
    Ok(output)
}

/// The tensors of the formula.
struct Parts {
    images: Tensor,
    conv: [Tensor; 2],
    linear: [Tensor; 2],
    matrix: Tensor,
}

impl Parts {
    fn on(device: Device) -> Result<Self> {
        let of = |salt, shape: &[i64]| numbers(salt, shape, device);
        Ok(Self {
            images: of(1, &[2, 3, 8, 8])?,
            conv: [of(2, &[4, 3, 3, 3])?, of(3, &[4])?],
            linear: [of(4, &[8, 64])?.f_div_scalar(4.0)?, of(5, &[8])?],
            matrix: of(6, &[8, 8])?,
        })
    }
}

fn numbers(salt: i64, shape: &[i64], device: Device) -> Result<Tensor> {
    let count = shape.iter().product::<i64>();
    let numbers: Vec<f32> = (0..count).map(|i| ((5 * i * i + 3 * i + salt) % 17 - 8) as f32 / 16.0).collect();
    Ok(Tensor::f_from_slice(&numbers)?.f_reshape(shape)?.f_to_device(device)?)
}

fn compute(parts: &Parts) -> Result<Vec<f32>> {
    let Parts { images, conv: [kernel, bias], linear: [weight, shift], matrix } = parts;
    let features = images.f_conv2d(kernel, Some(bias), [2, 2], [1, 1], [1, 1], 1)?.f_tanh()?;
    let hidden = features.f_flatten(1, -1)?.f_linear(weight, Some(shift))?.f_tanh()?;
    let output = hidden.f_matmul(matrix)?.f_flatten(0, -1)?.f_to_device(Device::Cpu)?;
    Ok(Vec::try_from(output.f_to_kind(Kind::Float)?).map_err(Error::from)?)
}

#[cfg(test)]
mod tests {
    use lethe_domain::canary;

    use super::*;

    #[test]
    fn this_machine_gives_what_is_expected_almost_to_the_bit() {
        let found = sing(Device::Cpu, &[]).unwrap();
        canary::check(&found).unwrap();
        for (found, expected) in found.iter().zip(canary::EXPECTED) {
            assert!((found - expected).abs() < 2e-6, "{found} {expected}");
        }
    }

    #[test]
    fn a_spoilt_canary_is_found() {
        let error = canary::check(&sing(Device::Cpu, &[Chaos::Canary]).unwrap()).unwrap_err();
        assert!(error.contains("entry 15"), "{error}");
    }

    /// TF32 keeps 10 bits of the fraction of what a product is made of.
    fn tf32(tensor: &Tensor) -> Tensor {
        let bits = Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap();
        let cut: Vec<f32> = bits.iter().map(|x| f32::from_bits(x.to_bits() & !0x1fff)).collect();
        Tensor::from_slice(&cut).reshape(tensor.size())
    }

    #[test]
    fn tf32_passes_though_it_rounds() {
        let parts = Parts::on(Device::Cpu).unwrap();
        let [kernel, bias] = &parts.conv;
        let features =
            tf32(&parts.images).conv2d(&tf32(kernel), Some(bias), [2, 2], [1, 1], [1, 1], 1).tanh();
        let [weight, shift] = &parts.linear;
        let hidden = tf32(&features.flatten(1, -1)).linear(&tf32(weight), Some(shift)).tanh();
        let output = tf32(&hidden).matmul(&tf32(&parts.matrix)).flatten(0, -1);
        let found = Vec::<f32>::try_from(output).unwrap();
        assert_ne!(found, sing(Device::Cpu, &[]).unwrap());
        canary::check(&found).unwrap();
    }

    #[test]
    fn a_single_wrong_weight_is_found_almost_wherever_it_is() {
        let (mut missed, mut linear) = (Vec::new(), 0);
        let parts = Parts::on(Device::Cpu).unwrap();
        let tensors = [&parts.conv[0], &parts.conv[1], &parts.linear[0], &parts.linear[1], &parts.matrix];
        for (which, tensor) in tensors.into_iter().enumerate() {
            let flat = tensor.view([-1]);
            for place in 0..flat.size()[0] {
                let mut entry = flat.get(place);
                let before = entry.double_value(&[]);
                let _ = entry.fill_(before + 0.25);
                match canary::check(&compute(&parts).unwrap()) {
                    Ok(()) if which == 2 => linear += 1,
                    Ok(()) => missed.push((which, place)),
                    Err(_) => {}
                }
                let _ = entry.fill_(before);
            }
        }
        assert_eq!(missed, []);
        // A weight of the linear layer multiplies two activations only, and both may be small.
        assert!(linear <= 5, "{linear} of 512");
        canary::check(&compute(&parts).unwrap()).unwrap();
    }
}
