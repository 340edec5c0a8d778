//! A TorchScript module: loaded from bytes, run, trained, prepared for inference, written back.
//!
//! tch's own wrapper leaves out buffers (the statistics of batch normalisation), bytes and optimising; hence `native/script.cpp`.
//! Whatever precision a module computes in, it takes and gives f32 here. Not here: which of its tensors are trained
//! (`generator::leaves`).

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use tch::{Device, Kind, Tensor};

use crate::error::{self, Error, Result, classify, first_sentence};
use crate::ffi;
use crate::precision::{self, dtype};

/// A loaded module.
#[derive(Debug)]
pub(crate) struct Script {
    file: String,
    module: NonNull<ffi::Module>,
    /// The precision in which it takes its input.
    takes: Cell<Kind>,
    /// The least precise other floating kind among its tensors, in which it may take its input if it does not take f32.
    other: Option<Kind>,
    /// The precision in which it gave its last output.
    gives: Cell<Kind>,
}

// SAFETY: the module is used by one owner at a time (it is not Sync), and libtorch ties no module to a thread.
unsafe impl Send for Script {}

/// A parameter or buffer of a module, sharing its storage.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) tensor: Tensor,
    pub(crate) parameter: bool,
    /// Address and size of the memory of which it is a view.
    pub(crate) memory: (usize, usize),
}

impl Script {
    /// Loads an archive with `forward`, in eval mode.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::Unreadable`], [`Error::NoForward`], [`Error::Memory`].
    pub(crate) fn load(bytes: &[u8], file: &str, device: Device) -> Result<Self> {
        let mut module = ptr::null_mut();
        // SAFETY: the bytes outlive the call, and `module` is a place for one pointer.
        let message = unsafe {
            ffi::lethe_script_load(bytes.as_ptr(), bytes.len(), device_number(device), &mut module)
        };
        ffi::check(message).map_err(|message| error::of_load(file, &message))?;
        let module =
            NonNull::new(module).ok_or_else(|| Error::Torch { reason: "load gave null".to_owned() })?;
        let [takes, gives] = [Kind::Float, Kind::Float].map(Cell::new);
        let mut script = Self { file: file.to_owned(), module, takes, other: None, gives };
        // SAFETY: the module is alive as long as `script`.
        if unsafe { ffi::lethe_script_has_forward(script.module.as_ptr()) } == 0 {
            return Err(Error::NoForward { file: script.file.clone() });
        }
        // SAFETY: as above; nobody else holds the module.
        script.done(unsafe { ffi::lethe_script_eval(script.module.as_ptr()) })?;
        let kinds = script.tensors()?.into_iter().map(|named| named.tensor.f_kind());
        let kinds = kinds.collect::<std::result::Result<Vec<_>, _>>()?;
        script.other = precision::coarsest(kinds.into_iter().filter(|kind| *kind != Kind::Float));
        Ok(script)
    }

