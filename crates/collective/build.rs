//! Compiles the C++ shim in `native/` against libtorch's own headers.
//!
//! Two pieces come out: a static library (store, Gloo, reducer) that becomes part of this crate, and the shared
//! library `liblethe_nccl.so`, which needs libtorch_cuda and is therefore opened at run time, on CUDA machines only.
//! NCCL is compiled on every machine: its headers come from wheels and need no GPU.
//!
//! A dependent with a build script finds two variables there: `DEP_LETHE_COLLECTIVE_TORCH_LIB` (the folder its
//! binaries need as rpath: cargo does not pass link arguments on from a library) and
//! `DEP_LETHE_COLLECTIVE_NCCL_LIB` (the file to ship beside the executable).

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

type Outcome<T> = Result<T, String>;

fn main() {
    if let Err(reason) = build() {
        println!("cargo::error={reason}");
    }
}

fn build() -> Outcome<()> {
    println!("cargo:rerun-if-changed=native");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let torch = torch_folder()?;
    let torch_lib = torch.join("lib");
    // Another torch in the same place: everything compiled against its headers is void.
    println!("cargo:rerun-if-changed={}", torch.join("version.py").display());

    let mut shim = shim(&torch)?;
    shim.files(["native/store.cpp", "native/group.cpp", "native/reducer.cpp"]).compile("lethe_c10d");

    let nccl = build_nccl(&torch)?;
    println!("cargo:rustc-env=LETHE_NCCL_BUILT={}", nccl.display());
    println!("cargo:torch_lib={}", torch_lib.display());
    println!("cargo:nccl_lib={}", nccl.display());
    // For this package's own tests and examples.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", torch_lib.display());
    Ok(())
}

/// The wheel's `torch` folder, with links resolved: the path ends up in rpaths, which outlive the link.
fn torch_folder() -> Outcome<PathBuf> {
    let given = env::var_os("LIBTORCH").ok_or("LIBTORCH is not set: run `make`, which sets libtorch up")?;
    Path::new(&given)
        .canonicalize()
        .map_err(|e| format!("LIBTORCH={}: {e}: run `make`, which sets libtorch up", given.display()))
}

/// The settings that both pieces share.
fn shim(torch: &Path) -> Outcome<cc::Build> {
    const GLOO: &str = "/usr/include";
    if !Path::new(GLOO).join("gloo/context.h").exists() {
        return Err("gloo/context.h is not in /usr/include: install Debian's package libgloo-dev".into());
    }
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").pic(true).warnings(true).define("USE_C10D_GLOO", None);
    for folder in ["include", "include/torch/csrc/api/include"] {
        build.flag("-isystem").flag(torch.join(folder).as_os_str());
    }
    Ok(build)
}

/// `liblethe_nccl.so` in OUT_DIR. The linker resolves every symbol of it here (`-z defs`), so that it cannot fail
/// for want of one on a CUDA machine. What libtorch_cuda itself depends on may be missing: that is not looked at.
fn build_nccl(torch: &Path) -> Outcome<PathBuf> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("liblethe_nccl.so");
    let mut build = shim(torch)?;
    build.define("USE_C10D_NCCL", None);
    for (header, package) in [
        ("nccl.h", "nvidia-nccl-cu13"),
        ("cuda_runtime.h", "nvidia-cuda-runtime"),
        ("crt/host_config.h", "nvidia-cuda-crt"),
        ("cuda/std/type_traits", "nvidia-cuda-cccl"),
    ] {
        build.flag("-isystem").flag(in_wheels(torch, &["include", "include/cccl"], header, package)?);
    }
    build.flag("-idirafter").flag("native/opaque");

    let torch_lib = torch.join("lib");
    let cuda_lib = in_wheels(torch, &["lib"], "libcudart.so.13", "nvidia-cuda-runtime")?;
    let mut compiler = build.get_compiler().to_command();
    compiler.args(["-shared", "native/nccl.cpp", "-o"]).arg(&out);
    compiler.arg("-L").arg(&torch_lib).arg("-L").arg(&cuda_lib);
    compiler.args([
        "-ltorch_cuda",
        "-lc10_cuda",
        "-ltorch_cpu",
        "-lc10",
        "-l:libcudart.so.13",
        "-Wl,-z,defs",
    ]);
    compiler.arg(format!("-Wl,-rpath,{}:{}", torch_lib.display(), cuda_lib.display()));
    run(compiler)?;
    Ok(out)
}

/// The folder, one of `kinds` in the NVIDIA wheels that are installed beside torch, which has `file` in it.
fn in_wheels(torch: &Path, kinds: &[&str], file: &str, package: &str) -> Outcome<PathBuf> {
    let wheels = torch.with_file_name("nvidia");
    let installed = wheels.read_dir().map_err(|e| format!("{}: {e}", wheels.display()))?.flatten();
    installed
        .flat_map(|wheel| kinds.iter().map(move |kind| wheel.path().join(kind)))
        .find(|folder| folder.join(file).exists())
        .ok_or_else(|| {
            format!("{file} is nowhere in {}: install the wheel {package} with pip", wheels.display())
        })
}

fn run(mut command: Command) -> Outcome<()> {
    let program = command.get_program().to_owned();
    let output = command.output().map_err(|e| format!("{}: {e}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} ended with {}: {}", program.display(), output.status, said.replace('\n', " | ")))
}
