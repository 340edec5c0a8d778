//! Data-parallel gradients: DistributedDataParallel's reducer.
//!
//! It hangs a hook on every parameter's gradient accumulator. During a backward pass the hooks copy finished
//! gradients into buckets, and a bucket that is full travels while autograd computes the next one.
//!
//! Not here: the forward pass, the optimiser, and weighting. Gradients come out as the mean over the ranks.

use std::ptr;
use std::sync::Arc;

use tch::Tensor;

use crate::error::Error;
use crate::ffi::{self, Owned};
use crate::group::{Group, Inner, pointers};

/// Settings of a reducer; the same on every rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReducerOptions {
    /// Size of the bucket that is sent first, small so that sending starts early. 1 MiB unless set.
    pub first_bucket_bytes: usize,
    /// Size of the others. 25 MiB unless set.
    pub bucket_bytes: usize,
    /// Look in every step for parameters that get no gradient on this rank. Costs a walk over the graph and one
    /// more all-reduce; without it, such a parameter is an error.
    pub find_unused: bool,
}

impl Default for ReducerOptions {
    fn default() -> Self {
        Self { first_bucket_bytes: 1 << 20, bucket_bytes: 25 << 20, find_unused: false }
    }
}

/// Reduces the gradients of a fixed list of parameters. One at a time per parameter.
#[derive(Debug)]
pub struct Reducer {
    // Dropped before the group: it holds hooks that send through it. `None` in a loopback, and after an error.
    hooks: Option<Owned<ffi::Reducer>>,
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
        let ReducerOptions { first_bucket_bytes, bucket_bytes, find_unused } = options;
        let hooks = inner.collective("reducer", |peers| {
            let Some(peers) = peers else { return Ok(None) };
            Owned::create(|out, message| {
                // SAFETY: group and tensors outlive the call; the reducer takes its own shares of both.
                unsafe {
                    ffi::lethe_reducer_new(
                        peers.group.as_ptr(),
                        pointers.as_ptr(),
                        pointers.len(),
                        first_bucket_bytes,
                        bucket_bytes,
                        find_unused,
                        out,
                        message,
                    )
                }
            })
            .map(Some)
        })?;
        Ok(Self { hooks, group: Arc::clone(inner) })
    }

    /// The backward pass of `loss`, a scalar: adds to every parameter's gradient the mean, over the ranks, of the
    /// ranks' gradients. So for a global batch of B samples of which a rank has n, its loss is the sum over its n
    /// samples times world / B. Zero the gradients before, step the optimiser after.
    ///
    /// # Errors
    /// See [`Group`]. The gradients are then worthless and the parameters untouched. Also an [`Error::Torch`] when
    /// a parameter got no gradient and [`ReducerOptions::find_unused`] is off.
    pub fn backward(&mut self, loss: &Tensor) -> Result<(), Error> {
        let hooks = self.hooks.as_ref().map_or(ptr::null_mut(), Owned::as_ptr);
        let result = self.group.collective("backward", |_| {
            // SAFETY: `hooks` is null (a plain backward pass) or owned by `self`, which is borrowed mutably: no
            // other pass uses it. `loss` outlives the call. The hooks may run on autograd's threads; they are C++
            // only, lock the reducer's own mutex, and are done when this returns. Should the group have failed,
            // this closure is not called, so null never stands for a reducer that is gone.
            ffi::call(|message| unsafe { ffi::lethe_reducer_backward(hooks, loss.as_ptr().cast(), message) })
        });
        if result.is_err() {
            // A half-done pass leaves the hooks armed, and a later backward pass of the caller's would send. Away.
            self.hooks = None;
        }
        result
    }
}
