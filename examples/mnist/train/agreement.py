"""Measures the scorers and the judges of strokes against scikit-image's definitions, for the model card.

    python agreement.py

Prints, for 2,000 test images and as many samples of each generator, the rank correlation, the mean error, and the share
of the thickest or most slanted tenth by the definition that the model does not put into its own: the jobs' cut. The
definitions take 20 ms an image.
"""

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

import artifact
import definitions
import mnist
from frechet import run
from quality import sample

IMAGES = 2000
SEED = 5
TOP = 0.1


def missed(scores: np.ndarray, wanted: np.ndarray) -> float:
    """The share of the highest TOP of `wanted` that is not among the highest TOP of `scores`."""
    count = round(len(wanted) * TOP)
    tops = [set(np.argsort(values, kind="stable")[-count:]) for values in (scores, wanted)]
    return 1 - len(tops[0] & tops[1]) / count


def main() -> None:
    torch.set_num_threads(1)
    test = load_file(artifact.MODELS.parent / "data" / "test.safetensors")["images"]
    sets = {"test": test[:: len(test) // IMAGES][:IMAGES]}
    sets |= {name: (sample(name, IMAGES, SEED) * 255).round().byte() for name in ("vae", "dcgan")}
    for name, images in sets.items():
        for feature in ("thickness", "slant"):
            definition = getattr(definitions, feature)
            wanted = np.array([definition(image) for image in images[:, 0].numpy()])
            for model in (feature, f"{feature}_judge"):
                scores = run(model, mnist.to_float(images)).numpy()
                print(
                    f"{name:6} {model:16} rank correlation {spearmanr(scores, wanted).statistic:.4f}"
                    f"  mean error {np.abs(scores - wanted).mean():.4f}  missed {missed(scores, wanted):.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
