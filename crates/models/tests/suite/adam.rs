//! Adam: its steps are those of PyTorch's, and a saved state goes on bit by bit.

use lethe_models::{Adam, Error, Tensors};
use tch::{Device, Kind, Tensor};

use crate::fixture::{distance, reference, same};

fn weights(reference: &Tensors) -> Vec<(String, Tensor)> {
    ["a", "b"]
        .map(|name| {
            let start = reference.get(&format!("start.{name}")).unwrap().copy();
            (name.to_owned(), start.set_requires_grad(true))
        })
        .into()
}

/// Leaves the gradient of a step on every weight, by a loss whose gradient it is.
fn backward(reference: &Tensors, weights: &[(String, Tensor)], step: usize) {
    for (name, weight) in weights {
        let gradient = reference.get(&format!("gradient.{step}.{name}")).unwrap();
        (weight * gradient).sum(Kind::Float).backward();
    }
}

fn forget(weights: &[(String, Tensor)]) {
    weights.iter().for_each(|(_, weight)| weight.shallow_clone().zero_grad());
}

#[test]
fn steps_are_those_of_torch_optim_adam() {
    let reference = reference("adam");
    let weights = weights(&reference);
    let mut adam = Adam::new(&weights).unwrap();
    for step in 0..7 {
        backward(&reference, &weights, step);
        adam.step(2e-3).unwrap();
        forget(&weights);
        for (name, weight) in &weights {
            let expected = reference.get(&format!("after.{step}.{name}")).unwrap();
            assert!(distance(&weight.detach(), expected) < 2e-7, "step {step}, {name}");
        }
    }
}

#[test]
fn a_saved_state_goes_on_bit_by_bit() {
    let reference = reference("adam");
    let through = weights(&reference);
    let mut adam = Adam::new(&through).unwrap();
    let step = |adam: &mut Adam, weights: &[(String, Tensor)], step| {
        backward(&reference, weights, step);
        adam.step(2e-3).unwrap();
        forget(weights);
    };
    (0..3).for_each(|at| step(&mut adam, &through, at));
    let saved = adam.state().to_bytes().unwrap();
    let resumed: Vec<_> =
        through.iter().map(|(name, w)| (name.clone(), w.detach().copy().set_requires_grad(true))).collect();
    (3..7).for_each(|at| step(&mut adam, &through, at));

    let mut again = Adam::new(&resumed).unwrap();
    again.set_state(&Tensors::from_bytes(&saved, "state").unwrap()).unwrap();
    (3..7).for_each(|at| step(&mut again, &resumed, at));
    for ((name, one), (_, other)) in through.iter().zip(&resumed) {
        assert!(same(&one.detach(), &other.detach()), "{name}");
    }
    assert_eq!(adam.state().to_bytes().unwrap(), again.state().to_bytes().unwrap());
}

#[test]
fn a_weight_without_a_gradient_stays() {
    let reference = reference("adam");
    let weights = weights(&reference);
    let mut adam = Adam::new(&weights).unwrap();
    backward(&reference, &weights[..1], 0);
    adam.step(2e-3).unwrap();
    assert!(!same(&weights[0].1.detach(), reference.get("start.a").unwrap()));
    assert!(same(&weights[1].1.detach(), reference.get("start.b").unwrap()));
    assert_eq!(adam.state().get_f64("step.b").unwrap(), 0.0);
}

#[test]
fn another_models_state_is_refused() {
    let mut adam = Adam::new(&weights(&reference("adam"))).unwrap();
    let error = adam.set_state(&Tensors::new("empty")).unwrap_err();
    assert!(matches!(error, Error::Tensors { .. }) && error.to_string().contains("mean.a"), "{error}");
}

#[test]
fn weights_with_gaps_or_of_another_kind_are_refused() {
    let weight = Tensor::zeros([4, 4], (Kind::Float, Device::Cpu));
    for (weight, words) in
        [(weight.narrow(1, 0, 2), "strides [4, 1]"), (weight.to_kind(Kind::Half), "float16")]
    {
        let error = Adam::new(&[("w".to_owned(), weight)]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
