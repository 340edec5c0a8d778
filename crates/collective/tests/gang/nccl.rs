//! The NCCL side: on a machine with a CUDA device the real thing with one rank; on any other, the refusal: of a
//! machine without CUDA's libraries, or of one with them and no device.

use lethe_collective::{Backend, Error, Group, GroupOptions, Place, Reducer, ReducerOptions, load_cuda};
use tch::{Device, Kind, Tensor};

use crate::spawn::serve;
use lethe_testkit::skip;

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