    /// Runs `forward` on one f32 tensor, which stays as it is. Gives f32.
    ///
    /// The module gets a copy, since its code may write to its input.
    ///
    /// # Errors
    /// [`Error::Forward`] when the module's code fails or gives anything but a tensor of real numbers; [`Error::Memory`].
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let takes = self.takes.get();
        let first = self.run(input, takes);
        match (first, self.other) {
            // A module in half precision that does not cast its input itself.
            (Err(error @ Error::Forward { .. }), Some(other)) if takes != other => {
                let output = self.run(input, other).map_err(|_| error)?;
                self.takes.set(other);
                Ok(output)
            }
            (outcome, _) => outcome,
        }
    }

    /// The least precise kind of number among its tensors and its last output.
    pub(crate) fn precision(&self) -> Kind {
        precision::coarsest([Some(self.gives.get()), self.other].into_iter().flatten()).unwrap_or(Kind::Float)
    }

    fn run(&self, input: &Tensor, kind: Kind) -> Result<Tensor> {
        let shape = input.size();
        let input = input.f_to_dtype(kind, false, true)?;
        let mut out = ptr::null_mut();
        // SAFETY: module and input are alive; `out` is a place for one pointer.
        let message =
            unsafe { ffi::lethe_script_forward(self.module.as_ptr(), input.as_ptr().cast(), &mut out) };
        ffi::check(message).map_err(|message| Error::forward(&self.file, &shape, &message))?;
        // SAFETY: the call succeeded, so `out` is a fresh `at::Tensor*` that nobody else owns.
        let output = unsafe { Tensor::from_ptr(out.cast()) };
        let found = output.f_kind()?;
        if !precision::is_real(found) {
            let reason = format!("it gives numbers of type {}, expected floating ones", dtype(found));
            return Err(Error::Forward { model: self.file.clone(), input: shape, reason });
        }
        self.gives.set(found);
        Ok(output.f_to_kind(Kind::Float)?)
    }

    /// Puts `tensor` in the place of the parameter or buffer of this name.
    ///
    /// # Errors
    /// [`Error::Torch`] when there is no such place.
    pub(crate) fn assign(&self, name: &str, tensor: &Tensor) -> Result<()> {
        let name = CString::new(name).map_err(|error| Error::Torch { reason: error.to_string() })?;
        // SAFETY: module, name and tensor are alive; the module keeps a reference of its own.
        self.done(unsafe {
            ffi::lethe_script_assign(self.module.as_ptr(), name.as_ptr(), tensor.as_ptr().cast())
        })
    }

    /// Parameters in the order of their declaration, then buffers.
    ///
    /// # Errors
    /// [`Error::Torch`].
    pub(crate) fn tensors(&self) -> Result<Vec<Named>> {
        let mut found: Vec<Named> = Vec::new();
        // SAFETY: the module is alive, and `visit` gets the vector it expects, for the time of the call.
        let message = unsafe {
            ffi::lethe_script_tensors(self.module.as_ptr(), ptr::from_mut(&mut found).cast(), visit)
        };
        self.done(message)?;
        Ok(found)
    }

    /// Lets batch normalisation use and update batch statistics, or stop doing so. Gives the number of such layers.
    ///
    /// # Errors
    /// [`Error::Torch`].
    pub(crate) fn set_batch_norm(&mut self, training: bool) -> Result<i64> {
        let mut layers = 0;
        // SAFETY: the module is alive and borrowed mutably; `layers` is a place for one number.
        let message =
            unsafe { ffi::lethe_script_batch_norm(self.module.as_ptr(), c_int::from(training), &mut layers) };
        self.done(message)?;
        Ok(layers)
    }

    /// Prepares it for inference only: weights become constants, layers are fused. Results agree to rounding.
    ///
    /// A module that changes its own attributes cannot be prepared; it runs as it is.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn optimise(&mut self) -> Result<()> {
        // SAFETY: the module is alive and borrowed mutably.
        match self.done(unsafe { ffi::lethe_script_optimise(self.module.as_ptr()) }) {
            Err(error @ Error::Memory { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// The archive with the present weights.
    ///
    /// # Errors
    /// [`Error::Torch`].
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes: Vec<u8> = Vec::new();
        // SAFETY: the module is alive, and `write` gets the vector it expects, for the time of the call.
        let message =
            unsafe { ffi::lethe_script_save(self.module.as_ptr(), ptr::from_mut(&mut bytes).cast(), write) };
        self.done(message)?;
        Ok(bytes)
    }

    fn done(&self, message: *mut c_char) -> Result<()> {
        ffi::check(message).map_err(|message| match classify(&message) {
            Error::Torch { .. } => {
                Error::Torch { reason: format!("{}: {}", self.file, first_sentence(&message)) }
            }
            other => other,
        })
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // SAFETY: made by `lethe_script_load`, freed only here.
        unsafe { ffi::lethe_script_free(self.module.as_ptr()) };
    }
}

unsafe extern "C" fn visit(
    context: *mut c_void,
    name: *const c_char,
    parameter: c_int,
    tensor: ffi::TensorPtr,
    memory: *const c_void,
    bytes: usize,
) {
    // SAFETY: `tensors` passes its vector, which lives through the call and has no other user meanwhile.
    let found = unsafe { &mut *context.cast::<Vec<Named>>() };
    // SAFETY: C++ passes the NUL-terminated name of a tensor.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    // SAFETY: C++ passes a fresh `at::Tensor*` and forgets it.
    let tensor = unsafe { Tensor::from_ptr(tensor.cast()) };
    found.push(Named { name, tensor, parameter: parameter != 0, memory: (memory.addr(), bytes) });
}

unsafe extern "C" fn write(context: *mut c_void, data: *const c_void, size: usize) {
    if size == 0 {
        return;
    }
    // SAFETY: `to_bytes` passes its vector, which lives through the call and has no other user meanwhile.
    let bytes = unsafe { &mut *context.cast::<Vec<u8>>() };
    // SAFETY: C++ passes `size` readable bytes.
    bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) });
}

/// tch's own numbers for devices.
fn device_number(device: Device) -> c_int {
    match device {
        Device::Cuda(index) => index as c_int,
        _ => -1,
    }
}
