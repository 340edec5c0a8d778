//! Data-parallel gradients: DistributedDataParallel's reducer, with sums in f64.
//!
//! It hangs a hook on every parameter's gradient accumulator. During the backward pass of a rank's last part the hooks copy
//! finished gradients into buckets, and a bucket that is full travels while autograd computes the next one.
//!
//! Each part's gradient is rounded to a grid before it is added ([`Reducer::set_grid`]): multiples of one step add up exactly in
//! f64, so the order does not matter. A batch cut into the same parts gives the same gradient, bit for bit, whoever
//! computes which part. (Without a grid an f64 sum of f32 numbers is exact unless they differ 2^25-fold; that happens, and where
//! two large ones make a tie, a tiny one decides it.)
//!
//! Not here: the forward pass, the optimiser, how a batch is cut.

use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;

use tch::{Device, Tensor};

use crate::error::Error;
use crate::ffi::{self, Owned};
use crate::group::{Group, Inner, Sends, pointers};

/// Settings of a reducer; the same on every rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReducerOptions {
    /// Size of the bucket that is sent first, small so that sending starts early. 1 MiB unless set.
    pub first_bucket_bytes: usize,
    /// Size of the others. 25 MiB unless set.
    pub bucket_bytes: usize,
}

impl Default for ReducerOptions {
    fn default() -> Self {
        Self { first_bucket_bytes: 1 << 20, bucket_bytes: 25 << 20 }
    }
}

/// Reduces the gradients of a fixed list of parameters. One at a time per parameter.
#[derive(Debug)]
pub struct Reducer {
    // Dropped before the group: it holds hooks that send through it. `None` after an error.
    inner: Option<Owned<ffi::Reducer>>,
    parameters: usize,
    group: Arc<Inner>,
}

impl Reducer {
    /// Hangs hooks on `params`, which share storage with the model's. Every rank calls this, with parameters of the
    /// same number, shapes and order, and the same values: [`Group::broadcast`] them first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no parameters or one that does not require a gradient; [`Error::Torch`] when the ranks'
    /// parameters differ in shape; else see [`Group`].
    pub fn new(group: &Group, params: &[Tensor], options: ReducerOptions) -> Result<Self, Error> {
        let inner = group.inner();
        let invalid = |reason: String| Error::Invalid { operation: "reducer", reason };
        if params.is_empty() {
            return Err(invalid(format!("{}: there are no parameters to train", inner.place())));
        }
        if let Some(index) = params.iter().position(|param| !param.requires_grad()) {
            return Err(invalid(format!(
                "{}: parameter {index} does not require a gradient: leave it out",
                inner.place()
            )));
        }
        let pointers = pointers(params);
        let ReducerOptions { first_bucket_bytes, bucket_bytes } = options;
        let hooks = inner.collective("reducer", |peers| {
            let group = peers.map_or(ptr::null(), |peers| peers.group.as_ptr().cast_const());
            Owned::create(|out, message| {
                // SAFETY: group (null in a group of one) and tensors outlive the call; the reducer takes its own shares of
                // both.
                unsafe {
                    ffi::lethe_reducer_new(
                        group,
                        pointers.as_ptr(),
                        pointers.len(),
                        first_bucket_bytes,
                        bucket_bytes,
                        out,
                        message,
                    )
                }
            })
        })?;
        Ok(Self { inner: Some(hooks), parameters: params.len(), group: Arc::clone(inner) })
    }

