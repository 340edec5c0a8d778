//! Jobs for the scenarios, small, but with the real models of examples/mnist; and one for benchmarks of the coordinator.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// examples/mnist of this checkout.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/mnist")
        .canonicalize()
        .expect("the examples are there")
}

/// A job for workers that do nothing: its models are a file in this folder that nobody runs.
pub fn no_op(folder: &Path) -> Value {
    let model = folder.join("model.pt");
    std::fs::copy(examples().join("models/thickness.pt"), &model).expect("the folder is there");
    let model = model.display().to_string();
    json!({
        "name": "no-op",
        "generator": {"uri": model, "format": "torchscript", "latent": {"dimension": 4},
                      "output": {"range": [0, 1], "channels": 1, "size": 8}},
        "feature": {"name": "f", "scorer": {"uri": model, "positive": {"above": 1}}},
    })
}

/// Thick strokes out of the VAE, in seconds; `change` may make it worse. Writes DIR/job.json and gives its path.
pub fn thick_vae(folder: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    let model = |name: &str| examples().join("models").join(name).display().to_string();
    let sidecar = std::fs::read_to_string(model("vae.safetensors.json")).expect("the VAE has a sidecar");
    let sidecar: Value = serde_json::from_str(&sidecar).expect("JSON");
    let mut spec = json!({
        "name": "thick-vae",
        "generator": {
            "uri": model("vae.safetensors"),
            "format": "safetensors",
            "latent": {"shape": sidecar["latent"]["shape"]},
            "output": {"range": [0, 1], "channels": 1, "size": 28},
        },
        "feature": {"name": "thick", "scorer": {"uri": model("thickness.pt"), "positive": {"top": 0.1}}},
        "sample": {"seed": 7, "shard_size": 100, "batch": 50, "until": {"total": 1000}},
        "direction": {"edit": "line"},
        "unlearn": {"steps": 60, "global_batch": 32},
        "pool": {"latents": 2000, "shard_size": 100, "batch": 50},
        "evaluate": {"samples": 300, "shard_size": 100, "batch": 50, "features": model("features.pt")},
        "resources": {"slots": {"min": 1, "max": 2}, "device": "cpu", "threads": 1},
        "checkpoint": {"every": 10},
    });
    change(&mut spec);
    let path = folder.join("job.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&spec).expect("JSON")).expect("the folder is there");
    path
}
