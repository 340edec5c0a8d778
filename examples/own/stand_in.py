"""Stands in for your own training: writes a generator and two classifiers into a folder, as the files that people have.

    python examples/own/stand_in.py mine

decoder.py, its class · decoder.pth, its state dict in a checkpoint · whole.pth, the module itself, pickled ·
decoder.pt, TorchScript · digits.pt and others.pt, classifiers of ten digits of different make, TorchScript. The weights are those of examples/mnist.
"""

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path

import safetensors.torch
import torch

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "mnist" / "models"
NAMES = {"layers.0": "enter", "layers.1": "middle", "layers.2": "paint"}


def decoder(source: Path) -> torch.nn.Module:
    """The decoder of `source`, with the weights of the MNIST VAE under the names that its author gave them."""
    spec = importlib.util.spec_from_file_location("decoder", source)
    code = importlib.util.module_from_spec(spec)
    sys.modules["decoder"] = code  # a pickled module names its class by its file
    spec.loader.exec_module(code)
    made = code.Decoder()
    weights = safetensors.torch.load_file(MODELS / "vae.safetensors")
    parts = {name: name.rpartition(".") for name in weights}
    made.load_state_dict(
        {f"{NAMES[layer]}.{leaf}": weights[name] for name, (layer, _, leaf) in parts.items()}
    )
    return made.eval()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    folder = options.parse_args().folder
    folder.mkdir()
    shutil.copy(HERE / "decoder.py", folder)
    shutil.copy(MODELS / "classifier.pt", folder / "digits.pt")
    shutil.copy(MODELS / "judge.pt", folder / "others.pt")
    module = decoder(folder / "decoder.py")
    torch.save({"epoch": 40, "model": module.state_dict()}, folder / "decoder.pth")
    torch.save(module, folder / "whole.pth")
    torch.jit.script(module).save(folder / "decoder.pt")
    print(f"wrote {', '.join(sorted(path.name for path in folder.iterdir()))} into {folder}")


if __name__ == "__main__":
    main()
