"""Measures the generators for the model card.

    python quality.py --data DIR [--sheet FILE.png]

Prints, for 10,000 samples of each generator and for 10,000 training images, the Frechet
distance to the test set in the classifier's feature space, and how sure the classifier and the
judge are of which digits. `--sheet` draws a few samples of each.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

import artifact
import dcgan
import mnist
import vae
from frechet import distance, run

SAMPLES = 10_000
SEED = 4


def generator(name: str) -> torch.nn.Module:
    """The shipped generator `name`: latents [N, D] -> images [N, 1, 28, 28] in [0, 1]."""
    path = artifact.MODELS / f"{name}.safetensors"
    architecture = json.loads(path.with_name(path.name + ".json").read_text())["architecture"]
    built = {"dcgan": dcgan.Generator, "mlp_decoder": vae.Decoder}[architecture["name"]]()
    # BatchNorm's count of batches is not shipped: eval mode does not use it.
    missing, unexpected = built.load_state_dict(load_file(path), strict=False)
    if unexpected or any("num_batches" not in key for key in missing):
        raise ValueError(f"{path.name} does not fit its architecture: {missing} {unexpected}")
    return (Gan if architecture["output"] == "tanh" else Sigmoid)(built.eval())


class Gan(torch.nn.Module):
    """Maps outputs in [-1, 1] to [0, 1]."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return (self.inner(latents) + 1) / 2


class Sigmoid(torch.nn.Module):
    """Maps flat logits to images."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.inner(latents).sigmoid().view(-1, 1, 28, 28)


@torch.no_grad()
def sample(name: str, count: int, seed: int = SEED) -> torch.Tensor:
    """`count` images of generator `name`, in [0, 1]."""
    model = generator(name)
    width = {"dcgan": dcgan.LATENT, "vae": vae.LATENT}[name]
    latents = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return torch.cat([model(z) for z in latents.split(500)])


def sheet(images: dict[str, torch.Tensor], path: Path, rows: int = 4, columns: int = 20) -> None:
    """Draws the first images of each set, one block below the other."""
    blocks = [
        x[: rows * columns, 0].view(rows, columns, 28, 28).permute(0, 2, 1, 3).reshape(rows * 28, -1)
        for x in images.values()
    ]
    gap = torch.full((6, columns * 28), 0.5)
    lines = [part for block in blocks for part in (block, gap)][:-1]
    pixels = (torch.cat(lines) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sheet", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    test = run("features", mnist.to_float(mnist.load(arguments.data, "t10k")[0]))
    sets = {
        "train": mnist.to_float(mnist.load(arguments.data, "train")[0][:SAMPLES]),
        "vae": sample("vae", SAMPLES),
        "dcgan": sample("dcgan", SAMPLES),
    }
    for name, images in sets.items():
        print(f"{name}: distance {distance(run('features', images), test):.2f}")
        by = {model: run(model, images).softmax(1).max(1) for model in ("classifier", "judge")}
        for model, (confidence, digit) in by.items():
            shares = torch.bincount(digit, minlength=10) / len(images)
            print(
                f"  {model:10} mean confidence {confidence.mean():.3f}  unsure {(confidence < 0.9).float().mean():.3f}"
                f"  digits {' '.join(f'{share:.3f}' for share in shares)}"
            )
        same = by["classifier"].indices == by["judge"].indices
        sure = by["judge"].values > 0.9
        print(f"  they name the same digit in {same.float().mean():.4f}, where the judge is sure in {same[sure].float().mean():.4f}")
    if arguments.sheet:
        sheet({name: sets[name] for name in ("vae", "dcgan")}, arguments.sheet)


if __name__ == "__main__":
    main()
