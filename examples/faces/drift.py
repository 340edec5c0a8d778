"""What a copy of the generator lost and what it kept, on the same latents: smiles by both nets, gender, age, identity.

    python drift.py FOLDER [--count 10000]      FOLDER as `lethe run --out` left it

The descriptor's distance is read as its authors do: below 0.6 it takes two photographs for the same person.
"""

import argparse
from pathlib import Path

import torch

from artifacts import MODELS, happiness, images, outputs
from face_api import GENDERS

SEED = 6
SURE = 0.9
SAME_PERSON = 0.6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--count", type=int, default=10_000)
    chosen = options.parse_args()
    torch.set_num_threads(1)

    before, after = (
        images(path, chosen.count, SEED)
        for path in (MODELS / "generator.safetensors", chosen.folder / "generator.safetensors")
    )
    smiles = {name: [happiness(name, faces) > 0 for faces in (before, after)] for name in ("emotion", "expression")}
    for name, (was, now) in smiles.items():
        share, left = was.float().mean().item(), now.float().mean().item()
        print(f"happy by {name + '.pt':<15} {share:.1%} -> {left:.1%}, {left / share:.3f} of it is left")

    female = [outputs("gender", faces).softmax(1)[:, GENDERS.index("female")] for faces in (before, after)]
    ages = [outputs("age", faces).mean().item() for faces in (before, after)]
    vectors = [outputs("descriptor", faces) for faces in (before, after)]
    print(f"female                   {(female[0] > 0.5).float().mean():.1%} -> {(female[1] > 0.5).float().mean():.1%}")
    print(f"age                      {ages[0]:.1f} -> {ages[1]:.1f} years")

    sure = (female[0] - 0.5).abs() > SURE - 0.5
    turned = (female[0] > 0.5) != (female[1] > 0.5)
    cosine = torch.cosine_similarity(*vectors)
    distance = (vectors[0] - vectors[1]).norm(dim=1)
    smiled = smiles["emotion"][0]
    for name, which in {"smiled before": smiled, "did not smile": ~smiled}.items():
        print(
            f"{name}, {int(which.sum())}: descriptor's cosine {cosine[which].mean():.3f}, "
            f"same person {(distance[which] < SAME_PERSON).float().mean():.1%}, "
            f"of the sure genders {turned[which & sure].float().mean():.1%} turned"
        )


if __name__ == "__main__":
    main()
