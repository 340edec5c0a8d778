//! Compiles the C++ shim in `native/` against libtorch's own headers: the parts that tch leaves out.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=native");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    match torch_folder() {
        Ok(torch) => compile(&torch),
        Err(reason) => println!("cargo::error={reason}"),
    }
}

/// The wheel's `torch` folder, with links resolved: the path ends up in rpaths, which outlive the link.
fn torch_folder() -> Result<PathBuf, String> {
    let given = env::var_os("LIBTORCH").ok_or("LIBTORCH is not set: run `make`, which sets libtorch up")?;
    Path::new(&given)
        .canonicalize()
        .map_err(|e| format!("LIBTORCH={}: {e}: run `make`, which sets libtorch up", given.display()))
}

fn compile(torch: &Path) {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").pic(true).warnings(true);
    for folder in ["include", "include/torch/csrc/api/include"] {
        build.flag("-isystem").flag(torch.join(folder).as_os_str());
    }
    build.files(["native/script.cpp", "native/adam.cpp", "native/repeatable.cpp"]).compile("lethe_script");
    // For this package's own tests and examples; a binary that depends on it sets its own.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", torch.join("lib").display());
}
