//! The surrogate: what it learns, and what an edit makes of it.

use lethe_domain::spec::ModelFormat;
use lethe_models::{Error, Latents, Stream, Surrogate};
use tch::{Device, Kind, Tensor};

use crate::fixture::spec;

const DEVICE: Device = Device::Cpu;

fn latents(seed: u64) -> Latents {
    Latents::new(seed, &spec(ModelFormat::TorchScript, 3, [1, 2, 2], [0.0, 1.0]))
}

fn taught(seed: u64, opinions: impl Fn(&Tensor) -> Tensor) -> (Surrogate, f64) {
    let latents = latents(seed);
    let z = latents.batch(Stream::Sample, 0, 2_000, DEVICE).unwrap();
    Surrogate::teach(&latents, &[opinions(&z)], DEVICE, |_, _| Ok::<_, Error>(())).unwrap()
}

/// Two classes: a bend along the first entry, and what is left of it.
fn bent(z: &Tensor) -> Tensor {
    let first = z.select(1, 0).abs() * 3.0;
    Tensor::stack(&[&first, &-&first], 1)
}

#[test]
fn it_learns_what_no_direction_tells_and_nothing_where_there_is_nothing() {
    let (_, explained) = taught(1, bent);
    assert!(explained > 0.95, "{explained}");
    tch::manual_seed(4);
    let (_, explained) = taught(1, |z| Tensor::randn([z.size()[0], 1], (Kind::Float, DEVICE)));
    assert!(explained < 0.05, "{explained}");
}

#[test]
fn the_same_samples_teach_the_same_bits_and_a_step_may_break_it_off() {
    let (one, again, other) = (taught(1, bent), taught(1, bent), taught(2, bent));
    assert!(one == again && one.0 != other.0);
    let opinions = bent(&latents(1).batch(Stream::Sample, 0, 50, DEVICE).unwrap());
    let ended = Surrogate::teach(&latents(1), &[opinions], DEVICE, |done, all| match done {
        3 => Err(Error::NotFinite { what: format!("step {done} of {all}") }),
        _ => Ok(()),
    });
    assert!(ended.unwrap_err().to_string().contains("step 3 of"), "{}", Surrogate::MOST_ENTRIES);
}
