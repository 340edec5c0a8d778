//! The C functions of `native/` and the two things every caller needs: handles that free themselves, and a call
//! that turns a code and a C string into a `Result`.
//!
//! Not here: what the functions mean. Each is declared once and wrapped where it belongs (store, group, reducer).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

/// What a C function reports beside its message; mirrors `lethe::Code` in `native/guard.hpp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Torch,
    Timeout,
    Network,
}

/// A failed call, before anybody knows which rank and operation it belonged to.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) detail: String,
}

/// Where a C function leaves its message.
pub(crate) type Message = *mut *mut c_char;

/// An `at::Tensor*`, as tch's `Tensor::as_ptr` gives it.
pub(crate) type TensorPtr = *const c_void;

/// Runs one C function. `function` must hand its argument on as the function's `message` parameter.
pub(crate) fn call(function: impl FnOnce(Message) -> c_int) -> Result<(), Failure> {
    let mut message = ptr::null_mut();
    let code = match function(&mut message) {
        0 => return Ok(()),
        2 => Code::Timeout,
        3 => Code::Network,
        _ => Code::Torch,
    };
    Err(Failure { code, detail: first_lines(&take_string(message).unwrap_or_default()) })
}

/// Takes over a string that C++ made with `strdup`; `None` for null.
pub(crate) fn take_string(string: *mut c_char) -> Option<String> {
    if string.is_null() {
        return None;
    }
    // SAFETY: not null, and by the contract of every function here a NUL-terminated string that is ours now.
    let text = unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned();
    // SAFETY: it came from strdup or strndup, and nobody else holds it.
    unsafe { libc::free(string.cast()) };
    Some(text)
}

/// torch's messages end in stack traces and advice over many lines; the cause is in the first ones.
fn first_lines(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect::<Vec<_>>().join(" ")
}

/// An opaque C++ object and how to free it.
pub(crate) trait Foreign {
    /// # Safety
    /// `object` came from a function of `native/` that hands out ownership, and is not used afterwards.
    unsafe fn free(object: *mut Self);
}

/// An owned C++ object; freed once, on drop.
#[derive(Debug)]
pub(crate) struct Owned<T: Foreign>(NonNull<T>);

// SAFETY: every object is a C++ smart pointer with an atomic count (or a struct that holds one), tied to no thread.
unsafe impl<T: Foreign> Send for Owned<T> {}
// SAFETY: the store locks inside; groups and backends are used under the group's mutex, except for abort, which
// libtorch allows from any thread; a reducer is only used through `&mut`.
unsafe impl<T: Foreign> Sync for Owned<T> {}

impl<T: Foreign> Owned<T> {
    /// Runs one C function that stores a new object through its `out` parameter.
    pub(crate) fn create(function: impl FnOnce(*mut *mut T, Message) -> c_int) -> Result<Self, Failure> {
        let mut object = ptr::null_mut();
        call(|message| function(&mut object, message))?;
        NonNull::new(object)
            .map(Self)
            .ok_or_else(|| Failure { code: Code::Torch, detail: "the shim made no object".into() })
    }

    pub(crate) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T: Foreign> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made by `create`, owned by this value alone, and gone after this line.
        unsafe { T::free(self.0.as_ptr()) }
    }
}

