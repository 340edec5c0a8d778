//! The running average of weights, against its definition.

use lethe_models::{Anchor, Average, Tensors};
use tch::Tensor;

use crate::fixture::values;

#[test]
fn the_average_follows_the_weights_and_comes_back_from_its_state() {
    let weight = Tensor::from_slice(&[1.0_f32, -2.0]);
    let named = [("w".to_owned(), weight.shallow_clone())];
    let (mut average, mut expected) = (Average::new(&named, 0.9).unwrap(), [1.0_f64, -2.0]);
    let anchor = Anchor::new(&named).unwrap();
    let published = |average: &Average, strength: f64| {
        let mut state = Tensors::new("state");
        state.insert("w", &weight);
        state.insert("statistics", &weight);
        let published = average.published(state, &anchor, strength).unwrap();
        assert_eq!(
            values(published.get("statistics").unwrap()),
            values(&weight),
            "what is not averaged stays"
        );
        values(published.get("w").unwrap())
    };
    let mean = |average: &Average| published(average, 1.0);
    assert_eq!(mean(&average), expected);
    let mut other = Average::new(&named, 0.9).unwrap();
    for step in 1..=200_u64 {
        weight.shallow_clone().copy_(&Tensor::from_slice(&[step as f32, -1.0]));
        average.step(step).unwrap();
        let decay = ((1 + step) as f64 / (10 + step) as f64).min(0.9);
        expected = [0, 1].map(|place| decay * expected[place] + (1.0 - decay) * [step as f64, -1.0][place]);
        if step == 100 {
            other.set_state(&average.state()).unwrap();
        } else if step > 100 {
            other.step(step).unwrap();
        }
    }
    let found = mean(&average);
    assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-4), "{found:?}");
    assert_eq!(mean(&other), found, "bit for bit");

    // From where the weights were, [1, -2]: half the way, and half as far again.
    for strength in [0.5, 1.5] {
        let further = published(&average, strength);
        let between = [0, 1].map(|place| [1.0, -2.0][place] + strength * (found[place] - [1.0, -2.0][place]));
        assert!(further.iter().zip(between).all(|(one, other)| (one - other).abs() < 1e-4), "{further:?}");
    }
    let error = other.set_state(&Tensors::new("nothing")).unwrap_err().to_string();
    assert!(error.contains("average.w"), "{error}");
}
