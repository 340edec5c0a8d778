//! Training with the reducer: any number of ranks does what one process does, bit for bit.

use lethe_collective::{Error, Group, GroupOptions, Reducer, ReducerOptions};
use tch::{Kind, Tensor};

use crate::spawn::{self, Gang, Seat};

const BATCH: i64 = 13;
/// Neither a multiple of 2 or 3, nor a divisor of the batch: the ranks' shares and the parts differ in length.
const PARTS: i64 = 5;
const STEPS: i64 = 8;
const LATENT: i64 = 6;

/// Smaller than the parameters, so that several buckets travel.
const SMALL_BUCKETS: ReducerOptions = ReducerOptions { first_bucket_bytes: 1 << 9, bucket_bytes: 1 << 12 };

/// A transposed convolution and a linear layer, initialised differently by every `seed`.
fn parameters(seed: i64) -> Vec<Tensor> {
    tch::manual_seed(seed);
    [vec![LATENT, 8, 4, 4], vec![8], vec![8 * 4 * 4, 20], vec![20]]
        .iter()
        .map(|shape| Tensor::randn(shape, (Kind::Float, tch::Device::Cpu)) * 0.2)
        .map(|weight| weight.to(spawn::device()).set_requires_grad(true))
        .collect()
}

/// Sum over the samples of one squared error each.
fn loss(params: &[Tensor], inputs: &Tensor, targets: &Tensor) -> Tensor {
    let [deconvolution, bias, weight, offset] = params else { panic!("four parameters") };
    let hidden = inputs
        .view([-1, LATENT, 1, 1])
        .conv_transpose2d(deconvolution, Some(bias), [1, 1], [0, 0], [0, 0], 1, [1, 1])
        .tanh();
    let output = hidden.view([-1, 8 * 4 * 4]).matmul(weight) + offset;
    (output - targets).square().sum(Kind::Float)
}

/// Trains on this rank's parts of every batch; returns all parameters in one row.
fn train(group: &Group) -> Tensor {
    // Another number of threads adds up the samples of a part in another order.
    tch::set_num_threads(1);
    let mut params = parameters(group.rank() as i64);
    group.broadcast(&mut params, 0).expect("a broadcast");
    let mut reducer = Reducer::new(group, &params, SMALL_BUCKETS).expect("a reducer");
    let (rank, world) = (group.rank() as i64, group.world() as i64);
    let (first, end) = (PARTS * rank / world, PARTS * (rank + 1) / world);
    for step in 0..STEPS {
        let samples = Tensor::arange(BATCH * LATENT, (Kind::Float, spawn::device())) + step as f64;
        for part in first..end {
            let (from, to) = (BATCH * part / PARTS, BATCH * (part + 1) / PARTS);
            let inputs = samples.sin().view([BATCH, LATENT]).slice(0, from, to, 1);
            let targets = inputs.cos().repeat([1, 4]).slice(1, 0, 20, 1);
            let loss = loss(&params, &inputs, &targets) / BATCH as f64;
            if part + 1 < end {
                reducer.accumulate(&loss).expect("a backward pass");
            } else {
                reducer.finish(&loss).expect("a backward pass");
            }
        }
        tch::no_grad(|| params.iter_mut().for_each(|p| *p -= 0.02 * p.grad()));
    }
    let flat: Vec<Tensor> = params.iter().map(|p| p.detach().flatten(0, -1)).collect();
    Tensor::cat(&flat, 0)
}

fn values(line: &str) -> Vec<f32> {
    line.split_whitespace().map(|w| f32::from_bits(u32::from_str_radix(w, 16).expect("hex"))).collect()
}

fn check_world(world: usize) {
    let alone = train(&Group::loopback());
    let untrained =
        Tensor::cat(&parameters(0).iter().map(|p| p.detach().flatten(0, -1)).collect::<Vec<_>>(), 0);
    let moved = (&alone - &untrained).norm().double_value(&[]) / alone.norm().double_value(&[]);
    assert!(moved > 0.01, "training must change the parameters, else nothing is compared: {moved}");

    let gang = Gang::start("train", world);
    let lines = gang.reports();
    assert!(lines.iter().all(|line| *line == lines[0]), "the same bits on every rank");
    let alone: Vec<f32> = spawn::values(&alone);
    let together = values(&lines[0]);
    assert_eq!(together.len(), alone.len());
    let others = together.iter().zip(&alone).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    assert_eq!(others, 0, "entries of {} that one process would have made differently", alone.len());
    gang.finish(None);
}

#[test]
fn two_ranks_train_like_one() {
    check_world(2);
}

#[test]
fn three_ranks_train_like_one() {
    check_world(3);
}

#[test]
fn a_parameter_without_a_gradient_is_an_error_at_once_and_the_peer_is_let_go() {
    let gang = Gang::start("no_gradient", 2);
    assert!(gang.report(0).starts_with("lost a peer"));
    let refusal = gang.report(1);
    assert!(refusal.contains("torch") && refusal.contains("rank 1 of 2"), "{refusal}");
    gang.finish(None);
}

#[test]
fn a_reducer_without_trainable_parameters_is_refused() {
    let group = Group::loopback();
    let frozen = [Tensor::from(1.0)];
    for params in [&frozen[..0], &frozen[..]] {
        let refused = Reducer::new(&group, params, ReducerOptions::default());
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
}

pub(crate) fn train_rank(seat: &Seat) {
    let group = seat.join(1, GroupOptions::default());
    let row: Vec<f32> = spawn::values(&train(&group));
    seat.report(&row.iter().map(|x| format!("{:x}", x.to_bits())).collect::<Vec<_>>().join(" "));
    group.barrier().expect("everybody is done");
}

pub(crate) fn no_gradient(seat: &Seat) {
    let group = seat.join(1, GroupOptions::default());
    let params: Vec<Tensor> =
        (0..2).map(|_| Tensor::from(1.0).to(spawn::device()).set_requires_grad(true)).collect();
    let mut reducer = Reducer::new(&group, &params, ReducerOptions::default()).expect("a reducer");
    let loss = if seat.rank == 0 { &params[0] + &params[1] } else { &params[0] * 2.0 };
    match reducer.finish(&loss).expect_err("a bucket is never full") {
        Error::PeerLost { .. } => seat.report("lost a peer"),
        Error::Torch { place, detail, .. } => seat.report(&format!("torch at {place}: {detail}")),
        other => seat.report(&other.to_string()),
    }
    seat.stay();
}
