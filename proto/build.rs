//! Compiles lethe/v1/*.proto without protoc, and keeps the descriptor set for reflection.

use std::path::PathBuf;

use prost::Message;

fn main() -> anyhow::Result<()> {
    let files = ["job", "fleet", "inputs", "figure", "result", "phase", "spec", "worker", "executor"]
        .map(|name| format!("lethe/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=lethe/v1");
    let set = protox::compile(files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(true).compile_fds(set)?;
    Ok(())
}
