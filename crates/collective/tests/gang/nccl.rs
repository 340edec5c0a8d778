//! The NCCL side: on a machine with a CUDA device the real thing with one rank; on any other, the refusal: of a
//! machine without CUDA's libraries, or of one with them and no device. (With LETHE_TEST_DEVICE=cuda:0 the gangs of the other
//! tests use NCCL too.)

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use lethe_collective::{Backend, Error, Group, GroupOptions, Place, Reducer, ReducerOptions, load_cuda};
use lethe_testkit::skip;
use tch::{Device, Kind, Tensor};

use crate::spawn::{Gang, Seat, device, serve};

#[test]
fn nccl_works_on_a_cuda_machine_and_is_refused_clearly_elsewhere() {
    let place = Place { rank: 0, world: 1, generation: 1 };
    let join = || Group::join(&serve(), Backend::Nccl { device: 0 }, place, GroupOptions::default());
    if let Err(refusal) = load_cuda() {
        skip(&format!("no GPU: {refusal}"));
        assert!(matches!(refusal, Error::NcclMissing { .. }) && !refusal.retryable(), "{refusal}");
        assert!(refusal.to_string().contains("libtorch_cuda.so"), "names the file: {refusal}");
        assert!(refusal.to_string().contains("use device cpu"), "says what to do: {refusal}");
        assert_eq!(join().expect_err("without CUDA").to_string(), refusal.to_string());
        return;
    }
    if !tch::Cuda::is_available() {
        let refusal = join().expect_err("without a device").to_string();
        assert!(refusal.contains("there is no CUDA device 0: this process sees 0"), "{refusal}");
        return skip(&format!("no GPU: {refusal}"));
    }
    let group = join().expect("a group of one");
    let device = Device::Cuda(0);
    let mut tensor = Tensor::from_slice(&[1.0f32, 2.0]).to(device);
    group.all_reduce_sum(&mut tensor).expect("a sum");
    assert_eq!(Vec::<f32>::try_from(tensor.to(Device::Cpu)).expect("a CPU tensor"), [1.0, 2.0]);

    let mut params = [Tensor::full([1000], 3.0, (Kind::Float, device)).set_requires_grad(true)];
    group.broadcast(&mut params, 0).expect("a broadcast");
    let mut reducer = Reducer::new(&group, &params, ReducerOptions::default()).expect("a reducer");
    for _ in 0..3 {
        reducer.finish(&params[0].square().sum(Kind::Float)).expect("a backward pass");
        assert_eq!(params[0].grad().mean(Kind::Float).double_value(&[]), 6.0, "d(x^2)/dx at 3");
    }
    group.barrier().expect("nobody to wait for");
    group.abort_handle().abort();
    assert!(matches!(group.barrier(), Err(Error::Aborted { .. })));
}

/// A joining that NCCL has begun ends with its process, at once, and leaves the device usable.
#[test]
fn a_rank_that_waits_inside_nccl_ends_by_kill_and_frees_the_device() {
    if load_cuda().is_err() || !tch::Cuda::is_available() || device() == Device::Cpu {
        return skip("no GPU: it needs one, and LETHE_TEST_DEVICE=cuda:0");
    }
    let mut gang = Gang::start("joins_nobody", 2);
    let refusal = gang.report(1);
    assert!(refusal.contains("not all ranks use Gloo"), "{refusal}");
    // What an abort does here is NCCL's affair; it is told, not required.
    println!("an abort while NCCL connects: {}", gang.report(0));
    let begun = Instant::now();
    gang.kill(0);
    gang.finish(Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let place = Place { rank: 0, world: 1, generation: 1 };
    let group = Group::join(&serve(), Backend::Nccl { device: 0 }, place, GroupOptions::default());
    group.expect("the device is free").barrier().expect("and works");
}

/// Rank 1 comes with another backend: it takes its seat and leaves, so rank 0 waits for it inside NCCL.
pub(crate) fn joins_nobody(seat: &Seat) {
    if seat.rank == 1 {
        let refused = Group::join(&seat.store, Backend::Gloo, seat.place(1), GroupOptions::default());
        seat.report(&refused.expect_err("rank 0 uses NCCL").to_string());
        return seat.stay();
    }
    let options = GroupOptions::default();
    let abort = options.abort.clone();
    let (store, place) = (seat.store.clone(), seat.place(1));
    let (done, joined) = sync_channel(1);
    thread::spawn(move || done.send(Group::join(&store, Backend::Nccl { device: 0 }, place, options).err()));
    if let Ok(ended) = joined.recv_timeout(Duration::from_secs(3)) {
        return seat.report(&format!("joining ended by itself: {ended:?}"));
    }
    abort.abort();
    match joined.recv_timeout(Duration::from_secs(3)) {
        Ok(ended) => seat.report(&format!("it ended the joining: {ended:?}")),
        Err(_) => seat.report("the joining went on"),
    }
    seat.stay();
}
