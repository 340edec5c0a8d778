//! The CUDA side, loaded at run time: libtorch_cuda, and `liblethe_nccl.so` with the NCCL backend.
//!
//! Both stay loaded for the life of the process. Not here: any CUDA call of our own; libtorch makes them.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs};

use crate::error::Error;
use crate::ffi::{self, Failure, Message, Owned};
use crate::store::{Store, c_string, milliseconds};

const LIBRARY: &str = "liblethe_nccl.so";
const TORCH_CUDA: &str = "libtorch_cuda.so";
const TORCH_CPU: &str = "libtorch_cpu.so";

type Devices = unsafe extern "C" fn(*mut c_int, Message) -> c_int;
type NewBackend = unsafe extern "C" fn(
    *const ffi::Store,
    c_int,
    c_int,
    c_int,
    i64,
    *mut *mut ffi::Backend,
    Message,
) -> c_int;
type Connect = unsafe extern "C" fn(*const ffi::Backend, c_int, Message) -> c_int;
type Settle = unsafe extern "C" fn(*const ffi::Backend, c_int, i64, Message) -> c_int;

/// The functions of `liblethe_nccl.so`.
#[derive(Debug)]
pub(crate) struct Library {
    devices: Devices,
    new_backend: NewBackend,
    connect: Connect,
    settle: Settle,
}

/// Loads libtorch's CUDA side into this process. Call it at start-up when the device is a CUDA one, before anything
/// asks tch whether CUDA is there: the answer is remembered. More calls do nothing.
///
/// # Errors
/// [`Error::NcclMissing`] on a machine without CUDA, or without the wheels that libtorch_cuda depends on.
pub fn load_cuda() -> Result<(), Error> {
    static LOADED: OnceLock<Result<(), Error>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            // Beside the rest of libtorch: that of another version would load too, and crash later.
            let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
            let path = beside_torch(&maps).unwrap_or_else(|| PathBuf::from(TORCH_CUDA));
            open(&path, libc::RTLD_NOW | libc::RTLD_GLOBAL).map(drop)
        })
        .clone()
}

/// Where libtorch_cuda is, from the list of what is loaded.
fn beside_torch(maps: &str) -> Option<PathBuf> {
    let mut paths = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let torch = paths.find(|path| path.file_name().is_some_and(|name| name == TORCH_CPU))?;
    Some(torch.with_file_name(TORCH_CUDA))
}

/// `liblethe_nccl.so`, loaded on the first call.
pub(crate) fn library() -> Result<&'static Library, Error> {
    static LOADED: OnceLock<Result<Library, Error>> = OnceLock::new();
    LOADED.get_or_init(|| load_cuda().and_then(|()| load())).as_ref().map_err(Clone::clone)
}

fn load() -> Result<Library, Error> {
    let path = library_path();
    let handle = open(&path, libc::RTLD_NOW | libc::RTLD_LOCAL)?;
    let devices = symbol(handle, &path, c"lethe_nccl_devices")?;
    let new_backend = symbol(handle, &path, c"lethe_nccl_backend")?;
    let connect = symbol(handle, &path, c"lethe_nccl_connect")?;
    let settle = symbol(handle, &path, c"lethe_nccl_settle")?;
    // SAFETY: the four types repeat the declarations in native/nccl.cpp, from which this library was built. A file
    // of another version is the operator's mistake that no loader can detect.
    Ok(unsafe {
        Library {
            devices: std::mem::transmute::<*mut c_void, Devices>(devices),
            new_backend: std::mem::transmute::<*mut c_void, NewBackend>(new_backend),
            connect: std::mem::transmute::<*mut c_void, Connect>(connect),
            settle: std::mem::transmute::<*mut c_void, Settle>(settle),
        }
    })
}

/// `LETHE_NCCL_LIB` if set; else beside the executable if it is there; else where it was built.
fn library_path() -> PathBuf {
    if let Some(path) = env::var_os("LETHE_NCCL_LIB") {
        return path.into();
    }
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(LIBRARY)));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from(env!("LETHE_NCCL_BUILT")))
}

fn open(path: &Path, flags: c_int) -> Result<*mut c_void, Error> {
    let library = path.display().to_string();
    let name = c_string(&library, "load")?;
    // SAFETY: `name` is a C string. The library's initialisers are libtorch's registrations, which may run at any
    // time and on any thread; it is never unloaded.
    let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
    if handle.is_null() { Err(Error::NcclMissing { library, detail: loader_error() }) } else { Ok(handle) }
}

fn symbol(handle: *mut c_void, path: &Path, name: &CStr) -> Result<*mut c_void, Error> {
    // SAFETY: `handle` came from dlopen and is never closed; `name` is a C string.
    let address: *mut c_void = unsafe { libc::dlsym(handle, name.as_ptr()) };
    if address.is_null() {
        return Err(Error::NcclMissing { library: path.display().to_string(), detail: loader_error() });
    }
    Ok(address)
}

fn loader_error() -> String {
    // SAFETY: takes no argument; the text belongs to this thread until its next dl* call.
    let text: *const c_char = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader gave no reason".to_owned();
    }
    // SAFETY: not null, and a C string by dlerror's contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl Library {
    /// How many CUDA devices this process sees.
    pub(crate) fn devices(&self) -> Result<c_int, Failure> {
        let mut count = 0;
        // SAFETY: `count` outlives the call.
        ffi::call(|message| unsafe { (self.devices)(&mut count, message) })?;
        Ok(count)
    }

    pub(crate) fn new_backend(
        &self,
        scope: &Store,
        device: c_int,
        rank: c_int,
        world: c_int,
        timeout: Duration,
    ) -> Result<Owned<ffi::Backend>, Failure> {
        Owned::create(|out, message| {
            // SAFETY: the store outlives the call; the backend takes its own share of it.
            unsafe {
                (self.new_backend)(scope.as_ptr(), device, rank, world, milliseconds(timeout), out, message)
            }
        })
    }

    /// Connects the communicator now, not at the first collective: a peer that cannot be reached fails the joining.
    pub(crate) fn connect(&self, backend: &Owned<ffi::Backend>, device: c_int) -> Result<(), Failure> {
        // SAFETY: `backend` outlives the call and is an NCCL one.
        ffi::call(|message| unsafe { (self.connect)(backend.as_ptr(), device, message) })
    }

    /// Blocks until the GPU has really done what was enqueued, so that success means success.
    pub(crate) fn settle(
        &self,
        backend: &Owned<ffi::Backend>,
        device: c_int,
        timeout: Duration,
    ) -> Result<(), Failure> {
        ffi::call(|message| {
            // SAFETY: `backend` outlives the call and is an NCCL one.
            unsafe { (self.settle)(backend.as_ptr(), device, milliseconds(timeout), message) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cuda_side_is_looked_for_beside_the_torch_that_is_loaded() {
        let maps = "7f00-7f01 r-xp 00000000 08:01 42                  /usr/lib/libc.so.6\n\
                    7f02-7f03 rw-p 00000000 00:00 0 \n\
                    7f04-7f05 r-xp 00000000 08:01 43                  /opt/my torch/lib/libtorch_cpu.so\n";
        let expected = PathBuf::from("/opt/my torch/lib/libtorch_cuda.so");
        assert_eq!(beside_torch(maps), Some(expected));
        assert_eq!(beside_torch(""), None);
        // This process has it loaded itself, once something of libtorch was called.
        assert_eq!(tch::Tensor::from(1.0).double_value(&[]), 1.0);
        let own = beside_torch(&fs::read_to_string("/proc/self/maps").unwrap());
        assert!(own.is_some_and(|path| path.is_absolute()));
    }
}
