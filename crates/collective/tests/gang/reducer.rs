//! Training with the reducer: any number of ranks does what one process does on the whole batch.

use lethe_collective::{Error, Group, GroupOptions, Reducer, ReducerOptions};
use tch::{Kind, Tensor};

use crate::spawn::{Gang, Seat};

/// Not a multiple of 2 or 3: the ranks' slices differ in length.
const BATCH: i64 = 13;
const STEPS: i64 = 8;
const LATENT: i64 = 6;

/// Smaller than the parameters, so that several buckets travel.
const SMALL_BUCKETS: ReducerOptions =
    ReducerOptions { first_bucket_bytes: 1 << 9, bucket_bytes: 1 << 12, find_unused: false };

/// A transposed convolution and a linear layer, initialised differently by every `seed`.
fn parameters(seed: i64) -> Vec<Tensor> {
    tch::manual_seed(seed);
    [vec![LATENT, 8, 4, 4], vec![8], vec![8 * 4 * 4, 20], vec![20]]
        .iter()
        .map(|shape| (Tensor::randn(shape, (Kind::Float, tch::Device::Cpu)) * 0.2).set_requires_grad(true))
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

/// Trains on this rank's slice of every batch; returns all parameters in one row.
fn train(group: &Group) -> Tensor {
    let mut params = parameters(group.rank() as i64);
    group.broadcast(&mut params, 0).expect("a broadcast");
    let mut reducer = Reducer::new(group, &params, SMALL_BUCKETS).expect("a reducer");
    let (rank, world) = (group.rank() as i64, group.world() as i64);
    let (from, to) = (BATCH * rank / world, BATCH * (rank + 1) / world);
    for step in 0..STEPS {
        let samples = Tensor::arange(BATCH * LATENT, (Kind::Float, tch::Device::Cpu)) + step as f64;
        let inputs = samples.sin().view([BATCH, LATENT]).slice(0, from, to, 1);
        let targets = inputs.cos().repeat([1, 4]).slice(1, 0, 20, 1);
        let share = loss(&params, &inputs, &targets) * (world as f64 / BATCH as f64);
        params.iter_mut().for_each(Tensor::zero_grad);
        reducer.backward(&share).expect("a backward pass");
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
    let together = Tensor::from_slice(&values(&lines[0]));
    let difference = (&together - &alone).norm().double_value(&[]) / alone.norm().double_value(&[]);
    assert!(difference < 1e-6, "{world} ranks differ from one process by {difference}");
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
fn a_parameter_that_some_ranks_do_not_use_gets_the_mean() {
    let gang = Gang::start("unused", 2);
    for rank in 0..2 {
        // Used by both with 1 and 2; by rank 0 only with 6; by nobody.
        assert_eq!(gang.report(rank), "1.5 3 none", "rank {rank}, first pass");
        assert_eq!(gang.report(rank), "1.5 3 none", "rank {rank}, second pass");
    }
    gang.finish(None);
}

#[test]
fn without_find_unused_it_is_an_error_at_once_and_the_peer_is_let_go() {
    let gang = Gang::start("unused_refused", 2);
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
    let row = Vec::<f32>::try_from(train(&group)).expect("a CPU tensor");
    seat.report(&row.iter().map(|x| format!("{:x}", x.to_bits())).collect::<Vec<_>>().join(" "));
    group.barrier().expect("everybody is done");
}

fn three_scalars() -> Vec<Tensor> {
    (0..3).map(|_| Tensor::from(1.0).set_requires_grad(true)).collect()
}

fn partial_loss(params: &[Tensor], rank: usize) -> Tensor {
    let shared = &params[0] * (rank as f64 + 1.0);
    if rank == 0 { shared + &params[1] * 6.0 } else { shared }
}

pub(crate) fn unused(seat: &Seat) {
    let group = seat.join(1, GroupOptions::default());
    let mut params = three_scalars();
    let options = ReducerOptions { find_unused: true, ..ReducerOptions::default() };
    let mut reducer = Reducer::new(&group, &params, options).expect("a reducer");
    for _ in 0..2 {
        params.iter_mut().for_each(Tensor::zero_grad);
        reducer.backward(&partial_loss(&params, seat.rank)).expect("a backward pass");
        let grads = params.iter().map(Tensor::grad);
        let words = grads.map(|g| if g.defined() { g.double_value(&[]).to_string() } else { "none".into() });
        seat.report(&words.collect::<Vec<_>>().join(" "));
    }
    group.barrier().expect("everybody is done");
}

pub(crate) fn unused_refused(seat: &Seat) {
    let group = seat.join(1, GroupOptions::default());
    let params = &three_scalars()[..2];
    let mut reducer = Reducer::new(&group, params, ReducerOptions::default()).expect("a reducer");
    match reducer.backward(&partial_loss(params, seat.rank)).expect_err("a bucket is never full") {
        Error::PeerLost { .. } => seat.report("lost a peer"),
        Error::Torch { place, detail, .. } => seat.report(&format!("torch at {place}: {detail}")),
        other => seat.report(&other.to_string()),
    }
    seat.stay();
}