macro_rules! foreign {
    ($(#[$doc:meta])* $name:ident, $free:ident) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug)]
        pub(crate) struct $name {
            _opaque: [u8; 0],
        }
        impl Foreign for $name {
            unsafe fn free(object: *mut Self) {
                // SAFETY: the caller's promise, handed on.
                unsafe { $free(object) }
            }
        }
    };
}

foreign!(
    /// `c10::intrusive_ptr<c10d::Store>`.
    Store,
    lethe_store_free
);
foreign!(
    /// `std::shared_ptr<gloo::transport::Device>`.
    Device,
    lethe_gloo_device_free
);
foreign!(
    /// `c10::intrusive_ptr<c10d::Backend>`.
    Backend,
    lethe_backend_free
);
foreign!(
    /// `c10::intrusive_ptr<c10d::ProcessGroup>`.
    Group,
    lethe_group_free
);
foreign!(
    /// A `c10d::Reducer`, none in a group of one, and the gradients of earlier parts.
    Reducer,
    lethe_reducer_free
);

// Every function returns 0 or an error code, with a message; it catches all C++ exceptions. Pointers are borrowed
// for the call, except those named `out`, which receive ownership.
unsafe extern "C" {
    pub(crate) fn lethe_store_new(
        host: *const c_char,
        port: u16,
        listener: c_int,
        connect_ms: i64,
        timeout_ms: i64,
        out: *mut *mut Store,
        message: Message,
    ) -> c_int;
    pub(crate) fn lethe_store_scope(
        store: *const Store,
        prefix: *const c_char,
        out: *mut *mut Store,
        message: Message,
    ) -> c_int;
    pub(crate) fn lethe_store_add(
        store: *const Store,
        key: *const c_char,
        delta: i64,
        out: *mut i64,
        message: Message,
    ) -> c_int;
    pub(crate) fn lethe_store_set(
        store: *const Store,
        key: *const c_char,
        value: *const c_char,
        message: Message,
    ) -> c_int;
    pub(crate) fn lethe_store_find(
        store: *const Store,
        key: *const c_char,
        out: *mut *mut c_char,
        message: Message,
    ) -> c_int;
    fn lethe_store_free(store: *mut Store);

    pub(crate) fn lethe_gloo_device(
        name: *const c_char,
        is_interface: bool,
        out: *mut *mut Device,
        message: Message,
    ) -> c_int;
    fn lethe_gloo_device_free(device: *mut Device);
    pub(crate) fn lethe_gloo_backend(
        store: *const Store,
        device: *const Device,
        rank: c_int,
        world: c_int,
        timeout_ms: i64,
        out: *mut *mut Backend,
        message: Message,
    ) -> c_int;
    pub(crate) fn lethe_backend_abort(backend: *const Backend, message: Message) -> c_int;
    pub(crate) fn lethe_backend_shutdown(backend: *const Backend, message: Message) -> c_int;
    fn lethe_backend_free(backend: *mut Backend);

    pub(crate) fn lethe_group_new(
        store: *const Store,
        backend: *const Backend,
        nccl: bool,
        rank: c_int,
        world: c_int,
        out: *mut *mut Group,
        message: Message,
    ) -> c_int;
    pub(crate) fn lethe_group_broadcast(
        group: *const Group,
        tensors: *const TensorPtr,
        count: usize,
        root: c_int,
        message: Message,
    ) -> c_int;
    pub(crate) fn lethe_group_all_reduce_sum(
        group: *const Group,
        tensor: TensorPtr,
        message: Message,
    ) -> c_int;
    fn lethe_group_free(group: *mut Group);

    pub(crate) fn lethe_reducer_new(
        group: *const Group,
        tensors: *const TensorPtr,
        count: usize,
        first_bucket_bytes: usize,
        bucket_bytes: usize,
        out: *mut *mut Reducer,
        message: Message,
    ) -> c_int;
    pub(crate) fn lethe_reducer_set_grid(reducer: *mut Reducer, steps: *const f64);
    pub(crate) fn lethe_reducer_set_grid_on_device(
        reducer: *mut Reducer,
        steps: TensorPtr,
        message: Message,
    ) -> c_int;
    pub(crate) fn lethe_reducer_accumulate(reducer: *mut Reducer, loss: TensorPtr, message: Message)
    -> c_int;
    pub(crate) fn lethe_reducer_finish(reducer: *mut Reducer, loss: TensorPtr, message: Message) -> c_int;
    fn lethe_reducer_free(reducer: *mut Reducer);
}
