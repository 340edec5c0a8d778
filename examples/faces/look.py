"""What the nets see in the generator's images: how far the labeller and the judge agree, and sheets to look at.

    python look.py FOLDER [--count 3000]

Prints shares and agreement, and writes PNGs into FOLDER: the most and the least smiling by each net, those on which
they disagree, and the ends of age and gender. Needs pillow.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from artifacts import MODELS, happiness, images, outputs
from face_api import GENDERS

SEED = 5
ROWS, COLUMNS = 3, 12


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--count", type=int, default=3000)
    chosen = options.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    faces = images(MODELS / "generator.safetensors", chosen.count, SEED)
    labeller, judge = happiness("emotion", faces), happiness("expression", faces)
    gender = outputs("gender", faces).softmax(1)[:, GENDERS.index("female")]
    age = outputs("age", faces)[:, 0]
    smiling = labeller > 0, judge > 0
    print(f"happy by the labeller       {share(smiling[0])}")
    print(f"happy by the judge          {share(smiling[1])}")
    print(f"they agree on               {share(smiling[0] == smiling[1])}")
    print(f"AUC of the labeller's score {auc(labeller, smiling[1]):.3f}, by what the judge says")
    print(f"AUC of the judge's score    {auc(judge, smiling[0]):.3f}, by what the labeller says")
    print(f"female                      {share(gender > 0.5)}; sure (above 0.9) of {share((gender - 0.5).abs() > 0.4)}")
    print(f"age                         {age.mean():.0f} years, deviation {age.std():.0f}")

    ends = {"labeller": labeller, "judge": judge, "gender": gender, "age": age}
    ends["disagree"] = rank(labeller) - rank(judge)
    for name, score in ends.items():
        sheet(faces, score, chosen.folder / f"{name}.png")
    print(f"sheets in {chosen.folder}: above the line the highest scores, below it the lowest")


def share(flags: torch.Tensor) -> str:
    return f"{flags.float().mean():.1%}"


def rank(scores: torch.Tensor) -> torch.Tensor:
    return scores.argsort().argsort().float()


def auc(scores: torch.Tensor, positive: torch.Tensor) -> float:
    """How often a positive scores higher than another: 0.5 by chance."""
    count = positive.sum()
    above = (rank(scores).double()[positive] + 1).sum() - count * (count + 1) / 2
    return float(above / (count * (len(scores) - count)))


def sheet(faces: torch.Tensor, scores: torch.Tensor, path: Path) -> None:
    order = scores.argsort(descending=True)
    blocks = []
    for chosen in (order[: ROWS * COLUMNS], order[-ROWS * COLUMNS :]):
        block = faces[chosen].unflatten(0, (ROWS, COLUMNS))
        blocks.append(block.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2))
    line = torch.ones(6, blocks[0].size(1), 3)
    pixels = torch.cat([blocks[0], line, blocks[1]]).clamp(0, 1)
    Image.fromarray((pixels * 255).round().byte().numpy()).save(path)


if __name__ == "__main__":
    main()
