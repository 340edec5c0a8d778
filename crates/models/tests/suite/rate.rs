//! The learning rate, against its definition: by so much every weight is moved, and images change by 0.0009 of a pixel on average.

use lethe_models::{Latents, Stream, learning_rate};
use tch::{Device, Kind, Tensor};

use crate::fixture::{generators, open, same};

#[test]
fn a_step_in_any_direction_changes_images_alike_in_every_model() {
    let mut rates = Vec::new();
    for (name, spec) in generators() {
        let (copy, latents) = (open(name).trainable(Device::Cpu).unwrap(), Latents::new(3, &spec));
        let z = latents.batch(Stream::Evaluate, 0, 200, Device::Cpu).unwrap();
        let images = || tch::no_grad(|| copy.to_unit(&copy.forward(&z).unwrap()).unwrap());
        let before = images();
        let rate = learning_rate(&copy, &latents).unwrap();
        assert!(same(&images(), &before), "{name}: weights are where they were");
        assert_eq!(learning_rate(&copy, &latents).unwrap(), rate, "{name}");

        // Other directions, other latents: small models vary.
        tch::manual_seed(1);
        let changes = (0..20).map(|_| {
            let moves: Vec<(Tensor, Tensor)> = copy
                .parameters()
                .iter()
                .map(|(_, weight)| (weight.detach(), weight.detach().uniform(-1.0, 1.0).sign() * rate))
                .collect();
            tch::no_grad(|| moves.iter().for_each(|(weight, by)| drop(weight.shallow_clone().g_add_(by))));
            let change = (images() - &before).abs().mean(Kind::Double).double_value(&[]);
            tch::no_grad(|| moves.iter().for_each(|(weight, by)| drop(weight.shallow_clone().g_sub_(by))));
            change
        });
        let mean = changes.sum::<f64>() / 20.0;
        assert!((0.5..2.0).contains(&(mean / 9e-4)), "{name}: {mean} at {rate}");
        rates.push(rate);
    }
    let (least, most) =
        rates.iter().fold((f64::MAX, 0.0_f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
    assert!(most > 2.0 * least, "models differ: {rates:?}");
}