    /// Sets how coarse gradients are rounded from now on: `bounds`, f64 [parameters], gives for each parameter what no entry of a
    /// part's gradient exceeds, `parts` how many parts are added up, over all ranks. The same on every rank. One that exceeds its
    /// bound does no harm but that its sum may round. A bound that is no positive number stands for 1. Bounds on a GPU stay there:
    /// nobody waits for them.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is not one bound for each parameter; [`Error::Torch`].
    pub fn set_grid(&mut self, bounds: &Tensor, parts: u64) -> Result<(), Error> {
        if bounds.size() != [self.parameters as i64] {
            let reason = format!("bounds {:?} for {} parameters", bounds.size(), self.parameters);
            return Err(Error::Invalid { operation: "reducer", reason });
        }
        let Some(inner) = &self.inner else { return Ok(()) };
        if bounds.device() == Device::Cpu {
            let bounds = Vec::<f64>::try_from(bounds).map_err(|error| self.failed(error))?;
            let steps: Vec<f64> = bounds.iter().map(|bound| grid_step(*bound, parts)).collect();
            // SAFETY: the reducer is owned by `self`, which is borrowed mutably: no pass is going on. It copies `steps`, one for
            // each of its parameters.
            unsafe { ffi::lethe_reducer_set_grid(inner.as_ptr(), steps.as_ptr()) };
            return Ok(());
        }
        let steps = grid_steps(bounds, parts).map_err(|error| self.failed(error))?;
        // SAFETY: as above; it takes its own share of `steps`.
        ffi::call(|message| unsafe {
            ffi::lethe_reducer_set_grid_on_device(inner.as_ptr(), steps.as_ptr().cast(), message)
        })
        .map_err(|failure| self.failed(failure.detail))
    }

    fn failed(&self, detail: impl ToString) -> Error {
        Error::Torch { operation: "reducer", place: self.group.place(), detail: detail.to_string() }
    }

    /// The backward pass of one part of a rank's share, not its last. `loss` is a scalar. Nothing is sent; the gradients are
    /// kept until [`Reducer::finish`], and the parameters have none.
    ///
    /// # Errors
    /// As [`Reducer::finish`].
    pub fn accumulate(&mut self, loss: &Tensor) -> Result<(), Error> {
        self.pass("accumulate", loss, ffi::lethe_reducer_accumulate, Sends::Nothing)
    }

    /// The backward pass of a rank's last part: makes every parameter's gradient the sum over all parts of all ranks since
    /// the last time. What it was before is forgotten. For the mean over a global batch of B samples, each part's loss is
    /// the sum over its own samples, divided by B.
    ///
    /// # Errors
    /// See [`Group`]. The gradients are then worthless and the parameters untouched. Also an [`Error::Torch`] when
    /// a parameter got no gradient.
    pub fn finish(&mut self, loss: &Tensor) -> Result<(), Error> {
        self.pass("finish", loss, ffi::lethe_reducer_finish, Sends::Something)
    }

    fn pass(&mut self, operation: &'static str, loss: &Tensor, run: Pass, sends: Sends) -> Result<(), Error> {
        let inner = self.inner.as_ref();
        let result = self.group.run(operation, sends, |_| {
            let inner = inner.ok_or_else(|| ffi::Failure {
                code: ffi::Code::Torch,
                detail: "the reducer failed before".to_owned(),
            })?;
            // SAFETY: the reducer is owned by `self`, which is borrowed mutably: no other pass uses it. `loss` outlives the
            // call. The hooks may run on autograd's threads; they are C++ only, lock the reducer's own mutex, and are
            // done when this returns.
            ffi::call(|message| unsafe { run(inner.as_ptr(), loss.as_ptr().cast(), message) })
        });
        if result.is_err() {
            // A half-done pass leaves the hooks armed, and a later backward pass of the caller's would send. Away.
            self.inner = None;
        }
        result
    }
}

/// The step of a grid on which `parts` numbers below `bound` add up exactly: their sum has at most 51 bits above it.
fn grid_step(bound: f64, parts: u64) -> f64 {
    let bound = if bound.is_finite() && bound > 0.0 { bound } else { 1.0 };
    let sum = bound.log2().ceil() + (parts.max(1) as f64).log2().ceil();
    // Far from where powers of two end: gradients are f32.
    (sum - 51.0).clamp(-900.0, 900.0).exp2()
}

