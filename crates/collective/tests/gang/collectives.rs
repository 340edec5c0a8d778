//! The results of collectives, against sums made one after the other; and generations.

use lethe_collective::{Error, Group, GroupOptions};
use tch::{Kind, Tensor};

use crate::spawn::{self, Gang, Seat};

const LENGTH: usize = 1000;

/// Element `i` of rank `rank`'s tensor: eighths, so that sums of a few are exact in every kind of float.
fn element(rank: usize, i: usize) -> f64 {
    ((i * 7 + rank * 13) % 31) as f64 / 8.0
}

fn summed(world: usize) -> Vec<f64> {
    (0..LENGTH).map(|i| (0..world).map(|rank| element(rank, i)).sum()).collect()
}

fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace().map(|word| word.parse().expect("a number")).collect()
}

fn line(tensor: &Tensor) -> String {
    let values: Vec<f64> = spawn::values(&tensor.to_kind(Kind::Double));
    values.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")
}

fn check_world(world: usize) {
    let gang = Gang::start("sums", world);
    let sum = summed(world);
    let mean: Vec<f64> = sum.iter().map(|x| x / world as f64).collect();
    for rank in 0..world {
        for kind in ["float", "double"] {
            assert_eq!(numbers(&gang.report(rank)), sum, "{kind} sum on rank {rank}");
        }
        for (got, want) in numbers(&gang.report(rank)).iter().zip(&mean) {
            assert!((got - want).abs() <= 1e-6 * want.abs(), "mean on rank {rank}: {got}, not {want}");
        }
        let counts: f64 = (0..world).map(|r| (r + 1) as f64).sum();
        assert_eq!(numbers(&gang.report(rank)), [counts, 10.0 * counts], "64-bit integers on rank {rank}");
        assert_eq!(numbers(&gang.report(rank)), sum, "a transposed tensor keeps its places on rank {rank}");
        let last: Vec<f64> = (0..LENGTH).map(|i| element(world - 1, i)).collect();
        assert_eq!(numbers(&gang.report(rank)), last, "broadcast of a parameter on rank {rank}");
        assert_eq!(
            numbers(&gang.report(rank)),
            [world as f64 - 1.0],
            "broadcast of an integer on rank {rank}"
        );
    }
    gang.finish(None);
}

#[test]
fn one_rank_sums_and_broadcasts() {
    check_world(1);
}

#[test]
fn two_ranks_sum_and_broadcast_like_a_sequential_loop() {
    check_world(2);
}

#[test]
fn three_ranks_sum_and_broadcast_like_a_sequential_loop() {
    check_world(3);
}

#[test]
fn a_loopback_leaves_tensors_alone_and_refuses_a_root_that_is_not_there() {
    let group = Group::loopback();
    let mut tensor = Tensor::from_slice(&[1.5, 2.5]);
    group.all_reduce_sum(&mut tensor).expect("nobody to wait for");
    group.barrier().expect("nobody to wait for");
    assert_eq!(Vec::<f64>::try_from(&tensor).expect("a CPU tensor"), [1.5, 2.5]);
    assert!(matches!(group.broadcast(&mut [tensor], 1), Err(Error::Invalid { .. })));
    group.barrier().expect("a refused argument does not end the group");
}

#[test]
fn generations_follow_each_other_in_one_process_and_are_never_reused() {
    let gang = Gang::start("generations", 2);
    for rank in 0..2 {
        assert_eq!(gang.report(rank), "generation 1: 3");
        assert_eq!(gang.report(rank), "generation 2: 3");
        let refusal = gang.report(rank);
        assert!(refusal.contains("generation 2") && refusal.contains("never reused"), "{refusal}");
    }
    gang.finish(None);
}

pub(crate) fn sums(seat: &Seat) {
    let group = seat.join(1, GroupOptions::default());
    let values: Vec<f64> = (0..LENGTH).map(|i| element(seat.rank, i)).collect();
    let double = Tensor::from_slice(&values).to(spawn::device());
    let all_reduced = |mut tensor: Tensor| {
        group.all_reduce_sum(&mut tensor).expect("a sum");
        tensor
    };

    seat.report(&line(&all_reduced(double.to_kind(Kind::Float))));
    let sum = all_reduced(double.copy());
    seat.report(&line(&sum));
    seat.report(&line(&(sum / seat.world as f64)));
    let counts = Tensor::from_slice(&[seat.rank as i64 + 1, 10 * (seat.rank as i64 + 1)]).to(spawn::device());
    seat.report(&line(&all_reduced(counts)));
    let transposed = all_reduced(double.view([8, -1]).transpose(0, 1).contiguous().transpose(0, 1));
    assert!(!transposed.is_contiguous(), "else this checks nothing");
    seat.report(&line(&transposed));

    let parameter = double.copy().set_requires_grad(true);
    let mut tensors = [parameter, Tensor::from(seat.rank as i64).to(spawn::device())];
    group.broadcast(&mut tensors, seat.world - 1).expect("a broadcast");
    tensors.iter().for_each(|tensor| seat.report(&line(tensor)));
    group.barrier().expect("everybody is done");
}

pub(crate) fn generations(seat: &Seat) {
    for generation in [1, 2] {
        let group = seat.join(generation, GroupOptions::default());
        let mut tensor = Tensor::from(seat.rank as f64 + 1.0).to(spawn::device());
        group.all_reduce_sum(&mut tensor).expect("a sum");
        seat.report(&format!("generation {generation}: {}", tensor.double_value(&[])));
        group.barrier().expect("everybody is done");
    }
    let again = seat.try_join(2, GroupOptions::default());
    seat.report(&again.expect_err("a generation is used once").to_string());
}
