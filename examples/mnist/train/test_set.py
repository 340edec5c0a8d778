"""Packs MNIST's test set into one safetensors file.

    python test_set.py --data DIR

Writes data/test.safetensors: `images` u8 [10000, 1, 28, 28] and `labels` u8 [10000], the
reference set of the example jobs' evaluation and of the tests. The scripts never train on it.
"""

import argparse
from pathlib import Path

from safetensors.torch import save_file

import mnist

TARGET = Path(__file__).resolve().parent.parent / "data" / "test.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    images, labels = mnist.load(parser.parse_args().data, "t10k")
    TARGET.parent.mkdir(exist_ok=True)
    save_file({"images": images, "labels": labels}, TARGET)
    print(f"wrote {TARGET.name} ({TARGET.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
