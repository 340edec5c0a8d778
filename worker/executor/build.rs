//! Tells the binary where libtorch lies: cargo does not pass a library's link arguments on to a binary.
//!
//! Three places, in this order: beside an installed binary (`bin/lethe-executor`, `lib/libtorch.so`), where it was built
//! against, and `/opt/lethe/lib`. So nobody sets LD_LIBRARY_PATH.

use std::env;

fn main() {
    match env::var("DEP_LETHE_COLLECTIVE_TORCH_LIB") {
        Ok(built_against) => {
            println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib:{built_against}:/opt/lethe/lib");
        }
        Err(_) => println!("cargo::error=lethe-collective did not say where libtorch is: run `make`"),
    }
}
