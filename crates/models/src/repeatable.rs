//! The settings under which a GPU repeats its numbers from run to run.
//!
//! cuDNN takes algorithms that add up in a fixed order, and does not choose by timing them; operators of libtorch that have a
//! repeatable form use it. One that has none is used all the same, with a warning: which those are, torch's documentation of
//! `use_deterministic_algorithms` lists. cuBLAS wants a variable of the environment as well (`CUBLAS_WORKSPACE_CONFIG`), before
//! it is loaded. Not here: the cpu, which repeats itself without.

use crate::error::{Result, classify};
use crate::ffi;

/// Sets them, for this process; to be called on the thread that works. TF32, in which a GPU rounds the factors of products to ten
/// bits and is several times as fast, is off unless asked for.
///
/// # Errors
/// [`crate::Error::Torch`].
pub fn repeat_on_gpu(tf32: bool) -> Result<()> {
    // SAFETY: it takes a number and returns null or a message.
    let message = unsafe { ffi::lethe_repeatable(tf32.into()) };
    ffi::check(message).map_err(|message| classify(&message))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn an_operator_that_cannot_be_repeated_still_works_and_so_does_the_cpu() {
        let product = || {
            let x = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([4, 6]).sin();
            Vec::<f32>::try_from(x.matmul(&x.transpose(0, 1)).flatten(0, -1)).unwrap()
        };
        let before = product();
        for tf32 in [true, false] {
            repeat_on_gpu(tf32).unwrap();
            assert_eq!(product(), before, "the cpu computes as ever");
            // `put_` has no repeatable form: it would be an error if it were not only warned of.
            let mut x = Tensor::zeros([4], (Kind::Float, Device::Cpu));
            for _ in 0..3 {
                let _ =
                    x.f_put_(&Tensor::from_slice(&[1_i64]), &Tensor::from_slice(&[2_f32]), false).unwrap();
            }
            assert_eq!(Vec::<f32>::try_from(x).unwrap(), [0.0, 2.0, 0.0, 0.0]);
        }
    }
}