/// The same for bounds in a tensor, where they are.
fn grid_steps(bounds: &Tensor, parts: u64) -> Result<Tensor, tch::TchError> {
    let positive = bounds.f_gt(0.0)?.f_logical_and(&bounds.f_lt(f64::INFINITY)?)?;
    let bounds = bounds.f_where_scalarother(&positive, 1.0)?;
    let sums = bounds.f_log2()?.f_ceil()?.f_add_scalar((parts.max(1) as f64).log2().ceil() - 51.0)?;
    sums.f_clamp(-900.0, 900.0)?.f_exp2()
}

/// One of the two passes.
type Pass = unsafe extern "C" fn(*mut ffi::Reducer, ffi::TensorPtr, ffi::Message) -> c_int;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_the_grid_add_up_to_the_same_in_any_order() {
        let step = grid_step(0.75, 6);
        assert_eq!(step, 2_f64.powi(3 - 51));
        let shift = 1.5 * 2_f64.powi(52) * step;
        // Two large ones that make a tie in f32, and tiny ones that would decide it.
        let parts = [0.5_f32, 2_f32.powi(-25), 3.1e-17, -7.7e-18, 2.9e-17, 1.3e-20];
        let rounded = parts.map(|part| (f64::from(part) + shift) - shift);
        let forward: f64 = rounded.iter().sum();
        let backward: f64 = rounded.iter().rev().sum();
        let halves = rounded[3..].iter().sum::<f64>() + rounded[..3].iter().sum::<f64>();
        assert_eq!((forward, forward), (backward, halves));
        assert_eq!(rounded[0], 0.5, "what is on the grid stays");
    }

    #[test]
    fn bounds_in_a_tensor_give_the_same_grid() {
        let bounds = [0.75, 1.0, 1e-30, 3e38, 1e-320, 0.0, -1.0, f64::NAN, f64::INFINITY, 6.1e-5, 1234.5];
        for parts in [0, 1, 6, 8, 1000] {
            let steps = grid_steps(&Tensor::from_slice(&bounds), parts).unwrap();
            let expected = bounds.map(|bound| grid_step(bound, parts));
            assert_eq!(Vec::<f64>::try_from(steps).unwrap(), expected, "{parts}");
        }
    }

    /// What a GPU does, done on the cpu.
    #[test]
    fn a_grid_in_a_tensor_rounds_alike() {
        tch::manual_seed(5);
        let weights = || vec![Tensor::ones([50], tch::kind::FLOAT_CPU).set_requires_grad(true)];
        let slopes = Tensor::randn([3, 50], tch::kind::FLOAT_CPU);
        let gradient = |on_device: bool| {
            let params = weights();
            let mut reducer = Reducer::new(&Group::loopback(), &params, ReducerOptions::default()).unwrap();
            // So coarse that the rounding shows.
            let bounds = Tensor::from_slice(&[2_f64.powi(40)]);
            if on_device {
                let (steps, inner) = (grid_steps(&bounds, 3).unwrap(), reducer.inner.as_ref().unwrap());
                // SAFETY: both live through the call.
                ffi::call(|message| unsafe {
                    ffi::lethe_reducer_set_grid_on_device(inner.as_ptr(), steps.as_ptr().cast(), message)
                })
                .unwrap();
            } else {
                reducer.set_grid(&bounds, 3).unwrap();
            }
            let loss = |part: i64| params[0].dot(&slopes.get(part));
            reducer.accumulate(&loss(0)).unwrap();
            reducer.accumulate(&loss(1)).unwrap();
            reducer.finish(&loss(2)).unwrap();
            params[0].grad()
        };
        let (here, there) = (gradient(false), gradient(true));
        assert!(here.equal(&there));
        assert!(!here.equal(&slopes.sum_dim_intlist([0_i64].as_slice(), false, tch::Kind::Float)));
    }

    #[test]
    fn a_bound_that_is_none_stands_for_one() {
        for bound in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(grid_step(bound, 8), 2_f64.powi(-48));
        }
    }
}
