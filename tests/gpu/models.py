"""The models and jobs of the checks: the example's DCGAN with its classifier, and the 64 px DCGAN that `random_models` makes.

Target vectors are computed here too, by PyTorch on the cpu, so that no check rests on another.
"""

import json
import pathlib
import sys

import torch
from machine import DEVICE, MODELS, ROOT
from safetensors.torch import load_file, save_file

sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "bench")]
from export import native  # noqa: E402

DCGAN_64 = {"name": "dcgan", "latent": 512, "base": 4, "widths": [256, 128, 64, 32], "channels": 3, "output": "tanh"}
DIGIT = 1


def spec(generator: pathlib.Path, feature: dict, architecture: dict, **sections) -> dict:
    size = native.image_shape(architecture)[-1]
    return {
        "name": "gpu-check",
        "generator": {
            "uri": str(generator),
            "format": "safetensors",
            "latent": {"dimension": architecture["latent"]},
            "output": {"range": list(native.OUTPUT_RANGE[architecture["output"]]), "channels": architecture["channels"], "size": size},
        },
        "feature": feature,
        "resources": {"device": "cpu" if DEVICE == "cpu" else "cuda", "threads": 1},
        **sections,
    }


def built(architecture: dict, weights: pathlib.Path) -> torch.nn.Module:
    module = native.build(architecture)
    module.load_state_dict(load_file(weights), strict=False)
    return module.eval().requires_grad_(False)


def digits() -> tuple:
    """The example's DCGAN in PyTorch, what scores a digit as Lethe does, its architecture and its feature."""
    architecture = json.loads((MODELS / "dcgan.safetensors.json").read_text())["architecture"]
    generator = built(architecture, MODELS / "dcgan.safetensors")
    classifier = torch.jit.load(str(MODELS / "classifier.pt")).eval()

    def scores(images: torch.Tensor) -> torch.Tensor:
        logits = classifier(((images + 1) / 2).clamp(0, 1)).double()
        others = torch.cat([logits[:, :DIGIT], logits[:, DIGIT + 1 :]], 1)
        return logits[:, DIGIT] - others.logsumexp(1)

    feature = {"name": "one", "classifier": {"uri": str(MODELS / "classifier.pt"), "output": "logits", "class": DIGIT}}
    return generator, scores, architecture, feature


METHODS = {"projection": 0.0, "line": 1.0, "gradient": 2.0}


def write_target(file: pathlib.Path, unit: torch.Tensor, threshold: float, cut: float, deviation: float, method: str) -> pathlib.Path:
    """A target vector as the direction phase writes it: edits end half a deviation of the scores beyond the cut."""
    figures = {
        "raw_norm": 1.0,
        "threshold": threshold,
        "cut_sign": 1.0,
        "cut_threshold": cut,
        "select": cut,
        "goal": cut - deviation / 2,
        "bystander_goal": cut,
        "method": METHODS[method],
        "score_deviation": deviation,
        "latent_deviation": 1.0,
        "samples": 1000.0,
        "positives": 100.0,
        "edited_share": 0.16,
        "heldout_auc": 0.9, "lr": 1e-3,
    }
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}
    save_file({"unit": unit.double().contiguous(), **tensors}, file)
    return file


@torch.no_grad()
def locate(generator, scores, latent: int, cut: float | None, file: pathlib.Path, method: str = "line") -> pathlib.Path:
    """The mean difference of latents whose score is above the cut (a sixth of them where none is given) and the others."""
    z = torch.randn(3000, latent, generator=torch.Generator().manual_seed(7))
    found = torch.cat([scores(generator(part)) for part in z.split(250)])
    cut = found.double().quantile(0.84).item() if cut is None else cut
    positive = found > cut
    unit = z[positive].double().mean(0) - z[~positive].double().mean(0)
    unit /= unit.norm()
    projections = z.double() @ unit
    threshold = (projections[positive].mean() + projections[~positive].mean()).item() / 2
    return write_target(file, unit, threshold, cut, found.double().std().item(), method)
