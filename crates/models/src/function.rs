//! Whether a model is a function of its input: the same input gives the same output, whatever stands beside it in the batch.
//!
//! Fresh noise, dropout or normalisation traced in training mode, statistics kept in the forward pass, a batch size written
//! into the module: each makes every number that is measured later one of chance. tools/export looks for the same.

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::precision;

/// Largest difference between two runs on the same batch, relative to the largest output.
const REPEATED: f64 = 1e-5;
/// The same between batches of different sizes: other kernels sum in another order, and some modules round on the way.
const IN_PARTS: f64 = 5e-3;
/// Outputs smaller than this are compared as if one were as large.
const SMALLEST: f64 = 1e-3;

/// Runs the model on the whole batch twice, then on its first row and its first half alone. Gives the output of the first run.
///
/// `buffers` are what the model could change; `precision` is asked after it ran.
///
/// # Errors
/// [`Error::NoFunction`]; those of `run`.
pub(crate) fn check(
    model: &str,
    input: &Tensor,
    buffers: &[(String, Tensor)],
    precision: impl Fn() -> Kind,
    run: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let refuse = |reason: String| Err(Error::NoFunction { model: model.to_owned(), reason });
    tch::no_grad(|| {
        let before = buffers
            .iter()
            .map(|(_, tensor)| tensor.f_detach_copy())
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let whole = run(input)?;
        for ((name, tensor), before) in buffers.iter().zip(&before) {
            if !same(tensor, before)? {
                return refuse(format!("its forward pass changes its own buffer {name}"));
            }
        }
        let off = distance(&run(input)?, &whole)?;
        if off > REPEATED {
            return refuse(format!("the same input gives outputs that differ by {off:.2} of the largest"));
        }
        let count = input.size()[0];
        let allowed = IN_PARTS.max(8.0 * precision::epsilon(precision()));
        for part in [1, count / 2] {
            if part < 1 || part >= count {
                continue;
            }
            let alone = match run(&input.f_narrow(0, 0, part)?) {
                Err(Error::Forward { reason, .. } | Error::Mismatch { reason, .. }) => {
                    return refuse(format!("it takes a batch of {count} but not one of {part}: {reason}"));
                }
                other => other?,
            };
            let off = distance(&alone, &whole.f_narrow(0, 0, part)?)?;
            if off > allowed {
                return refuse(format!(
                    "what it gives for an input depends on the batch around it: in a batch of {part} by {off:.2} of the \
                     largest output from one of {count}"
                ));
            }
        }
        Ok(whole)
    })
}

fn same(one: &Tensor, other: &Tensor) -> Result<bool> {
    // NaN is no reason to say that it changed.
    Ok(one.f_equal(other)? || one.f_isnan()?.f_any()?.f_int64_value(&[])? != 0)
}

/// Largest difference, relative to the largest value. NaN is left to those who look at outputs.
fn distance(one: &Tensor, other: &Tensor) -> Result<f64> {
    let largest = |tensor: &Tensor| -> Result<f64> { Ok(f64::try_from(tensor.f_abs()?.f_max()?)?) };
    let off = largest(&one.f_sub(other)?)? / largest(other)?.max(SMALLEST);
    Ok(if off.is_nan() { 0.0 } else { off })
}
