//! The C functions of `native/`, and how their messages become strings.

use std::ffi::{CStr, c_char, c_int, c_void};

/// A `torch::jit::Module`.
#[repr(C)]
pub(crate) struct Module {
    _opaque: [u8; 0],
}

/// An `at::Tensor`.
pub(crate) type TensorPtr = *mut c_void;

/// Receives a name, whether it is a parameter, a tensor to own, and the memory it lies in: its first byte and its size.
pub(crate) type Visit =
    unsafe extern "C" fn(*mut c_void, *const c_char, c_int, TensorPtr, *const c_void, usize);

/// Receives bytes.
pub(crate) type Write = unsafe extern "C" fn(*mut c_void, *const c_void, usize);

// Each `*mut c_char` is null, or a message to forget.
unsafe extern "C" {
    pub(crate) fn lethe_forget(message: *mut c_char);
    pub(crate) fn lethe_torch_version() -> *const c_char;
    pub(crate) fn lethe_script_load(
        data: *const u8,
        size: usize,
        device: c_int,
        out: *mut *mut Module,
    ) -> *mut c_char;
    pub(crate) fn lethe_script_free(module: *mut Module);
    pub(crate) fn lethe_script_has_forward(module: *const Module) -> c_int;
    pub(crate) fn lethe_script_forward(
        module: *const Module,
        input: *const c_void,
        out: *mut TensorPtr,
    ) -> *mut c_char;
    pub(crate) fn lethe_script_tensors(
        module: *const Module,
        context: *mut c_void,
        visit: Visit,
    ) -> *mut c_char;
    pub(crate) fn lethe_script_assign(
        module: *mut Module,
        name: *const c_char,
        tensor: *const c_void,
    ) -> *mut c_char;
    pub(crate) fn lethe_script_eval(module: *mut Module) -> *mut c_char;
    pub(crate) fn lethe_script_batch_norm(
        module: *mut Module,
        training: c_int,
        layers: *mut i64,
    ) -> *mut c_char;
    pub(crate) fn lethe_script_optimise(module: *mut Module) -> *mut c_char;
    pub(crate) fn lethe_script_save(module: *const Module, context: *mut c_void, write: Write)
    -> *mut c_char;
    pub(crate) fn lethe_repeatable(tf32: c_int) -> *mut c_char;
    pub(crate) fn lethe_adam_step(
        count: usize,
        weights: *const *mut c_void,
        gradients: *const *mut c_void,
        means: *const *mut c_void,
        squares: *const *mut c_void,
        steps: *const *mut c_void,
        lr: f64,
        beta1: f64,
        beta2: f64,
        eps: f64,
    ) -> *mut c_char;
}

/// Takes over what a function returned: null is success.
pub(crate) fn check(message: *mut c_char) -> Result<(), String> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so by the contract of native/guard.hpp a NUL-terminated string, ours alone.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: it came from `guarded`, and is not used after this.
    unsafe { lethe_forget(message) };
    Err(text)
}

/// Version of the libtorch this was compiled against.
pub fn torch_version() -> &'static str {
    // SAFETY: the function returns a string literal.
    let version = unsafe { CStr::from_ptr(lethe_torch_version()) };
    version.to_str().unwrap_or("unknown")
}
