"""A generator of random weights and a scorer, as artifacts: for measuring, where what a model shows does not matter.

The kit for a GPU carries this file, with what it imports of tools/export. Not here: jobs (`job`).
"""

import pathlib
import sys

import safetensors.torch
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from export import native, sidecar  # noqa: E402


class Brightness(torch.nn.Module):
    """A scorer that costs nothing, where the labeller is not what is measured."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).mean(1)


def write_models(folder: pathlib.Path, architecture: dict) -> dict:
    """Gives the paths of a generator of this architecture and of a scorer, and the side of the images."""
    torch.manual_seed(0)
    content = safetensors.torch.save(native.tensors(native.build(architecture)))
    shape = native.image_shape(architecture)
    description = sidecar.describe(
        content,
        kind="generator",
        format="safetensors",
        source="random weights, for measuring only",
        architecture=architecture,
        latent_shape=[architecture["latent"]],
        prior="normal",
        output_range=native.OUTPUT_RANGE[architecture["output"]],
        image_shape=shape,
    )
    generator, scorer = folder / "generator.safetensors", folder / "scorer.pt"
    generator.write_bytes(content)
    generator.with_name(f"{generator.name}.json").write_bytes(sidecar.encode(description))
    torch.jit.script(Brightness()).save(str(scorer))
    return {"generator": generator, "scorer": scorer, "size": shape[-1]}
