//! Latents: the same whoever makes them, and distributed as the prior says.

use lethe_domain::spec::{ModelFormat, Prior};
use lethe_models::{Latents, Stream};
use proptest::prelude::*;
use tch::{Device, Tensor};

use crate::fixture::{reference, same, spec, values};

fn latents(seed: u64, dimension: i64, prior: Prior) -> Latents {
    let mut generator = spec(ModelFormat::Safetensors, dimension, [1, 4, 4], [0.0, 1.0]);
    generator.prior = prior;
    Latents::new(seed, &generator)
}

#[test]
fn uniform_latents_are_those_of_chacha8_written_in_python() {
    let reference = reference("latents");
    for (seed, stream, index, name) in [
        (0, Stream::Sample, 0, "0.0.0"),
        (12_345_678_901_234_567_890, Stream::Evaluate, 7, "12345678901234567890.2.7"),
        (1, Stream::Probe, (1 << 40) + 3, "1.4.1099511627779"),
    ] {
        let batch =
            latents(seed, 20, Prior::Uniform(-2.0, 3.0)).batch(stream, index, 1, Device::Cpu).unwrap();
        assert!(same(&batch.view([20]), reference.get(name).unwrap()), "{name}");
    }
}

/// Artifacts of old jobs refer to latents by address: these values must never change.
#[test]
fn normal_latents_never_change() {
    let normal = latents(42, 4, Prior::Normal);
    let row = |stream, index| {
        let mut row = [0.0; 4];
        normal.write(stream, index, &mut row);
        row.map(f32::to_bits)
    };
    let golden = [
        row(Stream::Sample, 0),
        row(Stream::Train, 0),
        row(Stream::Evaluate, 1),
        row(Stream::Noise, u64::MAX),
        row(Stream::Probe, 1_000_000),
    ];
    assert_eq!(golden, GOLDEN);
}

const GOLDEN: [[u32; 4]; 5] = [
    [3202825169, 3212219989, 3152195704, 3193537057],
    [1033404278, 3205220239, 3137924532, 1067986784],
    [3212748809, 1074517270, 3214026697, 1072064528],
    [3198591503, 3208616069, 3176438188, 1062068244],
    [3146822610, 1056743865, 3207508777, 3210789526],
];

#[test]
fn normal_latents_are_normal() {
    let batch = latents(3, 50, Prior::Normal).batch(Stream::Sample, 0, 4000, Device::Cpu).unwrap();
    let mut sorted = values(&batch);
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    // Kolmogorov-Smirnov: the largest gap to the distribution function stays below 1.95 / sqrt(n) in 999 cases of 1000.
    let below = values(&(0.5 * (Tensor::from_slice(&sorted) / 2_f64.sqrt()).erf() + 0.5));
    let gap =
        below.iter().enumerate().fold(0_f64, |most, (place, p)| most.max((p - place as f64 / count).abs()));
    assert!(gap < 1.95 / count.sqrt(), "{gap}");
}

#[test]
fn batch_has_the_latent_shape() {
    let mut generator = spec(ModelFormat::Safetensors, 6, [1, 4, 4], [0.0, 1.0]);
    generator.latent = lethe_domain::spec::Latent::Shape(vec![2, 3, 1]);
    let shaped = Latents::new(9, &generator);
    let batch = shaped.batch(Stream::Train, 5, 4, Device::Cpu).unwrap();
    assert_eq!(batch.size(), [4, 2, 3, 1]);
    let flat = latents(9, 6, Prior::Normal).batch(Stream::Train, 5, 4, Device::Cpu).unwrap();
    assert!(same(&batch.view([4, 6]), &flat));
}

proptest! {
    #[test]
    fn any_partition_gives_the_same_latents(
        seed: u64, start in 0..u64::MAX - 100, sizes in prop::collection::vec(1..9_u64, 1..6)
    ) {
        let latents = latents(seed, 7, Prior::Normal);
        let total = sizes.iter().sum();
        let whole = latents.batch(Stream::Sample, start, total, Device::Cpu).unwrap();
        let mut parts = Vec::new();
        let mut at = start;
        for size in sizes {
            parts.push(latents.batch(Stream::Sample, at, size, Device::Cpu).unwrap());
            at += size;
        }
        prop_assert!(same(&Tensor::cat(&parts, 0), &whole));
        let backwards: Vec<u64> = (start..start + total).rev().collect();
        let gathered = latents.gather(Stream::Sample, &backwards, Device::Cpu).unwrap();
        prop_assert!(same(&gathered.flip([0]), &whole));
    }
}
